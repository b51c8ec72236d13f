"""The law of single streams: a step costs a constant and its bytes at a rate."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive.bounds.found import Point, StepFit
from tokbench.derive.bounds.points import Line, value_of

MIN_POINTS = 3
MIN_SPAN = 1.5
"""Largest over smallest bytes per step: below it the constant and the rate cannot be told apart."""


def fit_steps(points: Sequence[Point]) -> tuple[tuple[StepFit, ...], tuple[str, ...]]:
    """t = t0 + bytes / rate per mode and precision, over single streams whose bytes come from memory; and why not.

    Least squares on relative errors (weights 1 / t^2), R^2 with the same weights.
    Source: shared/data/experiments.md, HA1.
    """
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        conditions = point.cell.conditions
        if conditions.static_batch == 1 and value_of(point.cell, "bandwidth_used_ratio") is not None:
            groups.setdefault((conditions.mode or "", conditions.precision or ""), []).append(point)
    fits, refused = [], []
    for (mode, precision), members in groups.items():
        found = _fit(mode, precision, members)
        if isinstance(found, str):
            refused.append(f"{mode}, {precision}: {found}")
        else:
            fits.append(found)
    if not groups:
        refused.append("no single stream was measured whose bytes per step come from memory")
    return tuple(fits), tuple(refused)


def _fit(mode: str, precision: str, points: list[Point]) -> StepFit | str:
    sizes = [point.step_bytes for point in points]
    if len(set(sizes)) < MIN_POINTS:
        return f"no fit, {len(set(sizes))} different sizes of a step and {MIN_POINTS} are needed"
    if max(sizes) / min(sizes) < MIN_SPAN:
        return f"no fit, the sizes of a step span a factor {max(sizes) / min(sizes):.2f}, less than {MIN_SPAN}"
    times = [point.step_s for point in points]
    line = Line(sizes, times, [1 / seconds**2 for seconds in times])
    if line.slope <= 0:
        return "no fit, larger steps were not slower"
    return StepFit(
        run_name=points[0].cell.run_name,
        mode=mode,
        precision=precision,
        t0_s=line.intercept,
        bytes_per_s=1 / line.slope,
        r_squared=line.r_squared,
        points=tuple(points),
    )
