"""Draws step time over context for a family of attention blocks. Left out where no block has three contexts."""

from __future__ import annotations

from collections.abc import Sequence

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
from tokbench.derive.words import t
from tokbench.units import SECONDS, format_value

FILE_NAME = "kv_context.png"
MILLI = 1e-3
MAX_LINES = len(OKABE_ITO)


def draw_caches(results: Sequence[Results]) -> tuple[Drawn, ...]:
    """Step time over context, one line a block, at the smallest static batch that a block has."""
    lines = [(item.name, line) for item in results for line in find_caches(item).lines]
    if not lines:
        return ()
    smallest = min(line.static_batch for _, line in lines)
    shown = [(name, line) for name, line in lines if line.static_batch == smallest][:MAX_LINES]
    with drawing():
        printed = _plot(shown, several=len(results) > 1)
    caption = t(
        "Step time over the tokens in the cache, both logarithmic, static batch {batch}: flat where weights and "
        "launches are the cost, climbing where the cache is. Random weights, few layers. Source: the runs of this "
        "report.",
        batch=smallest,
    )
    alt = t("Step time over context of {count} kinds of attention", count=len(shown))
    return (Drawn(Figure(FILE_NAME, alt, caption), *printed),)


def _plot(lines: Sequence[tuple[str, ContextLine]], *, several: bool) -> Printed:
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
    return print_canvas(canvas, FILE_NAME, tips)
