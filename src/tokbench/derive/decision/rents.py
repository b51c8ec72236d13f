"""What an hour of the box costs: as the run's config states it, else what the device is rented for. No other price."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from tokbench.derive.cost.amounts import usd_per_hour
from tokbench.derive.cost.prices import prices_of
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published.prices import Offer, find_price
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.cost import CostSpec
from tokbench.record.run import Run

PriceSource = Literal["rent_stated", "purchase_stated", "rent_published"]


@dataclasses.dataclass(frozen=True, slots=True)
class Rent:
    """What one device is rented for by the hour, in USD; an end that nobody states is the middle."""

    low: float
    mid: float
    high: float
    offers: tuple[Offer, ...] = ()
    """The rows behind low, middle and high, where they are of data/prices.yaml."""


Rents = Mapping[str, Rent]
"""By the device's name as the record has it."""


@dataclasses.dataclass(frozen=True, slots=True)
class HourlyPrice:
    """An hour of the whole box in USD: a stated price three times, or the range of what is published."""

    source: PriceSource
    low: CostSpec
    mid: CostSpec
    high: CostSpec
    offers: tuple[Offer, ...] = ()
    """Behind a published rent; empty for a price of the reader's own."""

    def usd_per_hour(self) -> tuple[float, float, float]:
        """Low, middle and high."""
        low, mid, high = (usd_per_hour(spec) for spec in (self.low, self.mid, self.high))
        return low, mid, high


def find_rents(results: Sequence[Results]) -> dict[str, Rent]:
    """The published rent of every device that a cell ran on; a device without one has no row.

    Raises:
        DataError: a row of data/prices.yaml is wrong.
    """
    names = {cell.conditions.hardware for item in results for cell in item.cells}
    found = {}
    for name in names - {None}:
        row = find_price(str(name))
        if row is not None:
            low, high = row.low or row.mid, row.high or row.mid
            rows = tuple(dict.fromkeys((low, row.mid, high)))
            found[str(name)] = Rent(low.usd_per_hour, row.mid.usd_per_hour, high.usd_per_hour, rows)
    return found


def price_of_hour(run: Run, cell: CellResult, rents: Rents) -> HourlyPrice | Missing:
    """The stated price of the machine; where none is stated, the rent of the cell's devices."""
    try:
        stated = prices_of(run)
        if stated.usd_per_hour is not None or stated.purchase_usd is not None:
            usd_per_hour(stated)
    except UndefinedError as undefined:
        return Missing(str(undefined))
    if stated.usd_per_hour is not None:
        return HourlyPrice("rent_stated", stated, stated, stated)
    if stated.purchase_usd is not None:
        return HourlyPrice("purchase_stated", stated, stated, stated)
    device = cell.conditions.hardware
    rent = rents.get(device) if device is not None else None
    if rent is None:
        named = device or t("an unknown device")
        return Missing(
            t("no price is stated and no rent of {device} is published: --set cost.usd_per_hour=…", device=named)
        )
    count = cell.conditions.device_count or 1
    low, mid, high = (_rented(stated, value * count) for value in (rent.low, rent.mid, rent.high))
    return HourlyPrice("rent_published", low, mid, high, rent.offers)


def _rented(stated: CostSpec, hourly: float) -> CostSpec:
    """A rent pays for the electricity."""
    return stated.model_copy(update={"usd_per_hour": hourly, "electricity_included": True})
