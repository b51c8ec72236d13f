"""When to stop: enough repetitions of a cell, and a warm-up that is over. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from tokbench.stats.estimates import MIN_BLOCKS, estimate_blocks

LOOKS = 3
"""Looks in a row at which the interval must be narrow. A rule that stops at the first narrow interval prefers the
spreads that are small by chance: coverage falls to 90 %. Measured in docs/design/statistics.md."""


@dataclasses.dataclass(frozen=True, slots=True)
class StopRule:
    """When a cell has enough repetitions: the interval is narrow, or the count is reached."""

    rel_ci: float
    min_repetitions: int
    max_repetitions: int
    min_blocks: int = 1
    """Worker processes at the first look. Fewer than MIN_BLOCKS promise nothing about another process."""

    def is_met(self, blocks: Sequence[Sequence[float]]) -> bool:
        """Whether no further repetition is needed; one inner sequence per worker process, in order.

        The interval must be narrow with all processes, without the last one, and without the last two, so
        `min_blocks` + 2 are the fewest. Where `min_blocks` is below MIN_BLOCKS, one narrow interval is enough.
        """
        filled = [block for block in blocks if block]
        count = sum(len(block) for block in filled)
        if count >= self.max_repetitions:
            return True
        if not filled or count < self.min_repetitions or len(filled) < self.min_blocks:
            return False
        if self.min_blocks < MIN_BLOCKS:
            return self._is_narrow(filled)
        looks = [filled[: len(filled) - back] for back in range(LOOKS)]
        return len(looks[-1]) >= self.min_blocks and all(map(self._is_narrow, looks))

    def _is_narrow(self, blocks: Sequence[Sequence[float]]) -> bool:
        half = estimate_blocks(blocks, "").relative_half_width()
        return half is not None and half <= self.rel_ci


@dataclasses.dataclass(frozen=True, slots=True)
class SteadyRule:
    """When warm-up is over: the last `samples` medians lie within `tolerance` of one another."""

    samples: int
    tolerance: float

    def is_met(self, medians: Sequence[float]) -> bool:
        """Whether the signal is steady; a relative spread over the last samples."""
        last = medians[-self.samples :]
        return len(last) == self.samples and max(last) - min(last) <= self.tolerance * statistics.median(last)
