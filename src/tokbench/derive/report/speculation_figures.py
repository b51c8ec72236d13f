"""Draws speculative decoding: predicted against measured, acceptance by position, speed-up over the static batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tokbench.derive import wording
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
from tokbench.derive.report.speculation_section import ACCEPTANCE, BATCH, PREDICTION
from tokbench.derive.speculation.found import BatchCurve, DraftedCell, SpeculationFound, batch_of
from tokbench.derive.words import t
from tokbench.stats import Estimate

MAX_LINES = len(OKABE_ITO)
MAX_ACCEPTANCE_LINES = 2 * MAX_LINES
"""Solid and dashed, those of the most drafted tokens first; the table has them all."""
LEAST_REACHED = 10
"""A position that was reached less often is not drawn: a share of so few is noise."""
READABLE = ("measured", "toy")
"""What is drawn with filled marks."""


def draw_speculation(found: SpeculationFound) -> tuple[Drawn, ...]:
    """Every figure that there is data for."""
    drawn = (_draw_prediction(found.cells), _draw_acceptance(found.cells), _draw_batches(found.curves))
    return tuple(item for item in drawn if item is not None)


def _draw_prediction(cells: Sequence[DraftedCell]) -> Drawn | None:
    known = [cell for cell in cells if cell.value("speedup_x") and cell.value("predicted_speedup_x")]
    if not known:
        return None
    with drawing():
        printed = _plot_prediction(known)
    caption = t(
        "Speed-up as predicted from acceptance and costs, and as measured, both logarithmic, with 95 % intervals; one "
        "colour per method. On the line both agree; left of and below the dotted lines drafts cost speed. Hollow: "
        "weights or acceptance that are not a model's own. Source: the runs of this report."
    )
    return Drawn(Figure(PREDICTION, t("Predicted against measured speed-up by drafts"), caption), *printed)


def _plot_prediction(cells: Sequence[DraftedCell]) -> Printed:
    canvas, axes = open_canvas(6.4)
    methods = list(dict.fromkeys(cell.method for cell in cells))
    tips: list[Tip] = []
    ends: list[float] = [1.0]
    for cell in cells:
        measured, predicted = cell.value("speedup_x"), cell.value("predicted_speedup_x")
        assert measured is not None and predicted is not None  # chosen so
        index = methods.index(cell.method) % MAX_LINES
        fill = OKABE_ITO[index] if cell.reading in READABLE else "white"
        axes.errorbar(
            predicted.value,
            measured.value,
            xerr=_arms(predicted),
            yerr=_arms(measured),
            fmt=MARKERS[index],
            color=OKABE_ITO[index],
            markerfacecolor=fill,
            markersize=9,
            linewidth=1.2,
        )
        ends += [predicted.value, measured.value]
        tips.append(Tip(axes, predicted.value, measured.value, _say_point(cell, measured, predicted)))
    low, high = min(ends) * 0.8, max(ends) * 1.25
    axes.plot([low, high], [low, high], color=SOFT, linewidth=1.2)
    axes.axvline(1.0, color=SOFT, linestyle=":", linewidth=1.4)
    axes.axhline(1.0, color=SOFT, linestyle=":", linewidth=1.4)
    for index, method in enumerate(methods):
        axes.plot([], [], MARKERS[index % MAX_LINES], color=OKABE_ITO[index % MAX_LINES], label=method)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("predicted speed-up (x)")
    axes.set_ylabel("measured speed-up (x)")
    axes.legend(loc="upper left", frameon=False)
    return print_canvas(canvas, PREDICTION, tips)


def _arms(value: Estimate) -> list[list[float]] | None:
    if value.low is None or value.high is None:
        return None
    return [[value.value - value.low], [value.high - value.value]]


def _say_point(cell: DraftedCell, measured: Estimate, predicted: Estimate) -> str:
    return f"{_name(cell)}: measured {wording.say_value(measured)}x, predicted {wording.say_value(predicted)}x"


def _name(cell: DraftedCell) -> str:
    task = f", {cell.task}" if cell.task is not None else ""
    return f"{wording.say_cell(cell.cell)}{task}"


def _draw_acceptance(cells: Sequence[DraftedCell]) -> Drawn | None:
    lines = _acceptance_lines(cells)
    if not lines:
        return None
    longest = sorted(lines, key=lambda name: -len(lines[name]))[:MAX_ACCEPTANCE_LINES]
    shown = {name: counts for name, counts in lines.items() if name in longest}
    with drawing():
        printed = _plot_acceptance(shown)
    parts = [
        t(
            "How often a draft is accepted where all before it were, by its position: level where acceptance is "
            "independent of what went before. Positions reached fewer than {least} times are left out, and so is "
            "replayed acceptance. All static batches together.",
            least=LEAST_REACHED,
        )
    ]
    if len(lines) > len(shown):
        parts.append(t("Left out: {count} more lines; the table has them.", count=len(lines) - len(shown)))
    parts.append(t("Source: the runs of this report."))
    return Drawn(Figure(ACCEPTANCE, t("Acceptance by position of the draft"), " ".join(parts)), *printed)


def _acceptance_lines(cells: Sequence[DraftedCell]) -> dict[str, list[tuple[int, int]]]:
    """What drafts, at which options and on which task, to (reached, accepted) by position; replayed ones left out.

    Cells of one name differ in the static batch or the run alone: likeliest and drawn tokens are two populations.
    What a trace accepted was chosen, not found.
    """
    own = [cell for cell in cells if cell.reading not in ("replay", "invalid")]
    models = [f"{wording.say_model(cell.cell)}, {cell.cell.conditions.precision}" for cell in own]
    has_several = len(set(models)) > 1
    lines: dict[str, list[tuple[int, int]]] = {}
    for cell, model in zip(own, models, strict=True):
        drafts = (wording.say_drafts(cell.cell), wording.say_temperature(cell.cell))
        name = ", ".join(part for part in (model if has_several else None, *drafts, cell.task) if part)
        both = itertools.zip_longest(lines.get(name, []), cell.positions, fillvalue=(0, 0))
        lines[name] = [(a + c, b + d) for (a, b), (c, d) in both]
    return {name: counts for name, counts in lines.items() if counts and counts[0][0] >= LEAST_REACHED}


def _plot_acceptance(lines: dict[str, list[tuple[int, int]]]) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(lines))
    tips: list[Tip] = []
    for index, (name, counts) in enumerate(lines.items()):
        points = [(place, b / a) for place, (a, b) in enumerate(counts, 1) if a >= LEAST_REACHED]
        style = "-" if index < MAX_LINES else "--"
        color, marker = OKABE_ITO[index % MAX_LINES], MARKERS[index % MAX_LINES]
        axes.plot(*zip(*points, strict=True), style, color=color, marker=marker, markersize=8, linewidth=2, label=name)
        tips += [
            Tip(axes, place, share, f"{name}, position {place}: {share:.2f} of {counts[place - 1][0]:,}")
            for place, share in points
        ]
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(range(1, max(map(len, lines.values())) + 1))
    axes.set_xlabel("position in the draft")
    axes.set_ylabel("accepted, if all before were")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, ncols=1)
    return print_canvas(canvas, ACCEPTANCE, tips)


def _draw_batches(curves: Sequence[BatchCurve]) -> Drawn | None:
    if not curves:
        return None
    with drawing():
        printed = _plot_batches(curves[:MAX_LINES])
    parts = [
        t(
            "Speed-up by drafts over the static batch, both logarithmic; dotted: no gain. Dashed: joules per emitted "
            "token over those without drafts, where they were metered; below the dotted line drafts save energy."
        )
    ]
    if len(curves) > MAX_LINES:
        parts.append(t("Left out: {count} more lines; the table has them.", count=len(curves) - MAX_LINES))
    parts.append(t("Source: the runs of this report."))
    return Drawn(Figure(BATCH, t("Speed-up by drafts over the static batch"), " ".join(parts)), *printed)


def _plot_batches(curves: Sequence[BatchCurve]) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(curves))
    tips: list[Tip] = []
    for index, curve in enumerate(curves):
        color, marker = OKABE_ITO[index], MARKERS[index]
        speeds = [(batch_of(cell), value) for cell in curve.cells if (value := cell.value("speedup_x"))]
        joules = [(batch_of(cell), cell.joules_x) for cell in curve.cells if isinstance(cell.joules_x, Estimate)]
        style = {"color": color, "marker": marker, "markersize": 8, "linewidth": 2}
        axes.plot([b for b, _ in speeds], [v.value for _, v in speeds], label=_line_name(curve), **style)
        if joules:
            axes.plot([b for b, _ in joules], [v.value for _, v in joules], linestyle="--", **style)
        for kind, points in (("speed-up", speeds), ("joules per token, with over without", joules)):
            tips += [Tip(axes, b, v.value, f"{_line_name(curve)}, {b}: {kind} {v.value:.3g}x") for b, v in points]
    axes.axhline(1.0, color=SOFT, linestyle=":", linewidth=1.6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(0.12)
    axes.set_xticks(sorted({batch_of(cell) for curve in curves for cell in curve.cells}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    plain_ticks(axes.yaxis)
    axes.set_xlabel("static batch")
    axes.set_ylabel("over no drafts (x)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, ncols=1)
    return print_canvas(canvas, BATCH, tips)


def _line_name(curve: BatchCurve) -> str:
    first = curve.cells[0]
    task = f", {first.task}" if first.task is not None else ""
    return f"{wording.say_model(first.cell)}, {wording.say_engine(first.cell)}{task}"
