"""Starts of the machine within one record: its clock begins anew with each, so that a stamp may occur twice.

It tells them by stamps alone and compares none of two boots. Two boots whose stamps do not overlap count as one: there
is nothing to be mixed up then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.record.observations import CounterPeriod, EnergyReading, LoadSample, PowerReading, TrialStarted


class Instruments(NamedTuple):
    """What instruments read, each kind in the order of the record."""

    load_samples: Sequence[LoadSample]
    energy: Sequence[EnergyReading]
    power: Sequence[PowerReading]
    periods: Sequence[CounterPeriod]

    def cut(self, begin: _Lengths, end: _Lengths) -> Instruments:
        """What came between two moments of writing."""
        return Instruments(
            self.load_samples[begin.load_samples : end.load_samples],
            self.energy[begin.energy : end.energy],
            self.power[begin.power : end.power],
            self.periods[begin.periods : end.periods],
        )


class _Lengths(NamedTuple):
    """How much of each kind the record held at a moment of writing."""

    load_samples: int
    energy: int
    power: int
    periods: int


@dataclasses.dataclass(slots=True)
class Boots:
    """Where in a record the boots begin; it is told the events in the order of the record."""

    begins: list[_Lengths] = dataclasses.field(default_factory=lambda: [_Lengths(0, 0, 0, 0)])
    newest_at_ns: dict[str, int] = dataclasses.field(default_factory=dict)
    """The last stamp of this boot by kind of event."""

    @property
    def current(self) -> int:
        """The number of the boot that the record has come to."""
        return len(self.begins) - 1

    def note(self, event: LoadSample | TrialStarted, held: Instruments) -> None:
        """A stamp below the one before of its kind says that a boot begins; `held`: all that came before.

        Both kinds are written as soon as they are stamped, each by one thread, so that within a boot they only rise.
        """
        if event.at_ns < self.newest_at_ns.get(event.event, event.at_ns):
            self.begins.append(_Lengths(*map(len, held)))
            self.newest_at_ns.clear()
        self.newest_at_ns[event.event] = event.at_ns

    def cut(self, held: Instruments, boot: int) -> Instruments:
        """What was read in one boot; all of it where the record has but one."""
        if len(self.begins) == 1:
            return held
        end = self.begins[boot + 1] if boot < self.current else _Lengths(*map(len, held))
        return held.cut(self.begins[boot], end)
