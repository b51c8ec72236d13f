"""A scripted meter: a constant power on the monotonic clock. No number from it is a measurement."""

from __future__ import annotations

import time

from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.sources import Clock
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

DESCRIPTION = MeterDescription(kind="fake", what="scripted constant power, for tests", scope="script")
WATTS = 100.0
PERIOD_NS = 20_000_000
"""Between two movements of the counter."""


class FakeMeter:
    """One domain drawing 100 W."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = clock()

    def availability(self) -> Available | Unavailable:
        """Always there."""
        return Available()

    def opened(self) -> list[MeterOpened]:
        """One domain, out of the script."""
        return [MeterOpened(meter="fake", domain="script", scope="script", source="script", at_ns=self._begun)]

    def domains(self) -> tuple[str, ...]:
        """One."""
        return ("script",)

    def read(self) -> list[EnergyReading | PowerReading]:
        """The scripted counter and the scripted power, both of exactly the moment that they are stamped with."""
        now = self._clock()
        joules = (now - self._begun) // PERIOD_NS * PERIOD_NS * 1e-9 * WATTS
        return [
            EnergyReading(meter="fake", domain="script", at_ns=now, joules=joules, read_s=0.0),
            PowerReading(meter="fake", domain="script", at_ns=now, watts=WATTS, kind="instant"),
        ]

    def close(self) -> None:
        """Nothing to let go of."""


def open_meter(
    device: DeviceFacts | None, spec: EnergySpec | None = None, clock: Clock = time.monotonic_ns
) -> FakeMeter:
    """Open the scripted meter."""
    return FakeMeter(clock)
