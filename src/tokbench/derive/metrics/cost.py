"""What a million output tokens cost, in money and carbon, at the prices that the run's config states."""

from __future__ import annotations

from collections.abc import Callable

from tokbench.derive.cost.amounts import Point, co2e_g, electricity_usd, hardware_usd, total_usd
from tokbench.derive.cost.joules import points_of
from tokbench.derive.metrics import CellContext, Values, catalog, metric
from tokbench.derive.words import mark
from tokbench.units import USD_PER_MILLION, Better, Unit

GRAMS_PER_MILLION = Unit("gCO2e/1M tokens", ("co2e_g_per_million_output_tokens",), False)


def _find(context: CellContext) -> Callable[[str], Values]:
    """Another metric of the same cell, by name: it is defined once, where it is."""
    return lambda name: catalog()[name].compute(context)


def _by_repetition(context: CellContext) -> list[Point]:
    return points_of(context.run, context.cell, _find(context))


@metric(USD_PER_MILLION, Better.LOWER, mark("Cost per million output tokens, 40 % used"), order=80)
def usd_per_million_output_tokens(context: CellContext) -> Values:
    """Hardware and electricity of a million output tokens of all streams, at a utilisation of 0.4.

    Formula: hardware_usd_per_million_output_tokens + electricity_usd_per_million_output_tokens; the hardware alone
    where cost.electricity_included says that the hourly price pays for both. Missing where either is. The interval is
    that of the speed; joules enter with their mean. Staff, network traffic, taxes and profit are left out.
    """
    return [total_usd(point) for point in _by_repetition(context)]


@metric(USD_PER_MILLION, Better.LOWER, mark("Hardware per million output tokens, 40 % used"), order=81)
def hardware_usd_per_million_output_tokens(context: CellContext) -> Values:
    """The machine's price by the hour, spread over the output tokens of the hours in use, at a utilisation of 0.4.

    Formula: 1e6 * cost.usd_per_hour / 3600 / (output_tokens_per_s * 0.4); a purchase costs purchase_usd *
    (1 + purchase_overhead) / (lifetime_years * 8760) an hour. Interest and resale are left out.
    """
    return [hardware_usd(point) for point in _by_repetition(context)]


@metric(USD_PER_MILLION, Better.LOWER, mark("Electricity per million output tokens, 40 % used"), order=82)
def electricity_usd_per_million_output_tokens(context: CellContext) -> Values:
    """Electricity at the building's meter for a million output tokens, idle hours included, at a utilisation of 0.4.

    Formula: 1e6 * (J per output token + idle_power_w * (1 - 0.4) / 0.4 / output_tokens_per_s) * host_overhead * pue /
    3.6e6 * usd_per_kwh; J per output token = (energy_j_per_output_token * (output_tokens - 1) +
    energy_j_per_prompt_token * prompt_tokens) / output_tokens in a static batch. host_overhead is the middle of the
    stated band, 1 where the whole machine was metered. The interval is that of the speed; joules enter with their mean.
    """
    return [electricity_usd(point) for point in _by_repetition(context)]


@metric(GRAMS_PER_MILLION, Better.LOWER, mark("CO2e per million output tokens, 40 % used"), order=83)
def co2e_g_per_million_output_tokens(context: CellContext) -> Values:
    """Grams of CO2 equivalent of that electricity, at the stated intensity of the grid and a utilisation of 0.4.

    Formula: kilowatt-hours of electricity_usd_per_million_output_tokens * cost.grid_g_per_kwh. What making the machine
    and its building gave off is left out.
    """
    return [co2e_g(point) for point in _by_repetition(context)]
