"""Run -> Results: every metric of every cell as an Estimate, or Missing with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from tokbench.derive.codes import DISTURBING, Code
from tokbench.derive.disturbances import find_disturbances
from tokbench.derive.energy.rows import CellEnergy
from tokbench.derive.metrics import CellContext, Metric, UndefinedError, catalog
from tokbench.derive.repetitions import ByPrompt, ByWorker, CountedByPrompt, by_process
from tokbench.derive.stopping import STEERED_BY, Stopped, find_stop
from tokbench.derive.validity import Validity, judge_cell
from tokbench.derive.words import t
from tokbench.record.depth import name_with_layers
from tokbench.record.facts import Conditions, Weights
from tokbench.record.run import CellRecord, Run
from tokbench.record.spec import CellSpec, ModelSpec
from tokbench.stats import Estimate, estimate_blocks, estimate_count, estimate_plain, exact
from tokbench.units import Unit

Status = Literal["ok", "failed", "oom", "timeout", "skipped", "planned"]
PRECISIONS = {
    **{"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"},
    **{"int8": "int8", "int4": "int4", "int4_g128": "int4", "mxfp4": "mxfp4"},
    **{"fp8": "fp8", "fp8_tensor": "fp8", "fp8_block": "fp8"},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """A value that cannot be had, and why."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Undisturbed:
    """The figures of a cell without the repetitions that something disturbed; they stand beside the headline's."""

    metrics: dict[str, Estimate | Missing]
    """Those that vary from repetition to repetition; empty where nothing disturbed one."""
    left_out: int
    """How many repetitions that leaves out."""
    why: tuple[Code, ...]


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
    """From every finished repetition, whatever disturbed it."""
    repetitions: dict[str, tuple[float, ...]]
    """The values behind each estimate, one per repetition, in the order in which they were had."""
    blocks: dict[str, tuple[tuple[float, ...], ...]]
    """The same values by the worker process that their repetition ran in."""
    undisturbed: Undisturbed
    stopped: Stopped | None
    """None for a cell without a repetition."""
    energy: CellEnergy
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
    status, reason = status_of(cell)
    context = CellContext(cell, run)
    values = _compute(context)
    blocks = {item: by_process(cell, found) for item, found in values.items() if not isinstance(found, Missing)}
    metrics = {item: _estimate(item, found, blocks, reason) for item, found in values.items()}
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
        repetitions={item: found for item, found in values.items() if not isinstance(found, Missing)},
        blocks=blocks,
        undisturbed=_leave_out_disturbed(run, cell, values),
        stopped=find_stop(run, cell, blocks.get(STEERED_BY, ())) if status == "ok" else None,
        energy=context.energy,
        record=cell,
    )


def _compute(context: CellContext) -> dict[str, tuple[float, ...] | Missing]:
    """Every metric of a cell: its values, or why it has none."""
    found: dict[str, tuple[float, ...] | Missing] = {}
    for item in catalog().values():
        try:
            values = item.compute(context)
            found[item.name] = values if isinstance(values, ByWorker | ByPrompt) else tuple(values)
        except UndefinedError as undefined:
            found[item.name] = Missing(str(undefined))
    return found


def _estimate(
    name: str,
    found: tuple[float, ...] | Missing,
    blocks: Mapping[str, tuple[tuple[float, ...], ...]],
    status_reason: str | None,
) -> Estimate | Missing:
    """The estimate of one metric; the reason why a cell has no repetition tells more than the metric's own."""
    if isinstance(found, Missing):
        return Missing(status_reason or found.reason)
    if isinstance(found, CountedByPrompt):
        return estimate_count(found.count(1.0), len(found), catalog()[name].unit.symbol)
    if isinstance(found, ByPrompt):
        return estimate_plain(found, catalog()[name].unit.symbol, found.limits)
    return summarise(catalog()[name], blocks[name])


def _leave_out_disturbed(run: Run, cell: CellRecord, values: Mapping[str, tuple[float, ...] | Missing]) -> Undisturbed:
    """The metrics that vary by repetition, from the repetitions that nothing disturbed alone."""
    disturbed = {trial_id: codes for trial_id, codes in find_disturbances(run, cell).items() if codes}
    if not disturbed:
        return Undisturbed({}, 0, ())
    kept = dataclasses.replace(cell, trials=[t for t in cell.trials if t.started.trial_id not in disturbed])
    before, after = len(cell.good_trials()), len(kept.good_trials())
    metrics: dict[str, Estimate | Missing] = {}
    for name, again in _compute(CellContext(kept, run)).items():
        had = values[name]
        if catalog()[name].is_exact or isinstance(had, Missing | ByWorker | ByPrompt) or len(had) != before:
            continue
        if after == 0:
            metrics[name] = Missing(t("something disturbed every repetition"))
        elif isinstance(again, Missing):
            metrics[name] = again
        else:
            metrics[name] = summarise(catalog()[name], by_process(kept, again))
    earned = {code for codes in disturbed.values() for code in codes}
    return Undisturbed(metrics, len(disturbed), tuple(code for code in DISTURBING if code in earned))


def summarise(item: Metric, blocks: Sequence[Sequence[float]]) -> Estimate:
    """One estimate from one value per repetition, given by worker process."""
    unit: Unit = item.unit
    if item.is_exact:
        values = [value for block in blocks for value in block]
        return exact(values[-1], unit.symbol, len(values))
    return estimate_blocks(blocks, unit.symbol)


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
    return "planned", t("not reached before the run ended")


def _name_from_spec(model: ModelSpec) -> str:
    """What a cell that never loaded would have been called."""
    name = model.source.split(":", 1)[-1]
    return name if model.layers is None else name_with_layers(name, model.layers)


def _precision(cell: CellRecord) -> str:
    """The dtype's short name; of a GGUF, the types that its file has, where it was loaded."""
    dtype = cell.spec.model.dtype
    return cell.model.dtype if dtype == "gguf" and cell.model is not None else PRECISIONS.get(dtype, dtype)


def _weights(cell: CellRecord) -> Weights:
    """What the weights are; where acceptance is replayed, the cell is no better than that."""
    weights, speculation = cell.model.weights if cell.model else cell.spec.model.weights, cell.spec.speculation
    is_replayed = speculation != "none" and speculation.method == "replay"
    return "replay" if is_replayed and weights != "scripted" else weights


def _speculation(spec: CellSpec) -> str:
    """The method of drafting; with the rule of acceptance where that is not lossless."""
    drafting = spec.speculation
    if drafting == "none":
        return "none"
    return drafting.method if drafting.accept == "lossless" else f"{drafting.method}, {drafting.accept}"


def conditions_of(run: Run, cell: CellRecord) -> Conditions:
    """The conditions that the cell's numbers were had under."""
    spec = cell.spec
    load = spec.load
    static_batch = load.static_batch if load.kind == "static_batch" else None
    prompt = spec.workload.prompt_tokens
    return Conditions(
        model=cell.model.name if cell.model else _name_from_spec(spec.model),
        weights=_weights(cell),
        precision=_precision(cell),
        prompt_tokens=prompt,
        output_tokens=spec.workload.output_tokens,
        context_tokens=prompt + spec.workload.output_tokens if prompt is not None else None,
        concurrency=static_batch if static_batch is not None else load.concurrency if load.kind == "closed" else None,
        static_batch=static_batch,
        speculation=_speculation(spec),
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
