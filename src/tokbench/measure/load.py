"""Drives an engine through one trial and tells what was seen: static batches and requests alike. Computes no metric."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from tokbench.errors import TrialError
from tokbench.measure.engines import (
    CellWork,
    Chunk,
    ReadingEngine,
    Request,
    RequestEngine,
    Round,
    Step,
    StepEngine,
)
from tokbench.measure.routing import tell_touches
from tokbench.record.observations import (
    ClockAnchor,
    Event,
    OutputTokens,
    ReadPass,
    RequestTrace,
    SpeculationRounds,
    StepTrace,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from tokbench.record.spec import ClosedLoad, PoissonLoad
from tokbench.record.timings import step_durations_s
from tokbench.stats import SteadyRule

READ_PASSES = 3
"""Passes over the weights on either side of decode: about 60 ms beside 500 on two shared cores."""
WARMUP_SAMPLES = 3
WARMUP_SAMPLE_S = 0.25
WARMUP_MIN_STEPS = 4
POLL_NS = 100_000_000
"""How long a request engine may wait for chunks when no request is due."""


def run_static_batch(engine: StepEngine, work: CellWork, trial_id: str, keep_tokens: bool) -> Iterator[Event]:
    """One repetition: prefill and decode of one execution, each in a window of its own.

    Raises:
        TrialError: a graph was compiled inside a window.
    """
    engine.rewind(0)
    graphs = engine.graphs_compiled
    yield from _window(engine, work, trial_id, "prefill", lambda: [engine.prefill()])
    yield from _read_pass(engine, trial_id, "before")
    yield from _window(engine, work, trial_id, "decode", lambda: list(engine.decode(work.output_tokens - 1)))
    yield from _read_pass(engine, trial_id, "after")
    if engine.graphs_compiled != graphs:
        raise TrialError(
            f"the engine recompiled inside a window ({graphs} graphs before, {engine.graphs_compiled} after)",
            cause="engine",
        )
    if keep_tokens:
        yield OutputTokens(trial_id=trial_id, token_ids=engine.output_tokens())
        yield from tell_touches(engine, work.rows, trial_id)


def _read_pass(engine: StepEngine, trial_id: str, side: Literal["before", "after"]) -> Iterator[ReadPass]:
    """What the memory gives just before or after decode, where the engine can tell."""
    found = engine.read_weights(READ_PASSES) if isinstance(engine, ReadingEngine) else None
    if found is not None:
        read_bytes, pass_s = found
        yield ReadPass(
            trial_id=trial_id,
            window_id=f"{trial_id}/decode",
            side=side,
            at_ns=engine.sync(),
            read_bytes=read_bytes,
            pass_s=pass_s,
        )


def _window(
    engine: StepEngine, work: CellWork, trial_id: str, kind: WindowKind, make: Callable[[], Sequence[Step]]
) -> Iterator[Event]:
    """One window: its edges are taken with the device idle."""
    window_id = f"{trial_id}/{kind}"
    start_at_ns = engine.sync()
    cpu_before = time.process_time()
    steps = make()
    end_at_ns = engine.sync()
    cpu_s = time.process_time() - cpu_before
    launched_at_ns = engine.launched_at_ns
    host_s = None if launched_at_ns is None else (launched_at_ns - start_at_ns) * 1e-9
    rounds = [step.round for step in steps if step.round is not None]
    yield WindowOpened(trial_id=trial_id, window_id=window_id, kind=kind, at_ns=start_at_ns)
    yield StepTrace(
        trial_id=trial_id,
        window_id=window_id,
        start_at_ns=start_at_ns,
        step_at_ns=tuple(step.at_ns for step in steps),
        tokens_per_row=tuple(step.tokens_per_row for step in steps),
        rows=work.rows,
        context_tokens=work.prompt_tokens,
        tokens_by_row=tuple(found.emitted for found in rounds),
        stamped_by=engine.facts.stamped_by,
        clock_error_s=engine.clock_error_s,
    )
    yield from _rounds_by_row(trial_id, rounds, work.rows)
    for before_at_ns, after_at_ns, label in engine.anchors():
        yield ClockAnchor(group=window_id, before_at_ns=before_at_ns, after_at_ns=after_at_ns, label=label)
    yield WindowClosed(trial_id=trial_id, window_id=window_id, at_ns=end_at_ns, cpu_s=cpu_s, host_s=host_s)


def _rounds_by_row(trial_id: str, rounds: Sequence[Round], rows: int) -> Iterator[SpeculationRounds]:
    """Rounds of drafting, one event a row, each up to the round that gave the row its last token."""
    for row in range(rows if rounds else 0):
        own = [found for found in rounds if found.emitted[row]]
        yield SpeculationRounds(
            trial_id=trial_id,
            row=row,
            drafted=tuple(found.drafted[row] for found in own),
            accepted=tuple(found.accepted[row] for found in own),
            emitted=tuple(found.emitted[row] for found in own),
            position=tuple(found.position[row] for found in own),
            draft_s=tuple(found.draft_s for found in own),
            verify_s=tuple(found.verify_s for found in own),
            other_s=tuple(found.other_s for found in own),
        )


def warm_up(engine: StepEngine, work: CellWork, rule: SteadyRule, cap_s: float) -> tuple[bool, list[StepTrace]]:
    """Decode until the median step of the last samples is steady by the rule, or the cap is reached.

    Returns whether it became steady, and every sample. A sample is at least 4 steps and 0.25 s, or all output tokens,
    and starts right behind the prompt: at growing contexts steps grow too, and would never look steady.
    """
    medians: list[float] = []
    samples: list[StepTrace] = []
    begun = engine.sync()
    engine.rewind(0)
    engine.prefill()
    while not rule.is_met(medians):
        if (engine.sync() - begun) * 1e-9 > cap_s:
            return False, samples
        _rewind_to_prompt(engine, work)
        samples.append(_warmup_sample(engine, work, _sample_steps(medians, work.output_tokens - 1)))
        medians.append(statistics.median(step_durations_s(samples[-1])))
    return True, samples


def _rewind_to_prompt(engine: StepEngine, work: CellWork) -> None:
    """Back to right behind the prompt, by a prefill where the engine cannot go back (sliding windows, recurrence)."""
    try:
        engine.rewind(work.prompt_tokens)
    except TrialError:
        engine.rewind(0)
        engine.prefill()


def _sample_steps(medians: Sequence[float], left: int) -> int:
    wanted = WARMUP_MIN_STEPS
    if medians and medians[-1] > 0:
        wanted = max(wanted, round(WARMUP_SAMPLE_S / medians[-1]))
    return min(wanted, left)


def _warmup_sample(engine: StepEngine, work: CellWork, steps: int) -> StepTrace:
    start_at_ns = engine.sync()
    stamps = list(engine.decode(steps))
    return StepTrace(
        trial_id="",
        window_id="",
        start_at_ns=start_at_ns,
        step_at_ns=tuple(step.at_ns for step in stamps),
        tokens_per_row=tuple(step.tokens_per_row for step in stamps),
        rows=work.rows,
        context_tokens=work.prompt_tokens,
        stamped_by=engine.facts.stamped_by,
        clock_error_s=engine.clock_error_s,
    )


class _Open:
    """One request on its way."""

    def __init__(self, request: Request, scheduled_at_ns: int | None, sent_at_ns: int) -> None:
        self.request = request
        self.scheduled_at_ns = scheduled_at_ns
        self.sent_at_ns = sent_at_ns
        self.chunks: list[Chunk] = []

    def trace(self, trial_id: str, engine: RequestEngine) -> RequestTrace:
        last = self.chunks[-1] if self.chunks else None
        return RequestTrace(
            trial_id=trial_id,
            request_id=self.request.request_id,
            scheduled_at_ns=self.scheduled_at_ns,
            sent_at_ns=self.sent_at_ns,
            chunk_at_ns=tuple(chunk.at_ns for chunk in self.chunks),
            chunk_tokens=tuple(chunk.tokens for chunk in self.chunks),
            prompt_tokens=len(self.request.prompt),
            tokens_counted_by="script" if engine.facts.stamped_by == "script" else "engine",
            stamped_by=engine.facts.stamped_by,
            finish_reason=last.finish_reason if last else None,
            error=last.error if last else None,
        )


def run_closed(engine: RequestEngine, load: ClosedLoad, requests: Sequence[Request], trial_id: str) -> Iterator[Event]:
    """Keep `load.concurrency` requests in flight until all were answered."""
    waiting = list(reversed(requests))
    flying: dict[str, _Open] = {}
    yield WindowOpened(trial_id=trial_id, window_id=f"{trial_id}/decode", kind="decode", at_ns=engine.now())
    while waiting or flying:
        while waiting and len(flying) < load.concurrency:
            request = waiting.pop()
            flying[request.request_id] = _Open(request, None, engine.now())
            engine.submit(request)
        yield from _collect(engine, flying, engine.now() + POLL_NS, trial_id)
    yield WindowClosed(trial_id=trial_id, window_id=f"{trial_id}/decode", at_ns=engine.now())


def warm_up_requests(
    engine: RequestEngine, rounds: Iterator[Sequence[Request]], rule: SteadyRule, cap_s: float
) -> bool:
    """Answer rounds of requests, each at once, until the rounds' times are steady by the rule; whether they became so.

    The requests are not kept: a trace has no window that would keep it apart from those that count.
    """
    times_s: list[float] = []
    begun = engine.now()
    while not rule.is_met(times_s):
        if (engine.now() - begun) * 1e-9 > cap_s:
            return False
        requests = next(rounds)
        before = engine.now()
        together = ClosedLoad(kind="closed", concurrency=len(requests), requests=len(requests))
        for _ in run_closed(engine, together, requests, "warmup"):
            pass
        times_s.append((engine.now() - before) * 1e-9)
    return True


def poisson_arrivals_ns(load: PoissonLoad, seed: int) -> tuple[int, ...]:
    """When requests are due, counted from the window's start: exponentially distributed gaps for `load.duration_s`."""
    draw = random.Random(seed)
    arrivals: list[int] = []
    due_s = draw.expovariate(load.rate_per_s)
    while due_s < load.duration_s:
        arrivals.append(round(due_s * 1e9))
        due_s += draw.expovariate(load.rate_per_s)
    return tuple(arrivals)


