"""Per cell: valid, suspect or invalid, with reason codes. It judges a record, it never drops anything."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Literal

from tokbench.derive.metrics import CellContext
from tokbench.derive.metrics.roofline import is_routed
from tokbench.record import timings
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import LoadSample
from tokbench.record.run import CellRecord, Run, Trial
from tokbench.stats import Estimate

Verdict = Literal["valid", "suspect", "invalid"]

MIN_REPETITIONS = 3
"""Fewer give no interval worth the name."""
CONTENDED_SHARE = 0.2
"""Foreign CPU time above this share of the usable cores disturbs a CPU measurement.

Source: shared/facts/engines.md, Contention, measured 2026-11-21: one foreign busy loop of two cores costs 30 to 85 %.
"""

BUSY_FREE_SHARE = 0.9
"""Less free memory at the run's start, and no process visible, is a card that somebody uses. Our choice."""
CLOCK_ERROR_SHARE = 0.01
"""A clock error above this share of a window spoils its duration. Our choice."""
MIN_CLOCK_ERROR_S = 1e-3
"""A clock error up to this is never spoken of. Our choice."""


class Code(enum.Enum):
    """Why a cell is not plainly valid; the value is what a reader sees."""

    TOO_FEW_REPETITIONS = "too few repetitions"
    UNSTEADY = "the warm-up never became steady"
    FOREIGN_LOAD = "other processes were on the device"
    FOREIGN_UNKNOWN = "other processes on the device cannot be seen from here"
    CONTENDED_CPU = "other processes used the CPU meanwhile"
    CONTENDED_HOST = "other processes used the host's CPU meanwhile; the work was on another device"
    THROTTLED = "the device slowed itself down (thermal or hardware)"
    POWER_CAPPED = "the device ran at its power limit: the speed is a sustained one"
    ON_BATTERY = "the machine ran on battery"
    TOKEN_COUNTS = "token counts disagree with the request"
    ABOVE_ROOFLINE = "faster than the measured ceiling allows"
    ABOVE_UNIFORM_ROUTING = "faster than the measured ceiling allows if tokens were routed evenly to the experts"
    ABOVE_MATMUL_CEILING = "more operations per second, in decode or prefill, than the measured ceiling allows"
    ABOVE_DATASHEET = "faster than the device's datasheet allows"
    RECOMPILED = "a graph was compiled while measuring"
    NOT_INTERLEAVED = "its group was measured apart in time from the others"
    CLOCK_ERROR = "the clocks of host and device were tied too loosely for so short a window"


SLOWDOWNS = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
"""Clock-event reasons that mean trouble; idle and application clocks are ordinary."""
NOTES = frozenset({Code.FOREIGN_UNKNOWN, Code.CONTENDED_HOST, Code.POWER_CAPPED, Code.NOT_INTERLEAVED})
"""Codes that are told but do not make a cell suspect."""
INVALIDATING = frozenset(
    {Code.TOKEN_COUNTS, Code.ABOVE_ROOFLINE, Code.ABOVE_MATMUL_CEILING, Code.ABOVE_DATASHEET, Code.RECOMPILED}
)
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


