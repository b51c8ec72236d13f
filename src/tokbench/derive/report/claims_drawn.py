"""What the claims on mixtures of experts and on drafts rest on, drawn from records: bytes and step times beside dense
twins, speed-ups beside their prediction.

It words and draws what `derive/experts` and `derive/speculation` found; it judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.experts.families import Triple, find_triples, value_of
from tokbench.derive.published import PublishedFigure
from tokbench.derive.report.canvas import OKABE_ITO, SOFT, Drawn, Printed, Tip, drawing, open_canvas, print_canvas
from tokbench.derive.report.document import Block, Figure, Paragraph
from tokbench.derive.report.experts_figures import BATHTUB, draw_experts
from tokbench.derive.report.experts_tables import triple_table
from tokbench.derive.report.speculation_figures import draw_speculation
from tokbench.derive.report.speculation_section import PREDICTION
from tokbench.derive.speculation.found import find_speculation
from tokbench.derive.words import mark, t
from tokbench.units import format_number

MEMORY = "claims_moe_memory.png"
WEIGHTS = "weight_bytes"
TRIPLE = "moe-triple"
"""Label of the mixture and its two twins that a config holds for the claims; its report shows the others too."""
ROLES = (mark("mixture"), mark("active twin"), mark("wider twin"))
GB = 1e9


class Bar(NamedTuple):
    """The weights of one model of a family."""

    name: str
    role: str
    size_bytes: float


def cells_of(results: Sequence[Results]) -> list[CellResult]:
    """The cells of all records that were made for the triple; all cells where none bears the label."""
    cells = [cell for item in results for cell in item.cells]
    return [cell for cell in cells if cell.labels.get("claim") == TRIPLE] or cells


def draw_claimed_experts(results: Sequence[Results]) -> tuple[Drawn, ...]:
    """Bytes of each mixture beside its twins, and the times of their steps; nothing without such cells."""
    cells = cells_of(results)
    times = [drawn for drawn in draw_experts(cells) if drawn.figure.file_name == BATHTUB]
    families = [_bars(triple) for triple in _distinct(find_triples(cells))]
    sized = [family for family in families if len(family) == len(ROLES)]
    return (*times, *([_draw_memory(sized)] if sized else []))


def draw_claimed_drafts(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> tuple[Drawn, ...]:
    """Speed-ups by drafts as predicted and as measured; nothing without such cells."""
    drawn = draw_speculation(find_speculation(results, figures))
    return tuple(one for one in drawn if one.figure.file_name == PREDICTION)


def experts_blocks(results: Sequence[Results]) -> tuple[Block, ...]:
    """How the figures are read, and the numbers behind the times; nothing without such cells."""
    triples = _distinct(find_triples(cells_of(results)))
    if not triples:
        return ()
    reading = t(
        "A mixture stands between two dense twins that differ in the feed-forward alone: one computes as much per "
        "token (the active twin), one stores as much (the wider twin). In bytes a mixture is the wider twin, whatever "
        "works on a token. In time it is near the active twin with one row, and nears the wider twin as the rows of a "
        "step touch more experts. A ratio without an interval is of one repetition."
    )
    several = len({triple.moe.cell.run_name for triple in triples}) > 1
    return (Paragraph(reading), *(triple_table(triple, several) for triple in triples))


def _distinct(triples: Sequence[Triple]) -> list[Triple]:
    """Families that have both twins: with one alone there is nothing between which the mixture could stand."""
    return [triple for triple in triples if triple.steps[0].active is not None and triple.steps[0].total is not None]


def _draw_memory(families: Sequence[Sequence[Bar]]) -> Drawn:
    with drawing():
        printed = _plot_memory(families)
    caption = t(
        "Bytes of the loaded weights, in percent of the wider twin's. Dotted: half of them; a mixture that gave more "
        "capacity in the same memory would have to end left of it. Source: the runs that were given."
    )
    return Drawn(Figure(MEMORY, t("Weights of a mixture of experts beside its dense twins"), caption), *printed)


def _bars(triple: Triple) -> list[Bar]:
    """The mixture, its active and its wider twin, in this order; one that has no bytes is left out."""
    first = triple.steps[0]
    members = zip(ROLES, (first.moe, first.active, first.total), strict=True)
    sized = [(role, cell, value_of(cell, WEIGHTS)) for role, cell in members]
    return [
        Bar(wording.say_model(cell), role, size) for role, cell, size in sized if cell is not None and size is not None
    ]


def _plot_memory(families: Sequence[Sequence[Bar]]) -> Printed:
    bars = [bar for family in families for bar in family]
    canvas, axes = open_canvas(1.7 + 0.62 * len(bars))
    tips: list[Tip] = []
    place = len(bars)
    for family in families:
        wide = family[-1].size_bytes
        for bar in family:
            place -= 1
            share, size = 100 * bar.size_bytes / wide, f"{format_number(bar.size_bytes / GB, 3)} GB"
            axes.barh(place, share, height=0.66, color=OKABE_ITO[ROLES.index(bar.role)])
            axes.annotate(size, (share, place), (6, 0), textcoords="offset points", va="center")
            tips.append(Tip(axes, share, place, f"{bar.name}: {size}, {format_number(share, 3)} %"))
    axes.set_yticks(range(len(bars)), [f"{bar.role}\n{bar.name}" for bar in reversed(bars)], fontsize=10)
    axes.axvline(50, linestyle=":", color=SOFT, linewidth=2.2)
    axes.set_xlim(0, 116)
    axes.set_xlabel("weights (% of the wider twin's)")
    axes.grid(visible=False, axis="y")
    return print_canvas(canvas, MEMORY, tips)
