"""Windows, stamps and token counts of every load, on the fake engine's clock: each number can be told by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest

from scripted_measure import engine_request, work
from tokbench.errors import TrialError
from tokbench.measure import load
from tokbench.measure.engines import Anchor, Chunk, Request, Step
from tokbench.measure.engines.fake import FakeRequestEngine, FakeScript, FakeStepEngine, open_engine
from tokbench.record.observations import (
    ClockAnchor,
    Event,
    OutputTokens,
    ReadPass,
    RequestTrace,
    StepTrace,
    WindowClosed,
    WindowOpened,
)
from tokbench.record.spec import ClosedLoad, Option, PoissonLoad
from tokbench.record.timings import decode_rate_per_row
from tokbench.stats import SteadyRule

START = 1_000_000_000
MS = 1_000_000


def step_engine(**options: Option) -> FakeStepEngine:
    engine = open_engine(engine_request("default", **options))
    assert isinstance(engine, FakeStepEngine)
    return engine


def request_engine(**options: Option) -> FakeRequestEngine:
    engine = open_engine(engine_request("requests", **options))
    assert isinstance(engine, FakeRequestEngine)
    return engine


def requests(count: int, prompt_tokens: int = 10, output_tokens: int = 3) -> list[Request]:
    return [Request(f"r{n}", (1,) * prompt_tokens, output_tokens) for n in range(count)]


def traces(events: Sequence[Event]) -> dict[str, RequestTrace]:
    return {event.request_id: event for event in events if isinstance(event, RequestTrace)}


def test_static_batch_is_cut_into_two_windows_of_one_execution() -> None:
    engine = step_engine(prefill_s_per_token=0.001, step_s=0.01, step_s_per_row=0.001)
    cell = work(rows=2, prompt_tokens=10, output_tokens=4)
    engine.prepare(cell)
    events = list(load.run_static_batch(engine, cell, "t", keep_tokens=True))
    prefill_end = START + 20 * MS  # 2 rows x 10 tokens x 1 ms
    step = 12 * MS  # 10 ms and 1 ms a row
    assert [
        WindowOpened(trial_id="t", window_id="t/prefill", kind="prefill", at_ns=START),
        StepTrace(
            trial_id="t",
            window_id="t/prefill",
            start_at_ns=START,
            step_at_ns=(prefill_end,),
            tokens_per_row=(1,),
            rows=2,
            context_tokens=10,
            stamped_by="script",
            clock_error_s=None,
        ),
        WindowOpened(trial_id="t", window_id="t/decode", kind="decode", at_ns=prefill_end),
        StepTrace(
            trial_id="t",
            window_id="t/decode",
            start_at_ns=prefill_end,
            step_at_ns=(prefill_end + step, prefill_end + 2 * step, prefill_end + 3 * step),
            tokens_per_row=(1, 1, 1),
            rows=2,
            context_tokens=10,
            stamped_by="script",
            clock_error_s=None,
        ),
        OutputTokens(trial_id="t", token_ids=((0, 1, 2, 3), (1, 2, 3, 4))),
    ] == [event for event in events if not isinstance(event, WindowClosed)]
    closed = [event for event in events if isinstance(event, WindowClosed)]
    assert [(prefill_end, "t/prefill"), (prefill_end + 3 * step, "t/decode")] == [
        (c.at_ns, c.window_id) for c in closed
    ]
    assert all(window.cpu_s is not None and window.cpu_s >= 0 and window.host_s is None for window in closed)


class RunningApart(FakeStepEngine):
    """A device that is handed its work 2 ms after the start of the run, with two anchors."""

    @property
    def launched_at_ns(self) -> int | None:
        return START + 2 * MS

    def anchors(self) -> list[Anchor]:
        return [Anchor(1, 2, "open"), Anchor(3, 4, "close")]


def test_a_device_that_runs_apart_gives_its_anchors_and_the_time_of_launching() -> None:
    plain = step_engine()
    engine = RunningApart(plain._request, plain.script)
    engine.prepare(work())
    events = list(load.run_static_batch(engine, work(), "t", keep_tokens=False))
    assert [
        ClockAnchor(group=f"t/{window}", before_at_ns=before, after_at_ns=before + 1, label=label)
        for window in ("prefill", "decode")
        for before, label in ((1, "open"), (3, "close"))
    ] == [event for event in events if isinstance(event, ClockAnchor)]
    assert 0.002 == next(event.host_s for event in events if isinstance(event, WindowClosed))


def test_tokens_are_left_out_where_they_are_not_kept() -> None:
    engine = step_engine()
    engine.prepare(work())
    assert not [e for e in load.run_static_batch(engine, work(), "t", keep_tokens=False) if isinstance(e, OutputTokens)]


def test_decode_rate_of_a_trial_is_the_scripted_one() -> None:
    engine = step_engine(step_s=0.02)
    engine.prepare(work())
    events = load.run_static_batch(engine, work(), "t", keep_tokens=False)
    decode = [e for e in events if isinstance(e, StepTrace) and e.window_id == "t/decode"]
    assert 50.0 == pytest.approx(decode_rate_per_row(decode))


class Compiling(FakeStepEngine):
    """Compiles a graph with every decode."""

    compiled = 0

    @property
    def graphs_compiled(self) -> int | None:
        return self.compiled

    def decode(self, steps: int) -> Iterator[Step]:
        self.compiled += 1
        return super().decode(steps)


def test_a_graph_compiled_inside_a_window_fails_the_trial() -> None:
    plain = step_engine()
    engine = Compiling(plain._request, plain.script)
    engine.prepare(work())
    with pytest.raises(TrialError, match=r"recompiled inside a window \(0 graphs before, 1 after\)"):
        list(load.run_static_batch(engine, work(), "t", keep_tokens=False))


def test_warm_up_of_an_even_engine_ends_after_three_samples() -> None:
    engine = step_engine(step_s=0.01)
    cell = work(output_tokens=100)
    engine.prepare(cell)
    is_steady, samples = load.warm_up(engine, cell, SteadyRule(3, 0.01), cap_s=20)
    assert is_steady
    assert [4, 25, 25] == [len(sample.step_at_ns) for sample in samples]  # then samples of 0.25 s
    assert [10, 10, 10] == [sample.context_tokens for sample in samples]


class Growing(FakeStepEngine):
    """A step takes a hundredth longer with every token in the cache, as with a large batch."""

    def decode(self, steps: int) -> Iterator[Step]:
        for _ in range(steps):
            self._position += 1
            yield Step(self._advance(self.script.step_s * (1 + 0.01 * self._position)), 1)


class Windowed(Growing):
    """Cannot go back into its window."""

    prefills = 0

    def rewind(self, position: int) -> None:
        if position:
            raise TrialError("a full sliding window can only be rewound to its beginning", cause="engine")
        super().rewind(position)

    def prefill(self) -> Step:
        self.prefills += 1
        return super().prefill()


@pytest.mark.parametrize("kind", [Growing, Windowed])
def test_steps_that_grow_with_the_context_become_steady(kind: type[Growing]) -> None:
    plain = step_engine(step_s=0.05)
    engine = kind(plain._request, plain.script)
    cell = work(output_tokens=1000)
    engine.prepare(cell)
    is_steady, samples = load.warm_up(engine, cell, SteadyRule(3, 0.01), cap_s=60)
    assert (True, [(4, 10)] * 3) == (is_steady, [(len(s.step_at_ns), s.context_tokens) for s in samples])
    if isinstance(engine, Windowed):
        assert 4 == engine.prefills


def test_a_sample_of_a_warm_up_is_no_longer_than_the_output() -> None:
    engine = step_engine(step_s=0.01)
    cell = work(output_tokens=5)
    engine.prepare(cell)
    is_steady, samples = load.warm_up(engine, cell, SteadyRule(3, 0.01), cap_s=20)
    assert is_steady
    assert [(4, 10)] * 3 == [(len(sample.step_at_ns), sample.context_tokens) for sample in samples]


class Slowing(FakeStepEngine):
    """Every step takes a tenth longer than the one before."""

    step_s = 1.0

    def decode(self, steps: int) -> Iterator[Step]:
        for _ in range(steps):
            self.step_s *= 1.1
            yield Step(self._advance(self.step_s), 1)


def test_warm_up_that_never_settles_ends_at_its_cap_and_says_so() -> None:
    plain = step_engine()
    engine = Slowing(plain._request, plain.script)
    cell = work(output_tokens=200)
    engine.prepare(cell)
    is_steady, samples = load.warm_up(engine, cell, SteadyRule(3, 0.01), cap_s=20)
    assert not is_steady
    assert 3 == len(samples)  # 4 steps each: 5, 7.5 and 11 s. The cap holds inside a pass, not only after all 199 steps


def test_no_step_of_a_warm_up_stands_in_a_trial() -> None:
    engine = step_engine(step_s=0.01)
    cell = work(output_tokens=20)
    engine.prepare(cell)
    _, samples = load.warm_up(engine, cell, SteadyRule(3, 0.01), cap_s=20)
    events = load.run_static_batch(engine, cell, "t", keep_tokens=False)
    measured = [event for event in events if isinstance(event, StepTrace)]
    assert max(sample.step_at_ns[-1] for sample in samples) <= min(trace.start_at_ns for trace in measured)


def test_closed_load_keeps_its_concurrency_and_every_stamp() -> None:
    engine = request_engine(prefill_s_per_token=0.001, step_s=0.01)
    wanted = ClosedLoad(kind="closed", concurrency=2, requests=3)
    events = list(load.run_closed(engine, wanted, requests(3), "t"))
    ms = [START + n * MS for n in (0, 10, 20, 30, 40, 50, 60, 70)]
    found = traces(events)
    # r0 and r1 are read one after the other (10 ms each), then share two steps; r2 follows alone
    assert ((ms[1], ms[3], ms[4]), ms[0]) == (found["r0"].chunk_at_ns, found["r0"].sent_at_ns)
    assert ((ms[2], ms[3], ms[4]), ms[0]) == (found["r1"].chunk_at_ns, found["r1"].sent_at_ns)
    assert ((ms[5], ms[6], ms[7]), ms[4]) == (found["r2"].chunk_at_ns, found["r2"].sent_at_ns)
    assert all(trace.chunk_tokens == (1, 1, 1) and trace.finish_reason == "length" for trace in found.values())
    assert all(trace.scheduled_at_ns is None and trace.prompt_tokens == 10 for trace in found.values())
    assert (ms[0], ms[7]) == (events[0].at_ns, events[-1].at_ns)  # type: ignore[union-attr]


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_closed_load_answers_every_request_once(concurrency: int) -> None:
    wanted = ClosedLoad(kind="closed", concurrency=concurrency, requests=7)
    events = list(load.run_closed(request_engine(), wanted, requests(7, output_tokens=1), "t"))
    assert [f"r{n}" for n in range(7)] == sorted(traces(events))
    assert 7 == sum(isinstance(event, RequestTrace) for event in events)


class Refusing(FakeRequestEngine):
    """Answers every request with an error, and one that nobody sent."""

    def poll(self, deadline_ns: int) -> list[Chunk]:
        waiting, self._prefilling = self._prefilling, []
        now = self._advance(0.01)
        return [Chunk("stranger", now, 1), *(Chunk(r.request_id, now, 0, None, "overloaded") for r in waiting)]


def test_a_request_that_fails_is_kept_with_its_error() -> None:
    plain = request_engine()
    engine = Refusing(plain._request, plain.script)
    events = list(load.run_closed(engine, ClosedLoad(kind="closed", concurrency=1, requests=2), requests(2), "t"))
    assert {"r0": "overloaded", "r1": "overloaded"} == {name: trace.error for name, trace in traces(events).items()}


def test_poisson_arrivals_depend_on_the_seed_alone_and_have_the_rate() -> None:
    wanted = PoissonLoad(kind="poisson", rate_per_s=50, duration_s=60)
    first = load.poisson_arrivals_ns(wanted, seed=7)
    assert first == load.poisson_arrivals_ns(wanted, seed=7) != load.poisson_arrivals_ns(wanted, seed=8)
    assert list(first) == sorted(first)
    assert 0 < first[0] and first[-1] < 60e9
    assert abs(len(first) - 3000) < 3 * 3000**0.5  # three standard deviations; more than 1000 were once cut off


def test_open_load_is_sent_when_due_and_timed_from_the_schedule() -> None:
    engine = request_engine(prefill_s_per_token=0.001, step_s=0.01)
    arrivals = (5 * MS, 7 * MS, 200 * MS)
    events = list(load.run_arrivals(engine, arrivals, requests(3, output_tokens=2), "t"))
    found = traces(events)
    assert [START + due for due in arrivals] == [found[f"r{n}"].scheduled_at_ns for n in range(3)]
    sent = [found[f"r{n}"].sent_at_ns - START for n in range(3)]
    assert [5 * MS, 15 * MS, 200 * MS] == sent  # the fake was reading r0 when r1 came due: it is late, and shows it
    assert (START + 15 * MS, START + 35 * MS) == found["r0"].chunk_at_ns
    assert START == events[0].at_ns  # type: ignore[union-attr]


def test_open_load_without_an_arrival_is_an_empty_window() -> None:
    events = list(load.run_arrivals(request_engine(), (), (), "t"))
    assert ["window_opened", "window_closed"] == [event.event for event in events]


def rounds(count: int) -> Iterator[Sequence[Request]]:
    return iter([requests(2, output_tokens=4)] * count)


def test_requests_are_warmed_up_until_rounds_take_the_same_time() -> None:
    given = rounds(9)
    assert load.warm_up_requests(request_engine(), given, SteadyRule(3, 0.01), cap_s=60)
    assert 6 == len(list(given))


def test_warm_up_of_requests_ends_at_its_cap() -> None:
    class Drifting(FakeRequestEngine):
        grown = 0

        def poll(self, deadline_ns: int) -> list[Chunk]:
            self.grown += 1
            self._advance(self.grown)
            return super().poll(deadline_ns)

    plain = request_engine()
    endless = itertools.repeat(requests(1))
    assert not load.warm_up_requests(Drifting(plain._request, plain.script), endless, SteadyRule(3, 0.01), cap_s=60)


class ReadingStepEngine(FakeStepEngine):
    """A fake engine whose memory can be read: 10 ms a pass."""

    def read_weights(self, passes: int) -> tuple[int, tuple[float, ...]]:
        self._advance(0.01 * passes)
        return 4096, (0.01,) * passes


def test_the_memory_is_read_on_both_sides_of_decode_and_in_no_window() -> None:
    engine = ReadingStepEngine(engine_request("default"), FakeScript())
    cell = work(rows=1, prompt_tokens=10, output_tokens=4)
    engine.prepare(cell)
    events = list(load.run_static_batch(engine, cell, "t", keep_tokens=False))
    kinds = [event.side if isinstance(event, ReadPass) else event.event for event in events]
    assert kinds.index("before") < kinds.index("window_opened", kinds.index("before")) < kinds.index("after")
    opened, closed = (
        next(e.at_ns for e in events if isinstance(e, kind) and e.window_id == "t/decode")
        for kind in (WindowOpened, WindowClosed)
    )
    before, after = (event.at_ns for event in events if isinstance(event, ReadPass))
    assert before <= opened
    assert after >= closed
    assert [event.read_bytes for event in events if isinstance(event, ReadPass)] == [4096, 4096]