def _unsteady(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(trial.finished is not None and trial.finished.is_steady is False for trial in cell.trials)


def _devices(cell: CellRecord) -> list[DeviceFacts]:
    """The device as each trial found it."""
    return [trial.device for trial in cell.trials if trial.device is not None]


def _is_gpu(device: DeviceFacts | None) -> bool:
    return device is not None and device.kind in ("cuda", "rocm")


def _looks_busy(device: DeviceFacts) -> bool:
    """Whether memory is in use on a card whose processes cannot be seen."""
    if not _is_gpu(device) or device.foreign_processes is not None:
        return False
    free, memory = device.free_memory_bytes, device.memory_bytes
    return free is not None and memory is not None and free < BUSY_FREE_SHARE * memory


def _foreign(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(device.foreign_processes or _looks_busy(device) for device in _devices(cell))


def _foreign_unknown(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(_is_gpu(device) and device.foreign_processes is None for device in _devices(cell))


def _samples_within(run: Run, cell: CellRecord) -> list[tuple[LoadSample, LoadSample]]:
    """Neighbouring samples that enclose or lie in a finished trial."""
    pairs = list(zip(run.load_samples, run.load_samples[1:], strict=False))
    spans = [(t.started.at_ns, t.finished.at_ns) for t in cell.trials if t.finished is not None]
    return [(a, b) for a, b in pairs if any(a.at_ns < end and b.at_ns > start for start, end in spans)]


def foreign_cpu_share(run: Run, cell: CellRecord) -> float | None:
    """CPU time of processes other than ours over the usable cores, while the cell's trials ran; None if not known.

    Not known either where we may use some of the host's cores only: what others do on the rest is no matter of ours.
    """
    if not sees_only_its_cores(run):
        return None
    foreign = seconds = 0.0
    for a, b in _samples_within(run, cell):
        values = (a.machine_cpu_s, b.machine_cpu_s, a.worker_cpu_s, b.worker_cpu_s, a.parent_cpu_s, b.parent_cpu_s)
        if any(value is None for value in values):
            continue
        machine, worker, parent = values[1] - values[0], values[3] - values[2], values[5] - values[4]  # type: ignore[operator]
        if worker < 0:
            continue
        foreign += machine - worker - parent
        seconds += (b.at_ns - a.at_ns) * 1e-9
    cores = run.host.usable_cores if run.host else None
    if seconds < 0.5 or not cores:
        return None
    return max(foreign, 0.0) / (seconds * cores)


def sees_only_its_cores(run: Run) -> bool:
    """Whether the CPU load of the whole host, which is what a sample holds, is that of the cores we may use."""
    return run.host is None or run.host.usable_cores >= run.host.logical_cores


def _is_contended(run: Run, cell: CellRecord) -> bool:
    share = foreign_cpu_share(run, cell)
    return share is not None and share > CONTENDED_SHARE


def _contended(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return not _is_gpu(run.device) and _is_contended(run, cell)


def _contended_host(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return _is_gpu(run.device) and _is_contended(run, cell)


def _throttled(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any(SLOWDOWNS & set(b.throttle_reasons or ()) for _, b in _samples_within(run, cell))


def _power_capped(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return any("sw_power_cap" in (b.throttle_reasons or ()) for _, b in _samples_within(run, cell))


def _on_battery(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    return bool(run.host and run.host.on_battery)


def _token_counts(run: Run, cell: CellRecord, metrics: Mapping[str, Estimate]) -> bool:
    wanted = cell.spec.workload.output_tokens
    for trial in cell.good_trials():
        traces = [
            trace for window in trial.windows.values() if window.kind in ("prefill", "decode") for trace in window.steps
        ]
        if traces and sum(sum(trace.tokens_per_row) for trace in traces) != wanted:
            return True
    return False


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


_TESTS: dict[Code, Callable[[Run, CellRecord, Mapping[str, Estimate]], bool]] = {
    Code.TOO_FEW_REPETITIONS: _too_few,
    Code.UNSTEADY: _unsteady,
    Code.FOREIGN_LOAD: _foreign,
    Code.FOREIGN_UNKNOWN: _foreign_unknown,
    Code.CONTENDED_CPU: _contended,
    Code.CONTENDED_HOST: _contended_host,
    Code.THROTTLED: _throttled,
    Code.POWER_CAPPED: _power_capped,
    Code.ON_BATTERY: _on_battery,
    Code.TOKEN_COUNTS: _token_counts,
    Code.ABOVE_ROOFLINE: _above_roofline,
    Code.ABOVE_UNIFORM_ROUTING: _above_uniform_routing,
    Code.ABOVE_MATMUL_CEILING: _above_matmul_ceiling,
    Code.ABOVE_DATASHEET: _above_datasheet,
    Code.RECOMPILED: _recompiled,
    Code.NOT_INTERLEAVED: _not_interleaved,
    Code.CLOCK_ERROR: _clock_error,
}
