"""Draws the figures of a report. One without data is left out; nothing is drawn that has no source. Derives nothing.

Only comparisons that may be shown in a summary stand in a chart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tokbench.derive import wording
from tokbench.derive.distributions import Distribution
from tokbench.derive.evaluate import CellResult
from tokbench.derive.published import Comparison, PublishedFigure
from tokbench.derive.report.canvas import (
    MARKERS,
    OKABE_ITO,
    SOFT,
    Drawn,
    Printed,
    Tip,
    drawing,
    fold_names,
    open_canvas,
    plain_ticks,
    print_canvas,
)
from tokbench.derive.report.document import Figure
from tokbench.derive.report.latency_figures import draw_latency
from tokbench.derive.report.pareto_figure import draw_pareto
from tokbench.derive.standing import PER_USER, Standing, estimate_of
from tokbench.derive.words import t
from tokbench.stats import Estimate
from tokbench.units import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, THEIRS = OKABE_ITO[0], OKABE_ITO[1:4]
HUMAN_TOKENS_PER_S = (10.0, 30.0)
"""About 1.9 and 5.7 times silent reading: 238 words/min at 0.75 words a token are 5.3 tokens/s.

Source: Brysbaert 2019, https://doi.org/10.1016/j.jml.2019.104047, read 2026-11-21
"""
LABEL = {"textcoords": "offset points", "color": SOFT, "va": "top"}
MAX_BARS = 20
MAX_OURS = 10
MAX_FIGURES_PER_VENDOR = 7
Rated = tuple[CellResult, Estimate]


def draw_figures(
    cells: Sequence[CellResult], standing: Standing, distributions: Sequence[Distribution]
) -> tuple[Drawn, ...]:
    """Every figure that there is data for."""
    drawn = (_draw_speed(standing), *draw_pareto(cells, standing), *draw_latency(distributions), _draw_shares(cells))
    return tuple(item for item in drawn if item is not None)


class _Speeds(NamedTuple):
    """What the first figure shows: slowest first on either side."""

    ours: list[Rated]
    theirs: list[PublishedFigure]
    left_out: int


def _draw_speed(standing: Standing) -> Drawn | None:
    """Our best cells beside the published figures that may be set against them, and what a reader can follow."""
    rated = [(cell, value) for cell in standing.champions if (value := estimate_of(cell, PER_USER)) is not None]
    if not rated:
        return None
    rated.sort(key=lambda pair: pair[1].value)
    speeds = _Speeds(rated[-MAX_OURS:], list(_figures_beside(standing)), max(0, len(rated) - MAX_OURS))
    with drawing():
        printed = _plot_speed(speeds)
    alt = t(
        "Decode speed per user here ({ours} cells) and as published ({theirs} figures)",
        ours=len(speeds.ours),
        theirs=len(speeds.theirs),
    )
    return Drawn(Figure("speed.png", alt, _caption_speed(speeds)), *printed)


def _caption_speed(speeds: _Speeds) -> str:
    parts = [
        t(
            "Decode speed of one stream, logarithmic. Blue dots: the fastest cell of each run and model here, with its "
            "95 % interval where it is wider than the dot; hollow where the weights are not a model's own."
        )
    ]
    if speeds.theirs:
        parts.append(
            t("Others: published figures, hollow where speculative decoding was on or is not stated."),
        )
    else:
        parts.append(
            t("No published figure meets the minimum that a comparison needs to stand here; see the appendix.")
        )
    parts.append(
        t(
            "Dotted: 10 and 30 tokens/s, about 2 and 6 times the speed of silent reading (238 words/min, Brysbaert "
            "2019)."
        )
    )
    if speeds.left_out:
        parts.append(t("Left out: the {count} slowest models.", count=speeds.left_out))
    if speeds.theirs:
        parts.append(t("Sources: the runs of this report and the table of published figures."))
    else:
        parts.append(t("Source: the runs of this report."))
    return " ".join(parts)


def _plot_speed(speeds: _Speeds) -> Printed:
    canvas, axes = open_canvas(1.4 + 0.6 * (len(speeds.ours) + len(speeds.theirs)))
    labels: list[str] = []
    tips: list[Tip] = []
    for cell, value in speeds.ours:
        if value.low is not None and value.high is not None:
            axes.plot([value.low, value.high], [len(labels)] * 2, color=OURS, linewidth=2.5)
        fill = "white" if wording.label_of(cell) else OURS
        axes.plot(value.value, len(labels), MARKERS[0], color=OURS, markerfacecolor=fill, markersize=11, mew=2)
        _annotate(axes, value.value, len(labels))
        tips.append(Tip(axes, value.value, len(labels), _say_ours(cell, value)))
        labels.append(f"here: {cell.conditions.hardware}\n{wording.say_model(cell)}")
    vendors = list(dict.fromkeys(figure.vendor for figure in speeds.theirs))
    for figure in speeds.theirs:
        index = vendors.index(figure.vendor)
        color, marker = THEIRS[index % len(THEIRS)], MARKERS[1 + index % (len(MARKERS) - 1)]
        fill = color if figure.speculation == "none" else "white"
        axes.plot(figure.value, len(labels), marker, color=color, markerfacecolor=fill, markersize=10, mew=2)
        _annotate(axes, figure.value, len(labels))
        tips.append(Tip(axes, figure.value, len(labels), _say_theirs(figure)))
        labels.append(f"{wording.say_vendor(figure.vendor)} {figure.published}\n{_model_of(figure)}")
    _finish_speed(axes, labels)
    return print_canvas(canvas, "speed.png", tips)


def _model_of(figure: PublishedFigure) -> str:
    return wording.short_model(figure.model) if figure.model else "its machine"


def _say_ours(cell: CellResult, value: Estimate) -> str:
    return f"{wording.say_cell(cell)}: {wording.say_value(value)} ({wording.say_interval(value)})"


def _say_theirs(figure: PublishedFigure) -> str:
    value, who = wording.say_published(figure), wording.say_measurer(figure.measured_by)
    return f"{wording.say_vendor(figure.vendor)}, {_model_of(figure)}: {value}, {who}, {figure.published}"


def _annotate(axes: Axes, value: float, row: int) -> None:
    text = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    axes.annotate(text, (value, row), (11, 9), textcoords="offset points", fontsize=13)


def _finish_speed(axes: Axes, labels: list[str]) -> None:
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 5.0), max(right * 2.0, 60.0))
    for threshold in HUMAN_TOKENS_PER_S:
        axes.axvline(threshold, color=SOFT, linestyle=":", linewidth=1.6)
        axes.annotate(f"{threshold:g}", (threshold, 1.0), (4, -4), xycoords=("data", "axes fraction"), **LABEL)
    axes.set_yticks(range(len(labels)), labels, fontsize=13)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    plain_ticks(axes.xaxis, share=0.55)
    axes.set_xlabel("tokens/s per user (log scale)")


def _figures_beside(standing: Standing) -> Iterator[PublishedFigure]:
    """The figures of every decode comparison that may be shown, each once, slowest first within a vendor."""
    by_vendor: dict[str, dict[str, PublishedFigure]] = {}
    for item in standing.beside:
        if isinstance(item.outcome, Comparison) and item.outcome.metric == PER_USER:
            for one in (item.outcome, *item.outcome.others):
                if one.is_presentable:
                    by_vendor.setdefault(one.theirs.vendor, {})[one.theirs.id] = one.theirs
    for figures in by_vendor.values():
        kept = list(figures.values())[:MAX_FIGURES_PER_VENDOR]
        yield from sorted(kept, key=lambda figure: figure.value)


def _draw_shares(cells: Sequence[CellResult]) -> Drawn | None:
    """The share of the measured read ceiling, one bar per cell."""
    rated = [(cell, value) for cell in cells if (value := estimate_of(cell, "bandwidth_used_ratio")) is not None]
    if not rated:
        return None
    shown = sorted(rated, key=lambda pair: -pair[1].value)[:MAX_BARS]
    with drawing():
        printed = _plot_shares(shown, len({cell.run_name for cell in cells}) > 1)
    parts = [
        t(
            "How close decode comes to reading memory at the measured ceiling (dotted: all of it), with its 95 % "
            "interval; one colour per mode."
        )
    ]
    if len(shown) < len(rated):
        parts.append(t("Left out: the {count} lowest cells.", count=len(rated) - len(shown)))
    parts.append(t("Source: the runs of this report."))
    return Drawn(Figure("roofline.png", t("Share of the measured read ceiling per cell"), " ".join(parts)), *printed)


def _plot_shares(shown: Sequence[Rated], with_run: bool) -> Printed:
    modes = list(dict.fromkeys(cell.conditions.mode for cell, _ in shown))
    named = fold_names([_bar_name(cell, with_run) for cell, _ in reversed(shown)])
    canvas, axes = open_canvas(1.5 + named.row_in * len(shown))
    tips: list[Tip] = []
    for row, (cell, value) in enumerate(reversed(shown)):
        color = OKABE_ITO[modes.index(cell.conditions.mode) % len(OKABE_ITO)]
        errors = None
        if value.low is not None and value.high is not None:
            errors = [[100 * (value.value - value.low)], [100 * (value.high - value.value)]]
        axes.barh(row, 100 * value.value, color=color, height=0.62, xerr=errors, ecolor="#333333", capsize=3)
        end = (100 * (value.high or value.value), row)
        text = f"{format_number(100 * value.value)} %"
        axes.annotate(text, end, (8, -4), textcoords="offset points")
        tips.append(Tip(axes, 100 * value.value, row, f"{wording.say_cell(cell)}: {text}, n {value.n}"))
    axes.set_yticks(range(len(shown)), named.names, fontsize=13)
    axes.axvline(100, color=SOFT, linestyle=":", linewidth=1.6)
    axes.set_xlim(0, max(112.0, 115 * max(value.value for _, value in shown)))
    axes.set_xlabel("share of the measured read ceiling (%)")
    axes.grid(axis="y", visible=False)
    return print_canvas(canvas, "roofline.png", tips)


def _bar_name(cell: CellResult, with_run: bool) -> str:
    conditions = cell.conditions
    prompt = "" if conditions.prompt_tokens is None else f", prompt {conditions.prompt_tokens}"
    run = f"{cell.run_name}: " if with_run else ""
    return f"{run}{wording.say_model(cell)}\n{wording.say_mode(cell)}, {wording.say_load(cell)}{prompt}"
