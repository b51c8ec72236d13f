"""Draws speed per user against speed per device: what more users cost each of them, and where vendors stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.pareto import OneSided, TradeOff, find_front, find_one_sided, find_trade_offs
from tokbench.derive.report.canvas import (
    INK,
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
from tokbench.derive.standing import Standing
from tokbench.derive.words import t
from tokbench.units import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE_NAME = "pareto.png"
MAX_CURVES = 6
MAX_EDGE_MARKS = 8
CROWDED = 4
Curves = dict[str, list[TradeOff]]


def draw_pareto(cells: Sequence[CellResult], standing: Standing) -> tuple[Drawn, ...]:
    """One line per model, mode and prompt over the load; nothing where no line has two points."""
    points = find_trade_offs(cells)
    several = len({cell.run_name for cell in cells}) > 1
    with drawing():
        curves = _curves(points, several)
        if not curves:
            return ()
        shown = dict(sorted(curves.items(), key=lambda item: -_most(item[1]))[:MAX_CURVES])
        edges = find_one_sided(standing)[:MAX_EDGE_MARKS]
        printed = _plot(shown, find_front(points) if len(_models(points)) == 1 else (), edges)
    figure = _figure(len(curves) - len(shown), len(_models(points)) == 1, bool(edges), _has_invalid(cells))
    return (Drawn(figure, *printed),)


def _has_invalid(cells: Sequence[CellResult]) -> bool:
    return any(cell.status == "ok" and cell.validity.verdict == "invalid" for cell in cells)


def _curves(points: Sequence[TradeOff], with_run: bool) -> Curves:
    curves: Curves = {}
    for point in points:
        conditions = point.cell.conditions
        prompt = "" if conditions.prompt_tokens is None else f", prompt {conditions.prompt_tokens}"
        name = f"{wording.say_model(point.cell)}, {conditions.precision}, {wording.say_mode(point.cell)}{prompt}"
        curves.setdefault(f"{point.cell.run_name}: {name}" if with_run else name, []).append(point)
    loads = {name: {_load(point) for point in members} for name, members in curves.items()}
    return {name: sorted(members, key=_load) for name, members in curves.items() if len(loads[name]) > 1}


def _models(points: Sequence[TradeOff]) -> set[tuple[str | None, str | None]]:
    """Models with the kind of their weights: random ones must not outdo a model's own on one front."""
    return {(point.cell.conditions.model, point.cell.conditions.weights) for point in points}


def _load(point: TradeOff) -> int:
    conditions = point.cell.conditions
    return conditions.static_batch or conditions.concurrency or 0


def _most(members: Sequence[TradeOff]) -> float:
    return max(point.tokens_per_s_per_device for point in members)


def _plot(curves: Curves, front: Sequence[TradeOff], edges: Sequence[OneSided]) -> Printed:
    canvas, axes = open_canvas(5.2 + 0.34 * len(curves))
    axes.set_xscale("log")
    axes.set_yscale("log")
    if front:
        axes.plot(*_xy(front), color=SOFT, linewidth=9, alpha=0.22, solid_capstyle="round", label="no cell beats these")
    tips: list[Tip] = []
    for index, (name, members) in enumerate(curves.items()):
        tips += _plot_curve(axes, index, name, members, is_crowded=len(curves) > CROWDED)
    axes.margins(0.14)
    tips += _plot_edges(axes, edges)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("output speed per device (tokens/s)")
    axes.set_ylabel("decode speed per user (tokens/s)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, ncols=1, fontsize=13)
    return print_canvas(canvas, FILE_NAME, tips)


def _plot_curve(axes: Axes, index: int, name: str, members: Sequence[TradeOff], *, is_crowded: bool) -> list[Tip]:
    """A line of cells; a dashed one with hollow marks where the weights are no model's own."""
    color, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
    is_labelled = any(wording.label_of(point.cell) for point in members)
    x, y = _xy(members)
    style, fill = ("--", "none") if is_labelled else ("-", color)
    axes.plot(x, y, style, marker=marker, color=color, markerfacecolor=fill, linewidth=2, markersize=8, label=name)
    for point in (members[0], members[-1]) if is_crowded else members:
        place = (point.tokens_per_s_per_device, point.tokens_per_s_per_user)
        axes.annotate(str(_load(point)), place, (5, 7), textcoords="offset points", color=color, fontsize=13)
    return [Tip(axes, point.tokens_per_s_per_device, point.tokens_per_s_per_user, _say(point)) for point in members]


def _plot_edges(axes: Axes, edges: Sequence[OneSided]) -> list[Tip]:
    """Arrows at the axes' ends; the view is widened so that all of them are in it."""
    tips = []
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    bottom /= 1.25 if edges else 1.0  # the widened view would press the lowest cells onto the axis
    for edge in edges:
        value = edge.tokens_per_s
        x, y = (left, value) if edge.is_per_user else (value, bottom)
        axes.plot(x, y, ">" if edge.is_per_user else "^", color=INK, markersize=11, clip_on=False, zorder=5)
        text = f"{wording.say_vendor(edge.figure.vendor)} {format_number(value)}"
        place = {"xytext": (11, -4)} if edge.is_per_user else {"xytext": (0, 12), "ha": "center"}
        axes.annotate(text, (x, y), textcoords="offset points", fontsize=12, color=INK, **place)
        tips.append(Tip(axes, x, y, f"{text} tokens/s, published {edge.figure.published}: {edge.figure.source_title}"))
    per_user = [edge.tokens_per_s for edge in edges if edge.is_per_user]
    per_device = [edge.tokens_per_s for edge in edges if not edge.is_per_user]
    axes.set_xlim(left, max([axes.get_xlim()[1], *(1.8 * value for value in per_device)]))
    axes.set_ylim(bottom, max([axes.get_ylim()[1], *(1.4 * value for value in per_user)]))
    return tips


def _xy(points: Sequence[TradeOff]) -> tuple[list[float], list[float]]:
    return [point.tokens_per_s_per_device for point in points], [point.tokens_per_s_per_user for point in points]


def _say(point: TradeOff) -> str:
    user, device = format_number(point.tokens_per_s_per_user), format_number(point.tokens_per_s_per_device)
    return f"{wording.say_cell(point.cell)}: {user} tokens/s per user, {device} tokens/s per device"


def _figure(left_out: int, has_front: bool, has_edges: bool, has_invalid: bool) -> Figure:
    parts = [
        t(
            "What more users cost each of them: decode speed of one stream against output speed of all streams over "
            "the devices, prefill included; logarithmic. The number at a point is the static batch or the concurrency. "
            "Up and to the right is better. Dashed and hollow: weights that are not a model's own."
        )
    ]
    if has_front:
        parts.append(t("On the broad grey line lies what no other cell here equals in both."))
    if has_edges:
        parts.append(t("Arrows at the edges: published figures, of which a source states one of the two speeds only."))
    if has_invalid:
        parts.append(t("Invalid cells are left out."))
    if left_out:
        parts.append(t("Left out: the {count} slowest lines.", count=left_out))
    parts.append(t("Source: the runs of this report."))
    return Figure(FILE_NAME, t("Speed per user against output speed per device"), " ".join(parts))
