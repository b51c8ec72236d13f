"""When a cumulative counter moves: its period, and when to look so that a movement is seen closely and cheaply.

Pure: it is told what was read and when, and answers with times; no number from it is a result. Periods differ from
under 1 ms (RAPL) to 100 ms (NVML), and no vendor states them, so the period is found first: readings grow closer until
several lie between two movements. From then on a few readings surround each expected movement, and none lies between.
"""

from __future__ import annotations

import collections
import itertools
import math
import statistics
from typing import NamedTuple

MS = 1_000_000
FIRST_GAP_NS, LEAST_GAP_NS, MOST_GAP_NS = 50 * MS, MS // 4, 500 * MS
"""Between two readings while the period is sought."""
INTERVALS = 20
"""Intervals between movements that a period is taken from."""
RESOLVED = 3
"""Readings within a period that tell its movements apart."""
STEP_SHARE, MOST_STEP_NS = 0.02, 2 * MS
"""How closely readings follow one another around a movement: a share of the period, up to a limit."""
REACH_SHARE = 0.15
"""How far from the expected movement they begin before its scatter is known, as a share of the period."""
LOOKS = 8
"""Readings on either side of an expected movement, at the most."""
DRIFT = 0.005
"""How far the expectation may be off after one more period, as a share of it."""
PAUSE_NS = 50 * MS
"""Movements that follow each other more closely than this are not all looked at."""
MOST_MISSES = 4
"""Of the last series, this many without a movement say that the period is another now."""
LOST = 0.2
"""Mean distance from where a movement was expected, as a share of the period, that says the period is another now."""
HEARTBEAT_NS = 1_000 * MS
"""A counter that stands still is recorded this often, so that it can be told from one that is not read."""


class Kept(NamedTuple):
    """A reading that goes into the record."""

    unchanged_at_ns: int | None
    """As in `EnergyReading`."""
    same_since_ns: int | None = None
    """As there."""


class ReadAllowance:
    """CPU seconds that may be spent on readings: a share of one core, saved up to a limit."""

    def __init__(self, share: float, most_s: float, now_ns: int) -> None:
        self._share, self._most_s = share, most_s
        self._left_s, self._at_ns = most_s, now_ns

    def spend(self, cost_s: float, now_ns: int) -> None:
        """Count what was spent."""
        self._left_s = min(self._most_s, self._left_s + (now_ns - self._at_ns) * 1e-9 * self._share) - cost_s
        self._at_ns = now_ns

    def ready_ns(self) -> int:
        """When the next reading is paid for: a moment in the past where it already is."""
        return self._at_ns + math.ceil(-self._left_s / self._share * 1e9)


