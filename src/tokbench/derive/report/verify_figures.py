"""Draws v(m), a panel per model: measured with its interval, predicted dashed in the same colour. Derives nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokbench.derive import wording
from tokbench.derive.evaluate import Missing, Results
from tokbench.derive.report.canvas import (
    MARKERS,
    OKABE_ITO,
    Drawn,
    Printed,
    Tip,
    drawing,
    open_panels,
    print_canvas,
)
from tokbench.derive.report.document import Figure
from tokbench.derive.verify_cost import VerifyCurve, find_curves
from tokbench.derive.words import t

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE_NAME = "verify-cost.png"
MAX_PANELS = 4
MAX_LINES = len(OKABE_ITO)
HEADROOM = 1.35
"""Of the axis over the highest value: room for the legend. A longer interval is cut there."""


def draw_verify_cost(results: Sequence[Results]) -> tuple[Drawn, ...]:
    """One picture; nothing where no cell ran the experiment."""
    panels: dict[str, list[VerifyCurve]] = {}
    with drawing():
        for item in results:
            for curve in find_curves(item):
                cell = curve.cell
                run = f"{cell.run_name}: " if len(results) > 1 else ""
                name = f"{run}{wording.say_model(cell)}, {cell.conditions.precision}, {cell.conditions.mode}"
                panels.setdefault(name, []).append(curve)
        if not panels:
            return ()
        printed = _plot(dict(list(panels.items())[:MAX_PANELS]))
    caption = t(
        "Time of a pass over m tokens per row over that of one token, by static batch. Dashed: predicted from bytes "
        "(with the experts that even routing selects) and operations. Source: the runs of this report."
    )
    return (Drawn(Figure(FILE_NAME, t("Cost of verifying m tokens, by model and static batch"), caption), *printed),)


def _plot(panels: dict[str, list[VerifyCurve]]) -> Printed:
    canvas = open_panels(0.6 + 3.4 * len(panels))
    tips: list[Tip] = []
    shared: Axes | None = None
    shown = [found for curves in panels.values() for curve in curves for found in curve.passes]
    predicted = [found.predicted for found in shown if not isinstance(found.predicted, Missing)]
    highest = HEADROOM * max((*(found.cost.value for found in shown), *predicted))
    for index, (name, curves) in enumerate(panels.items()):
        axes: Axes = canvas.add_subplot(len(panels), 1, index + 1, sharex=shared, sharey=shared)
        shared = shared or axes
        for place, curve in enumerate(sorted(curves, key=lambda found: found.rows)[:MAX_LINES]):
            tips += _draw_curve(axes, curve, place, name)
        axes.set_title(name, loc="left", fontsize="medium")
        axes.set_ylabel("v(m)")
        axes.set_ylim(0, highest)
        axes.legend(loc="upper left", frameon=False, ncols=2, title="static batch")
    if shared is not None:
        axes.set_xlabel("tokens per row and pass, m")
    return print_canvas(canvas, FILE_NAME, tips)


def _draw_curve(axes: Axes, curve: VerifyCurve, place: int, name: str) -> list[Tip]:
    color = OKABE_ITO[place]
    tokens = [found.m for found in curve.passes]
    values = [found.cost for found in curve.passes]
    below = [value.value - (value.low if value.low is not None else value.value) for value in values]
    above = [(value.high if value.high is not None else value.value) - value.value for value in values]
    axes.errorbar(
        tokens,
        [value.value for value in values],
        yerr=[below, above],
        color=color,
        marker=MARKERS[place],
        capsize=3,
        linewidth=2,
        label=str(curve.rows),
    )
    predicted = [(found.m, found.predicted) for found in curve.passes if not isinstance(found.predicted, Missing)]
    if predicted:
        axes.plot(*zip(*predicted, strict=True), color=color, linestyle="--", linewidth=1.6)
    line = f"{name}, static batch {curve.rows}"
    return [
        Tip(axes, found.m, found.cost.value, f"{line}, m {found.m}: v {found.cost.value:.3g}") for found in curve.passes
    ]
