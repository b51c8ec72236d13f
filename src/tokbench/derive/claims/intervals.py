"""Numbers with bounds, and what arithmetic makes of the bounds. Pure: it knows neither units nor claims.

Every operation takes the worst of both ends, so the true result is inside. Two mentions of one interval count as two
numbers: `x - x` has a width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class UndefinedError(ValueError):
    """The operation has no value somewhere inside the intervals, e.g. a division by one that holds zero."""


class Interval(NamedTuple):
    """A number and the bounds that it lies between."""

    low: float
    mid: float
    high: float

    @property
    def is_point(self) -> bool:
        """Whether it has no width."""
        return self.low == self.high


def point(value: float) -> Interval:
    """A number without width."""
    return Interval(value, value, value)


def hull(intervals: Sequence[Interval]) -> Interval:
    """The smallest interval around all; its mid is the median of theirs."""
    return Interval(
        min(item.low for item in intervals),
        middle([item.mid for item in intervals]),
        max(item.high for item in intervals),
    )


def middle(values: Sequence[float]) -> float:
    """The median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def add(a: Interval, b: Interval) -> Interval:
    """a + b."""
    return _checked(a.low + b.low, a.mid + b.mid, a.high + b.high)


def subtract(a: Interval, b: Interval) -> Interval:
    """a - b."""
    return _checked(a.low - b.high, a.mid - b.mid, a.high - b.low)


def multiply(a: Interval, b: Interval) -> Interval:
    """a · b."""
    return at_corners(lambda x, y: x * y, a, b)


def divide(a: Interval, b: Interval) -> Interval:
    """a / b. Raises: UndefinedError where b holds zero."""
    if b.low <= 0.0 <= b.high:
        raise UndefinedError("a division by zero, or by an interval that holds it")
    return at_corners(lambda x, y: x / y, a, b)


def power(a: Interval, b: Interval) -> Interval:
    """a to the power of b. Raises: UndefinedError for a base of zero or less with another exponent than 0, 1, 2 …"""
    if a.low > 0.0:
        return at_corners(lambda x, y: x**y, a, b)
    if not (b.is_point and b.mid >= 0 and b.mid == int(b.mid)):
        raise UndefinedError("a power of zero or of a negative number")
    plain = at_corners(lambda x: x**b.mid, a)
    return Interval(0.0, plain.mid, plain.high) if b.mid > 0 and b.mid % 2 == 0 and a.high >= 0.0 else plain


def absolute(a: Interval) -> Interval:
    """The distance from zero."""
    low = 0.0 if a.low <= 0.0 <= a.high else min(abs(a.low), abs(a.high))
    return Interval(low, abs(a.mid), max(abs(a.low), abs(a.high)))


def logarithm(a: Interval, base: float = math.e) -> Interval:
    """The logarithm. Raises: UndefinedError where a reaches zero."""
    if a.low <= 0.0:
        raise UndefinedError("a logarithm of zero or of a negative number")
    return at_corners(lambda x: math.log(x) if base == math.e else math.log(x) / math.log(base), a)


def root(a: Interval) -> Interval:
    """The square root. Raises: UndefinedError below zero."""
    if a.low < 0.0:
        raise UndefinedError("a root of a negative number")
    return at_corners(math.sqrt, a)


def at_corners(function: Callable[..., float], *arguments: Interval) -> Interval:
    """A function that is monotone in each argument: its bounds lie at the corners.

    Raises:
        UndefinedError: it has no value there, or one that is not finite.
    """
    try:
        values = [function(*corner) for corner in itertools.product(*((item.low, item.high) for item in arguments))]
        mid = function(*(item.mid for item in arguments))
    except (ArithmeticError, ValueError) as error:
        raise UndefinedError(str(error)) from None
    return _checked(min(values), mid, max(values))


def _checked(low: float, mid: float, high: float) -> Interval:
    if not all(math.isfinite(value) for value in (low, mid, high)):
        raise UndefinedError("a result that is not finite")
    return Interval(min(low, mid), mid, max(mid, high))  # rounding may put mid a hair outside
