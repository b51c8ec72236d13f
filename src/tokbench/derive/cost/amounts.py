"""Hardware, electricity and carbon of a million output tokens, from stated prices and measured speed and joules.

Every amount is a number or an `UndefinedError` that names the `--set` which is missing; no price is ever filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tokbench.arithmetic.cost import (
    grid_kwh,
    hardware_usd_per_token,
    metered_j_per_token,
    purchase_usd_per_hour,
    request_j_per_output_token,
)
from tokbench.derive.energy_scope import say_band
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import join, t
from tokbench.record.cost import CostSpec
from tokbench.record.spec import CellSpec

MILLION = 1e6
WHOLE = ("wall", "node", "script")
"""Scopes that have the host in them; a script has none to add."""


@dataclasses.dataclass(frozen=True, slots=True)
class Joules:
    """What the metered part of the machine takes."""

    busy_j: float
    """For each output token of all streams, the prompt's prefill included, idle power not taken off."""
    idle_w: float
    """Warm, the model loaded and nothing running."""
    scope: str


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One cell under stated prices at one utilisation."""

    prices: CostSpec
    tokens_per_s: float
    """Output tokens of all streams."""
    joules: Joules | None
    """None: not measured, for `why_no_joules`."""
    why_no_joules: str = ""
    device: str | None = None
    utilisation: float = 0.4
    host_factor: float | None = None
    """Whole machine over metered part; None is the middle of the stated band."""


Amount = Callable[[Point], float]


def ask(*keys: str) -> str:
    """The options that state what is missing."""
    return " ".join(f"--set cost.{key}=…" for key in keys)


def usd_per_hour(prices: CostSpec) -> float:
    """The price of an hour of the machine, as stated or from its purchase.

    Raises:
        UndefinedError: neither is stated.
    """
    if prices.usd_per_hour is not None:
        return prices.usd_per_hour
    if prices.purchase_usd is None:
        first, other = ask("usd_per_hour"), ask("purchase_usd", "lifetime_years")
        raise UndefinedError(t("no price of the machine is stated: {first}, or {other}", first=first, other=other))
    if prices.lifetime_years is None:
        raise UndefinedError(
            t("a purchase price is spread over years that are not stated: {fix}", fix=ask("lifetime_years"))
        )
    return purchase_usd_per_hour(prices.purchase_usd, prices.lifetime_years, prices.purchase_overhead or 0.0)


def host_band(prices: CostSpec, scope: str, device: str | None) -> tuple[float, float]:
    """Lower and upper factor from what was metered to the whole machine.

    Raises:
        UndefinedError: a part of the machine was metered and no band is stated.
    """
    if scope in WHOLE:
        return 1.0, 1.0
    if prices.host_overhead is None:
        known = say_band(device) if scope in ("board", "boards") else None
        hint = f" ({known})" if known else ""
        raise UndefinedError(
            t("the joules are of the {scope} alone: --set cost.host_overhead=[…, …]{hint}", scope=scope, hint=hint)
        )
    return prices.host_overhead


def joules_of_request(decode_j: float, prefill_j: float | None, spec: CellSpec) -> float:
    """Joules for each output token with the prompt's; those of a serving window have the prompts in them already.

    Raises:
        UndefinedError: the prefill of a static batch was not metered, or the prompt's length is not fixed.
    """
    if spec.load.kind != "static_batch":
        return decode_j
    prompt = spec.workload.prompt_tokens
    if prompt is None or prefill_j is None:
        what = t("the prompt length is not fixed") if prompt is None else t("no energy of the prefill was measured")
        raise UndefinedError(t("{what}: the joules of a whole request are not known", what=what))
    return request_j_per_output_token(decode_j, prefill_j, prompt, spec.workload.output_tokens)


def hardware_usd(point: Point) -> float:
    """USD of the machine for a million output tokens.

    Raises:
        UndefinedError: a price is not stated.
    """
    hourly = usd_per_hour(point.prices)
    return MILLION * hardware_usd_per_token(hourly, point.tokens_per_s, point.utilisation)


def electricity_usd(point: Point) -> float:
    """USD of electricity for a million output tokens, idle hours included.

    Raises:
        UndefinedError: a price, a factor or the joules are missing, or the hourly price pays for it.
    """
    prices = point.prices
    if prices.electricity_included:
        raise UndefinedError(t("usd_per_hour pays for the electricity, as cost.electricity_included says"))
    kwh = _kwh(point, "usd_per_kwh" if prices.usd_per_kwh is None else None)
    assert prices.usd_per_kwh is not None
    return kwh * prices.usd_per_kwh


def total_usd(point: Point) -> float:
    """Hardware and electricity together; never the one without the other, unless the hourly price pays for both.

    Raises:
        UndefinedError: either is missing.
    """
    hardware = hardware_usd(point)
    if point.prices.electricity_included:
        return hardware
    try:
        return hardware + electricity_usd(point)
    except UndefinedError as missing:
        if point.prices.usd_per_hour is None:
            raise UndefinedError(t("the electricity is missing: {reason}", reason=str(missing))) from None
        raise UndefinedError(
            t(
                "the electricity is missing: {reason}, or --set cost.electricity_included=true if the hourly price "
                "pays for it",
                reason=str(missing),
            )
        ) from None


def co2e_g(point: Point) -> float:
    """Grams of CO2 equivalent of the electricity of a million output tokens; making the machine is left out.

    Raises:
        UndefinedError: the grid's intensity, a factor or the joules are missing.
    """
    kwh = _kwh(point, "grid_g_per_kwh" if point.prices.grid_g_per_kwh is None else None)
    assert point.prices.grid_g_per_kwh is not None
    return kwh * point.prices.grid_g_per_kwh


def _kwh(point: Point, unstated: str | None) -> float:
    """Kilowatt-hours of a million output tokens; all that is not stated is asked for at once."""
    missing = [key for key in (unstated, "pue" if point.prices.pue is None else None) if key is not None]
    if missing:
        raise UndefinedError(t("not stated: {missing}; {fix}", missing=join(missing), fix=ask(*missing)))
    if point.joules is None:
        raise UndefinedError(point.why_no_joules)
    assert point.prices.pue is not None
    low, high = host_band(point.prices, point.joules.scope, point.device)
    factor = (low + high) / 2 if point.host_factor is None else point.host_factor
    joules = metered_j_per_token(point.joules.busy_j, point.joules.idle_w, point.tokens_per_s, point.utilisation)
    return MILLION * grid_kwh(joules, point.prices.pue, factor)
