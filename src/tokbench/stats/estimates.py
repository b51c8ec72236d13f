"""Estimates from repetitions, and from blocks of them: t intervals, percentiles. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

MIN_BLOCKS = 3
"""Fewer worker processes than this say too little of the variance between processes for an interval."""


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
    blocks: int | None = None
    """Worker processes behind it; None where it is not known which repetition ran in which."""
    sd_within: float | None = None
    """Standard deviation of log values inside a process; None without two repetitions in one process."""
    sd_between: float | None = None
    """Standard deviation of log means from process to process, less what `sd_within` explains; None if unknown."""
    basis: Literal["blocks", "repetitions", "none"] = "none"
    """What the interval rests on: `repetitions` leaves out the variance between processes, `none` has no interval."""

    def relative_half_width(self) -> float | None:
        """Half the interval over the value; None without an interval."""
        if self.low is None or self.high is None or self.value == 0:
            return None
        return (self.high - self.low) / 2 / abs(self.value)


class Spread(NamedTuple):
    """A mean, the variance of that mean, and the degrees of freedom behind it."""

    mean: float
    variance: float
    degrees: float

    def interval(self, confidence: float) -> tuple[float, float, float]:
        """The mean and both ends of its t interval."""
        half = t_quantile(0.5 + confidence / 2, self.degrees) * math.sqrt(self.variance)
        return self.mean, self.mean - half, self.mean + half


def spread_of(sample: Sequence[float]) -> Spread:
    """Mean of at least two independent values, and how well it is known."""
    mean, degrees = statistics.fmean(sample), len(sample) - 1
    squares = math.fsum((value - mean) ** 2 for value in sample)  # statistics.variance works in exact fractions: slow
    return Spread(mean, squares / degrees / len(sample), degrees)


def t_quantile(probability: float, degrees: float) -> float:
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
    statistic = "geometric_mean" if use_logs else "mean"
    if len(values) == 1:
        return Estimate(values[0], None, None, 1, unit, statistic)
    if min(values) == max(values):  # as it was read, not through log and exp
        return Estimate(values[0], values[0], values[0], len(values), unit, statistic, basis="repetitions")
    value, low, high = spread_of([math.log(value) for value in values] if use_logs else values).interval(confidence)
    if use_logs:
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    return Estimate(value, low, high, len(values), unit, statistic, basis="repetitions")


def estimate_plain(
    values: Sequence[float], unit: str, limits: tuple[float, float] = (-math.inf, math.inf), confidence: float = 0.95
) -> Estimate:
    """Estimate from independent values that belong to no process, such as shares of prompts: t interval, no logarithms.

    The interval ends at `limits`, between which every value lies by its nature.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError("an estimate needs finite values")
    if len(values) == 1:
        return Estimate(values[0], None, None, 1, unit, "mean")
    value, low, high = spread_of(values).interval(confidence)
    return Estimate(value, max(low, limits[0]), min(high, limits[1]), len(values), unit, "mean", basis="repetitions")


def estimate_count(hits: int, count: int, unit: str, confidence: float = 0.95) -> Estimate:
    """Estimate of a chance from how many of `count` independent cases had it: Clopper and Pearson's interval.

    All of them, or none, do not make it certain. Source: Clopper and Pearson 1934, Biometrika 26 (4).

    Raises:
        ValueError: no case, or more hits than cases.
    """
    from scipy.special import betaincinv  # scipy costs 0.2 s: not for --help

    if not 0 <= hits <= count or not count:
        raise ValueError(f"{hits} of {count} is no share")
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return Estimate(hits / count, low, high, count, unit, "mean", basis="repetitions")


def estimate_blocks(blocks: Sequence[Sequence[float]], unit: str, confidence: float = 0.95) -> Estimate:
    """Estimate from the repetitions of each worker process: t interval over the processes' log means.

    Processes differ by more than their repetitions show, so a process is what is replicated. With fewer than
    MIN_BLOCKS that are not empty the interval is that of the pooled repetitions, and `basis` says so.
    Autocorrelation and drift inside a process count as `sd_between`. Plain values as in `estimate`, without both sd.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    filled = [block for block in blocks if block]
    pooled = estimate([value for block in filled for value in block], unit, confidence)
    use_logs = pooled.statistic == "geometric_mean"
    sample = [[math.log(value) for value in block] for block in filled] if use_logs else filled
    within, between = _components(sample) if use_logs else (None, None)
    known = dataclasses.replace(pooled, blocks=len(filled), sd_within=within, sd_between=between)
    if len(filled) < MIN_BLOCKS:
        return known
    if pooled.low == pooled.high:
        return dataclasses.replace(known, basis="blocks")
    value, low, high = spread_of([statistics.fmean(block) for block in sample]).interval(confidence)
    if use_logs:
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    return dataclasses.replace(known, value=value, low=low, high=high, basis="blocks")


def _components(logs: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Standard deviations within and between blocks: one-way random effects by the method of moments."""
    degrees = sum(len(block) - 1 for block in logs)
    if degrees == 0:
        return None, None
    means = [statistics.fmean(block) for block in logs]
    squares = [(value - mean) ** 2 for block, mean in zip(logs, means, strict=True) for value in block]
    within = math.fsum(squares) / degrees
    if len(logs) < 2:
        return math.sqrt(within), None
    explained = within * statistics.fmean([1 / len(block) for block in logs])
    return math.sqrt(within), math.sqrt(max(0.0, spread_of(means).variance * len(means) - explained))


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
