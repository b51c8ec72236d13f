"""Draws joules per output token over the static batch. Left out where no mode has two batches with a meter."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.report.canvas import (
    MARKERS,
    OKABE_ITO,
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
from tokbench.stats import Estimate

FILE_NAME = "energy.png"
MAX_LINES = len(OKABE_ITO)
Points = list[tuple[int, Estimate]]


def draw_energy(cells: Sequence[CellResult]) -> tuple[Drawn, ...]:
    """Gross and net joules per output token, one colour per engine and mode."""
    with drawing():
        gross, net = (_lines(cells, name) for name in ("energy_j_per_output_token", "net_energy_j_per_output_token"))
        names = [name for name, points in gross.items() if len(points) > 1][:MAX_LINES]
        if not names:
            return ()
        printed = _plot(names, gross, net)
    caption = t(
        "Energy of one output token over the static batch, both logarithmic: a step costs nearly the same for more "
        "rows until the device computes all the time. Decode alone; dashed: idle power taken off. Source: the runs of "
        "this report."
    )
    return (Drawn(Figure(FILE_NAME, t("Joules per output token over the static batch"), caption), *printed),)


def _plot(names: Sequence[str], gross: dict[str, Points], net: dict[str, Points]) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(names))
    tips: list[Tip] = []
    for index, name in enumerate(names):
        style = {"color": OKABE_ITO[index], "marker": MARKERS[index], "markersize": 8, "linewidth": 2}
        axes.plot(*_xy(gross[name]), label=f"{name}, gross", **style)
        tips += [Tip(axes, rows, value.value, _say(name, rows, value, "gross")) for rows, value in gross[name]]
        if net.get(name):
            axes.plot(*_xy(net[name]), label="net of idle", linestyle="--", **style)
            tips += [Tip(axes, rows, value.value, _say(name, rows, value, "net of idle")) for rows, value in net[name]]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(0.12)
    axes.set_xticks(sorted({rows for name in names for rows, _ in gross[name]}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    plain_ticks(axes.yaxis)
    axes.set_xlabel("static batch")
    axes.set_ylabel("energy per output token (J)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, ncols=1)
    return print_canvas(canvas, FILE_NAME, tips)


def _say(name: str, rows: int, value: Estimate, kind: str) -> str:
    return f"{name}, static batch {rows}: {wording.say_value(value)} {kind} ({wording.say_interval(value)})"


def _lines(cells: Sequence[CellResult], metric: str) -> dict[str, Points]:
    lines: dict[str, Points] = {}
    several = len({cell.run_name for cell in cells}) > 1
    for cell in cells:
        value, rows = estimate_of(cell, metric), cell.conditions.static_batch
        if value is not None and rows is not None and cell.energy.headline:
            scope = cell.energy.headline[0].group.scope
            conditions = cell.conditions
            prompt = "" if conditions.prompt_tokens is None else f", prompt {conditions.prompt_tokens}"
            name = f"{wording.say_model(cell)}, {wording.say_engine(cell)}{prompt}, {scope}"
            lines.setdefault(f"{cell.run_name}: {name}" if several else name, []).append((rows, value))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in lines.items()}


def _xy(points: Points) -> tuple[list[int], list[float]]:
    return [rows for rows, _ in points], [value.value for _, value in points]
