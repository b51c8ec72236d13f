"""The second source beside a counter: power over the same time, or another meter's counter. It never replaces one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.observations import PowerReading
from tokbench.record.timings import NS

AGREEMENT_LIMIT = 0.05
"""Sources farther apart than this are flagged. Source: shared/facts/energy.md, 2.1, check A."""
MIN_POWER_READINGS = 3
"""Fewer within a window have no course that could be integrated."""


class Second(NamedTuple):
    """What another source says of the same stretch of time."""

    source: str
    joules: float

    def ratio(self, joules: float) -> float:
        """The first source over this one."""
        return joules / self.joules


def is_apart(ratio: float) -> bool:
    """Whether two sources lie farther apart than the limit."""
    return abs(ratio - 1) > AGREEMENT_LIMIT


def choose_kind(readings: Sequence[PowerReading]) -> list[PowerReading]:
    """Readings of one moment where there are any, then those that do not say, then averages, which lag."""
    for kind in ("instant", None, "average"):
        found = [reading for reading in readings if reading.kind == kind]
        if found:
            return found
    return []


def integrate_power(readings: Sequence[PowerReading], start_at_ns: float, end_at_ns: float) -> float:
    """Joules from the one moment to the other by trapezoids.

    Between readings power is a straight line; before the first and after the last it stands still. Readings from
    outside the window are not to be given: a line to them would mix idle into load.

    Raises:
        UndefinedError: fewer than three readings lie within, or their power is not positive.
    """
    within = [reading for reading in readings if start_at_ns <= reading.at_ns <= end_at_ns]
    if len(within) < MIN_POWER_READINGS:
        raise UndefinedError(
            t(
                "{count} power readings lie within the window; {needed} are needed",
                count=len(within),
                needed=MIN_POWER_READINGS,
            )
        )
    points = [(float(reading.at_ns), reading.watts) for reading in within]
    points = [(start_at_ns, points[0][1]), *points, (end_at_ns, points[-1][1])]
    joules = sum((b - a) * (left + right) / 2 for (a, left), (b, right) in itertools.pairwise(points)) * NS
    if joules <= 0:
        raise UndefinedError(t("the power sensor showed no power"))
    return joules
