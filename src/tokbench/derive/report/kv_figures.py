"""Draws step time over context for a family of attention blocks. Left out where no block has three contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import Results
from tokbench.derive.kv.family import find_caches
from tokbench.derive.kv.found import ContextLine
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
from tokbench.derive.report.kv_tables import say_what_ran
from tokbench.derive.words import t
from tokbench.units import SECONDS, format_value

FIRST_NAME = "kv_context.png"
MILLI = 1e-3
MAX_LINES = len(OKABE_ITO)
"""Of one picture: each line has a colour of its own. What is more goes into a further picture."""

Named = tuple[str, ContextLine]
"""A line with the name of its run."""


def is_caches(figure: Figure) -> bool:
    """Whether a figure is one of those that are drawn here."""
    return figure.file_name.startswith(FIRST_NAME.removesuffix(".png"))


def draw_caches(results: Sequence[Results]) -> tuple[Drawn, ...]:
    """Step time over context, one line a block: a picture per static batch, more where one cannot hold all."""
    lines = [(item.name, line) for item in results for line in find_caches(item).lines]
    pictures = [
        picture
        for batch in sorted({line.static_batch for _, line in lines})
        for picture in _pictures([(name, line) for name, line in lines if line.static_batch == batch])
    ]
    return tuple(_draw(picture, place, several=len(results) > 1) for place, picture in enumerate(pictures))


class _Picture(NamedTuple):
    """The lines that stand together, all of one static batch."""

    lines: tuple[Named, ...]
    part: int
    parts: int


def _pictures(lines: Sequence[Named]) -> list[_Picture]:
    """As few pictures as hold all lines, of as many lines each as can be."""
    starts = range(0, len(lines), MAX_LINES)
    return [
        _Picture(tuple(lines[start : start + MAX_LINES]), part + 1, len(starts)) for part, start in enumerate(starts)
    ]


def _draw(picture: _Picture, place: int, *, several: bool) -> Drawn:
    name = FIRST_NAME if place == 0 else FIRST_NAME.replace(".png", f"_{place + 1}.png")
    with drawing():
        printed = _plot(picture.lines, name, several=several)
    alt = t("Step time over context of {count} kinds of attention", count=len(picture.lines))
    return Drawn(Figure(name, alt, _caption(picture)), *printed)


def _caption(picture: _Picture) -> str:
    told = [
        t(
            "Step time over the tokens in the cache, both logarithmic, static batch {batch}: flat where weights and "
            "launches are the cost, climbing where the cache is.",
            batch=picture.lines[0][1].static_batch,
        ),
        say_what_ran([line.cell for _, line in picture.lines]),
        t("Source: the runs of this report."),
    ]
    if picture.parts > 1:
        told.insert(1, t("Part {part} of {parts}.", part=picture.part, parts=picture.parts))
    return " ".join(told)


def _plot(lines: Sequence[Named], file_name: str, *, several: bool) -> Printed:
    canvas, axes = open_canvas(4.9 + 0.34 * len(lines))
    tips: list[Tip] = []
    for index, (run_name, line) in enumerate(lines):
        name = f"{line.block}, {line.cell.conditions.mode}" + (f" ({run_name})" if several else "")
        axes.plot(
            line.contexts,
            [seconds / MILLI for seconds in line.step_s],
            color=OKABE_ITO[index],
            marker=MARKERS[index],
            markersize=8,
            linewidth=2,
            label=name,
        )
        tips += [
            Tip(axes, context, seconds / MILLI, f"{name}, {context:,} tokens: {format_value(seconds, SECONDS)}")
            for context, seconds in zip(line.contexts, line.step_s, strict=True)
        ]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(0.1)
    axes.set_xticks(sorted({context for _, line in lines for context in line.contexts}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    plain_ticks(axes.yaxis)
    axes.set_xlabel("tokens in the cache of each row")
    axes.set_ylabel("step time (ms)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, ncols=1)
    return print_canvas(canvas, file_name, tips)
