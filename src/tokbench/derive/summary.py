"""`summary.json`: every derived number with interval, conditions and validity; its shape is in docs/summary-json.md.

Never holds NaN or Infinity, and never a 0 for a value that could not be had.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tokbench.derive.bounds.found import Bounds, CellBound, Choice, DepthFloor, RepeatRow, StepFit
from tokbench.derive.decision import Decision, list_decision
from tokbench.derive.energy.listing import list_energy
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.metrics import METRICS_VERSION
from tokbench.derive.published import Comparison, NoComparison, list_harness
from tokbench.derive.sentinels import drift_limit, find_blocks, run_drift
from tokbench.derive.speculation.listing import list_tables
from tokbench.derive.standing import Beside
from tokbench.record.facts import Agreement, CeilingFacts, Frozen
from tokbench.record.run import Run
from tokbench.stats import Estimate

SUMMARY_SCHEMA = 1
"""1: first version. Keys are only added within a version."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]


def summarise_results(
    results: Sequence[Results],
    beside: Sequence[Beside],
    bounds: Sequence[Bounds],
    decision: Decision | None = None,
    claims: Sequence[Json] = (),
) -> JsonObject:
    """The summary of one run, or of several merged in the order given; `bounds` holds those of each run."""
    if not results:
        raise ValueError("a summary needs at least one run")
    paired = list(zip(results, bounds, strict=True))
    runs: list[JsonObject] = [{**_run(item), "limits": _limits(found)} for item, found in paired]
    merged: list[Json] = [*runs[1:]]
    return {
        "schema": SUMMARY_SCHEMA,
        "run": {**runs[0], "merged_with": merged},
        "cells": [_cell(cell, found) for item, found in paired for cell in item.cells],
        "published": [_beside(item) for item in beside],
        "decision": [] if decision is None else _plain(list_decision(decision)),
        "claims": list(claims),
    }


def dump_summary(summary: JsonObject) -> str:
    """The summary as text: sorted keys, one trailing newline.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _run(results: Results) -> JsonObject:
    run, header = results.run, results.run.header
    return {
        "name": results.name,
        "schema_version": header.schema_version,
        "metrics_version": METRICS_VERSION,
        "tokbench_version": header.tokbench_version,
        "config_sha256": header.config_sha256,
        "command": list(header.command),
        "seed": header.seed,
        "utc": header.utc,
        "ended": run.ended.reason if run.ended is not None else None,
        "device": _facts(run.device, "the record holds no facts of a device"),
        "device_choice": run.device_choice,
        "host": _facts(run.host, "the record holds no facts of the host"),
        "models": _models(run),
        "ceilings": _ceilings(run),
        "stop": None if run.header.stop is None else _plain(run.header.stop.model_dump(mode="json")),
        "sentinel": _sentinel(run),
        "absent_meters": [
            {"meter": meter.meter, "reason": meter.reason, "remedy": meter.remedy} for meter in run.absent_meters
        ],
    }


def _sentinel(run: Run) -> JsonObject:
    """Every block of the run with its sentinel's speeds, and the drift over the run."""
    blocks = find_blocks(run)
    if not blocks:
        return _missing("the record holds no blocks")
    rows: list[Json] = [
        {
            **{name: value for name, value in dataclasses.asdict(block).items() if name != "started"},
            **{name: _plain(value) for name, value in block.started.model_dump(exclude={"event", "at_ns"}).items()},
            "ratio": block.ratio,
        }
        for block in blocks
    ]
    return {"blocks": rows, "run_ratio": run_drift(blocks), "limit": drift_limit(run)}


def _facts(facts: Frozen | None, reason: str) -> Json:
    return _missing(reason) if facts is None else _plain(facts.model_dump(mode="json"))


def _models(run: Run) -> list[Json]:
    """One entry per worker group: the model, the engine and how long loading took."""
    groups = {cell.planned.group: cell for cell in run.cells.values()}
    entries: list[Json] = []
    for group, cell in groups.items():
        model = None if cell.model is None else cell.model.model_dump(mode="json", exclude={"config_json"})
        entries.append(
            {
                "group": group,
                "load_s": run.load_s.get(group),
                "model": _missing("the model was never loaded") if model is None else _plain(model),
                "engine": _facts(cell.engine, "the engine was never opened"),
            }
        )
    return entries


