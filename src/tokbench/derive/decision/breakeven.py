"""From how many tokens a day the box is cheaper than a list price, and whether the box can make as many."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Sequence
from typing import Final

from tokbench.arithmetic.cost import grid_kwh
from tokbench.derive.cost.amounts import MILLION, Point, host_band, total_usd, usd_per_hour
from tokbench.derive.decision.costs import ARITHMETIC, SYSTEM, BoxCost
from tokbench.derive.decision.offers import Offer
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.stats import Estimate

DAY_S: Final = 86_400.0
DAY_H: Final = 24.0
TOKENS_PER_DAY: Final = "tokens/day"


class Pays(enum.Enum):
    """Whether the box can be cheaper than the list price."""

    YES = "yes"
    """At every end of the interval the break-even is within what the box can make."""
    NO = "no"
    """At no end: even a box that is busy all day costs more."""
    NOT_SHOWN = "not_shown"


@dataclasses.dataclass(frozen=True, slots=True)
class BreakEven:
    """Output tokens a day, each with its share of the prompt, at which box and list price cost the same."""

    tokens_per_day: Estimate | None
    """None where the electricity of a token alone costs more than the list price: no number of tokens is enough."""
    share_of_box: Estimate | None
    """The same over what the box makes in a day; above 1 it cannot be reached."""
    pays: Pays


def break_even(cell: CellResult, cost: BoxCost, offer: Offer) -> BreakEven | Missing:
    """Where the box's cost of a day equals the list price of what it makes.

    Formula: V = (24 h + k P 86400) / (p - k (J - P / R)), with h USD per hour of the box, p the list price of an output
    token with its prompt, R output_tokens_per_s, and, where electricity is paid apart, k USD per metered joule at the
    building's meter (host_overhead * pue * usd_per_kwh / 3.6e6), J joules per output token of a whole request and P
    idle power; k = 0 where h pays for the electricity, and then V = 24 h / p. The share of the box is V / (86400 R).
    The interval is over every end of h, host_overhead, R and p; joules enter with their mean. Demand that comes in
    peaks needs more boxes at the same V: nothing here knows when the tokens are wanted.
    """
    if offer.match == "nearest_size":
        return Missing(t("their nearest model on sale is of another size"))
    speed = cell.metrics.get(SYSTEM)
    if isinstance(cost.price, Missing):
        return cost.price
    if isinstance(offer.blended, Missing):
        return offer.blended
    if cost.middle is None or not isinstance(speed, Estimate):
        return Missing(t("the system speed is missing"))
    try:
        total_usd(cost.middle)  # asks for every input that is missing
        middle = _tokens(cost.middle, offer.blended.value)
        ends = [
            (_tokens(dataclasses.replace(point, tokens_per_s=rate), price), rate)
            for point, rate, price in itertools.product(
                cost.ends, _ends(speed), tuple(dict.fromkeys(_ends(offer.blended)))
            )
        ]
    except UndefinedError as undefined:
        return Missing(str(undefined))
    shares = [tokens / (DAY_S * rate) for tokens, rate in ends]
    has_interval = speed.low is not None
    return BreakEven(
        _over([tokens for tokens, _ in ends], middle, speed, has_interval, TOKENS_PER_DAY),
        _over(shares, middle / (DAY_S * speed.value), speed, has_interval, ""),
        _judge(shares) if has_interval else Pays.NOT_SHOWN,
    )


def usd_per_day(point: Point) -> float:
    """What the box costs a day before it makes a token: its hours, and idle electricity where that is paid apart."""
    joules = point.joules
    hours = DAY_H * usd_per_hour(point.prices)
    return hours if joules is None else hours + _usd_per_joule(point) * joules.idle_w * DAY_S


def _tokens(point: Point, usd_per_million: float) -> float:
    """Output tokens a day at the break-even; infinite where each one costs more than it earns."""
    per_joule, joules = _usd_per_joule(point), point.joules
    busy = 0.0 if joules is None else per_joule * (joules.busy_j - joules.idle_w / point.tokens_per_s)
    margin = usd_per_million / MILLION - busy
    return usd_per_day(point) / margin if margin > 0 else math.inf


def _usd_per_joule(point: Point) -> float:
    """USD of a metered joule at the building's meter; 0 where the hourly price pays for it."""
    prices, joules = point.prices, point.joules
    if prices.electricity_included or joules is None:
        return 0.0
    if prices.usd_per_kwh is None or prices.pue is None:
        raise UndefinedError(t("the electricity's price is not stated"))
    low, high = host_band(prices, joules.scope, point.device)
    factor = (low + high) / 2 if point.host_factor is None else point.host_factor
    return grid_kwh(1.0, prices.pue, factor) * prices.usd_per_kwh


def _ends(value: Estimate) -> tuple[float, ...]:
    return (value.value,) if value.low is None or value.high is None else (value.low, value.high)


def _over(ends: Sequence[float], middle: float, speed: Estimate, has_interval: bool, unit: str) -> Estimate | None:
    """The middle with the lowest and highest end; an end without bound is None."""
    if math.isinf(middle):
        return None
    low, high = min(ends), max(ends)
    is_bounded = has_interval and not math.isinf(high)
    basis = speed.basis if is_bounded else "none"
    return Estimate(
        middle,
        low if is_bounded else None,
        high if is_bounded else None,
        speed.n,
        unit,
        ARITHMETIC,
        blocks=speed.blocks,
        basis=basis,
    )


def _judge(shares: Sequence[float]) -> Pays:
    if max(shares) <= 1:
        return Pays.YES
    return Pays.NO if min(shares) > 1 else Pays.NOT_SHOWN
