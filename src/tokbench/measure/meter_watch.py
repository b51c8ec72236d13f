"""One open meter under watch: when it is due, what of its readings goes into the record. Starts no thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tokbench.measure.meters import Meter
from tokbench.measure.ticks import TickPredictor
from tokbench.record.observations import CounterPeriod, EnergyReading, Event, PowerReading

COARSE_NS = 500_000_000
"""Between two readings while no energy trial is under way."""
POWER_NS = 100_000_000
"""Between two readings of power within an energy trial."""
TOLD_AGAIN = 0.2
"""A counter's period is written again when it has changed by so much."""


class SamplerClock(Protocol):
    """The time that a sampler goes by."""

    def monotonic_ns(self) -> int:
        """Now."""

    def thread_s(self) -> float:
        """CPU seconds that the sampler has used."""


@runtime_checkable
class CounterMeter(Protocol):
    """What a meter has besides that can read its counters alone: fewer questions at each look for a movement."""

    def read_counters(self) -> list[EnergyReading]:
        """One reading of every cumulative counter. Raises as `read`."""


class MeterWatch:
    """A meter, and what is known of the movements of its counters."""

    def __init__(self, name: str, meter: Meter, clock: SamplerClock, share: float) -> None:
        self.name = name
        self.meter = meter
        self._clock = clock
        self._share = share
        self._predictors: dict[tuple[str, str], TickPredictor] = {}
        self._told_s: dict[tuple[str, str], float] = {}
        self._full_due_ns = clock.monotonic_ns()
        self._wake_s = 0.0

    def periods_s(self) -> list[float]:
        """The periods that are known by now."""
        found = [predictor.period_ns for predictor in list(self._predictors.values())]  # of another thread
        return [period_ns * 1e-9 for period_ns in found if period_ns is not None]

    def due_ns(self, now_ns: int, ready_ns: int, *, is_dense: bool) -> int:
        """When to call `poll` next; in the past where it is due. `ready_ns`: when further readings are paid for."""
        wanted = [each for each in self._predictors.values() if is_dense or each.period_ns is None]
        if not is_dense:
            for predictor in self._predictors.values():
                predictor.rest()
        dues = [predictor.next_ns(now_ns, ready_ns) for predictor in wanted]
        return min([*dues, self._full_due_ns]) if not (is_dense and dues) else min(dues)

    def poll(self, wake_s: float, *, is_dense: bool) -> list[Event]:
        """Read what is due, power only between two series of looks at a counter.

        `wake_s`: CPU seconds that waking up and finding out what is due took, often more than the reading itself.

        Raises:
            OSError, PlugError: the meter answers no longer.
        """
        self._wake_s = wake_s
        events: list[Event] = []
        if self._predictors and (is_dense or self._clock.monotonic_ns() < self._full_due_ns):
            meter = self.meter
            look = self._read(meter.read_counters if isinstance(meter, CounterMeter) else meter.read, is_dense)
            events += [event for event in look if not isinstance(event, PowerReading)]
        if self._clock.monotonic_ns() >= self._full_due_ns and not self._is_looking():
            events += self._read(self.meter.read, is_dense)
            # On a grid: a moment of its own after each look would be late for every second one.
            interval_ns, now_ns = (POWER_NS if is_dense else COARSE_NS), self._clock.monotonic_ns()
            later_ns = self._full_due_ns + interval_ns
            self._full_due_ns = later_ns if later_ns > now_ns else now_ns + interval_ns
        return events

    def begin_dense(self) -> None:
        """An energy trial begins: power is due from now on at its interval."""
        self._full_due_ns = min(self._full_due_ns, self._clock.monotonic_ns() + POWER_NS)

    def _is_looking(self) -> bool:
        return any(predictor.is_looking for predictor in self._predictors.values())

    def _read(self, read: Reading, is_dense: bool) -> list[Event]:
        before_s = self._clock.thread_s()
        readings = read()
        cost_s = self._clock.thread_s() - before_s + self._wake_s
        events: list[Event] = []
        for reading in readings:
            if isinstance(reading, PowerReading):
                events.append(reading)
            else:
                events += self._take(reading, cost_s, is_dense)
        return events

    def _take(self, reading: EnergyReading, cost_s: float, is_dense: bool) -> list[Event]:
        key = (reading.meter, reading.domain)
        predictor = self._predictors.setdefault(key, TickPredictor(self._share))
        kept = predictor.see(reading.at_ns, reading.joules, cost_s, is_dense=is_dense)
        events: list[Event] = []
        if kept is not None:
            events.append(reading.model_copy(update=kept._asdict()))
        if predictor.period_ns is not None:
            period_s, told_s = predictor.period_ns * 1e-9, self._told_s.get(key)
            if told_s is None or abs(period_s / told_s - 1) > TOLD_AGAIN:
                self._told_s[key] = period_s
                events.append(
                    CounterPeriod(
                        meter=reading.meter,
                        domain=reading.domain,
                        period_s=period_s,
                        changes=predictor.changes,
                        at_ns=reading.at_ns,
                    )
                )
        return events


class Reading(Protocol):
    """A question to a meter."""

    def __call__(self) -> Sequence[EnergyReading | PowerReading]:
        """Its answer."""
