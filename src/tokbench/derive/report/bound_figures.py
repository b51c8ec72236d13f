"""Draws the two figures of "Where the limit is": the roofline and the fit of step time over bytes. Derives nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tokbench.derive import wording
from tokbench.derive.bounds.found import Bounds, Point, StepFit
from tokbench.derive.report.canvas import (
    MARKERS,
    OKABE_ITO,
    SOFT,
    Drawn,
    Printed,
    Tip,
    drawing,
    open_canvas,
    plain_ticks,
    print_canvas,
)
from tokbench.derive.report.document import Figure
from tokbench.derive.standing import estimate_of
from tokbench.derive.words import t
from tokbench.units import BYTES, BYTES_PER_S, FLOPS_PER_S, SECONDS, format_number, format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GIGA = 1e9
MILLI = 1e-3
ROOF_COLOR = SOFT
ROOFLINE, FIT = "limit_roofline.png", "limit_fit.png"
LINE_STYLES = ("-", "--", "-.", ":")
CURVE_POINTS = 200
MARGIN = 1.6
"""Factor by which a roof and a fitted line are drawn beyond the outermost points."""
LABEL_GAP = 0.14
"""Two labels nearer than this share of the axes, along and across, would overlap: the second is left out."""


class Roof(NamedTuple):
    """The measured ceilings that a run has for cells of one precision."""

    name: str
    read_bytes_per_s: float
    matmul_flops_per_s: float | None

    def height_flops_per_s(self, flops_per_byte: float) -> float:
        """The most that can be computed at an arithmetic intensity."""
        slope = flops_per_byte * self.read_bytes_per_s
        return slope if self.matmul_flops_per_s is None else min(slope, self.matmul_flops_per_s)


def draw_bounds(bounds: Sequence[Bounds]) -> tuple[Drawn, ...]:
    """The figures that there is data for: a roofline needs a measured read ceiling, the other one a fit."""
    drawn = (_draw_roofline(bounds), _draw_fits(bounds))
    return tuple(item for item in drawn if item is not None)


def _draw_roofline(bounds: Sequence[Bounds]) -> Drawn | None:
    """Achieved FLOP/s over FLOP/byte, below the measured roofs."""
    points = [point for item in bounds for point in item.points if point.step_flops > 0 and point.step_bytes > 0]
    roofs = list(_roofs(points, _has_several(bounds)))
    if not points or not roofs:
        return None
    with drawing():
        printed = _plot_roofline(points, roofs, _has_several(bounds))
    caption = t(
        "Each point is one cell's decode step: how much it computes per byte it reads (to the right: larger static "
        "batches, shorter contexts) against how fast it computes. Grey: the ceilings measured in the run. Under the "
        "slope memory is the limit, under the flat part arithmetic; the distance straight up to the roof is what is "
        "lost to neither. A point above the roof reads from a cache. Both axes are logarithmic. Bytes and FLOPs are "
        "counted from the model's shape. Source: the runs of this report."
    )
    alt = t("Achieved FLOP/s over arithmetic intensity of {count} cells below the measured roofs", count=len(points))
    return Drawn(Figure(ROOFLINE, alt, caption), *printed)


def _plot_roofline(points: Sequence[Point], roofs: Sequence[Roof], with_run: bool) -> Printed:
    groups = _by_series(points, with_run)
    canvas, axes = open_canvas(5.6 + 0.36 * (len(groups) + len(roofs)))
    _plot_roofs(axes, points, roofs)
    for index, (name, members) in enumerate(groups.items()):
        axes.plot(
            [_flops_per_byte(point) for point in members],
            [_gflops_per_s(point) for point in members],
            MARKERS[index % len(MARKERS)],
            color=OKABE_ITO[index % len(OKABE_ITO)],
            markersize=9,
            alpha=0.85,
            label=name,
        )
    _finish(axes, "arithmetic intensity of a step (FLOP/byte)", "achieved (GFLOP/s)")
    _label_points(axes, points)
    return print_canvas(canvas, ROOFLINE, [_tip_of(axes, point) for point in points])


def _tip_of(axes: Axes, point: Point) -> Tip:
    x, y = _flops_per_byte(point), _gflops_per_s(point)
    speed = format_value(point.step_flops / point.step_s, FLOPS_PER_S)
    return Tip(axes, x, y, f"{wording.say_cell(point.cell)}: {format_number(x)} FLOP/byte, {speed}")


def _plot_roofs(axes: Axes, points: Sequence[Point], roofs: Sequence[Roof]) -> None:
    """Each roof from left of the first point to right of the last one and of its own ridge."""
    edges = [_flops_per_byte(point) for point in points] + [
        roof.matmul_flops_per_s / roof.read_bytes_per_s for roof in roofs if roof.matmul_flops_per_s is not None
    ]
    x = _spread(min(edges) / MARGIN, max(edges) * MARGIN)
    for index, roof in enumerate(roofs):
        y = [roof.height_flops_per_s(value) / GIGA for value in x]
        style = LINE_STYLES[index % len(LINE_STYLES)]
        axes.plot(x, y, style, color=ROOF_COLOR, linewidth=2, label=_say_roof(roof))


def _draw_fits(bounds: Sequence[Bounds]) -> Drawn | None:
    """Step time over bytes per step, with the fitted lines and the measured read ceiling."""
    fits = [fit for item in bounds for fit in item.fits]
    if not fits:
        return None
    points = [point for item in bounds for point in item.points if point.step_bytes > 0]
    with drawing():
        printed = _plot_fits(points, fits, _has_several(bounds))
    caption = t(
        "Step time against the bytes that a step has to read, both logarithmic. Where a fitted line is flat, its "
        "constant t0 is the limit (launches, barriers, small kernels); where it climbs, bytes are. Dashed: the time if "
        "a step only read its bytes at the measured ceiling; below it lies what reads a cache, or ran while "
        "a shared memory was faster. Hollow points are in no fit (several streams, or so few bytes that a cache holds "
        "them). Source: the runs of this report."
    )
    alt = t(
        "Step time over bytes per step of {count} cells with {fits} fitted lines", count=len(points), fits=len(fits)
    )
    return Drawn(Figure(FIT, alt, caption), *printed)


def _plot_fits(points: Sequence[Point], fits: Sequence[StepFit], several: bool) -> Printed:
    fitted = {id(point.cell) for fit in fits for point in fit.points}
    groups = _by_series(points, several)
    roofs = list(_roofs(points, several))
    canvas, axes = open_canvas(5.4 + 0.36 * (len(groups) + len(fits) + len(roofs)))
    x = _spread(min(point.step_bytes for point in points) / MARGIN, max(point.step_bytes for point in points) * MARGIN)
    for index, (name, members) in enumerate(groups.items()):
        color, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
        _scatter(axes, members, fitted, (color, marker, name))
        for fit in fits:
            if fit.points[0] in members:
                _plot_fit(axes, fit, x, color)
    for index, roof in enumerate(roofs):
        y = [size / roof.read_bytes_per_s / MILLI for size in x]
        style = LINE_STYLES[1 + index % (len(LINE_STYLES) - 1)]
        label = f"{roof.name}bytes alone at the read ceiling, {format_value(roof.read_bytes_per_s, BYTES_PER_S)}"
        axes.plot([size / GIGA for size in x], y, style, color=ROOF_COLOR, label=label)
    _finish(axes, "bytes read per step (GB)", "step time (ms)")
    tips = [Tip(axes, point.step_bytes / GIGA, point.step_s / MILLI, _say_step(point)) for point in points]
    return print_canvas(canvas, FIT, tips)


def _say_step(point: Point) -> str:
    step, read = format_value(point.step_s, SECONDS), format_value(point.step_bytes, BYTES)
    return f"{wording.say_cell(point.cell)}: {step} a step, {read}"


def _plot_fit(axes: Axes, fit: StepFit, x: Sequence[float], color: str) -> None:
    """A fitted line over sizes in bytes; where t0 is below zero only from its smallest point on.

    Left of it such a line dives towards times that no step can take, and says nothing.
    """
    least = min(point.step_bytes for point in fit.points)
    known = [(size / GIGA, (fit.t0_s + size / fit.bytes_per_s) / MILLI) for size in x if fit.t0_s >= 0 or size >= least]
    shown = [pair for pair in known if pair[1] > 0]
    label = (
        f"fit, {fit.mode}: {format_value(fit.t0_s, SECONDS)} + bytes at {format_value(fit.bytes_per_s, BYTES_PER_S)}"
    )
    axes.plot([pair[0] for pair in shown], [pair[1] for pair in shown], color=color, label=label)


def _scatter(axes: Axes, members: Sequence[Point], fitted: set[int], look: tuple[str, str, str]) -> None:
    """The points of one series: full where a fit rests on them, hollow elsewhere."""
    color, marker, name = look
    inside = [point for point in members if id(point.cell) in fitted]
    outside = [point for point in members if id(point.cell) not in fitted]
    for chosen, fill in ((inside, color), (outside, "none")):
        if chosen:
            axes.plot(
                [point.step_bytes / GIGA for point in chosen],
                [point.step_s / MILLI for point in chosen],
                marker,
                color=color,
                markerfacecolor=fill,
                markersize=9,
                label=name if chosen is inside or not inside else None,
            )


def _roofs(points: Sequence[Point], with_run: bool) -> Iterator[Roof]:
    """The distinct ceilings behind the points, named by run and precision where there are several."""
    found: dict[tuple[str, float, float | None], list[str]] = {}
    for point in points:
        read = estimate_of(point.cell, "read_bytes_per_s")
        matmul = estimate_of(point.cell, "matmul_flops_per_s")
        if read is not None:
            key = (point.cell.run_name, read.value, None if matmul is None else matmul.value)
            found.setdefault(key, []).append(point.cell.conditions.precision or "unknown precision")
    for (run_name, read_value, matmul_value), precisions in found.items():
        parts = [run_name] if with_run else []
        parts += [", ".join(dict.fromkeys(precisions))] if len(found) > 1 else []
        yield Roof(f"{', '.join(parts)}: " if parts else "", read_value, matmul_value)


def _say_roof(roof: Roof) -> str:
    flat = roof.matmul_flops_per_s
    multiply = "multiply not measured" if flat is None else f"multiply {format_value(flat, FLOPS_PER_S)}"
    return f"{roof.name}measured roof: read {format_value(roof.read_bytes_per_s, BYTES_PER_S)}, {multiply}"


def _by_series(points: Sequence[Point], with_run: bool) -> dict[str, list[Point]]:
    """The points of each run, mode and precision: one marker and colour."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        conditions = point.cell.conditions
        name = _series(point.cell.run_name, conditions.mode or "", conditions.precision or "", with_run)
        groups.setdefault(name, []).append(point)
    return groups