def run_arrivals(
    engine: RequestEngine, arrivals_ns: Sequence[int], requests: Sequence[Request], trial_id: str
) -> Iterator[Event]:
    """Send each request when it is due, whatever is still in flight, until all were answered."""
    start = engine.now()
    waiting = [(start + due_ns, request) for due_ns, request in zip(arrivals_ns, requests, strict=True)][::-1]
    flying: dict[str, _Open] = {}
    yield WindowOpened(trial_id=trial_id, window_id=f"{trial_id}/decode", kind="decode", at_ns=start)
    while flying or waiting:
        while waiting and waiting[-1][0] <= engine.now():
            due, request = waiting.pop()
            flying[request.request_id] = _Open(request, due, engine.now())
            engine.submit(request)
        deadline = waiting[-1][0] if waiting else engine.now() + POLL_NS
        yield from _collect(engine, flying, deadline, trial_id)
    yield WindowClosed(trial_id=trial_id, window_id=f"{trial_id}/decode", at_ns=engine.now())


def _collect(
    engine: RequestEngine, flying: dict[str, _Open], deadline_ns: int, trial_id: str
) -> Iterator[RequestTrace]:
    for chunk in engine.poll(deadline_ns):
        opened = flying.get(chunk.request_id)
        if opened is None:
            continue
        opened.chunks.append(chunk)
        if chunk.finish_reason is not None or chunk.error is not None:
            del flying[chunk.request_id]
            yield opened.trace(trial_id, engine)