def _ceilings(run: Run) -> JsonObject:
    found: dict[str, CeilingFacts] = {}
    for facts in run.ceilings:
        found.setdefault(facts.dtype, facts)
    return {dtype: _ceiling(facts) for dtype, facts in found.items()}


def _ceiling(facts: CeilingFacts) -> JsonObject:
    rates: JsonObject = {
        "read_bytes_per_s": _rate(facts.read_bytes_per_s),
        "matmul_flops_per_s": _rate(facts.matmul_flops_per_s),
    }
    return {**rates, "method": facts.method, "buffer_bytes": facts.buffer_bytes, "repetitions": facts.repetitions}


def _rate(value: float | None) -> Json:
    return _missing("not measured in this run") if value is None else _number(value)


def _cell(cell: CellResult, bounds: Bounds) -> JsonObject:
    bound = next((found for found in bounds.cells if found.cell.cell_id == cell.cell_id), None)
    labels: JsonObject = {key: value for key, value in sorted(cell.labels.items())}
    return {
        "run": cell.run_name,
        "cell_id": cell.cell_id,
        "pair_key": cell.pair_key,
        "conditions": _plain(dataclasses.asdict(cell.conditions)),
        "labels": labels,
        "status": cell.status,
        "status_reason": cell.status_reason,
        "validity": {
            "verdict": cell.validity.verdict,
            "reasons": [code.name for code in cell.validity.reasons],
        },
        "metrics": {name: _metric(value) for name, value in cell.metrics.items()},
        "without_disturbed": _without_disturbed(cell),
        "stopped_by": None if cell.stopped is None else _plain(dataclasses.asdict(cell.stopped)),
        "tables": _tables(cell),
        "energy": _plain(list_energy(cell.energy)),
        "bound": _missing("no decode step of a static batch was measured") if bound is None else _bound(bound),
        "repeats": [_repeat(row) for row in bounds.repeats if row.cell.cell_id == cell.cell_id],
    }


def _without_disturbed(cell: CellResult) -> JsonObject:
    """The figures without the repetitions that something disturbed, by metric, beside how many and why."""
    found = cell.undisturbed
    values: JsonObject = {name: _metric(value) for name, value in found.metrics.items()}
    return {**values, "left_out": found.left_out, "why": [code.name for code in found.why]}


def _bound(bound: CellBound) -> JsonObject:
    return {
        "kind": bound.kind,
        "memory_share": _end(bound.memory_share),
        "compute_share": _end(bound.compute_share),
        "host_share": _end(bound.host_share),
        "rest_s": _end(bound.rest_s),
        "sentence": bound.sentence,
    }


def _repeat(row: RepeatRow) -> JsonObject:
    return {
        "against": row.against,
        "steps": row.steps,
        "tokens_equal": row.tokens_equal,
        "states_equal": row.states_equal,
        "max_abs_difference": _end(row.max_abs_difference),
    }


def _limits(bounds: Bounds) -> JsonObject:
    """What cells tell together; a cell stands as its id."""
    return {
        "fits": [_fit(fit) for fit in bounds.fits],
        "unfitted": list(bounds.unfitted),
        "depths": [_depth(floor) for floor in bounds.depths],
        "contexts": [_plain(dataclasses.asdict(cost)) for cost in bounds.contexts],
        "prefills": [_plain(dataclasses.asdict(curve)) for curve in bounds.prefills],
        "choices": [_choice(choice) for choice in bounds.choices],
    }


def _fit(fit: StepFit) -> JsonObject:
    points: list[Json] = [
        {"cell_id": point.cell.cell_id, "step_s": point.step_s, "step_bytes": point.step_bytes} for point in fit.points
    ]
    return {
        "mode": fit.mode,
        "precision": fit.precision,
        "t0_s": _number(fit.t0_s),
        "t0_interval_s": _plain(fit.t0_interval_s),
        "bytes_per_s": _number(fit.bytes_per_s),
        "bytes_per_s_interval": _plain(fit.bytes_per_s_interval),
        "r_squared": _number(fit.r_squared),
        "points": points,
    }


