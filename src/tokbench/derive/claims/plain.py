"""Verdicts as JSON: `tokbench claims --json` and the key `claims` of summary.json. Holds no NaN, and no 0 for a gap."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from tokbench.derive.claims.evidence import Resolved, Source
from tokbench.derive.claims.intervals import Interval
from tokbench.derive.claims.values import Lacking, Quantity, Series, Truth, Truths, Value
from tokbench.derive.claims.verdicts import ClaimVerdict, PartVerdict
from tokbench.derive.summary import Json, JsonObject

CLAIMS_SCHEMA = 1
"""1: first version. Keys are only added within a version."""


def dump_claims(verdicts: Sequence[ClaimVerdict]) -> str:
    """The verdicts as text: sorted keys, one trailing newline."""
    plain: JsonObject = {"schema": CLAIMS_SCHEMA, "claims": plain_claims(verdicts)}
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def plain_claims(verdicts: Sequence[ClaimVerdict]) -> list[Json]:
    """What stands under `claims` in summary.json."""
    return [_claim(verdict) for verdict in verdicts]


def _claim(verdict: ClaimVerdict) -> JsonObject:
    claim = verdict.claim
    contrasts: list[Json] = [
        {"one": c.one, "other": c.other, "different": list(c.different), "unknown": list(c.unknown)}
        for c in verdict.contrasts
    ]
    return {
        "id": claim.id,
        "topic": claim.topic,
        "priority": claim.priority,
        "kind": claim.kind,
        "statement": claim.statement,
        "attributed_to": claim.attributed_to,
        "document": claim.document,
        "verdict": verdict.outcome.value,
        "strength": None if verdict.strength is None else verdict.strength.value,
        "labels": list(verdict.labels),
        "parts": [_part(part) for part in verdict.parts],
        "inputs": {name: _input(item) for name, item in verdict.inputs.items()},
        "differences": contrasts,
        "missing": list(verdict.missing),
        "straddling": list(verdict.straddling),
        "needs": list(verdict.needs),
        "against": claim.against.en,
    }


def _part(part: PartVerdict) -> JsonObject:
    return {
        "name": part.half.name,
        "says": part.half.says.en,
        "verdict": part.outcome.value,
        "by_rules": part.by_rules.value,
        "because": part.because.value,
        "single_sources": list(part.single_sources),
        "supports_if": _rule(part.half.supports_if, part.evaluated.supports),
        "refutes_if": _rule(part.half.refutes_if, part.evaluated.refutes),
        "steps": {name: _value(value) for name, value in part.evaluated.steps.items()},
        "deadline": part.half.deadline,
        "needs": part.needs,
        "takes": None if part.takes is None else part.takes.en,
    }


def _rule(text: str, truth: Truth) -> JsonObject:
    return {"rule": text, "state": truth.state.value, "straddles": list(truth.straddles)}


def _input(item: Resolved) -> JsonObject:
    return {
        "kind": item.row.kind,
        "decides": item.row.decides,
        "unit": item.unit,
        "base_value": _value(item.value),
        "sources": [_source(source) for source in item.sources],
        "left_out": list(item.left_out),
    }


def _source(source: Source) -> JsonObject:
    conditions: JsonObject | None = None
    if source.conditions is not None:
        conditions = {key: value for key, value in dataclasses.asdict(source.conditions).items() if value is not None}
    return {
        "source": source.key,
        "name": source.name,
        "value": None if source.interval is None else _ends(source.interval),
        "unit": source.unit,
        "by": source.by,
        "date": source.date,
        "read_on": source.read_on,
        "url": source.url,
        "statistic": source.statistic,
        "labels": list(source.labels),
        "conditions": conditions,
    }


def _value(value: Value) -> JsonObject:
    """A value in base units (s, J, B, tokens …) of its dimension."""
    match value:
        case Quantity():
            return {**_ends(value.interval), "unit": value.dimension.symbol}
        case Series():
            return {
                "by": value.axis,
                "unit": value.dimension.symbol,
                "entries": {key: _ends(interval) for key, interval, _ in value.entries},
            }
        case Lacking():
            return {"missing": "; ".join(sorted(str(cause.reason) for cause in value.causes))}
        case Truth():
            return {"state": value.state.value}
        case Truths():
            return {"by": value.axis, "states": {key: truth.state.value for key, truth in value.entries}}


def _ends(interval: Interval) -> JsonObject:
    return {"low": interval.low, "value": interval.mid, "high": interval.high}
