"""Draws what a family of claims rests on: claimed, published and measured, one axis per unit. Derives nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.claims.dimensions import read_unit
from tokbench.derive.claims.evidence import Resolved
from tokbench.derive.claims.intervals import Interval
from tokbench.derive.claims.values import Quantity, Series
from tokbench.derive.claims.verdicts import ClaimVerdict
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
from tokbench.units import format_number

KINDS = {"quantity": "claimed", "published": "published", "measured": "measured here"}
"""Kinds of input that are shown, and how the legend calls them; specifications and assumptions are not."""
MAX_BARS, MAX_FIGURES = 24, 2
LEAST_BARS = 2


class Bar(NamedTuple):
    """One number of a verdict with its interval, in the unit of the figure."""

    claim: str
    name: str
    kind: str
    interval: Interval


def draw_family(topic: str, verdicts: Sequence[ClaimVerdict]) -> tuple[Drawn, ...]:
    """One figure for each unit in which claims of one topic have two numbers or more, the fullest first."""
    by_unit: dict[str, list[Bar]] = {}
    for verdict in verdicts:
        for item in verdict.inputs.values():
            if item.row.kind in KINDS:
                by_unit.setdefault(item.unit, []).extend(_bars(verdict.claim.id, item))
    shown = [
        (unit, bars) for unit, bars in by_unit.items() if len(bars) >= LEAST_BARS and len({b.kind for b in bars}) > 1
    ]
    shown.sort(key=lambda pair: -len(pair[1]))
    return tuple(_draw(topic, index, *pair) for index, pair in enumerate(shown[:MAX_FIGURES]))


def _bars(claim: str, item: Resolved) -> list[Bar]:
    """The values of one input, in its own unit; those that are not above 0 have no place on the axis."""
    factor = read_unit(item.unit).factor
    match item.value:
        case Quantity():
            found = [(item.name, item.value.interval)]
        case Series():
            found = [(f"{item.name}, {key}", own) for key, own, _ in item.value.entries]
        case _:
            found = []
    scaled = [(name, Interval(*(end / factor for end in own))) for name, own in found]
    return [Bar(claim, name, item.row.kind, own) for name, own in scaled if own.low > 0]


def _draw(topic: str, index: int, unit: str, bars: Sequence[Bar]) -> Drawn:
    file_name = f"claims_{topic}_{index + 1}.png"
    kept = bars[:MAX_BARS]
    with drawing():
        printed = _plot(file_name, unit, kept)
    caption = t(
        "Numbers that the verdicts of this family rest on or that stand beside them, logarithmic; the line is the "
        "interval or the range over sources. Names are those of the inputs in the rules."
    )
    if len(kept) < len(bars):
        caption = f"{caption} {t('Left out: {count} further ones.', count=len(bars) - len(kept))}"
    alt = t("What was claimed, published and measured, in {unit}", unit=unit)
    return Drawn(Figure(file_name, alt, caption), *printed)


def _plot(file_name: str, unit: str, bars: Sequence[Bar]) -> Printed:
    canvas, axes = open_canvas(1.9 + 0.42 * len(bars))
    tips: list[Tip] = []
    kinds = [kind for kind in KINDS if any(bar.kind == kind for bar in bars)]
    for row, bar in enumerate(reversed(bars)):
        place = kinds.index(bar.kind)
        low, mid, high = bar.interval
        axes.plot([low, high], [row, row], color=OKABE_ITO[place], linewidth=2.5)
        axes.plot(mid, row, MARKERS[place], color=OKABE_ITO[place], markersize=9)
        tips.append(Tip(axes, mid, row, f"{bar.claim}: {bar.name}: {format_number(mid, 4)} {unit}"))
    for place, kind in enumerate(kinds):
        axes.plot([], [], MARKERS[place], color=OKABE_ITO[place], label=KINDS[kind])
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.set_xlim(left / 1.5, right * 1.5)
    plain_ticks(axes.xaxis, share=0.5)
    axes.set_yticks(range(len(bars)), [f"{bar.claim}\n{bar.name}" for bar in reversed(bars)], fontsize=10)
    axes.set_ylim(-0.7, len(bars) - 0.3)
    axes.set_xlabel("x" if unit == "1" else unit)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, ncols=3)
    return print_canvas(canvas, file_name, tips)
