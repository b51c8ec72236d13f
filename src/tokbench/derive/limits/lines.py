"""Straight lines through few points: what the fits over bytes, layers, context and prompt length share. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.stats import Estimate, t_quantile

MIN_POINTS = 3
"""Two points always lie on a line: only a third says whether the line is a law."""


class Line(NamedTuple):
    """y = intercept + slope * x. Intervals are of the points' scatter, not of the repetitions behind each point."""

    intercept: Estimate
    slope: Estimate
    r_squared: float | None
    """Share of the (weighted) variance that the line explains; None where the points do not differ in y."""
    n: int


def fit_line(xs: Sequence[float], ys: Sequence[float], *, units: tuple[str, str], is_relative: bool) -> Line:
    """Least squares; `is_relative` minimises relative errors (weights 1/y²), so that small values count as much.

    `units`: of intercept and slope. Intervals: Student's t at 95 % with n - 2 degrees of freedom.
    Source: Draper and Smith, Applied Regression Analysis, 3rd ed., sections 1.4 and 9.2.

    Raises:
        ValueError: fewer than three points, or all at one x.
    """
    if len(xs) < MIN_POINTS or len(set(xs)) < 2:
        raise ValueError("a line needs at least three points, at more than one x")
    weights = [1 / y**2 if is_relative else 1.0 for y in ys]
    total = math.fsum(weights)
    x_mean = math.fsum(w * x for w, x in zip(weights, xs, strict=True)) / total
    y_mean = math.fsum(w * y for w, y in zip(weights, ys, strict=True)) / total
    points = list(zip(weights, xs, ys, strict=True))
    spread = math.fsum(w * (x - x_mean) ** 2 for w, x, _ in points)
    slope = math.fsum(w * (x - x_mean) * (y - y_mean) for w, x, y in points) / spread
    intercept = y_mean - slope * x_mean
    residual = math.fsum(w * (y - intercept - slope * x) ** 2 for w, x, y in points)
    variance = math.fsum(w * (y - y_mean) ** 2 for w, _, y in points)
    noise = residual / (len(points) - 2)
    reach = t_quantile(0.975, len(points) - 2)
    name = "weighted_least_squares" if is_relative else "least_squares"
    slope_half = reach * math.sqrt(noise / spread)
    start_half = reach * math.sqrt(noise * (1 / total + x_mean**2 / spread))
    return Line(
        Estimate(intercept, intercept - start_half, intercept + start_half, len(points), units[0], name),
        Estimate(slope, slope - slope_half, slope + slope_half, len(points), units[1], name),
        None if variance == 0 else 1 - residual / variance,
        len(points),
    )


def inverse(value: Estimate, unit: str, factor: float = 1.0) -> Estimate:
    """`factor` / value; without an interval where that of the value reaches 0, since it then has no upper end.

    Raises:
        ValueError: the value is not positive.
    """
    if value.value <= 0:
        raise ValueError("only a positive value has an inverse here")
    low, high = value.low, value.high
    if low is None or high is None or low <= 0:
        return Estimate(factor / value.value, None, None, value.n, unit, value.statistic)
    return Estimate(factor / value.value, factor / high, factor / low, value.n, unit, value.statistic)


def scaled(value: Estimate, unit: str, factor: float) -> Estimate:
    """value * factor, for a positive factor without error of its own."""
    low = None if value.low is None else value.low * factor
    high = None if value.high is None else value.high * factor
    return Estimate(value.value * factor, low, high, value.n, unit, value.statistic)
