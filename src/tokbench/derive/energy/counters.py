"""A cumulative counter's readings made fit to use: unwrapped, and the moments at which it moved. Reads no work."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.observations import CounterPeriod, EnergyReading, PowerReading
from tokbench.record.timings import NS
from tokbench.units import SECONDS, format_value

STALE_PERIODS = 3.0
"""A counter that stands still for longer than this many of its periods under load is no measurement. Our choice."""
DISORDER_NS = 5_000_000_000
"""Readings of several meters are written in order but for a moment; a search looks so much further to both sides."""
SILENT_S = 1.5
"""Without a reading for so long a counter is not read any more: one that stands still is recorded once a second."""
CLOSE_FACTOR = 2.0
"""A tick whose error is above so many times the usual one was not seen closely."""
WRAP_SHARE = 0.5
"""A fall by less than this share of the range is no wrap but a counter that went backwards."""
WRAP_POWER = 5.0
"""Neither is one across which more power than so many times the highest seen would have been drawn: a counter that was
set back to zero."""


class Tick(NamedTuple):
    """One move of a counter: at `at_ns`, known to `error_s` either way, it came to show `joules`."""

    at_ns: float
    error_s: float
    joules: float
    is_bounded: bool = True
    """Whether the error is all there is: False where the record does not say how long the reading took."""


Reading = TypeVar("Reading", EnergyReading, PowerReading)


def select(readings: Sequence[Reading], source: tuple[str, str], start_at_ns: float, end_at_ns: float) -> list[Reading]:
    """The readings of one meter's domain from the one moment to the other, in the order of their stamps."""
    first = bisect.bisect_left(readings, start_at_ns - DISORDER_NS, key=_at_ns)
    last = bisect.bisect_right(readings, end_at_ns + DISORDER_NS, key=_at_ns)
    found = [
        reading
        for reading in readings[first:last]
        if (reading.meter, reading.domain) == source and start_at_ns <= reading.at_ns <= end_at_ns
    ]
    return sorted(found, key=_at_ns)


def _at_ns(reading: EnergyReading | PowerReading) -> int:
    return reading.at_ns


def unwrap(readings: Sequence[EnergyReading]) -> list[float]:
    """Joules that only rise: the range is added where the counter began again at zero.

    At most one wrap lies between two readings: they are taken many times a second.

    Raises:
        UndefinedError: the counter went backwards.
    """
    joules, added = [reading.joules for reading in readings[:1]], 0.0
    shown_at_ns = readings[0].at_ns if readings else 0
    most_w = _most_w(readings)
    for before, now in itertools.pairwise(readings):
        fall = before.joules - now.joules
        if fall > 0:
            seconds = (now.at_ns - shown_at_ns) * NS
            if now.range_j is None or not _is_wrap(fall, now.range_j, seconds, most_w):
                raise UndefinedError(
                    t("the counter went backwards by {fall_j} J within the window", fall_j=f"{fall:.4g}")
                )
            added += now.range_j
        shown_at_ns = now.at_ns if fall else shown_at_ns
        joules.append(now.joules + added)
    return joules


def _most_w(readings: Sequence[EnergyReading]) -> float | None:
    """The highest power between neighbouring readings; None where none shows any."""
    pairs = itertools.pairwise(readings)
    rises = [(now.joules - before.joules, (now.at_ns - before.at_ns) * NS) for before, now in pairs]
    return max((rise_j / seconds for rise_j, seconds in rises if rise_j > 0 and seconds > 0), default=None)


def _is_wrap(fall_j: float, range_j: float, seconds: float, most_w: float | None) -> bool:
    """Whether a fall is a counter that began again; `seconds`: since the value before was first shown."""
    is_likely = most_w is None or range_j - fall_j <= WRAP_POWER * most_w * seconds
    return fall_j >= WRAP_SHARE * range_j and is_likely


