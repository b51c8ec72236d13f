"""A scripted meter: a constant power on the monotonic clock. No number from it is a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable

from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, PowerReading

DESCRIPTION = MeterDescription(kind="fake", what="scripted constant power, for tests", scope="script")
WATTS = 100.0


class FakeMeter:
    """One domain drawing 100 W."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._begun = clock()

    def availability(self) -> Available | Unavailable:
        """Always there."""
        return Available()

    def domains(self) -> tuple[str, ...]:
        """One."""
        return ("script",)

    def read(self) -> list[EnergyReading | PowerReading]:
        """The scripted counter and the scripted power."""
        now = self._clock()
        joules = (now - self._begun) * 1e-9 * WATTS
        return [
            EnergyReading(meter="fake", domain="script", at_ns=now, joules=joules),
            PowerReading(meter="fake", domain="script", at_ns=now, watts=WATTS),
        ]

    def close(self) -> None:
        """Nothing to let go of."""


def open_meter(device: DeviceFacts | None, clock: Callable[[], int] = time.monotonic_ns) -> FakeMeter:
    """Open the scripted meter."""
    return FakeMeter(clock)
