"""What a million tokens cost on the box, and the joules of one. Every amount is had by `derive/cost`.

An interval is interval arithmetic: the cheapest price with the fastest end of the speed's interval, and the reverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from tokbench.derive.cost.amounts import Joules, Point, host_band, total_usd
from tokbench.derive.cost.joules import find_joules
from tokbench.derive.decision.rents import HourlyPrice, Rents, price_of_hour
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.cost import CostSpec
from tokbench.record.run import Run
from tokbench.stats import Estimate, estimate_blocks
from tokbench.units import USD_PER_MILLION

ARITHMETIC: Final = "interval_arithmetic"
SYSTEM: Final = "output_tokens_per_s"


@dataclasses.dataclass(frozen=True, slots=True)
class CostAt:
    """USD per million tokens while the box does this work for a share of all hours."""

    utilisation: float
    output_with_prompts: Estimate | Missing
    """Everything paid by the output tokens, as `usd_per_million_output_tokens` has it at this utilisation."""
    output: Estimate | Missing
    input: Estimate | Missing
    """The same money split between prompt and answer; see `_split_by_time`."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoxCost:
    """One cell with prices."""

    price: HourlyPrice | Missing
    middle: Point | None
    """At the mean speed, the middle price and the middle of the host band; None without a price."""
    ends: tuple[Point, ...]
    """The same at each end of the prices and of the host band."""
    at: tuple[CostAt, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EnergyPerToken:
    """`energy_j_per_output_token` and what its joules cover; the prompt's are not among those of a static batch."""

    joules: Estimate | Missing
    scope: str | None


def cost_of(run: Run, cell: CellResult, rents: Rents) -> BoxCost:
    """The cost of a cell at every utilisation that its prices state."""
    price = price_of_hour(run, cell, rents)
    speed = cell.metrics.get(SYSTEM)
    if isinstance(price, Missing) or not isinstance(speed, Estimate):
        return BoxCost(price, None, (), ())
    joules, why = _joules_of(run, cell)

    def point(prices: CostSpec, factor: float | None) -> Point:
        return Point(prices, speed.value, joules, why, cell.conditions.hardware, host_factor=factor)

    middle = point(price.mid, None)
    ends = tuple(point(prices, factor) for prices in (price.low, price.high) for factor in _factors(middle))
    at = tuple(_cost_at(cell, (middle, *ends), utilisation) for utilisation in price.mid.utilisation)
    return BoxCost(price, middle, ends, at)


def energy_of(cell: CellResult) -> EnergyPerToken:
    """Joules of an output token with their scope; a script's never count."""
    value = cell.metrics.get("energy_j_per_output_token")
    scope = cell.energy.headline[0].group.scope if cell.energy.headline else None
    if not isinstance(value, Estimate):
        return EnergyPerToken(Missing(value.reason if value is not None else t("no energy was measured")), None)
    if scope == "script":
        return EnergyPerToken(Missing(t("the joules come from a script, not from a meter")), None)
    return EnergyPerToken(value, scope)


def _joules_of(run: Run, cell: CellResult) -> tuple[Joules | None, str]:
    """What the metered part takes, or why that is not known."""

    def find(name: str) -> Sequence[float]:
        value = cell.metrics[name]
        if isinstance(value, Missing):
            raise UndefinedError(value.reason)
        return [value.value]

    joules, why = find_joules(run, cell.record, find)
    if joules is not None and joules.scope == "script":
        return None, t("the joules come from a script, not from a meter")
    return joules, why


def _factors(point: Point) -> tuple[float | None, ...]:
    """The ends of the host band, where electricity is paid apart and the band is stated."""
    if point.prices.electricity_included or point.joules is None:
        return (None,)
    try:
        return tuple(dict.fromkeys(host_band(point.prices, point.joules.scope, point.device)))
    except UndefinedError:
        return (None,)


_Blocks: TypeAlias = Sequence[Sequence[float]]
_Reckon: TypeAlias = Callable[[Point], _Blocks]


def _cost_at(cell: CellResult, points: Sequence[Point], utilisation: float) -> CostAt:
    used = [dataclasses.replace(point, utilisation=utilisation) for point in points]
    whole = _over_ends(used, lambda point: _by_repetition(cell, point))
    if isinstance(whole, Missing):
        return CostAt(utilisation, whole, whole, whole)
    shares = _prefill_shares(cell)
    if isinstance(shares, Missing):
        return CostAt(utilisation, whole, shares, shares)
    assert cell.conditions.prompt_tokens is not None
    per_prompt = cell.record.spec.workload.output_tokens / cell.conditions.prompt_tokens
    return CostAt(
        utilisation,
        whole,
        _over_ends(used, lambda point: _split_by_time(cell, point, shares, 1.0)[1]),
        _over_ends(used, lambda point: _split_by_time(cell, point, shares, per_prompt)[0]),
    )


def _over_ends(points: Sequence[Point], reckon: _Reckon) -> Estimate | Missing:
    """The estimate at the first point, its interval widened to those of all points."""
    try:
        found = [estimate_blocks(reckon(point), USD_PER_MILLION.symbol) for point in points]
    except UndefinedError as undefined:
        return Missing(str(undefined))
    middle, lows, highs = found[0], [one.low for one in found], [one.high for one in found]
    if len({(one.low, one.high) for one in found}) == 1:
        return middle
    known_low, known_high = ([end for end in ends if end is not None] for ends in (lows, highs))
    if len(known_low) < len(found):
        return dataclasses.replace(middle, low=None, high=None, basis="none")
    return dataclasses.replace(middle, low=min(known_low), high=max(known_high), statistic=ARITHMETIC)


def _by_repetition(cell: CellResult, point: Point) -> _Blocks:
    return [
        [total_usd(dataclasses.replace(point, tokens_per_s=rate)) for rate in block] for block in cell.blocks[SYSTEM]
    ]


def _prefill_shares(cell: CellResult) -> _Blocks | Missing:
    """The share of a pass that its prefill takes, by repetition."""
    if any(trial.requests for trial in cell.record.good_trials()):
        return Missing(t("prefill and decode of requests run side by side: only their sum has a cost"))
    if cell.conditions.prompt_tokens is None:
        return Missing(t("the prompt length is not fixed"))
    if any(name not in cell.blocks for name in ("ttft_s", "e2e_latency_s")):
        return Missing(t("the engine does not cut prefill from decode"))
    pairs = zip(cell.blocks["ttft_s"], cell.blocks["e2e_latency_s"], strict=True)
    return [[first / whole for first, whole in zip(*blocks, strict=True)] for blocks in pairs]


def _split_by_time(cell: CellResult, point: Point, shares: _Blocks, per_prompt: float) -> tuple[_Blocks, _Blocks]:
    """USD of a million input tokens and of a million output tokens, by the time that prefill and decode take.

    Formula: with c the cost of an output token that pays for everything, n output and m prompt tokens a request, and s
    the prefill's share of a pass: input c s n / m, output c (1 - s). The first output token comes out of the prefill.
    Electricity is spread by time too, as if both took the same power. `per_prompt` is n / m.
    """
    whole = _by_repetition(cell, point)
    pairs = [list(zip(*blocks, strict=True)) for blocks in zip(whole, shares, strict=True)]
    return (
        [[cost * share * per_prompt for cost, share in block] for block in pairs],
        [[cost * (1 - share) for cost, share in block] for block in pairs],
    )