def find_ticks(readings: Sequence[EnergyReading], period_s: float | None) -> list[Tick]:
    """The moves of the counter that the readings show.

    A value read at `at_ns` came up after the last poll that saw the one before, and no longer ago than one period:
    the tick is put in the middle of that stretch, its error is half of it and half of the time that reading took. A
    value that an earlier reading had shown already (`same_since_ns`) came up before that one, and is no tick if it has
    stood for longer than a period: a counter that halts tells nothing of when it last moved. Where the time that a
    reading took is not recorded the error is not known whole: the tick is marked, and bounds nothing.

    Raises:
        UndefinedError: the counter went backwards.
    """
    ticks: list[Tick] = []
    before: float | None = None
    for reading, joules in zip(readings, unwrap(readings), strict=True):
        if joules == before:
            continue
        before = joules
        shown_at_ns = reading.at_ns if reading.same_since_ns is None else reading.same_since_ns
        since = [] if reading.unchanged_at_ns is None else [float(reading.unchanged_at_ns)]
        since += [] if period_s is None else [shown_at_ns - period_s / NS]
        stood_s = (reading.at_ns - shown_at_ns) * NS
        if since and (period_s is None or stood_s <= period_s):
            half_ns = (shown_at_ns - max(since)) / 2
            took_s = reading.read_s if shown_at_ns == reading.at_ns else None
            error_s = half_ns * NS + (0.0 if took_s is None else took_s / 2)
            ticks.append(Tick(shown_at_ns - half_ns, error_s, joules, is_bounded=took_s is not None))
    return ticks


def choose_edges(ticks: Sequence[Tick]) -> tuple[Tick, Tick] | None:
    """The first and the last tick; those that were seen closely where that makes the time between them surer.

    A reading between two ticks says only that one lies up to a period behind it: as an edge it would be a poor one.
    """
    if len(ticks) < 2:
        return None
    typical_s = statistics.median(tick.error_s for tick in ticks)
    close = [tick for tick in ticks if tick.error_s <= CLOSE_FACTOR * typical_s]
    pairs = [(chosen[0], chosen[-1]) for chosen in (ticks, close) if len(chosen) > 1]
    return min(pairs, key=lambda pair: (pair[0].error_s + pair[1].error_s) / (pair[1].at_ns - pair[0].at_ns))


def find_period_s(
    periods: Sequence[CounterPeriod], source: tuple[str, str], readings: Sequence[EnergyReading], end_at_ns: float
) -> float | None:
    """How often the counter moves: as the record says of the time up to then, else the median of the changes read."""
    known = [item for item in periods if (item.meter, item.domain) == source]
    earlier = [item for item in known if item.at_ns <= end_at_ns]
    if known:
        return (earlier[-1] if earlier else known[0]).period_s
    changes = [now.at_ns for before, now in itertools.pairwise(readings) if now.joules != before.joules]
    gaps = [(after - before) * NS for before, after in itertools.pairwise(changes)]
    return statistics.median(gaps) if gaps else None


def check_alive(readings: Sequence[EnergyReading], period_s: float | None, end_at_ns: float, *, is_lost: bool) -> None:
    """Refuse a counter that stood still under load, or that was read no longer; `is_lost`: its meter gave up.

    Raises:
        UndefinedError: it did either.
    """
    if not readings or period_s is None:
        return
    still_s, since = 0.0, readings[0]
    for now in readings[1:]:
        if now.same_since_ns is not None:
            still_s = max(still_s, (now.at_ns - max(now.same_since_ns, readings[0].at_ns)) * NS)
        if now.joules == since.joules:
            still_s = max(still_s, (now.at_ns - since.at_ns) * NS)
        else:
            since = now
    if still_s > STALE_PERIODS * period_s:
        raise UndefinedError(
            t(
                "the counter stood still for {still} under load; it moves every {period}",
                still=format_value(still_s, SECONDS),
                period=format_value(period_s, SECONDS),
            )
        )
    gaps = [(now.at_ns - before.at_ns) * NS for before, now in itertools.pairwise(readings)]
    allowed_s = STALE_PERIODS * max(period_s, statistics.median(gaps) if gaps else 0.0)
    silent_s = (end_at_ns - readings[-1].at_ns) * NS
    if silent_s > (allowed_s if is_lost else max(allowed_s, SILENT_S)):
        silent = format_value(silent_s, SECONDS)
        raise UndefinedError(t("the meter gave nothing new in the last {silent} of the window", silent=silent))
