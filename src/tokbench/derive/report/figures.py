"""Draws the figures of a report as PNG. A figure without data is left out; nothing is drawn that has no source."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.published import Comparison, PublishedFigure
from tokbench.derive.report.document import Figure
from tokbench.derive.standing import PER_USER, SYSTEM, Standing, estimate_of
from tokbench.units import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Source: Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/, without the yellow."""
OURS, THEIRS = OKABE_ITO[0], OKABE_ITO[1:4]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HUMAN_TOKENS_PER_S = (10.0, 30.0)
"""About 1.9 and 5.7 times silent reading: 238 words/min at 0.75 words a token are 5.3 tokens/s.

Source: Brysbaert 2019, https://doi.org/10.1016/j.jml.2019.104047, read 2026-11-21
"""
LABEL = {"textcoords": "offset points", "color": "#555555", "va": "top"}
NARROW = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
MAX_BARS = 20
MAX_CURVES = 7
CROWDED = 4
MAX_FIGURES_PER_VENDOR = 7
STYLE = {
    "font.size": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "figure.dpi": 100,
    "svg.hashsalt": "tokbench",
}


class Drawn(NamedTuple):
    """One figure as a part of the document and as a PNG."""

    figure: Figure
    png: bytes


def draw_figures(cells: Sequence[CellResult], standing: Standing) -> tuple[Drawn, ...]:
    """Every figure that there is data for."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(STYLE):
        drawn = (_draw_speed(standing), _draw_batch(cells), _draw_roofline(cells))
    return tuple(item for item in drawn if item is not None)


def open_canvas(height_in: float) -> tuple[Canvas, Axes]:
    """An empty figure of the width that reports have, and its axes."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9.5, height_in), layout="constrained")
    return canvas, canvas.add_subplot()


