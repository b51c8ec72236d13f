"""Which input moves a cost the most: each one varied alone, by a fifth or over its stated range, the rest as it is."""

from __future__ import annotations

import dataclasses

from tokbench.derive.cost.amounts import Amount, Point, host_band

SWING = 0.2
"""Share by which an input without a stated range is lowered and raised."""
_PRICES = (
    "usd_per_hour",
    "purchase_usd",
    "purchase_overhead",
    "lifetime_years",
    "usd_per_kwh",
    "pue",
    "grid_g_per_kwh",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Swing:
    """One input at its two ends, and what the amount is there."""

    name: str
    from_value: float
    to_value: float
    at_from: float
    at_to: float
    is_stated_range: bool

    @property
    def spread(self) -> float:
        """How far the two results lie apart."""
        return abs(self.at_to - self.at_from)


def swings(point: Point, amount: Amount) -> tuple[Swing, ...]:
    """Every input that moves the amount, the one that moves it most first; an input that does not is left out.

    Raises:
        UndefinedError: the amount is missing.
    """
    amount(point)
    found = [_swing(name, ends, is_range, amount) for name, ends, is_range in _varied(point)]
    return tuple(sorted((item for item in found if item.spread > 0), key=lambda item: -item.spread))


_Ends = tuple[tuple[float, Point], tuple[float, Point]]


def _swing(name: str, ends: _Ends, is_range: bool, amount: Amount) -> Swing:
    (low, at_low), (high, at_high) = ends
    return Swing(name, low, high, amount(at_low), amount(at_high), is_range)


def _varied(point: Point) -> list[tuple[str, _Ends, bool]]:
    rows: list[tuple[str, _Ends, bool]] = []
    stated = point.prices.model_dump()
    for name in _PRICES:
        if stated[name] is not None:
            rows.append((name, _price_ends(point, name, stated[name]), False))
    low, high = _fifth(point.tokens_per_s)
    at_low, at_high = (dataclasses.replace(point, tokens_per_s=value) for value in (low, high))
    rows.append(("output_tokens_per_s", ((low, at_low), (high, at_high)), False))
    shares = point.prices.utilisation
    low, high = min(shares), max(shares)
    at_low, at_high = (dataclasses.replace(point, utilisation=value) for value in (low, high))
    rows.append(("utilisation", ((low, at_low), (high, at_high)), True))
    return rows + _joule_rows(point)


def _joule_rows(point: Point) -> list[tuple[str, _Ends, bool]]:
    joules = point.joules
    if joules is None:
        return []
    rows: list[tuple[str, _Ends, bool]] = []
    low, high = _fifth(joules.busy_j)
    at_low, at_high = (_with_joules(point, busy_j=value) for value in (low, high))
    rows.append(("joules per output token", ((low, at_low), (high, at_high)), False))
    low, high = _fifth(joules.idle_w)
    at_low, at_high = (_with_joules(point, idle_w=value) for value in (low, high))
    rows.append(("idle_power_w", ((low, at_low), (high, at_high)), False))
    if point.prices.host_overhead is not None:
        low, high = host_band(point.prices, joules.scope, point.device)
        at_low, at_high = (dataclasses.replace(point, host_factor=value) for value in (low, high))
        rows.append(("host_overhead", ((low, at_low), (high, at_high)), True))
    return rows


def _with_joules(point: Point, busy_j: float | None = None, idle_w: float | None = None) -> Point:
    assert point.joules is not None
    joules = dataclasses.replace(
        point.joules,
        busy_j=point.joules.busy_j if busy_j is None else busy_j,
        idle_w=point.joules.idle_w if idle_w is None else idle_w,
    )
    return dataclasses.replace(point, joules=joules)


def _price_ends(point: Point, name: str, value: float) -> _Ends:
    low, high = _fifth(value)
    low = max(low, 1.0) if name == "pue" else low  # a building takes no less than its computers
    at_low, at_high = (
        dataclasses.replace(point, prices=point.prices.model_copy(update={name: end})) for end in (low, high)
    )
    return (low, at_low), (high, at_high)


def _fifth(value: float) -> tuple[float, float]:
    return value * (1 - SWING), value * (1 + SWING)
