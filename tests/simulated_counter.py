"""A cumulative energy counter as hardware has them, on a scripted clock: what it would show is known exactly.

`SimulatedCounter` is a meter; `record` lets the real sampler read it and gives the events that a run would hold. Any
period, jitter, power over time, wrap, stale stretch, step backwards, and a device that vanishes. Nothing sleeps.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from tokbench.measure.meters import Available, Unavailable
from tokbench.measure.sampler import Sampler
from tokbench.record.observations import EnergyReading, Event, MeterOpened, PowerReading

Profile = Sequence[tuple[float, float]]
"""(from second, watts), in order; the first begins at 0 and the last goes on."""


class ScriptedTime:
    """A clock that moves only when it is told to; it also counts the CPU seconds of reading."""

    def __init__(self, now_s: float = 0.0, oversleep_s: float = 0.0) -> None:
        self.now_ns = round(now_s * 1e9)
        self.cpu_s = 0.0
        self.oversleep_s = oversleep_s
        """How much too late a sleeper wakes, at the most; drawn anew each time."""
        self._draw = random.Random(7)

    def monotonic_ns(self) -> int:
        """Now."""
        return self.now_ns

    def thread_s(self) -> float:
        """CPU seconds spent on reading so far."""
        return self.cpu_s

    def sleep_until(self, at_ns: int) -> None:
        """Wake at that time or a little later."""
        self.now_ns = max(self.now_ns, at_ns + round(self._draw.random() * self.oversleep_s * 1e9))

    def work(self, seconds: float) -> None:
        """Time that passes busily."""
        self.now_ns += round(seconds * 1e9)
        self.cpu_s += seconds


@dataclasses.dataclass(slots=True)
class SimulatedCounter:
    """One domain whose counter shows, at each of its movements, the energy used until then."""

    time: ScriptedTime
    profile: Profile = ((0.0, 100.0),)
    period_s: float = 0.1
    phase_s: float = 0.037
    """When the first movement is due."""
    jitter_s: float = 0.0
    """How far a movement may be off the grid, either way; below half a period."""
    resolution_j: float = 0.0
    """The counter's last digit; 0 is exact."""
    start_j: float = 1000.0
    range_j: float | None = None
    """Where it begins again at zero."""
    stale: tuple[tuple[float, float], ...] = ()
    """Stretches of seconds in which it does not move."""
    falls: tuple[tuple[float, float], ...] = ()
    """(at second, joules): from then on it shows so much less."""
    vanishes_at_s: float | None = None
    read_s: float = 20e-6
    has_power: bool = True
    meter: str = "simulated"
    domain: str = "board"
    reads: int = 0
    """How often it was read."""

    def true_j(self, from_s: float, to_s: float) -> float:
        """The energy used in a stretch."""
        return self._used(to_s) - self._used(from_s)

    def watts(self, at_s: float) -> float:
        """The power at a moment."""
        return [watts for begins, watts in self.profile if begins <= at_s or begins == 0][-1]

    def _used(self, at_s: float) -> float:
        ends = [begins for begins, _ in self.profile[1:]] + [float("inf")]
        return sum(
            watts * max(0.0, min(at_s, end) - begins) for (begins, watts), end in zip(self.profile, ends, strict=True)
        )

    def tick_s(self, number: int) -> float:
        """When a movement happens; the same however often it is asked."""
        return self.phase_s + number * self.period_s + random.Random(number).uniform(-1, 1) * self.jitter_s

    def last_tick_s(self, at_s: float) -> float | None:
        """The last movement until then; None before the first."""
        number = int((at_s - self.phase_s) / self.period_s) + 2
        while number >= 0:
            moved_s = self.tick_s(number)
            if moved_s <= at_s and not any(begins <= moved_s < ends for begins, ends in self.stale):
                return moved_s
            number -= 1
        return None

    def shown_j(self, at_s: float) -> float:
        """What a reading at that moment gives."""
        moved_s = self.last_tick_s(at_s)
        joules = self.start_j + (0.0 if moved_s is None else self._used(moved_s))
        joules -= sum(fall for begins, fall in self.falls if moved_s is not None and begins <= moved_s)
        if self.range_j is not None:
            joules %= self.range_j
        return joules // self.resolution_j * self.resolution_j if self.resolution_j else joules

    def availability(self) -> Available | Unavailable:
        """Always there to begin with."""
        return Available()

    def opened(self) -> list[MeterOpened]:
        """One domain."""
        return [
            MeterOpened(
                meter=self.meter, domain=self.domain, scope="script", source="simulated", at_ns=self.time.monotonic_ns()
            )
        ]

    def domains(self) -> tuple[str, ...]:
        """One."""
        return (self.domain,)

    def read(self) -> list[EnergyReading | PowerReading]:
        """The counter, and the power of that moment."""
        return [*self.read_counters(), *self._read_power()]

    def read_counters(self) -> list[EnergyReading]:
        """The counter alone."""
        self.reads += 1
        self.time.work(self.read_s / 2)
        at_ns = self.time.monotonic_ns()
        if self.vanishes_at_s is not None and at_ns * 1e-9 >= self.vanishes_at_s:
            raise OSError("the device has vanished")
        joules = self.shown_j(at_ns * 1e-9)
        self.time.work(self.read_s / 2)
        return [
            EnergyReading(
                meter=self.meter,
                domain=self.domain,
                at_ns=at_ns,
                joules=joules,
                read_s=self.read_s,
                range_j=self.range_j,
            )
        ]

    def _read_power(self) -> list[PowerReading]:
        if not self.has_power:
            return []
        at_ns = self.time.monotonic_ns()
        watts = self.watts(at_ns * 1e-9)
        return [PowerReading(meter=self.meter, domain=self.domain, at_ns=at_ns, watts=watts, kind="instant")]

    def close(self) -> None:
        """Nothing to let go of."""


def record(
    time: ScriptedTime, counters: Sequence[SimulatedCounter], until_s: float, dense: tuple[float, float] | None = None
) -> list[Event]:
    """What a sampler appends that reads these counters until then; `dense` is when an energy trial is under way."""
    kept: list[Event] = [opened for counter in counters for opened in counter.opened()]
    meters = {f"{counter.meter}-{number}": counter for number, counter in enumerate(counters)}
    sampler = Sampler(kept.append, lambda: None, meters, clock=time)
    edges = [] if dense is None else [(dense[0], sampler.begin_energy), (dense[1], sampler.end_energy)]
    while time.now_ns < until_s * 1e9:
        while edges and time.now_ns >= edges[0][0] * 1e9:
            edges.pop(0)[1]()
        due_ns = sampler.poll_due()
        stop_ns = round((edges[0][0] if edges else until_s) * 1e9)
        time.sleep_until(min(due_ns, max(stop_ns, time.now_ns + 1)))
    return kept