class TickPredictor:
    """What is known of one counter's movements."""

    def __init__(self, share: float) -> None:
        self._share = share
        self.period_ns: float | None = None
        """None while it is sought; an upper bound where every reading shows a movement, however closely they follow."""
        self.changes = 0
        """Movements that the period was taken from."""
        self._last: tuple[int, float] | None = None
        self._kept_at_ns = self._shown_at_ns = 0
        self._aim_ns: float | None = None
        self._seek(FIRST_GAP_NS)

    def _seek(self, gap_ns: float) -> None:
        """Look for the period, reading at this distance to begin with."""
        self.period_ns = None
        self._gap_ns = min(max(gap_ns, LEAST_GAP_NS), MOST_GAP_NS)
        self._polls = self._streak = self._quiet = 0
        self._since_ns: int | None = None
        self._seen: list[float] = []
        self._paid_s = 0.0

    def next_ns(self, now_ns: int, ready_ns: int) -> int:
        """When to read next; a series that has not begun waits until `ready_ns`, one that has is brought to its end."""
        if self._last is None:
            return now_ns
        if self.period_ns is None:
            return max(self._last[0] + round(self._gap_ns), ready_ns)
        if self._aim_ns is None:
            self._take_aim(self.period_ns, max(now_ns, ready_ns))
        assert self._aim_ns is not None
        return round(self._aim_ns - self._reach_ns if self._looks == 0 else self._last[0] + self._step_ns)

    @property
    def is_looking(self) -> bool:
        """Whether a series of readings around a movement is under way."""
        return self.period_ns is not None and self._aim_ns is not None and self._looks > 0

    def rest(self) -> None:
        """No movement is looked for until `next_ns` is asked again."""
        if self.period_ns is not None:
            self._aim_ns, self._looks = None, 0

    def see(self, at_ns: int, joules: float, cost_s: float, *, is_dense: bool) -> Kept | None:
        """Take in one reading; what of it goes into the record.

        A movement is kept with the reading before it where they lie within one period. Where no movement is looked for
        (`is_dense` false) every reading that differs is kept.
        """
        before, self._last = self._last, (at_ns, joules)
        if before is None:
            self._kept_at_ns = self._shown_at_ns = at_ns
            return Kept(None)
        moved, period_ns = joules != before[1], self.period_ns
        self._shown_at_ns = at_ns if moved else self._shown_at_ns
        self._paid_s += cost_s
        if period_ns is None:
            self._search(before[0], at_ns, moved)
        elif self._aim_ns is not None and at_ns >= self._aim_ns - self._reach_ns:
            self._look(self._aim_ns, before[0], at_ns, moved)
        is_close = moved and (period_ns is None or at_ns - before[0] <= max(period_ns, 2 * LEAST_GAP_NS))
        if not (is_close or (moved and not is_dense) or at_ns - self._kept_at_ns >= HEARTBEAT_NS):
            return None
        self._kept_at_ns = at_ns
        return Kept(before[0] if is_close else None, None if moved else self._shown_at_ns)

    def _search(self, before_ns: int, at_ns: int, moved: bool) -> None:
        if self._since_ns is None:
            self._since_ns = before_ns
        self._polls += 1
        self._streak = self._streak + 1 if moved else 0
        self._quiet = 0 if moved else self._quiet + 1
        if moved:
            self._seen.append((before_ns + at_ns) / 2)
        gap_ns = (at_ns - self._since_ns) / self._polls
        is_closest = self._gap_ns <= LEAST_GAP_NS
        if self._streak > INTERVALS:
            self._lock(gap_ns)
        elif self._streak > RESOLVED and not is_closest:
            self._seek(self._gap_ns / 2)
        elif self._quiet > 2 * INTERVALS:
            self._seek(self._gap_ns * 2)
        elif len(self._seen) > LOOKS:
            self._weigh(gap_ns, is_closest)

    def _weigh(self, gap_ns: float, is_closest: bool) -> None:
        """End the search where the movements seen so far tell the period; go closer where they cannot."""
        intervals = [after - before for before, after in itertools.pairwise(self._seen)]
        median = statistics.median(intervals)
        if median < (RESOLVED - 0.5) * gap_ns and not is_closest:
            self._seek(self._gap_ns / 2)
        elif len(intervals) >= INTERVALS:
            # An interval with a missed movement counts as two: the total is more exact than the median.
            self._lock(sum(intervals) / sum(max(1, round(interval / median)) for interval in intervals))

    def _lock(self, period_ns: float) -> None:
        self.period_ns, self.changes = period_ns, len(self._seen)
        self._tick_ns = self._heard_ns = self._seen[-1]
        self._half_ns = REACH_SHARE * period_ns
        self._strays: collections.deque[float] = collections.deque(maxlen=LOOKS)
        self._spans: collections.deque[tuple[float, int]] = collections.deque(maxlen=2 * INTERVALS)
        self._aim_ns = None
        self._looks = 0
        self._misses: collections.deque[bool] = collections.deque(maxlen=LOOKS)
        self._rested_ns = self._tick_ns

    def _take_aim(self, period_ns: float, earliest_ns: int) -> None:
        """The next movement that can be surrounded."""
        from_ns = max(float(earliest_ns), self._rested_ns)
        periods = max(1, math.ceil((from_ns - self._tick_ns) / period_ns))
        while True:
            least_ns = min(max(STEP_SHARE * period_ns, LEAST_GAP_NS), MOST_STEP_NS)
            self._reach_ns = min(period_ns / 2 + least_ns, self._half_ns + periods * period_ns * DRIFT)
            if self._tick_ns + periods * period_ns - self._reach_ns >= from_ns:
                break
            periods += 1
        self._step_ns = max(least_ns, self._reach_ns / LOOKS)
        self._aim_ns, self._looks, self._paid_s = self._tick_ns + periods * period_ns, 0, 0.0

    def _look(self, aim_ns: float, before_ns: int, at_ns: int, moved: bool) -> None:
        """One reading of the series around a movement: the first shows where the counter stands, unless it is close."""
        assert self.period_ns is not None
        self._looks += 1
        gap_ns = at_ns - before_ns
        if self._looks == 1 and at_ns > aim_ns - self._reach_ns + 2 * self._step_ns:
            self._end_series(at_ns)  # the reader woke too late: that says nothing of the counter
            return
        if moved and gap_ns <= max(self.period_ns / 2, 2 * self._step_ns):
            self._hit(aim_ns, before_ns, at_ns)
        elif moved and self._looks > 1:
            self._end_series(at_ns)  # the reader was held up: the movement is somewhere in a long gap
        elif (moved and gap_ns < self.period_ns) or at_ns >= aim_ns + self._reach_ns:
            self._miss()

    def _hit(self, aim_ns: float, before_ns: int, at_ns: int) -> None:
        assert self.period_ns is not None
        seen_ns = (before_ns + at_ns) / 2
        self._strays.append(abs(seen_ns - aim_ns) + (at_ns - before_ns) / 2)
        self._half_ns = min(self.period_ns / 2, 1.5 * max(self._strays))
        periods = round((seen_ns - self._heard_ns) / self.period_ns)
        if 0 < periods <= INTERVALS:
            self._spans.append((seen_ns - self._heard_ns, periods))
        self._tick_ns, self._heard_ns = (seen_ns + aim_ns) / 2, seen_ns
        if sum(count for _, count in self._spans) >= INTERVALS:
            self.period_ns = sum(span for span, _ in self._spans) / sum(count for _, count in self._spans)
            self.changes = len(self._spans) + 1
        self._misses.append(False)
        self._end_series(at_ns)
        if self._is_lost():
            self._seek(self.period_ns / (2 * RESOLVED))

    def _is_lost(self) -> bool:
        """Whether movements come no nearer to where they are expected than chance would have it: a quarter period."""
        assert self.period_ns is not None
        is_told_apart = self.period_ns > LOOKS * LEAST_GAP_NS * 2
        return is_told_apart and len(self._strays) == LOOKS and statistics.fmean(self._strays) > LOST * self.period_ns

    def _miss(self) -> None:
        assert self.period_ns is not None and self._last is not None
        self._misses.append(True)
        self._half_ns = min(self.period_ns / 2, 2 * self._half_ns)
        self._end_series(self._last[0])
        if sum(self._misses) >= MOST_MISSES:
            self._seek(self.period_ns / (2 * RESOLVED))

    def _end_series(self, at_ns: int) -> None:
        """Rest for so long that the series costs no more than its share of a core."""
        self._aim_ns, self._looks = None, 0
        self._rested_ns = at_ns + max(PAUSE_NS, self._paid_s / self._share * 1e9)
