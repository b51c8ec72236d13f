"""Estimates from repetitions: intervals, comparison, the stopping rule and the rule of steadiness. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """One quantity from n repetitions. `low` and `high` bound a 95 % interval, None with fewer than two."""

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str
    statistic: str
    """`geometric_mean`, `mean`, `exact` (a count or a size that does not vary) …"""

    def relative_half_width(self) -> float | None:
        """Half the interval over the value; None without an interval."""
        if self.low is None or self.high is None or self.value == 0:
            return None
        return (self.high - self.low) / 2 / abs(self.value)


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution."""
    from scipy.special import stdtrit  # scipy costs 0.2 s: not for --help

    return float(stdtrit(degrees, probability))


def estimate(values: Sequence[float], unit: str, confidence: float = 0.95) -> Estimate:
    """Estimate from one value per repetition: t interval on logarithms, or on plain values if any is not positive.

    Repetitions, never per-token samples: tokens of one trial are autocorrelated.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("an estimate needs finite values")
    use_logs = all(value > 0 for value in values)
    sample = [math.log(value) for value in values] if use_logs else list(values)
    statistic = "geometric_mean" if use_logs else "mean"
    centre = statistics.fmean(sample)
    if min(values) == max(values):
        return Estimate(
            values[0],
            values[0] if len(values) > 1 else None,
            values[0] if len(values) > 1 else None,
            len(values),
            unit,
            statistic,
        )
    half = t_quantile(0.5 + confidence / 2, len(sample) - 1) * statistics.stdev(sample) / math.sqrt(len(sample))
    low, high = centre - half, centre + half
    if use_logs:
        return Estimate(math.exp(centre), math.exp(low), math.exp(high), len(values), unit, statistic)
    return Estimate(centre, low, high, len(values), unit, statistic)


def exact(value: float, unit: str, n: int = 1) -> Estimate:
    """A count or a size that is the same in every repetition."""
    return Estimate(value, None, None, n, unit, "exact")


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """Ratio of paired repetitions (same order), as a t interval on the log ratios.

    Raises:
        ValueError: lengths differ, or a value is not positive.
    """
    if len(numerator) != len(denominator):
        raise ValueError("a paired ratio needs as many numerators as denominators")
    if any(value <= 0 for value in (*numerator, *denominator)):
        raise ValueError("a ratio needs positive values")
    return estimate([a / b for a, b in zip(numerator, denominator, strict=True)], "")


def percentile(values: Sequence[float], percent: float) -> float:
    """The linearly interpolated percentile (0 to 100), as numpy's default.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a percentile needs values")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclasses.dataclass(frozen=True, slots=True)
class StopRule:
    """When a cell has enough repetitions: the interval is narrow, or the count is reached."""

    rel_ci: float
    min_repetitions: int
    max_repetitions: int

    def is_met(self, values: Sequence[float]) -> bool:
        """Whether no further repetition is needed."""
        if len(values) >= self.max_repetitions:
            return True
        if len(values) < self.min_repetitions:
            return False
        half = estimate(values, "").relative_half_width()
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