def _series(run_name: str, mode: str, precision: str, with_run: bool) -> str:
    return f"{run_name}: {mode}, {precision}" if with_run else f"{mode}, {precision}"


def _has_several(bounds: Sequence[Bounds]) -> bool:
    return len(bounds) > 1


def _flops_per_byte(point: Point) -> float:
    return point.step_flops / point.step_bytes


def _gflops_per_s(point: Point) -> float:
    return point.step_flops / point.step_s / GIGA


def _spread(low: float, high: float) -> list[float]:
    """Values from low to high, evenly apart on a logarithmic axis."""
    return [low * (high / low) ** (index / (CURVE_POINTS - 1)) for index in range(CURVE_POINTS)]


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.06, y=0.18)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, ncols=1)


def _label_points(axes: Axes, points: Sequence[Point]) -> None:
    """Name the outermost points: the fastest, the slowest, the one that computes most per byte; none over another."""
    asked = (
        max(points, key=lambda point: point.step_flops / point.step_s),
        min(points, key=lambda point: point.step_flops / point.step_s),
        max(points, key=_flops_per_byte),
    )
    taken: list[tuple[float, float]] = []
    for point in asked:
        x, y = _flops_per_byte(point), point.step_flops / point.step_s / GIGA
        place = (_along(x, axes.get_xlim()), _along(y, axes.get_ylim()))
        if any(abs(place[0] - u) < 3 * LABEL_GAP and abs(place[1] - v) < LABEL_GAP for u, v in taken):
            continue
        taken.append(place)
        is_right = place[0] > 0.5
        axes.annotate(
            f"{wording.say_model(point.cell)},\n{wording.say_load(point.cell)}",
            (x, y),
            (-9 if is_right else 9, -8),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="top",
            fontsize=12,
            color="#333333",
        )


def _along(value: float, ends: tuple[float, float]) -> float:
    """Where a value lies between the ends of a logarithmic axis, 0 to 1."""
    return math.log(value / ends[0]) / math.log(ends[1] / ends[0])
