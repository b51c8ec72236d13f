"""A comparison as JSON; its shape is in docs/compare-json.md. Holds no NaN, and no 0 for what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from tokbench.derive.compare.join import Single
from tokbench.derive.compare.pages import notes
from tokbench.derive.compare.result import Compared, Pair, Row
from tokbench.derive.compare.sides import Side, Subject
from tokbench.derive.evaluate import Missing
from tokbench.derive.metrics import METRICS_VERSION
from tokbench.derive.summary import Json, JsonObject
from tokbench.stats import Estimate

COMPARE_SCHEMA = 1
"""1: first version. Keys are only added within a version."""


def dump_compared(compared: Compared) -> str:
    """The comparison as text: sorted keys, one trailing newline."""
    plain: JsonObject = {
        "schema": COMPARE_SCHEMA,
        "metrics_version": METRICS_VERSION,
        "verdict": compared.verdict.name.lower(),
        "notes": list(notes(compared)),
        "a": _side(compared.a),
        "b": _side(compared.b),
        "pairs": [_pair(pair) for pair in compared.pairs],
        "only_a": _singles(compared.only_a),
        "only_b": _singles(compared.only_b),
    }
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _side(side: Side) -> JsonObject:
    return {"path": side.path, "kind": side.kind, "cells": len(side.cells)}


def _pair(pair: Pair) -> JsonObject:
    match = pair.match
    differences: list[Json] = [
        {"field": row.field, "a": row.ours, "b": row.theirs, "agreement": row.agreement.value}
        for row in match.differences
    ]
    return {
        "key": match.a.key,
        "a": _subject(match.a),
        "b": _subject(match.b),
        "differences": differences,
        "unlike": list(match.unlike),
        "refused": list(pair.refused),
        "rows": [_row(row) for row in pair.rows],
    }


def _subject(subject: Subject) -> JsonObject:
    return {
        "id": subject.identity,
        "name": subject.name,
        "verdict": subject.verdict,
        "reasons": list(subject.doubts),
        "no_result": subject.no_result,
    }


def _row(row: Row) -> JsonObject:
    bound: Json = None
    if row.threshold is not None and row.held is not None:
        bound = {"text": row.threshold.text, "ratio": row.threshold.ratio, "held": row.held.value}
    return {
        "metric": row.metric,
        "unit": row.unit.symbol,
        "better": row.better.value,
        "a": _estimate(row.a),
        "b": _estimate(row.b),
        "ratio": _estimate(row.ratio),
        "outcome": row.outcome,
        "basis": row.basis,
        "n_a": row.n_a,
        "n_b": row.n_b,
        "bound": bound,
    }


def _estimate(value: Estimate | Missing) -> JsonObject:
    if isinstance(value, Missing):
        return {"missing": value.reason}
    return {
        "value": _number(value.value),
        "low": None if value.low is None else _number(value.low),
        "high": None if value.high is None else _number(value.high),
        "statistic": value.statistic,
    }


def _number(value: float) -> Json:
    return value if math.isfinite(value) else {"missing": "not a finite number"}


def _singles(singles: Sequence[Single]) -> list[Json]:
    return [{**_subject(single.subject), "key": single.subject.key, "why": single.why} for single in singles]
