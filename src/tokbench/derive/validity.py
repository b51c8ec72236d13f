"""Per cell: valid, suspect or invalid, with reason codes. It judges a record, it never drops anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from tokbench.derive.cell_shape import is_routed
from tokbench.derive.codes import (
    CLOCK_ERROR_SHARE,
    INVALIDATING,
    MIN_CLOCK_ERROR_S,
    MIN_PROCESSES,
    MIN_REPETITIONS,
    NOTES,
)
from tokbench.derive.codes import Code as Code  # noqa: PLC0414 -- its readers import it from here
from tokbench.derive.disturbances import SLOWDOWNS as SLOWDOWNS  # noqa: PLC0414 -- its readers import it from here
from tokbench.derive.disturbances import (
    Around,
    Timeline,
    find_off_clock,
    has_foreign_load,
    is_contended,
    is_gpu,
    is_power_capped,
    is_throttled,
)
from tokbench.derive.metrics import CellContext
from tokbench.derive.sentinels import drifted_blocks
from tokbench.derive.speculation.rounds import adds_up, is_drafting
from tokbench.record import timings
from tokbench.record.facts import DeviceFacts
from tokbench.record.run import CellRecord, Run, Trial
from tokbench.stats import Estimate

Verdict = Literal["valid", "suspect", "invalid"]

MATMUL_RATIOS = ("flops_used_ratio", "prefill_flops_used_ratio")
DATASHEET_RATIOS = ("nominal_flops_used_ratio", "nominal_prefill_flops_used_ratio")
"""`nominal_bandwidth_used_ratio` belongs to them, but where tokens are routed: what is read then is an expectation."""


@dataclasses.dataclass(frozen=True, slots=True)
class Validity:
    """The judgement on one cell."""

    verdict: Verdict
    reasons: tuple[Code, ...]


def judge_cell(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> Validity:
    """Judge one cell by its record and its metrics."""
    if not cell.good_trials():
        return Validity("invalid", ())
    reasons = tuple(code for code, test in _TESTS.items() if test(run, cell, metrics))
    if any(code in INVALIDATING for code in reasons):
        return Validity("invalid", reasons)
    severe = [code for code in reasons if code not in NOTES]
    return Validity("suspect" if severe else "valid", reasons)


def _too_few(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return len(cell.good_trials()) < MIN_REPETITIONS


def _shared_process(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return len({trial.started.worker_id for trial in cell.good_trials()}) < MIN_PROCESSES


def _unsteady(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(trial.finished is not None and trial.finished.is_steady is False for trial in cell.trials)


def _devices(cell: CellRecord) -> list[DeviceFacts]:
    """The device as each trial found it."""
    return [trial.device for trial in cell.trials if trial.device is not None]


def _foreign(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(has_foreign_load(device) for device in _devices(cell))


def _foreign_unknown(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(is_gpu(device) and device.foreign_processes is None for device in _devices(cell))


def _around(run: Run, cell: CellRecord) -> Around:
    return Timeline(run).around(cell.good_trials())


def _contended(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return not is_gpu(run.device) and is_contended(run, _around(run, cell))


def _contended_host(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return is_gpu(run.device) and is_contended(run, _around(run, cell))


def _throttled(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return is_throttled(_around(run, cell))


def _power_capped(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return is_power_capped(_around(run, cell))


def _clocks_moved(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return bool(find_off_clock(run, cell.good_trials()))


def _sentinel_drift(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    drifted = drifted_blocks(run)
    return any(trial.started.block in drifted for trial in cell.good_trials())


def _random_weights(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return (cell.model.weights if cell.model is not None else cell.spec.model.weights) == "random"


def _on_battery(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return bool(run.host and run.host.on_battery)


def _token_counts(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    wanted = cell.spec.workload.output_tokens
    for trial in cell.good_trials():
        traces = [
            trace for window in trial.windows.values() if window.kind in ("prefill", "decode") for trace in window.steps
        ]
        counted = [timings.row_token_counts(trace) for trace in traces]
        if any(sum(counts) != wanted for counts in zip(*counted, strict=True)):
            return True
    return False


def _draft_counts(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return is_drafting(cell.spec) and not all(adds_up(cell, trial) for trial in cell.good_trials())


def _is_above_one(metrics: Mapping[str, Estimate], name: str) -> bool:
    """Whether a used ratio exceeds 1 with its whole interval."""
    used = metrics.get(name)
    return used is not None and (used.low if used.low is not None else used.value) > 1.0


def _above_roofline(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return _is_above_one(metrics, "bandwidth_used_ratio") and not is_routed(CellContext(cell, run))


def _above_uniform_routing(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return _is_above_one(metrics, "bandwidth_used_ratio") and is_routed(CellContext(cell, run))


def _above_matmul_ceiling(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(_is_above_one(metrics, name) for name in MATMUL_RATIOS)


def _above_datasheet(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    bandwidth = () if is_routed(CellContext(cell, run)) else ("nominal_bandwidth_used_ratio",)
    return any(_is_above_one(metrics, name) for name in (*DATASHEET_RATIOS, *bandwidth))


def _recompiled(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(trial.failed is not None and "recompiled" in trial.failed.message for trial in cell.trials)


def _not_interleaved(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return cell.planned.labels.get("order") == "not_interleaved"


def _clock_error(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(
        error is not None and error > max(MIN_CLOCK_ERROR_S, CLOCK_ERROR_SHARE * seconds)
        for trial in cell.good_trials()
        for error, seconds in _clock_errors(trial)
    )


def _clock_errors(trial: Trial) -> list[tuple[float | None, float]]:
    """The clock error of each trace of a trial beside what the trace lasted."""
    steps = [
        (trace.clock_error_s, timings.trace_duration_s(trace))
        for window in (*trial.of_kind("prefill"), *trial.of_kind("decode"))
        for trace in window.steps
    ]
    requests = [
        (trace.clock_error_s, seconds)
        for trace in trial.requests
        if trace.error is None and (seconds := timings.request_e2e_s(trace)) is not None
    ]
    return [*steps, *requests]


def _sources_disagree(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return CellContext(cell, run).energy.has_disagreement


def _energy_bound(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return CellContext(cell, run).energy.has_wide_bound


_TESTS: dict[Code, Callable[[Run, CellRecord, Mapping[str, Estimate]], bool]] = {
    Code.TOO_FEW_REPETITIONS: _too_few,
    Code.SHARED_PROCESS: _shared_process,
    Code.UNSTEADY: _unsteady,
    Code.FOREIGN_LOAD: _foreign,
    Code.FOREIGN_UNKNOWN: _foreign_unknown,
    Code.CONTENDED_CPU: _contended,
    Code.CONTENDED_HOST: _contended_host,
    Code.THROTTLED: _throttled,
    Code.POWER_CAPPED: _power_capped,
    Code.CLOCKS_MOVED: _clocks_moved,
    Code.SENTINEL_DRIFT: _sentinel_drift,
    Code.ON_BATTERY: _on_battery,
    Code.TOKEN_COUNTS: _token_counts,
    Code.DRAFT_COUNTS: _draft_counts,
    Code.ABOVE_ROOFLINE: _above_roofline,
    Code.ABOVE_UNIFORM_ROUTING: _above_uniform_routing,
    Code.ABOVE_MATMUL_CEILING: _above_matmul_ceiling,
    Code.ABOVE_DATASHEET: _above_datasheet,
    Code.RECOMPILED: _recompiled,
    Code.NOT_INTERLEAVED: _not_interleaved,
    Code.CLOCK_ERROR: _clock_error,
    Code.SOURCES_DISAGREE: _sources_disagree,
    Code.ENERGY_BOUND: _energy_bound,
    Code.RANDOM_WEIGHTS: _random_weights,
}
