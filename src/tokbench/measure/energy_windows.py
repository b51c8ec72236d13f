"""The windows of an energy trial: nothing at all, the same prefill again and again, the same decode again and again.

Each lasts longer than a meter needs, and every pass is stamped, so that the work between any two readings can be told
from the record. Nothing waits for a meter here, and nothing spins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from tokbench.errors import TrialError
from tokbench.measure.engines import Anchor, CellWork, RequestEngine, Step, StepEngine
from tokbench.measure.messages import RunEnergy
from tokbench.record.observations import ClockAnchor, Event, StampedBy, StepTrace, WindowClosed, WindowOpened

LEAST_PASSES = 3
"""Of a prefill or decode that outlasts its window: one or two would say nothing of how they differ."""

EnergyKind = Literal["idle", "energy_prefill", "energy_decode"]


@runtime_checkable
class IdlingEngine(Protocol):
    """What an engine has besides whose clock does not go on by itself."""

    def idle(self, seconds: float) -> None:
        """Let so much time pass without work."""


class _Pass(NamedTuple):
    """One pass as it came from the engine; it becomes an event when its window is over."""

    start_at_ns: int
    steps: list[Step]
    clock_error_s: float | None
    anchors: list[Anchor]


class _Window:
    """One window under way. Nothing is sent and no event is made within it."""

    def __init__(self, trial_id: str, kind: EnergyKind, now: Callable[[], int]) -> None:
        self._trial_id, self._kind, self._now = trial_id, kind, now
        self._window_id = f"{trial_id}/{kind}"
        self._passes: list[_Pass] = []
        self._opened_at_ns = now()
        self._cpu_s = time.process_time()

    def wants(self, seconds: float) -> bool:
        """Whether another pass is to be made."""
        return len(self._passes) < LEAST_PASSES or (self._now() - self._opened_at_ns) * 1e-9 < seconds

    def fill(self, engine: StepEngine, make: Callable[[], list[Step]]) -> None:
        """Make one pass."""
        start_at_ns = engine.sync()
        steps = make()
        self._passes.append(_Pass(start_at_ns, steps, engine.clock_error_s, engine.anchors()))

    def close(self, engine: StepEngine | RequestEngine, work: CellWork | None) -> Iterator[Event]:
        """End it, and tell what was in it."""
        closed_at_ns = self._now()
        cpu_s = time.process_time() - self._cpu_s
        yield WindowOpened(
            trial_id=self._trial_id, window_id=self._window_id, kind=self._kind, at_ns=self._opened_at_ns
        )
        for each in self._passes:
            assert work is not None  # an idle window has no pass
            yield self._trace(each, work, engine.facts.stamped_by)
            for before_at_ns, after_at_ns, label in each.anchors:
                yield ClockAnchor(
                    group=self._window_id, before_at_ns=before_at_ns, after_at_ns=after_at_ns, label=label
                )
        yield WindowClosed(trial_id=self._trial_id, window_id=self._window_id, at_ns=closed_at_ns, cpu_s=cpu_s)

    def _trace(self, each: _Pass, work: CellWork, stamped_by: StampedBy) -> StepTrace:
        return StepTrace(
            trial_id=self._trial_id,
            window_id=self._window_id,
            start_at_ns=each.start_at_ns,
            step_at_ns=tuple(step.at_ns for step in each.steps),
            tokens_per_row=tuple(step.tokens_per_row for step in each.steps),
            rows=work.rows,
            context_tokens=work.prompt_tokens,
            tokens_by_row=tuple(step.round.emitted for step in each.steps if step.round is not None),
            stamped_by=stamped_by,
            clock_error_s=each.clock_error_s,
        )


def run_idle(engine: StepEngine | RequestEngine, now: Callable[[], int], command: RunEnergy) -> Iterator[Event]:
    """Nothing runs; the model stays where it is."""
    window = _Window(command.trial_id, "idle", now)
    if isinstance(engine, IdlingEngine):
        engine.idle(command.idle_s)
    else:
        time.sleep(command.idle_s)
    yield from window.close(engine, None)


def run_static_batch(engine: StepEngine, work: CellWork, command: RunEnergy) -> Iterator[Event]:
    """An idle window, one of prefills and one of decodes, in a cell that has been warmed up.

    Raises:
        TrialError: a graph was compiled inside a window, or the engine cannot do the work.
    """
    graphs = engine.graphs_compiled
    yield from run_idle(engine, engine.sync, command)
    yield from _prefills(engine, work, command)
    if work.output_tokens > 1:
        yield from _decodes(engine, work, command)
    if engine.graphs_compiled != graphs:
        raise TrialError(
            f"the engine recompiled inside a window ({graphs} graphs before, {engine.graphs_compiled} after)",
            cause="engine",
        )


def _prefills(engine: StepEngine, work: CellWork, command: RunEnergy) -> Iterator[Event]:
    window = _Window(command.trial_id, "energy_prefill", engine.sync)
    while window.wants(command.window_s):
        engine.rewind(0)
        window.fill(engine, lambda: [engine.prefill()])
    yield from window.close(engine, work)


def _decodes(engine: StepEngine, work: CellWork, command: RunEnergy) -> Iterator[Event]:
    """Decode all steps and go back behind the prompt, again and again.

    An engine that cannot go back makes one pass: a prefill between two would stand in the window and in no stamp.
    """
    engine.rewind(0)
    engine.prefill()
    window = _Window(command.trial_id, "energy_decode", engine.sync)
    window.fill(engine, lambda: list(engine.decode(work.output_tokens - 1)))
    while window.wants(command.window_s):
        try:
            engine.rewind(work.prompt_tokens)
        except TrialError:
            break
        window.fill(engine, lambda: list(engine.decode(work.output_tokens - 1)))
    yield from window.close(engine, work)
