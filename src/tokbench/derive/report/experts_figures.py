"""Draws mixtures of experts: gain and price over the static batch, distinct experts, speed over the resident share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.experts.coverage import (
    Coverage,
    Offloaded,
    expected_distinct,
    find_coverage,
    find_offloaded,
)
from tokbench.derive.experts.families import Triple, find_triples
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
from tokbench.derive.report.experts_tables import say_routing
from tokbench.derive.words import t
from tokbench.stats import Estimate
from tokbench.units import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATHTUB, COVERAGE, OFFLOAD = "experts-bathtub.png", "experts-touched.png", "experts-offload.png"
MAX_LINES = len(OKABE_ITO)
CURVE_POINTS = 40


class _Line(NamedTuple):
    """Measured points over the number of rows, and what bytes alone and both ceilings say of each."""

    name: str
    rows: list[int]
    measured: list[Estimate]
    by_bytes: list[float | None]
    by_ceilings: list[float | None]


def draw_experts(cells: Sequence[CellResult]) -> tuple[Drawn, ...]:
    """Every figure that there is data for."""
    drawn = (_draw_bathtub(cells), _draw_coverage(cells), _draw_offload(cells))
    return tuple(item for item in drawn if item is not None)


def _draw_bathtub(cells: Sequence[CellResult]) -> Drawn | None:
    with drawing():
        lines = [line for triple in find_triples(cells) for line in _lines(triple) if len(line.rows) > 1]
        if not lines:
            return None
        printed = _plot_bathtub(lines[:MAX_LINES])
    caption = t(
        "Step times over the static batch, both axes logarithmic: how many times as long the dense twin takes that "
        "stores as much (the gain), and how many times as long the mixture takes as the twin that computes as much "
        "(the price), with 95 % intervals. Dashed: by the bytes that each reads. Dotted: by the slower of reading and "
        "multiplying at the ceilings of the run. Source: the runs of this report."
    )
    alt = t("Gain and price of a mixture of experts over the static batch")
    return Drawn(Figure(BATHTUB, alt, _with_left_out(caption, len(lines))), *printed)


def _with_left_out(caption: str, count: int) -> str:
    """A figure has as many lines as there are colours that can be told apart; the others are named by their number."""
    if count <= MAX_LINES:
        return caption
    return f"{caption} {t('Left out: {count} lines; the tables have them all.', count=count - MAX_LINES)}"


def _lines(triple: Triple) -> list[_Line]:
    name = wording.say_model(triple.moe.cell)
    gains = [(step.rows, step.gain, step.gain_by_bytes, step.gain_by_ceilings) for step in triple.steps]
    prices = [(step.rows, step.price, step.price_by_bytes, step.price_by_ceilings) for step in triple.steps]
    found = []
    for what, points in (("gain", gains), ("price", prices)):
        line = _Line(f"{name}: {what}", [], [], [], [])
        for rows, value, by_bytes, by_ceilings in points:
            if value is not None:
                line.rows.append(rows)
                line.measured.append(value)
                line.by_bytes.append(by_bytes)
                line.by_ceilings.append(by_ceilings)
        found.append(line)
    return found


def _plot_bathtub(lines: Sequence[_Line]) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(lines))
    tips: list[Tip] = []
    for index, line in enumerate(lines):
        style = {"color": OKABE_ITO[index], "marker": MARKERS[index], "markersize": 9, "linewidth": 2}
        values = [value.value for value in line.measured]
        axes.errorbar(line.rows, values, yerr=_errors(line.measured), capsize=3, label=line.name, **style)
        for form, predicted in (("--", line.by_bytes), (":", line.by_ceilings)):
            known = [(rows, by) for rows, by in zip(line.rows, predicted, strict=True) if by is not None]
            axes.plot([rows for rows, _ in known], [by for _, by in known], form, color=OKABE_ITO[index], linewidth=1.6)
        for rows, value in zip(line.rows, values, strict=True):
            tips.append(Tip(axes, rows, value, f"{line.name}, static batch {rows}: {format_number(value)}x"))
    axes.axhline(1.0, color=SOFT, linewidth=1.2)
    _finish_rows(axes, {rows for line in lines for rows in line.rows})
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_ylabel("ratio of step times")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return print_canvas(canvas, BATHTUB, tips)


def _errors(values: Sequence[Estimate]) -> list[list[float]]:
    """Lengths below and above each value; none where there is no interval."""
    below = [value.value - (value.value if value.low is None else value.low) for value in values]
    above = [(value.value if value.high is None else value.high) - value.value for value in values]
    return [below, above]


def _finish_rows(axes: Axes, rows: set[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.margins(0.1)
    axes.set_xticks(sorted(rows))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("static batch")


def _draw_coverage(cells: Sequence[CellResult]) -> Drawn | None:
    found = find_coverage(cells)
    with drawing():
        several = len({one.item.cell.run_name for one in found}) > 1
        named = [(_coverage_name(one, several), one) for one in found]
        groups = {name: [one for _, one in members] for name, members in groupby(named, key=lambda pair: pair[0])}
        kept = {name: members for name, members in groups.items() if len(members) > 1}
        if not kept:
            return None
        printed = _plot_coverage(dict(list(kept.items())[:MAX_LINES]))
    caption = t(
        "Distinct experts of a layer that one step selects, over the static batch. Marks: counted; lines: what the "
        "law of the routing expects, for the model's own routers even and independent selections. Source: the "
        "runs of this report."
    )
    alt = t("Distinct experts per step over the static batch")
    return Drawn(Figure(COVERAGE, alt, _with_left_out(caption, len(kept))), *printed)


def _coverage_name(one: Coverage, several: bool) -> str:
    run = f"{one.item.cell.run_name}: " if several else ""
    moe = one.experts
    return f"{run}{one.item.shape.name} ({moe.experts_per_token} of {moe.experts}), {say_routing(one.routing)}"


def _plot_coverage(groups: dict[str, list[Coverage]]) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(groups))
    tips: list[Tip] = []
    for index, (name, members) in enumerate(groups.items()):
        color, marker = OKABE_ITO[index], MARKERS[index]
        rows = [one.item.rows for one in members]
        errors = [math.nan if one.error is None else one.error for one in members]  # an unknown one has no bar
        counted = [one.distinct for one in members]
        axes.errorbar(rows, counted, yerr=errors, fmt=marker, color=color, markersize=9, capsize=3, label=name)
        curve = _rows_between(rows[0], rows[-1])
        law = expected_distinct(members[0].experts, members[0].routing)
        axes.plot(curve, _over_rows(law, curve), color=color, linewidth=1.6)
        for one in members:
            text = f"{name}, static batch {one.item.rows}: {format_number(one.distinct)}, law {one.expected:.3g}"
            tips.append(Tip(axes, one.item.rows, one.distinct, text))
    _finish_rows(axes, {one.item.rows for members in groups.values() for one in members})
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("distinct experts per layer and step")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return print_canvas(canvas, COVERAGE, tips)


def _rows_between(first: int, last: int) -> list[int]:
    """Whole numbers between both ends, evenly spread on a logarithmic axis."""
    growth = (last / first) ** (1 / CURVE_POINTS)
    return sorted({round(first * growth**point) for point in range(CURVE_POINTS + 1)})


def _over_rows(law: Callable[[int], float], rows: Sequence[int]) -> list[float]:
    return [law(count) for count in rows]


def _draw_offload(cells: Sequence[CellResult]) -> Drawn | None:
    groups = find_offloaded(cells)
    if not groups:
        return None
    with drawing():
        printed = _plot_offload(groups[:MAX_LINES])
    caption = t(
        "Decode speed of one stream over the share of each layer's experts that is resident, with 95 % intervals; the "
        "rest is copied when it is selected. Logarithmic upwards. Source: the runs of this report."
    )
    alt = t("Decode speed over the share of resident experts")
    return Drawn(Figure(OFFLOAD, alt, _with_left_out(caption, len(groups))), *printed)


def _plot_offload(groups: Sequence[Sequence[Offloaded]]) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(groups))
    tips: list[Tip] = []
    for index, group in enumerate(groups):
        cell = group[0].cell
        name = f"{wording.say_model(cell)}, {wording.say_load(cell)}"
        shares, speeds = [100 * one.share for one in group], [one.speed for one in group]
        style = {"color": OKABE_ITO[index], "marker": MARKERS[index], "markersize": 9, "linewidth": 2}
        values = [speed.value for speed in speeds]
        axes.errorbar(shares, values, yerr=_errors(speeds), capsize=3, label=name, **style)
        for share, speed in zip(shares, speeds, strict=True):
            text = f"{name}, {share:g} % resident: {wording.say_value(speed)} ({wording.say_interval(speed)})"
            tips.append(Tip(axes, share, speed.value, text))
    axes.set_yscale("log")
    axes.margins(0.1)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("experts resident (% of each layer)")
    axes.set_ylabel("tokens/s per user")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return print_canvas(canvas, OFFLOAD, tips)
