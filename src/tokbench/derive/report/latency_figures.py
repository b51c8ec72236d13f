"""Draws how long the first token and each further step take: spread and percentiles of the raw stamps, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokbench.derive import wording
from tokbench.derive.distributions import FEW, Distribution, Quantity
from tokbench.derive.evaluate import CellResult
from tokbench.derive.report.canvas import (
    INK,
    OKABE_ITO,
    PAPER,
    SOFT,
    Drawn,
    Printed,
    Tip,
    drawing,
    fold_names,
    open_panels,
    plain_ticks,
    print_canvas,
)
from tokbench.derive.report.document import Figure
from tokbench.derive.words import t
from tokbench.units import SECONDS, format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FILE_NAME = "latency.png"
MAX_ROWS = 14
MILLI = 1e-3
BAR_COLOR = OKABE_ITO[5]
MARKS = (("p50", "o", INK), ("p90", "D", PAPER), ("p99", "s", OKABE_ITO[1]))
PANELS: tuple[tuple[Quantity, str], ...] = (("ttft_s", "first token (ms)"), ("gap_s", "step (ms)"))


def draw_latency(distributions: Sequence[Distribution]) -> tuple[Drawn, ...]:
    """Two panels with a row per cell; nothing where no cell was stamped."""
    cells = {id(item.cell): item.cell for item in distributions}
    if not cells:
        return ()
    medians = {id(item.cell): item.p50_s for item in distributions if item.quantity == "gap_s"}
    shown = sorted(cells, key=lambda key: medians.get(key, math.inf))[:MAX_ROWS]
    with drawing():
        several = len({cell.run_name for cell in cells.values()}) > 1
        names = [_row_name(cells[key], several) for key in shown]
        kept = [(shown.index(id(item.cell)), item) for item in distributions if id(item.cell) in shown]
        printed = _plot(kept, names)
    return (Drawn(_figure(len(shown), len(cells) - len(shown)), *printed),)


def _plot(kept: Sequence[tuple[int, Distribution]], names: Sequence[str]) -> Printed:
    named = fold_names(names)
    canvas = open_panels(2.3 + named.row_in * len(names))
    panels = canvas.subplots(1, 2, sharey=True)
    tips: list[Tip] = []
    for axes, (quantity, label) in zip(panels, PANELS, strict=True):
        rows = [(row, item) for row, item in kept if item.quantity == quantity]
        tips += _plot_rows(axes, rows)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="x", labelsize=12)
        if rows:
            axes.set_xscale("log")
            axes.margins(x=0.12)
            plain_ticks(axes.xaxis, share=0.3)
        else:
            axes.set_xticks([])
    panels[0].set_yticks(range(len(names)), named.names, fontsize=12)
    panels[0].set_ylim(len(names) - 0.3, -0.7)
    _add_legend(canvas)
    return print_canvas(canvas, FILE_NAME, tips)


def _plot_rows(axes: Axes, rows: Sequence[tuple[int, Distribution]]) -> list[Tip]:
    """Bar from p25 to p75, line from the least to p99, a mark on p50, p90 and p99, a tick on each of few values."""
    places = [row for row, _ in rows]
    ends = [item.most_s if item.p99_s is None else item.p99_s for _, item in rows]
    axes.hlines(places, [item.least_s / MILLI for _, item in rows], [end / MILLI for end in ends], color=SOFT)
    quartiles = [item.p25_s / MILLI for _, item in rows], [item.p75_s / MILLI for _, item in rows]
    axes.hlines(places, *quartiles, color=BAR_COLOR, linewidth=11)
    few = [(value / MILLI, row) for row, item in rows for value in item.values_s]
    axes.plot([x for x, _ in few], [row for _, row in few], "|", color=INK, markersize=11)
    tips: list[Tip] = []
    for index, (_, marker, fill) in enumerate(MARKS):
        found = [(value / MILLI, row, item) for row, item in rows if (value := _percentiles(item)[index]) is not None]
        marked = [x for x, _, _ in found], [row for _, row, _ in found]
        axes.plot(*marked, marker, color=INK, markerfacecolor=fill, markersize=8)
        tips += [Tip(axes, x, row, _say(item)) for x, row, item in found]
    return tips


def _percentiles(item: Distribution) -> tuple[float | None, float | None, float | None]:
    return item.p50_s, item.p90_s, item.p99_s


def _say(item: Distribution) -> str:
    values = zip((name for name, _, _ in MARKS), _percentiles(item), strict=True)
    parts = [f"{name} {format_value(value, SECONDS)}" for name, value in values if value is not None]
    return f"{wording.say_cell(item.cell)}: {', '.join(parts)}, most {format_value(item.most_s, SECONDS)}; n {item.n:,}"


def _row_name(cell: CellResult, with_run: bool) -> str:
    conditions = cell.conditions
    prompt = "" if conditions.prompt_tokens is None else f", prompt {conditions.prompt_tokens}"
    run = f"{cell.run_name}: " if with_run else ""
    return f"{run}{wording.say_model(cell)}\n{wording.say_mode(cell)}, {wording.say_load(cell)}{prompt}"


def _add_legend(canvas: Canvas) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=INK, marker=marker, markerfacecolor=fill, linestyle="", markersize=8, label=name)
        for name, marker, fill in MARKS
    ]
    handles.append(Line2D([], [], color=BAR_COLOR, linewidth=8, label="p25 to p75"))
    canvas.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _figure(shown: int, left_out: int) -> Figure:
    parts = [
        t(
            "How the stamps of a cell are spread, all of its repetitions together; logarithmic. Line: from the least "
            "to p99, or to the most where there is no p99. p90 is given from 10 values on, p99 from 100; a tick is one "
            "value where there are at most {few}. A step is that of the whole static batch; of requests it is the time "
            "between two chunks.",
            few=FEW,
        )
    ]
    if left_out:
        parts.append(t("Left out: the {count} cells with the slowest steps.", count=left_out))
    parts.append(t("Source: the runs of this report."))
    alt = t("Time to first token and step time of {count} cells with p50, p90 and p99", count=shown)
    return Figure(FILE_NAME, alt, " ".join(parts))
