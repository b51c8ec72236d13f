"""What a device costs per hour: rows of `data/prices.yaml`, each bound one dated offer of one provider.

It holds no price of tokens, those are published figures, and never fills in a bound that nobody offered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from tokbench.derive.published.sheet import (
    Count,
    Date,
    Day,
    FieldError,
    Positive,
    Slug,
    Text,
    Url,
    first_day,
    read_sheet,
)
from tokbench.errors import DataError
from tokbench.record.catalog import DATA_DIR, find_device, load_devices
from tokbench.record.facts import Frozen

PRICES: Final = DATA_DIR / "prices.yaml"


class Offer(Frozen):
    """What one provider asked for one device and hour, on one day."""

    model_config = ConfigDict(strict=True)

    usd_per_hour: Positive
    provider: Slug
    term: Literal["on-demand", "spot", "reserved"] | None = None
    devices: Count = 1
    """The offer is a machine of so many; the price is the machine's, divided by them."""
    region: Text | None = None
    published: Date
    read_on: Day
    is_primary: bool
    source_url: Url
    source_title: Text
    notes: Text | None = None

    @model_validator(mode="after")
    def _check_dates(self) -> Offer:
        if first_day(self.published) > first_day(self.read_on):
            raise FieldError("published", f"later than it was read ({self.read_on})")
        return self


class RentPrice(Frozen):
    """What one device, or one machine without an accelerator, is let for: the usual offer and the market's edges."""

    model_config = ConfigDict(strict=True)

    device: Text | None = None
    instance: Text | None = None
    low: Offer | None = None
    mid: Offer
    high: Offer | None = None
    notes: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_fields_together(self) -> RentPrice:
        if (self.device is None) == (self.instance is None):
            raise FieldError("device", "give either `device` or `instance`")
        for name, offer, is_below in (("low", self.low, True), ("high", self.high, False)):
            gap = 0.0 if offer is None else offer.usd_per_hour - self.mid.usd_per_hour
            if gap > 0 if is_below else gap < 0:
                message = f"low <= mid <= high is broken: mid is {self.mid.usd_per_hour}"
                raise FieldError(f"{name}.usd_per_hour", message)
        return self

    @property
    def name(self) -> str:
        """The device or the instance."""
        return self.device or self.instance or ""


def load_prices(path: Path = PRICES) -> tuple[RentPrice, ...]:
    """Every row.

    Raises:
        DataError: the file, a row or a field is wrong, a device is unknown, or it stands twice.
    """
    devices = {row.name for row in load_devices()}
    found: dict[str, RentPrice] = {}
    for row in read_sheet(path, "prices", RentPrice):
        if row.device is not None and row.device not in devices:
            fix = "write the name as data/devices.yaml has it, or `instance:` for a machine without an accelerator"
            raise DataError("no device of data/devices.yaml", file=str(path), row=row.name, field="device", fix=fix)
        if row.name in found:
            raise DataError("stands twice", file=str(path), row=row.name, field="device")
        found[row.name] = row
    return tuple(found.values())


def find_price(reported_name: str, path: Path = PRICES) -> RentPrice | None:
    """The price of the device that a driver or a user names; None where no row is meant.

    Raises:
        DataError: a row is wrong.
    """
    rows = {row.name: row for row in load_prices(path)}
    device = find_device(reported_name)
    return rows.get(reported_name if device is None else device.name)
