"""The fake engine drafts: exact counts and times, cut at the row's end, and options that are refused."""

from __future__ import annotations

import dataclasses
import random

import pytest

from scripted_measure import engine_request, work
from tokbench.errors import PlugError
from tokbench.measure.energy_windows import run_static_batch as run_energy
from tokbench.measure.engines import CellWork, check_drafting
from tokbench.measure.engines.fake import FakeStepEngine, open_engine
from tokbench.measure.load import run_static_batch
from tokbench.measure.messages import RunEnergy
from tokbench.measure.scripted_rounds import play, read_script
from tokbench.record.observations import SpeculationRounds, StepTrace
from tokbench.record.spec import EngineSpec, SpeculationSpec


def drafting(gamma: int = 4, rows: int = 1, output_tokens: int = 12, **options: str | float) -> CellWork:
    """Work of a cell that drafts."""
    spec = SpeculationSpec(method="prompt_lookup", gamma=gamma, options=options or {"accepted": "4,0,2,1"})
    return dataclasses.replace(work(rows, 10, output_tokens), speculation=spec)


def prepared(cell: CellWork, **script: float) -> FakeStepEngine:
    opened = open_engine(engine_request(**script))
    assert isinstance(opened, FakeStepEngine)
    opened.prepare(cell)
    return opened


def test_rounds_are_recorded_as_scripted() -> None:
    """Row 1 begins at the second number of the script: rows advance apart."""
    cell = drafting(rows=2, accepted="4,0,2,1", draft_s=0.001, verify_s=0.02, other_s=0.003)
    events = list(run_static_batch(prepared(cell), cell, "t", keep_tokens=True))
    first, second = (event for event in events if isinstance(event, SpeculationRounds))
    assert ((4, 0, 2, 1), (5, 1, 3, 2), (10, 15, 16, 19)) == (first.accepted, first.emitted, first.position)
    assert ((0, 2, 1, 4), (1, 3, 2, 5), (10, 11, 14, 16)) == (second.accepted, second.emitted, second.position)
    assert ((4,) * 4, (0.004,) * 4, (0.02,) * 4, (0.003,) * 4) == (
        first.drafted,
        first.draft_s,
        first.verify_s,
        first.other_s,
    )
    decode = [event for event in events if isinstance(event, StepTrace)][-1]
    assert ((5, 1), (1, 3), (3, 2), (2, 5)) == decode.tokens_by_row
    assert (1, 1, 2, 2) == decode.tokens_per_row
    assert 4 * 0.027 == pytest.approx((decode.step_at_ns[-1] - decode.start_at_ns) * 1e-9)


def test_the_last_round_is_cut_and_a_row_that_is_done_gets_no_more() -> None:
    cell = drafting(rows=2, output_tokens=8, accepted="4,0")
    script = read_script(cell.speculation)  # type: ignore[arg-type]
    rounds = list(play(cell, script, 7, 10, random.Random(1)))
    assert [(5, 1), (1, 5), (1, 1)] == [found.emitted for found in rounds]
    assert [(4, 0), (0, 4), (4, 0)] == [found.accepted for found in rounds]
    done = list(
        play(cell, read_script(SpeculationSpec(method="mtp", options={"accepted": "4,0,0"})), 5, 10, random.Random(1))
    )
    assert [(4, 4), (0, 4), (0, 4), (0, 4)][: len(done)] == [found.drafted for found in done]
    assert {5} == {sum(row) for row in zip(*(found.emitted for found in done), strict=True)}


def test_drawn_acceptance_is_the_one_that_was_asked_for() -> None:
    cell = drafting(gamma=5, output_tokens=20_001, alpha=0.8)
    rounds = list(play(cell, read_script(cell.speculation), 20_000, 10, random.Random(3)))  # type: ignore[arg-type]
    accepted = sum(found.accepted[0] for found in rounds)
    refused = sum(found.accepted[0] < 5 for found in rounds)
    assert 0.8 == pytest.approx(accepted / (accepted + refused), abs=0.01)


def test_energy_windows_tell_rows_apart_too() -> None:
    cell = drafting(rows=2)
    command = RunEnergy(trial_id="e", idle_s=0.1, window_s=0.5)
    traces = [event for event in run_energy(prepared(cell), cell, command) if isinstance(event, StepTrace)]
    drafted = [trace for trace in traces if trace.window_id.endswith("energy_decode")]
    assert drafted and all(
        [11, 11] == [sum(row) for row in zip(*trace.tokens_by_row, strict=True)] for trace in drafted
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "either `accepted` or `alpha`"),
        ({"alpha": 0.5, "accepted": "1"}, "either `accepted` or `alpha`"),
        ({"alpha": 1.5}, "a probability"),
        ({"accepted": "1,two"}, "numbers with commas"),
        ({"accepted": "1,5"}, "more drafts than gamma"),
        ({"alpha": 0.5, "alfa": 0.5}, "speculation.options.alfa"),
    ],
)
def test_a_script_that_cannot_be_is_refused(options: dict[str, str | float], fault: str) -> None:
    with pytest.raises(PlugError, match=fault):
        read_script(SpeculationSpec(method="mtp", gamma=4, options=options))


def test_requests_are_not_drafted() -> None:
    with pytest.raises(PlugError, match="drafts no tokens in mode 'requests'"):
        check_drafting(EngineSpec(kind="fake", mode="requests"), SpeculationSpec(method="mtp"))
    with pytest.raises(PlugError, match="did you mean `prompt_lookup`"):
        check_drafting(EngineSpec(kind="fake"), SpeculationSpec(method="promt_lookup"))
