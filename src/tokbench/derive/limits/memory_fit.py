"""t = t0 + bytes / BW: what a step costs whatever it reads, and how fast it reads. Never fitted to too few points."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.limits.alike import measured_steps, step_of, variant_of
from tokbench.derive.limits.lines import MIN_POINTS, Line, fit_line, inverse
from tokbench.derive.standing import estimate_of
from tokbench.stats import Estimate

MIN_SPAN = 1.5
"""Largest over smallest bytes: over less, noise of a few per cent turns the line by as much as its slope."""
TRUSTED_R_SQUARED = 0.9
"""Below it the points do not lie on one line, and t0 explains nothing. Our choice; the hypothesis under test asks 0.98.

Source: shared/data/experiments.md, HA1.
"""
FAMILIES = {
    **{"float32": "32-bit", "bfloat16": "16-bit", "float16": "16-bit"},
    **{"int8": "8-bit", "fp8": "8-bit", "int4": "4-bit", "mxfp4": "4-bit"},
}
"""Types whose bytes take the same way to the multipliers; quantised ones are unpacked on it."""


class FitPoint(NamedTuple):
    """One cell of a fit."""

    cell: CellResult
    read_bytes: float
    step_s: float


class LeftOut(NamedTuple):
    """One cell that is no point of a fit, and why."""

    cell: CellResult
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryFit:
    """The line through the points of a group."""

    t0_s: Estimate
    bytes_per_s: Estimate
    ceiling_ratio: Estimate | Missing
    """bytes_per_s over the measured read ceiling; its interval is that of the fit alone."""
    r_squared: float | None
    n: int

    @property
    def is_trusted(self) -> bool:
        """Whether the points lie on the line closely enough for its t0 to explain a step."""
        return self.r_squared is not None and self.r_squared >= TRUSTED_R_SQUARED


@dataclasses.dataclass(frozen=True, slots=True)
class FitGroup:
    """The cells of one engine, mode, choice of kernels and width of the weights on one device."""

    engine: str
    mode: str
    variant: str
    """Kernels and options; a group of its own each."""
    family: str
    points: tuple[FitPoint, ...]
    left_out: tuple[LeftOut, ...]
    fit: MemoryFit | Missing


def fit_groups(results: Results) -> tuple[FitGroup, ...]:
    """Every group of the run with its fit, or why there is none."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in measured_steps(results.cells):
        spec = cell.record.spec
        key = (spec.engine.kind, spec.engine.mode, _asked_variant(cell), FAMILIES[spec.model.dtype])
        groups.setdefault((*key, str(spec.device_count)), []).append(cell)
    return tuple(_fit_group(key, cells) for key, cells in groups.items())


def _asked_variant(cell: CellResult) -> str:
    """As asked: a kernel that the engine chose for one cell makes no group of its own."""
    engine = cell.record.spec.engine
    return variant_of(cell) if engine.attention or engine.experts or engine.options else "as the engine chooses"


def _fit_group(key: tuple[str, ...], cells: Sequence[CellResult]) -> FitGroup:
    points: list[FitPoint] = []
    left_out: list[LeftOut] = []
    for cell in cells:
        reason = _why_left_out(cell)
        size = estimate_of(cell, "bytes_read_per_step")
        if reason is None and size is not None:
            points.append(FitPoint(cell, size.value, step_of(cell)))
        else:
            left_out.append(LeftOut(cell, reason or "its bytes are not known"))
    engine, mode, variant, family, _ = key
    return FitGroup(engine, mode, variant, family, tuple(points), tuple(left_out), fit_points(points))


def _why_left_out(cell: CellResult) -> str | None:
    size, used = cell.metrics["bytes_read_per_step"], cell.metrics["bandwidth_used_ratio"]
    flops = estimate_of(cell, "flops_used_ratio")
    if isinstance(size, Missing):
        return size.reason
    if cell.validity.verdict == "invalid":
        return f"invalid: {', '.join(code.value for code in cell.validity.reasons)}"
    if isinstance(used, Missing):
        return used.reason if estimate_of(cell, "read_bytes_per_s") is not None else None
    if flops is not None and flops.value > used.value:
        return "computing takes longer than reading, each at its measured ceiling"
    return None


def fit_points(points: Sequence[FitPoint]) -> MemoryFit | Missing:
    """The line, weighted for relative errors; missing where there are too few points, or they span too little."""
    sizes = sorted({point.read_bytes for point in points})
    if len(sizes) < MIN_POINTS:
        count = f"{len(sizes)} different count{'' if len(sizes) == 1 else 's'} of bytes"
        return Missing(f"{count}: a fit needs {MIN_POINTS} (other models, static batches or contexts)")
    if sizes[-1] < MIN_SPAN * sizes[0]:
        span = f"the largest count of bytes is {sizes[-1] / sizes[0]:.2f} times the smallest"
        return Missing(f"{span}: a fit needs a factor of {MIN_SPAN:g}")
    xs, ys = [point.read_bytes for point in points], [point.step_s for point in points]
    line = fit_line(xs, ys, units=("s", "s/B"), is_relative=True)
    if line.slope.value <= 0:
        return Missing(f"steps do not grow with the bytes that they read ({line.n} points): something else bounds them")
    return _of_line(line, points)


def _of_line(line: Line, points: Sequence[FitPoint]) -> MemoryFit:
    rate = inverse(line.slope, "B/s")
    ceilings = {value.value for point in points if (value := estimate_of(point.cell, "read_bytes_per_s")) is not None}
    share: Estimate | Missing = Missing("no read ceiling was measured in this run")
    if ceilings:
        share = inverse(line.slope, "", 1 / max(ceilings))
    return MemoryFit(line.intercept, rate, share, line.r_squared, line.n)