def _depth(floor: DepthFloor) -> JsonObject:
    caps: list[Json] = [{"layers": layers, "tokens_per_s": _number(cap)} for layers, cap in floor.caps_tokens_per_s]
    fields: JsonObject = {name: _plain(value) for name, value in dataclasses.asdict(floor).items()}
    return {**fields, "caps_tokens_per_s": caps}


def _choice(choice: Choice) -> JsonObject:
    rows = zip(choice.cells, choice.values, choice.slowdowns, choice.byte_ratios, strict=True)
    members: list[Json] = [
        {"cell_id": cell.cell_id, "value": value, "slowdown_x": _metric(slowdown), "byte_ratio": _end(ratio)}
        for cell, value, slowdown, ratio in rows
    ]
    return {"setting": choice.setting, "cells": members}


def _metric(value: Estimate | Missing) -> JsonObject:
    if isinstance(value, Missing):
        return _missing(value.reason)
    if not math.isfinite(value.value):
        return _missing(f"the formula gave {value.value}")
    return {
        "value": value.value,
        "low": _end(value.low),
        "high": _end(value.high),
        "n": value.n,
        "unit": value.unit,
        "statistic": value.statistic,
        "blocks": value.blocks,
        "sd_within": _end(value.sd_within),
        "sd_between": _end(value.sd_between),
        "basis": value.basis,
    }


def _end(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _tables(cell: CellResult) -> JsonObject:
    """What has an index: the values behind each interval, and the checks of the tokens."""
    repetitions: JsonObject = {
        name: [_number(value) for value in values] for name, values in cell.repetitions.items() if len(values) > 1
    }
    tables: JsonObject = {"repetitions": repetitions} if repetitions else {}
    workers = [trial.started.worker_id for trial in cell.record.good_trials()]
    if workers:
        numbers = {worker: number for number, worker in enumerate(dict.fromkeys(workers))}
        tables["processes"] = [numbers[worker] for worker in workers]
    if cell.record.identity:
        tables["identity"] = [
            _plain(item.model_dump(mode="json", exclude={"event", "cell_id"})) for item in cell.record.identity
        ]
    tables.update({name: _plain(table) for name, table in list_tables(cell.record).items()})
    return tables


def _beside(item: Beside) -> JsonObject:
    outcome = item.outcome
    head: JsonObject = {
        "run": item.cell.run_name,
        "cell_id": item.cell.cell_id,
        "vendor": outcome.vendor,
        "metric": outcome.metric,
    }
    if isinstance(outcome, NoComparison):
        return {**head, **_missing(outcome.reason)}
    return {**head, **_comparison(outcome), "harness_efficiency": _plain(list_harness(item.harness))}


def _comparison(comparison: Comparison) -> JsonObject:
    counts: JsonObject = {agreement.value: comparison.count(agreement) for agreement in Agreement}
    rows: list[Json] = [
        {"field": row.field, "ours": row.ours, "theirs": row.theirs, "agreement": row.agreement.value}
        for row in comparison.differences
    ]
    other_ids: list[Json] = [other.theirs.id for other in comparison.others]
    return {
        "ours": _metric(comparison.ours),
        "theirs": _plain(comparison.theirs.model_dump(mode="json")),
        "ours_over_theirs": {
            "value": _number(comparison.ours_over_theirs),
            "low": _end(comparison.ours_over_theirs_low),
            "high": _end(comparison.ours_over_theirs_high),
        },
        "theirs_range": _plain(comparison.theirs_range._asdict()),
        "is_per_device": comparison.is_per_device,
        "kept_out": [shortfall.name for shortfall in comparison.shortfalls],
        "match": comparison.match,
        "their_size_over_ours": comparison.their_size_over_ours,
        "their_active_size_over_ours": comparison.their_active_size_over_ours,
        "is_like_for_like": comparison.is_like_for_like,
        "unlike": list(comparison.unlike),
        "counts": counts,
        "differences": rows,
        "other_figures": other_ids,
    }


def _missing(reason: str) -> JsonObject:
    return {"missing": reason}


def _number(value: float) -> Json:
    return value if math.isfinite(value) else _missing(f"the formula gave {value}")


def _plain(value: object) -> Json:
    """Values of facts as JSON, numbers that are not finite as missing."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _number(value)
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    raise TypeError(f"no JSON for {type(value).__name__}")
