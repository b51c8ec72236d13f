"""One amount at every stated utilisation, between the ends of the host band. Prices and speed come with the point."""

from __future__ import annotations

import dataclasses

from tokbench.derive.cost.amounts import Amount, Point, host_band


@dataclasses.dataclass(frozen=True, slots=True)
class AtUse:
    """An amount at one utilisation; `low` and `high` differ where a host band is part of it."""

    utilisation: float
    low: float
    high: float


def at_each_use(point: Point, amount: Amount) -> tuple[AtUse, ...]:
    """The amount at each utilisation that the prices state, in their order.

    Raises:
        UndefinedError: the amount is missing.
    """
    found = []
    for utilisation in point.prices.utilisation:
        used = dataclasses.replace(point, utilisation=utilisation)
        ends = [amount(dataclasses.replace(used, host_factor=factor)) for factor in _factors(point)]
        found.append(AtUse(utilisation, min(ends), max(ends)))
    return tuple(found)


def _factors(point: Point) -> tuple[float, ...]:
    """Both ends of the band where joules are known that it applies to; else an amount without joules needs none."""
    if point.joules is None or (point.prices.host_overhead is None):
        return (1.0,)
    return host_band(point.prices, point.joules.scope, point.device)
