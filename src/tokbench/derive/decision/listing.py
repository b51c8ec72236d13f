"""The decision as plain values: what `summary.json` holds under `decision`. Its shape is in docs/design/decision.md."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from tokbench.derive.decision.breakeven import BreakEven
from tokbench.derive.decision.costs import BoxCost, CostAt
from tokbench.derive.decision.offers import NoOffer, Offer
from tokbench.derive.decision.table import Decision, DecisionRow, OfferBeside
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.published import Comparison, NoComparison
from tokbench.stats import Estimate

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
Fields: TypeAlias = dict[str, Plain]


def list_decision(decision: Decision) -> list[Plain]:
    """One object per workload and promise; what fed none of them stands in the report alone."""
    return [_row(row, decision.today.isoformat()) for row in decision.rows]


def _row(row: DecisionRow, today: str) -> Fields:
    answer, limit, cell = row.answer, row.answer.limit, row.answer.cell
    weaknesses: list[Plain] = [weakness.value for weakness in row.weaknesses]
    workload: Fields = dict(dataclasses.asdict(row.workload))
    return {
        "workload": workload,
        "total_params_b": row.size_b,
        "is_cpu": row.is_cpu,
        "promise": {"decode_tokens_per_s": answer.promise.tokens_per_s, "ttft_p95_s": answer.promise.ttft_s},
        "outcome": answer.outcome.value,
        "is_upper_bound": row.workload.load_kind == "static_batch",
        "cell_id": None if cell is None else cell.cell_id,
        "users": row.users,
        "limit": None if limit is None else {"users": limit.users, "why": limit.why.value},
        "why_not": None if answer.why_not is None else answer.why_not.value,
        "decode_tokens_per_s": _metric(cell, "decode_tokens_per_s"),
        "output_tokens_per_s": _metric(cell, "output_tokens_per_s"),
        "ttft_p95_s": None if row.ttft_p95 is None else _value(row.ttft_p95),
        "roofline_decode_tokens_per_s": None if answer.ceiling is None else _value(answer.ceiling),
        "cost": None if row.cost is None else _cost(row.cost),
        "energy": None
        if row.energy is None
        else {"energy_j_per_output_token": _value(row.energy.joules), "scope": row.energy.scope},
        "harness_efficiency": None if row.harness is None else _harness(row.harness),
        "offers": [_offer(offer) for offer in row.offers],
        "grade": row.grade,
        "weaknesses": weaknesses,
        "command": row.command,
        "prices_as_of": today,
    }


def _metric(cell: CellResult | None, name: str) -> Plain:
    return None if cell is None else _value(cell.metrics.get(name, Missing("not a metric of this version")))


def _value(value: Estimate | Missing) -> Fields:
    if isinstance(value, Missing):
        return {"missing": value.reason}
    return {
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "n": value.n,
        "unit": value.unit,
        "statistic": value.statistic,
        "blocks": value.blocks,
        "basis": value.basis,
    }


def _cost(cost: BoxCost) -> Fields:
    if isinstance(cost.price, Missing):
        return {"missing": cost.price.reason}
    low, mid, high = cost.price.usd_per_hour()
    sources: list[Plain] = [offer.source_url for offer in cost.price.offers]
    return {
        "price_source": cost.price.source,
        "usd_per_hour": {"low": low, "mid": mid, "high": high, "sources": sources},
        "electricity_included": cost.price.mid.electricity_included,
        "at": [_cost_at(at) for at in cost.at],
    }


def _cost_at(at: CostAt) -> Fields:
    return {
        "utilisation": at.utilisation,
        "usd_per_million_output_tokens_with_prompts": _value(at.output_with_prompts),
        "usd_per_million_output_tokens": _value(at.output),
        "usd_per_million_input_tokens": _value(at.input),
    }


def _harness(harness: Comparison | NoComparison | Missing) -> Fields:
    if isinstance(harness, NoComparison | Missing):
        return {"missing": harness.reason}
    ends = {"low": harness.ours_over_theirs_low, "high": harness.ours_over_theirs_high}
    return {"ours_over_theirs": harness.ours_over_theirs, **ends, "theirs": harness.theirs.id}


def _offer(beside: OfferBeside | NoOffer) -> Fields:
    if isinstance(beside, NoOffer):
        return {"vendor": beside.vendor, "missing": beside.reason}
    offer = beside.offer
    weaknesses: list[Plain] = [weakness.value for weakness in beside.weaknesses]
    rows: list[Plain] = [
        {"field": row.field, "ours": row.ours, "theirs": row.theirs, "agreement": row.agreement.value}
        for row in beside.differences
    ]
    return {
        **_figures(offer),
        "vendor": offer.vendor,
        "model": offer.model,
        "match": offer.match,
        "their_size_over_ours": offer.size_ratio,
        "is_asked": offer.is_asked,
        "usd_per_million_output_tokens_with_prompts": _value(offer.blended),
        "holds": beside.holds,
        "break_even": _break_even(beside.break_even),
        "grade": beside.grade,
        "weaknesses": weaknesses,
        "differences": rows,
    }


def _figures(offer: Offer) -> Fields:
    rows = {"price_out": offer.price_out, "price_in": offer.price_in, "speed": offer.speed, "ttft": offer.ttft}
    return {
        name: None
        if row is None
        else {"id": row.id, "value": row.value, "unit": row.unit, "published": row.published, "url": row.source_url}
        for name, row in rows.items()
    }


def _break_even(found: BreakEven | Missing) -> Fields:
    if isinstance(found, Missing):
        return {"missing": found.reason}
    none = Missing("electricity alone costs more than the list price")
    return {
        "output_tokens_per_day": _value(found.tokens_per_day or none),
        "share_of_box": _value(found.share_of_box or none),
        "pays": found.pays.value,
    }