def png_of(canvas: Canvas) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def plain_ticks(axis: Axis) -> None:
    """Numbers as a person writes them on a logarithmic axis, as many as there is room for."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 4 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0) if decades > 0.6 else NARROW
    axis.set_major_locator(LogLocator(base=10, subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_speed(standing: Standing) -> Drawn | None:
    """Our best cells beside the published figures they were set against."""
    ours = [(cell, value) for cell in standing.champions if (value := estimate_of(cell, PER_USER)) is not None]
    theirs = list(_figures_beside(standing))
    if not ours or not theirs:
        return None
    ours.sort(key=lambda pair: pair[1].value)
    canvas, axes = open_canvas(1.4 + 0.58 * (len(ours) + len(theirs)))
    labels: list[str] = []
    for cell, value in ours:
        if value.low is not None and value.high is not None:
            axes.plot([value.low, value.high], [len(labels)] * 2, color=OURS, linewidth=2.5)
        axes.plot(value.value, len(labels), MARKERS[0], color=OURS, markersize=11)
        _annotate(axes, value.value, len(labels))
        labels.append(f"here: {cell.conditions.hardware}\n{wording.say_model(cell)}")
    vendors = list(dict.fromkeys(figure.vendor for figure in theirs))
    for figure in theirs:
        index = vendors.index(figure.vendor)
        color = THEIRS[index % len(THEIRS)]
        fill = color if figure.speculation == "none" else "white"
        marker = MARKERS[1 + index % (len(MARKERS) - 1)]
        axes.plot(figure.value, len(labels), marker, color=color, markerfacecolor=fill, markersize=10, mew=2)
        _annotate(axes, figure.value, len(labels))
        name = wording.short_model(figure.model) if figure.model else "its machine"
        labels.append(f"{wording.say_vendor(figure.vendor)} {figure.published}\n{name}")
    _finish_speed(axes, labels)
    caption = (
        "Decode speed of one stream, logarithmic. Blue dots: the fastest cell of each run and model here, with its "
        "95 % interval where it is wider than the dot. Others: published figures, hollow where speculative decoding "
        f"was on or is not stated. {_caption_thresholds()} Sources: the table of published figures below."
    )
    alt = f"Decode speed per user of {len(ours)} cells here beside {len(theirs)} published figures"
    return Drawn(Figure("speed.png", alt, caption), png_of(canvas))


def _caption_thresholds() -> str:
    return (
        "Dotted: 10 and 30 tokens/s, about 2 and 6 times the speed of silent reading (238 words/min, Brysbaert 2019)."
    )


def _annotate(axes: Axes, value: float, row: int) -> None:
    axes.annotate(
        f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", (value, row), (10, -4), textcoords="offset points"
    )


def _finish_speed(axes: Axes, labels: list[str]) -> None:
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 5.0), right * 3.0)
    for threshold in HUMAN_TOKENS_PER_S:
        axes.axvline(threshold, color="#555555", linestyle=":", linewidth=1.6)
        axes.annotate(f"{threshold:g}", (threshold, 1.0), (4, -4), xycoords=("data", "axes fraction"), **LABEL)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    plain_ticks(axes.xaxis)
    axes.set_xlabel("decode speed per user (tokens/s, logarithmic)")


def _figures_beside(standing: Standing) -> Iterator[PublishedFigure]:
    """The figures of every decode comparison, each once, slowest first within a vendor, the newest kept."""
    by_vendor: dict[str, dict[str, PublishedFigure]] = {}
    for item in standing.beside:
        if isinstance(item.outcome, Comparison) and item.outcome.metric == PER_USER:
            for one in (item.outcome, *item.outcome.others):
                by_vendor.setdefault(one.theirs.vendor, {})[one.theirs.id] = one.theirs
    for figures in by_vendor.values():
        kept = list(figures.values())[:MAX_FIGURES_PER_VENDOR]
        yield from sorted(kept, key=lambda figure: figure.value)


def _draw_batch(cells: Sequence[CellResult]) -> Drawn | None:
    """Speed per user against speed of the system, one line per engine mode and prompt."""
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for cell in cells:
        user, system = estimate_of(cell, PER_USER), estimate_of(cell, SYSTEM)
        rows = cell.conditions.static_batch
        if user is not None and system is not None and rows is not None:
            lines.setdefault(_line_name(cell, _has_several_runs(cells)), []).append((rows, system.value, user.value))
    curves = {name: sorted(points) for name, points in lines.items() if len({point[0] for point in points}) > 1}
    if not curves:
        return None
    most = sorted(curves, key=lambda name: -max(point[1] for point in curves[name]))[:MAX_CURVES]
    left_out = len(curves) - len(most)
    curves = {name: points for name, points in curves.items() if name in most}
    canvas, axes = open_canvas(4.9 + 0.34 * len(curves))
    for index, (name, points) in enumerate(curves.items()):
        color, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
        x, y = [point[1] for point in points], [point[2] for point in points]
        axes.plot(x, y, marker=marker, color=color, linewidth=2, markersize=8, label=name)
        for rows, system_value, user_value in points if len(curves) <= CROWDED else (points[0], points[-1]):
            axes.annotate(str(rows), (system_value, user_value), (5, 7), textcoords="offset points", color=color)
    _finish_batch(axes)
    caption = (
        "What more users cost each of them: decode speed of one stream against output speed of all streams, "
        "prefill included, both logarithmic; the number at a point is the static batch. Up and to the right is better. "
        f"{_say_left_out(left_out, 'slowest lines')}Source: the runs of this report."
    )
    return Drawn(
        Figure("batch.png", "Speed per user against system speed over the static batch", caption), png_of(canvas)
    )


def _finish_batch(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.12)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("output speed of the system (tokens/s)")
    axes.set_ylabel("decode speed per user (tokens/s)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, ncols=1)


def _has_several_runs(cells: Sequence[CellResult]) -> bool:
    return len({cell.run_name for cell in cells}) > 1


def _line_name(cell: CellResult, with_run: bool) -> str:
    conditions = cell.conditions
    prompt = "" if conditions.prompt_tokens is None else f", prompt {conditions.prompt_tokens}"
    name = f"{wording.say_model(cell)}, {conditions.mode}{prompt}"
    return f"{cell.run_name}: {name}" if with_run else name


def _draw_roofline(cells: Sequence[CellResult]) -> Drawn | None:
    """The share of the measured read ceiling, one bar per cell."""
    rated = [(cell, value) for cell in cells if (value := estimate_of(cell, "bandwidth_used_ratio")) is not None]
    if not rated:
        return None
    shown = sorted(rated, key=lambda pair: -pair[1].value)[:MAX_BARS]
    with_run = _has_several_runs(cells)
    modes = list(dict.fromkeys(cell.conditions.mode for cell, _ in rated))
    canvas, axes = open_canvas(1.5 + 0.62 * len(shown))
    for row, (cell, value) in enumerate(reversed(shown)):
        color = OKABE_ITO[modes.index(cell.conditions.mode) % len(OKABE_ITO)]
        errors = None
        if value.low is not None and value.high is not None:
            errors = [[100 * (value.value - value.low)], [100 * (value.high - value.value)]]
        axes.barh(row, 100 * value.value, color=color, height=0.62, xerr=errors, ecolor="#333333", capsize=3)
        axes.annotate(
            f"{format_number(100 * value.value)} %",
            (100 * (value.high or value.value), row),
            (8, -4),
            textcoords="offset points",
        )
    axes.set_yticks(range(len(shown)), [_bar_name(cell, with_run) for cell, _ in reversed(shown)])
    axes.axvline(100, color="#555555", linestyle=":", linewidth=1.6)
    axes.set_xlim(0, max(112.0, 115 * max(value.value for _, value in shown)))
    axes.set_xlabel("share of the measured read ceiling (%)")
    axes.grid(axis="y", visible=False)
    left_out = len(rated) - len(shown)
    caption = (
        "How close decode comes to reading memory at the measured ceiling (dotted: all of it), with its 95 % interval; "
        f"one colour per mode. {_say_left_out(left_out, 'lowest cells')}Source: the runs of this report."
    )
    return Drawn(Figure("roofline.png", "Share of the measured read ceiling per cell", caption), png_of(canvas))


def _say_left_out(count: int, what: str) -> str:
    return f"The {count} {what} are left out. " if count else ""


def _bar_name(cell: CellResult, with_run: bool) -> str:
    conditions = cell.conditions
    prompt = "" if conditions.prompt_tokens is None else f", prompt {conditions.prompt_tokens}"
    run = f"{cell.run_name}: " if with_run else ""
    return f"{run}{wording.say_model(cell)}\n{conditions.mode}, {wording.say_load(cell)}{prompt}"
