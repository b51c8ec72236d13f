"""The prices that a user states: what stands under `cost:` in a config. It holds no price of its own."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

Share = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(ge=1)]

UTILISATIONS = (0.1, 0.4, 0.8)
"""Shares of the time in use that are shown where a config states none. They span what is met; none is a forecast."""


class CostSpec(BaseModel):
    """Prices and shares to reckon with. They are inputs of the report, not observations: None is not stated."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    usd_per_hour: PositiveFloat | None = None
    """For the whole machine that the cells ran on, whatever part of it they used."""
    electricity_included: bool = False
    """Whether `usd_per_hour` pays for the electricity too, as rents usually do."""
    purchase_usd: PositiveFloat | None = None
    """Price of the whole machine, in place of `usd_per_hour`."""
    purchase_overhead: NonNegativeFloat | None = None
    """Share of the purchase price that comes on top: network, rack, staff, repairs. None stated: nothing is added."""
    lifetime_years: PositiveFloat | None = None
    """Years over which the purchase price is spread evenly, at 8760 hours."""
    usd_per_kwh: PositiveFloat | None = None
    pue: Factor | None = None
    """Energy that the building takes for each joule of its computers; 1 for a machine under a desk."""
    grid_g_per_kwh: NonNegativeFloat | None = None
    """Grams of CO2 equivalent for each kilowatt-hour of the grid."""
    host_overhead: Annotated[tuple[Factor, Factor], Field(strict=False)] | None = None
    """Lower and upper factor from the metered part (a board, a package) to the whole machine at the plug."""
    utilisation: Annotated[tuple[Share, ...], Field(strict=False)] = UTILISATIONS
    """Shares of all hours in which the machine does this work."""

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        if self.usd_per_hour is not None and self.purchase_usd is not None:
            raise ValueError("usd_per_hour and purchase_usd are two prices of one machine: state one")
        if self.electricity_included and self.usd_per_hour is None:
            raise ValueError("electricity_included says what usd_per_hour pays for: state that price")
        if not self.utilisation:
            raise ValueError("utilisation needs one share of the time or more, such as 0.4")
        if self.host_overhead is not None and self.host_overhead[0] > self.host_overhead[1]:
            raise ValueError("host_overhead is the lower factor, then the upper one")
        return self
