"""The law of single streams: a step costs a constant and its bytes at a rate."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive.bounds.found import Point, StepFit
from tokbench.derive.bounds.points import Line, value_of
from tokbench.derive.words import t

MIN_POINTS = 3
MIN_SPAN = 1.5
"""Largest over smallest bytes per step: below it the constant and the rate cannot be told apart."""


def fit_steps(points: Sequence[Point]) -> tuple[tuple[StepFit, ...], tuple[str, ...]]:
    """t = t0 + bytes / rate per mode and precision, over single streams whose bytes come from memory; and why not.

    Least squares on relative errors (weights 1 / t^2), R^2 with the same weights.
    Source: shared/data/experiments.md, HA1.
    """
    groups: dict[tuple[str, ...], list[Point]] = {}
    for point in points:
        is_usable = (
            point.cell.validity.verdict != "invalid" and value_of(point.cell, "bandwidth_used_ratio") is not None
        )
        if point.cell.conditions.static_batch == 1 and is_usable:
            groups.setdefault(_settings(point), []).append(point)
    fits, refused = [], []
    for members in groups.values():
        conditions = members[0].cell.conditions
        mode, precision = conditions.mode or "", conditions.precision or ""
        if sum(key[:3] == _settings(members[0])[:3] for key in groups) > 1:
            mode += f", {conditions.attention_kernel}"
        found = _fit(mode, precision, members)
        if isinstance(found, str):
            refused.append(t("{mode}, {precision}: {reason}", mode=mode, precision=precision, reason=found))
        else:
            fits.append(found)
    if not groups:
        refused.append(t("no single stream was measured whose bytes per step come from memory"))
    return tuple(fits), tuple(refused)


def _settings(point: Point) -> tuple[str, ...]:
    """What has to be alike on one line: all but model and context."""
    conditions, engine = point.cell.conditions, point.cell.record.spec.engine
    names = (conditions.engine, conditions.mode, conditions.precision, conditions.attention_kernel)
    return (*(name or "" for name in names), str(engine.threads), str(sorted(engine.options.items())))


def _fit(mode: str, precision: str, points: list[Point]) -> StepFit | str:
    sizes = [point.step_bytes for point in points]
    if len(set(sizes)) < MIN_POINTS:
        return t(
            "no fit, {count} different sizes of a step and {fewest} are needed",
            count=len(set(sizes)),
            fewest=MIN_POINTS,
        )
    if max(sizes) / min(sizes) < MIN_SPAN:
        return t(
            "no fit, the sizes of a step span a factor {span:.2f}, less than {least}",
            span=max(sizes) / min(sizes),
            least=MIN_SPAN,
        )
    times = [point.step_s for point in points]
    line = Line(sizes, times, [1 / seconds**2 for seconds in times])
    if line.slope <= 0:
        return t("no fit, larger steps were not slower")
    intervals = line.intervals()
    return StepFit(
        run_name=points[0].cell.run_name,
        mode=mode,
        precision=precision,
        t0_s=line.intercept,
        bytes_per_s=1 / line.slope,
        r_squared=line.r_squared,
        points=tuple(points),
        t0_interval_s=None if intervals is None else intervals[0],
        bytes_per_s_interval=None if intervals is None else _inverse(intervals[1]),
    )


def _inverse(slope: tuple[float, float]) -> tuple[float, float | None]:
    low, high = slope
    return 1 / high, 1 / low if low > 0 else None
