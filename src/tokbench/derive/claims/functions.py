"""The functions of the claims' language, by name. A function is pure, and knows no claim.

One of a series whose result moves with every entry is exact at the entries' ends; no other kind is here.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final, TypeVar

from tokbench.arithmetic import expected_distinct_experts, tokens_per_round
from tokbench.derive.claims import intervals, truths
from tokbench.derive.claims.dimensions import PLAIN, Dimension
from tokbench.derive.claims.intervals import Interval, UndefinedError, at_corners, middle
from tokbench.derive.claims.values import (
    Cause,
    Lacking,
    Number,
    Quantity,
    Rest,
    RuleError,
    Series,
    Truth,
    Truths,
    Value,
    combine,
    shared_keys,
)

Call = Callable[[str, Sequence[Value]], Value]
ValueT = TypeVar("ValueT", bound=Value)


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """One function: how many arguments it takes, and what it makes of them."""

    least: int
    most: int
    call: Call


def _number(name: str, value: Value) -> Number:
    if isinstance(value, Truth | Truths):
        raise RuleError(f"{name}() takes a number, not a comparison")
    return value


def _plain_number(name: str, value: Value) -> Number:
    number = _number(name, value)
    if number.dimension != PLAIN:
        raise RuleError(f"{name}() takes a plain number, not one in {number.dimension.symbol}; divide by q(1, '…')")
    return number


def _series(name: str, value: Value) -> Series | Lacking:
    if isinstance(value, Series) or (isinstance(value, Lacking) and value.axis is not None):
        return value
    raise RuleError(f"{name}() takes a series; give the input a `by:`")


def _truth_series(name: str, value: Value) -> Truths:
    if isinstance(value, Truths):
        return value
    raise RuleError(f"{name}() takes a comparison of a series; give its input a `by:`")


def _each(function: Callable[[Interval], Interval], exponent: Fraction = Fraction(1)) -> Function:
    def call(name: str, values: Sequence[Value]) -> Value:
        number = _number(name, values[0])
        return combine(function, number.dimension.to(exponent), number)

    return Function(1, 1, call)


def _of_plain(function: Callable[..., Interval], count: int = 1) -> Function:
    def call(name: str, values: Sequence[Value]) -> Value:
        return combine(function, PLAIN, *(_plain_number(name, value) for value in values))

    return Function(count, count, call)


def _extreme(pick: Callable[..., float]) -> Function:
    def call(name: str, values: Sequence[Value]) -> Value:
        numbers = [_number(name, value) for value in values]
        if len({number.dimension for number in numbers}) > 1:
            raise RuleError(f"{name}() of unlike units: {', '.join(n.dimension.symbol or 'plain' for n in numbers)}")
        return combine(lambda *each: at_corners(pick, *each), numbers[0].dimension, *numbers)

    return Function(2, 6, call)


def _of_series(pick: Callable[[Sequence[float]], float]) -> Function:
    def call(name: str, values: Sequence[Value]) -> Value:
        series = _series(name, values[0])
        if isinstance(series, Lacking):
            return Lacking(series.dimension, None, series.causes)
        own = [interval for _, interval, _ in series.entries]
        ends = [pick([interval[end] for interval in own]) for end in range(3)]
        return Quantity(Interval(*ends), series.dimension, frozenset[Rest]().union(*(r for _, _, r in series.entries)))

    return Function(1, 1, call)


def _of_truths(judge: Callable[[Truths], Truth]) -> Function:
    def call(name: str, values: Sequence[Value]) -> Value:
        return judge(_truth_series(name, values[0]))

    return Function(1, 1, call)


def _count(name: str, values: Sequence[Value]) -> Value:
    counted = values[0]
    return truths.count(counted if isinstance(counted, Truths) else _series(name, counted))


def _slope(name: str, values: Sequence[Value]) -> Value:
    """Least squares: linear in y, so its bounds are those of a sum with known weights."""

    def fit(xs: Sequence[Interval], ys: Sequence[Interval]) -> Interval:
        if not all(x.is_point for x in xs):
            raise UndefinedError(f"{name}() needs an x without width")
        mean = math.fsum(x.mid for x in xs) / len(xs)
        spread = math.fsum((x.mid - mean) ** 2 for x in xs)
        if spread == 0:
            raise UndefinedError(f"{name}() needs two different x")
        total = intervals.point(0.0)
        for x, y in zip(xs, ys, strict=True):
            total = intervals.add(total, intervals.multiply(intervals.point((x.mid - mean) / spread), y))
        return total

    return _of_pairs(name, values, fit)


def _rank_correlation(name: str, values: Sequence[Value]) -> Value:
    """Kendall's tau-a. A pair whose intervals overlap may go either way, and then widens the result.

    Source: M. G. Kendall, A new measure of rank correlation, Biometrika 30 (1938).
    """

    def rank(xs: Sequence[Interval], ys: Sequence[Interval]) -> Interval:
        pairs = list(itertools.combinations(range(len(xs)), 2))
        if not pairs:
            raise UndefinedError(f"{name}() needs two entries")
        signs = [(_sign(xs[a], xs[b]), _sign(ys[a], ys[b])) for a, b in pairs]
        known = [one * other for one, other in signs if one is not None and other is not None]
        open_pairs, sure = len(pairs) - len(known), sum(known)
        mid = sum(_order(xs[a].mid, xs[b].mid) * _order(ys[a].mid, ys[b].mid) for a, b in pairs)
        return Interval((sure - open_pairs) / len(pairs), mid / len(pairs), (sure + open_pairs) / len(pairs))

    return _of_pairs(name, values, rank)


def _sign(a: Interval, b: Interval) -> int | None:
    """Which is the larger: 1 for b, -1 for a, 0 for two equal points, None where they overlap."""
    if a.high < b.low:
        return 1
    if b.high < a.low:
        return -1
    return 0 if a == b and a.is_point else None


def _order(a: float, b: float) -> int:
    return (b > a) - (b < a)


def _of_pairs(
    name: str, values: Sequence[Value], function: Callable[[Sequence[Interval], Sequence[Interval]], Interval]
) -> Value:
    x, y = (_series(name, value) for value in values)
    dimension = _pair_dimension(name, x, y)
    if x.axis != y.axis:
        raise RuleError(f"series by {x.axis} and by {y.axis} cannot be set side by side")
    if isinstance(x, Lacking) or isinstance(y, Lacking):
        lacking = [item.causes for item in (x, y) if isinstance(item, Lacking)]
        return Lacking(dimension, None, frozenset[Cause]().union(*lacking))
    keys = shared_keys(x, y)
    columns = [[next(item for item in series.entries if item[0] == key) for key in keys] for series in (x, y)]
    try:
        interval = function(*([own for _, own, _ in column] for column in columns)) if keys else None
    except UndefinedError as error:
        return Lacking(dimension, None, frozenset({Cause(None, str(error), False)}))
    if interval is None:
        return Lacking(dimension, None, frozenset({Cause(None, f"no {x.axis} stands on both sides", False)}))
    return Quantity(
        interval, dimension, frozenset[Rest]().union(*(rests for column in columns for _, _, rests in column))
    )


def _pair_dimension(name: str, x: Series | Lacking, y: Series | Lacking) -> Dimension:
    return y.dimension.times(x.dimension, -1) if name == "slope" else PLAIN


def _dominating_pairs(name: str, values: Sequence[Value]) -> Value:
    """Ordered pairs of keys of which the first is larger in every series, by at least the margin (0.1: by 10 %)."""
    margin, columns = _plain_number(name, values[0]), [_series(name, value) for value in values[1:]]
    causes = [item.causes for item in (margin, *columns) if isinstance(item, Lacking)]
    if causes:
        return Lacking(PLAIN, None, frozenset[Cause]().union(*causes))
    series = [item for item in columns if isinstance(item, Series)]
    if not isinstance(margin, Quantity):
        raise RuleError(f"{name}() takes one margin")
    if len({item.axis for item in series}) > 1:
        raise RuleError(f"{name}() takes series by one key")
    tables = [{key: (own, rests) for key, own, rests in item.entries} for item in series]
    factor = intervals.add(intervals.point(1.0), margin.interval)
    counts = [0, 0, 0]
    for one, other in itertools.permutations(shared_keys(*series), 2):
        gaps = [intervals.subtract(x[one][0], intervals.multiply(factor, x[other][0])) for x in tables]
        for end in range(3):
            counts[end] += all(gap[end] >= 0 for gap in gaps)
    rests = frozenset[Rest]().union(*(own for table in tables for _, own in table.values()))
    return Quantity(Interval(*map(float, counts)), PLAIN, rests)


def _whole(value: float) -> int:
    if value != int(value):
        raise UndefinedError(f"{value} is no whole number")
    return int(value)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "abs": _each(intervals.absolute),
    "sqrt": _each(intervals.root, Fraction(1, 2)),
    "ceil": _of_plain(lambda a: at_corners(math.ceil, a)),
    "floor": _of_plain(lambda a: at_corners(math.floor, a)),
    "exp": _of_plain(lambda a: at_corners(math.exp, a)),
    "log": _of_plain(intervals.logarithm),
    "log2": _of_plain(lambda a: intervals.logarithm(a, 2.0)),
    "log10": _of_plain(lambda a: intervals.logarithm(a, 10.0)),
    "min": _extreme(min),
    "max": _extreme(max),
    "least": _of_series(min),
    "greatest": _of_series(max),
    "median": _of_series(middle),
    "total": _of_series(math.fsum),
    "count": Function(1, 1, _count),
    "any": _of_truths(truths.some),
    "all": _of_truths(truths.every),
    "slope": Function(2, 2, _slope),
    "rank_correlation": Function(2, 2, _rank_correlation),
    "dominating_pairs": Function(3, 6, _dominating_pairs),
    "tokens_per_round": _of_plain(lambda a, g: at_corners(lambda x, y: tokens_per_round(x, _whole(y)), a, g), 2),
    "distinct_experts": _of_plain(
        lambda e, k, n: at_corners(lambda x, y, z: expected_distinct_experts(_whole(x), _whole(y), _whole(z)), e, k, n),
        3,
    ),
}
"""All but `q`, which the parser reads: its unit is text."""
