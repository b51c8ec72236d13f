"""Run -> Results: every metric of every cell as an Estimate, or Missing with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from tokbench.derive.metrics import CellContext, Metric, UndefinedError, catalog
from tokbench.derive.validity import Validity, judge_cell
from tokbench.record.depth import name_with_layers
from tokbench.record.facts import Conditions
from tokbench.record.run import CellRecord, Run
from tokbench.record.spec import ModelSpec
from tokbench.stats import Estimate, estimate, exact
from tokbench.units import Unit

Status = Literal["ok", "failed", "oom", "timeout", "skipped", "planned"]
PRECISIONS = {
    **{"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"},
    **{"int8": "int8", "int4": "int4", "fp8": "fp8", "mxfp4": "mxfp4"},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """A value that cannot be had, and why."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class CellResult:
    """One cell with everything derived from it."""

    cell_id: str
    pair_key: str
    run_name: str
    conditions: Conditions
    labels: dict[str, str]
    status: Status
    status_reason: str | None
    validity: Validity
    metrics: dict[str, Estimate | Missing]
    repetitions: dict[str, tuple[float, ...]]
    """The values behind each estimate, one per repetition."""
    record: CellRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """Everything derived from one run."""

    run: Run
    name: str
    cells: tuple[CellResult, ...]


def evaluate(run: Run, name: str) -> Results:
    """Derive every metric of every cell of a run."""
    return Results(run, name, tuple(_evaluate_cell(run, cell, name) for cell in run.cells.values()))


def _evaluate_cell(run: Run, cell: CellRecord, name: str) -> CellResult:
    context = CellContext(cell, run)
    metrics: dict[str, Estimate | Missing] = {}
    repetitions: dict[str, tuple[float, ...]] = {}
    status, reason = status_of(cell)
    for item in catalog().values():
        try:
            values = tuple(item.compute(context))
        except UndefinedError as undefined:
            metrics[item.name] = Missing(reason or str(undefined))
            continue
        metrics[item.name] = summarise(item, values)
        repetitions[item.name] = values
    return CellResult(
        cell_id=cell.cell_id,
        pair_key=cell.planned.pair_key,
        run_name=name,
        conditions=conditions_of(run, cell),
        labels=dict(cell.planned.labels),
        status=status,
        status_reason=reason,
        validity=judge_cell(run, cell, metrics_values(metrics)),
        metrics=metrics,
        repetitions=repetitions,
        record=cell,
    )


def summarise(item: Metric, values: Sequence[float]) -> Estimate:
    """One estimate from one value per repetition."""
    unit: Unit = item.unit
    if item.is_exact:
        return exact(values[-1], unit.symbol, len(values))
    return estimate(values, unit.symbol)


def metrics_values(metrics: dict[str, Estimate | Missing]) -> dict[str, Estimate]:
    """Those metrics that have a value."""
    return {name: value for name, value in metrics.items() if isinstance(value, Estimate)}


def status_of(cell: CellRecord) -> tuple[Status, str | None]:
    """How a cell ended, and why if not well."""
    if cell.good_trials():
        return "ok", None
    failures = [trial.failed for trial in cell.trials if trial.failed is not None]
    if failures:
        last = failures[-1]
        kind: Status = "oom" if last.cause == "oom" else "timeout" if last.cause == "timeout" else "failed"
        return kind, last.message
    if cell.skipped is not None:
        kind = "oom" if cell.skipped.cause == "oom" else "timeout" if cell.skipped.cause == "timeout" else "skipped"
        kind = "failed" if cell.skipped.cause in ("killed", "crashed", "engine") else kind
        return kind, cell.skipped.reason
    return "planned", "not reached before the run ended"


def _name_from_spec(model: ModelSpec) -> str:
    """What a cell that never loaded would have been called."""
    name = model.source.split(":", 1)[-1]
    return name if model.layers is None else name_with_layers(name, model.layers)


def conditions_of(run: Run, cell: CellRecord) -> Conditions:
    """The conditions that the cell's numbers were had under."""
    spec = cell.spec
    load = spec.load
    static_batch = load.static_batch if load.kind == "static_batch" else None
    prompt = spec.workload.prompt_tokens
    return Conditions(
        model=cell.model.name if cell.model else _name_from_spec(spec.model),
        weights=cell.model.weights if cell.model else spec.model.weights,
        precision=PRECISIONS[spec.model.dtype],
        prompt_tokens=prompt,
        output_tokens=spec.workload.output_tokens,
        context_tokens=prompt + spec.workload.output_tokens if prompt is not None else None,
        concurrency=static_batch if static_batch is not None else load.concurrency if load.kind == "closed" else None,
        static_batch=static_batch,
        speculation=spec.speculation if isinstance(spec.speculation, str) else spec.speculation.method,
        engine=spec.engine.kind,
        mode=spec.engine.mode,
        attention_kernel=cell.engine.attention_kernel if cell.engine else None,
        experts_kernel=cell.engine.experts_kernel if cell.engine else None,
        hardware=spec.hardware or (run.device.name if run.device else None),
        device_count=spec.device_count,
        devices_per_stream=spec.device_count,
        measured_by="tokbench",
        as_of=run.header.utc[:10],
    )
