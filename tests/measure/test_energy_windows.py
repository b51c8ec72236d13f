"""The windows of an energy trial, on the fake engine's clock: each stamp can be told by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from scripted_measure import engine_request, work
from tokbench.errors import TrialError
from tokbench.measure import energy_windows
from tokbench.measure.engines import CellWork, Step
from tokbench.measure.engines.fake import FakeRequestEngine, FakeScript, FakeStepEngine
from tokbench.measure.messages import RunEnergy
from tokbench.record.observations import Event, StepTrace, WindowClosed, WindowOpened

ASKED = RunEnergy(trial_id="t", idle_s=2.0, window_s=1.0)


class Stubborn(FakeStepEngine):
    """Cannot go back behind the prompt, as with a full sliding window; or compiles anew within a window."""

    graphs = 0
    recompiles = False

    @property
    def graphs_compiled(self) -> int | None:
        return self.graphs

    def prefill(self) -> Step:
        self.graphs += self.recompiles
        return super().prefill()

    def rewind(self, position: int) -> None:
        if position:
            raise TrialError("a full sliding window can only be rewound to its beginning", cause="engine")
        super().rewind(position)


def run(engine: FakeStepEngine, cell: CellWork) -> list[Event]:
    engine.prepare(cell)
    return list(energy_windows.run_static_batch(engine, cell, ASKED))


def fake(kind: type[FakeStepEngine] = FakeStepEngine, **script: float) -> FakeStepEngine:
    return kind(engine_request(), FakeScript.model_validate(script))


def spans_s(events: Sequence[Event]) -> dict[str, float]:
    """How long each window lasted, by its kind."""
    opened = {event.window_id: event for event in events if isinstance(event, WindowOpened)}
    closed = [event for event in events if isinstance(event, WindowClosed)]
    return {
        opened[event.window_id].kind: round((event.at_ns - opened[event.window_id].at_ns) * 1e-9, 9) for event in closed
    }


def passes(events: Sequence[Event], kind: str) -> list[StepTrace]:
    return [event for event in events if isinstance(event, StepTrace) and event.window_id == f"t/{kind}"]


def test_idle_then_the_same_prefill_then_the_same_decode_each_for_the_time_asked() -> None:
    events = run(fake(prefill_s_per_token=0.004, step_s=0.1), work(rows=2, prompt_tokens=10, output_tokens=5))
    # a prefill is 80 ms and a decode 400 ms: as many as begin within a second
    assert {"idle": 2.0, "energy_prefill": 1.04, "energy_decode": 1.2} == spans_s(events)
    prefills, decodes = passes(events, "energy_prefill"), passes(events, "energy_decode")
    assert (13, 3) == (len(prefills), len(decodes))
    assert {(1,)} == {trace.tokens_per_row for trace in prefills}
    assert {(1, 1, 1, 1)} == {trace.tokens_per_row for trace in decodes}
    assert {2} == {trace.rows for trace in (*prefills, *decodes)}
    for before, after in itertools.pairwise(decodes):
        assert before.step_at_ns[-1] == after.start_at_ns
    assert [0.1] * 4 == [
        round((after - before) * 1e-9, 9)
        for trace in decodes[:1]
        for before, after in zip((trace.start_at_ns, *trace.step_at_ns), trace.step_at_ns, strict=False)
    ]


def test_work_that_outlasts_its_window_is_done_three_times() -> None:
    events = run(fake(prefill_s_per_token=0.5, step_s=2.0), work(prompt_tokens=10, output_tokens=3))
    assert {"idle": 2.0, "energy_prefill": 15.0, "energy_decode": 12.0} == spans_s(events)
    assert (3, 3) == (len(passes(events, "energy_prefill")), len(passes(events, "energy_decode")))


def test_an_engine_that_cannot_go_back_decodes_once() -> None:
    events = run(fake(Stubborn, step_s=0.1), work(output_tokens=5))
    assert 1 == len(passes(events, "energy_decode"))
    assert 0.4 == spans_s(events)["energy_decode"]


def test_a_single_output_token_has_no_decode_window() -> None:
    assert {"idle", "energy_prefill"} == set(spans_s(run(fake(), work(output_tokens=1))))


def test_compiling_inside_a_window_fails_the_trial() -> None:
    engine = fake(Stubborn)
    assert isinstance(engine, Stubborn)
    engine.recompiles = True
    with pytest.raises(TrialError, match="recompiled inside a window"):
        run(engine, work())


def test_a_request_engine_has_the_idle_window_alone() -> None:
    engine = FakeRequestEngine(engine_request("requests"), FakeScript())
    events = list(energy_windows.run_idle(engine, engine.now, ASKED))
    assert {"idle": 2.0} == spans_s(events)
    assert 2 == len(events)
