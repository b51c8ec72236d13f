"""What bounds each cell: memory, compute, the host, launching, or several together. Every threshold has its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.limits.alike import measured_steps, step_of
from tokbench.derive.limits.memory_fit import FitGroup, MemoryFit
from tokbench.derive.metrics import CellContext
from tokbench.derive.metrics.roofline import is_routed
from tokbench.derive.standing import estimate_of
from tokbench.stats import Estimate

Kind = Literal["memory", "compute", "host", "launch", "mixed"]

AT_CEILING = 1 / 1.25
"""A step within 25 % of the time that its bytes (or operations) take at the measured ceiling is bound by it: more than
that, kernels of the best engines seldom reach (gpt-fast: 72 to 85 % of an A100's). Source: formulas.md 4.1; our cut."""
HALF = 0.5
"""Below half, more of the step is something else."""
HOST_SHARE = 0.8
"""Of a decode window spent launching. A device that is the slower one makes a host wait for room in the queue, which
looks the same: so this counts only where neither memory nor compute reaches half."""
LAUNCH_S = (2e-6, 10e-6)
"""What one small kernel or operator costs, from within a device graph to launched one by one from Python. Our range;
a layer of some ten kernels is expected to take 10 to 30 us in a graph. Source: shared/data/experiments.md, HA3."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """What a decode step's time is made of, as far as the record tells. Shares are of the step, at the ceilings."""

    kind: Kind
    step_s: float
    memory_ratio: Estimate | Missing
    compute_ratio: Estimate | Missing
    host_ratio: float | None
    """Share of the decode windows in which the host launched; None where the device does not run apart."""
    rest_s: float
    """The step less the larger of the two: reading and computing may go on at once."""
    kernels_per_step: int | None
    t0_s: float | None
    """Of the group's fit, where its points lie on the line."""
    is_routed: bool
    """Bytes of routed experts are an expectation under even routing."""

    @property
    def rest_per_kernel_s(self) -> float | None:
        """Seconds of the rest for each kernel of a step."""
        return None if not self.kernels_per_step else self.rest_s / self.kernels_per_step


def bound_cells(results: Results, fits: Sequence[FitGroup]) -> dict[str, Bound | Missing]:
    """The bound of every cell by its id, or why none can be told."""
    t0 = _t0_by_cell(fits)
    stepwise = {cell.cell_id for cell in measured_steps(results.cells)}
    return {
        cell.cell_id: _bound(results, cell, t0) if cell.cell_id in stepwise else Missing(_why_none(cell))
        for cell in results.cells
    }


def _why_none(cell: CellResult) -> str:
    if cell.status != "ok":
        return cell.status_reason or "not measured"
    if cell.conditions.static_batch is None:
        return "requests come and go: a step is not one thing"
    speed = cell.metrics["tpot_s"]
    return speed.reason if isinstance(speed, Missing) else "a round of speculation is not one step"


def _t0_by_cell(fits: Sequence[FitGroup]) -> dict[str, float]:
    return {
        point.cell.cell_id: group.fit.t0_s.value
        for group in fits
        if isinstance(group.fit, MemoryFit) and group.fit.is_trusted
        for point in group.points
    }


def _bound(results: Results, cell: CellResult, t0: Mapping[str, float]) -> Bound | Missing:
    memory, compute = cell.metrics["bandwidth_used_ratio"], cell.metrics["flops_used_ratio"]
    is_cached = isinstance(memory, Missing) and _has(cell, "bytes_read_per_step") and _has(cell, "read_bytes_per_s")
    if isinstance(memory, Missing) and not is_cached:
        return memory
    known = [value for value in (memory, compute) if isinstance(value, Estimate)]
    if not known:
        return Missing("neither the share of memory nor that of compute is known")
    if any((value.low if value.low is not None else value.value) > 1 for value in known):
        return Missing("faster than a measured ceiling allows: the ceiling or the count is wrong")
    step_s = step_of(cell)
    largest = max(value.value for value in known)
    kernels = [item.kernels_per_step for item in cell.record.prepared if item.kernels_per_step]
    found = Bound(
        kind="mixed",
        step_s=step_s,
        memory_ratio=memory,
        compute_ratio=compute,
        host_ratio=host_share(cell),
        rest_s=max(step_s * (1 - largest), 0.0),
        kernels_per_step=kernels[-1] if kernels else None,
        t0_s=t0.get(cell.cell_id),
        is_routed=is_routed(CellContext(cell.record, results.run)),
    )
    return dataclasses.replace(found, kind=_kind(found))


def _has(cell: CellResult, metric: str) -> bool:
    return estimate_of(cell, metric) is not None


def _kind(bound: Bound) -> Kind:
    shares: dict[Kind, float] = {}
    if isinstance(bound.memory_ratio, Estimate):
        shares["memory"] = bound.memory_ratio.value
    if isinstance(bound.compute_ratio, Estimate):
        shares["compute"] = bound.compute_ratio.value
    name = max(shares, key=lambda kind: shares[kind])
    if shares[name] >= AT_CEILING:
        return name
    if shares[name] >= HALF or isinstance(bound.compute_ratio, Missing):
        return "mixed"
    if bound.host_ratio is not None and bound.host_ratio >= HOST_SHARE:
        return "host"
    return "launch" if is_explained_by_launching(bound) else "mixed"


def is_explained_by_launching(bound: Bound) -> bool:
    """Whether kernels at their usual cost, or the t0 of the fit, make up at least half of the rest."""
    by_kernels = (bound.kernels_per_step or 0) * LAUNCH_S[1] >= HALF * bound.rest_s
    by_t0 = bound.t0_s is not None and bound.t0_s >= HALF * bound.rest_s
    return by_kernels or by_t0


def host_share(cell: CellResult) -> float | None:
    """Seconds of launching over seconds of all decode windows; None where any window lacks them."""
    launched = total = 0.0
    for trial in cell.record.good_trials():
        for window in trial.of_kind("decode"):
            if window.closed is None or window.closed.host_s is None:
                return None
            launched += window.closed.host_s
            total += (window.closed.at_ns - window.opened.at_ns) * 1e-9
    return launched / total if total > 0 else None
