"""What every figure of a report is drawn on and printed as: a PNG for Markdown, an SVG with its values for HTML.

It knows nothing of cells and words nothing.
"""

from __future__ import annotations

import contextlib
import html
import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tokbench.derive.report.document import Figure
from tokbench.derive.words import ENGLISH, in_language

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Source: Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/, without the yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, SOFT, LINE, PAPER = "#1b1f24", "#555555", "#dddddd", "#ffffff"
THEMED = {
    **{INK: "--ink", "#333333": "--ink", "#000000": "--ink"},
    **{SOFT: "--soft", LINE: "--line", PAPER: "--paper"},
}
"""Colours that follow the page's theme in HTML, as custom properties of its style sheet; those of data stay."""
STYLE = {
    "font.size": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "grid.color": LINE,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.dpi": 100,
    "svg.fonttype": "path",
    "svg.hashsalt": "tokbench",
}
WIDTH_IN = 9.5
PAD_IN = 0.12
"""Room around the axes: letters are of a little other width in either print than where the layout is made."""
NARROW = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
NAME_CHARS = 44
"""Letters in a line of a row's name: about four of the 9.5 inches, so that the data have the others."""
ROW_IN, LINE_IN = 0.62, 0.24
"""A row of up to two lines, and what each further line adds."""
TIP_RADIUS = 9
"""Points around a mark within which its value shows: a finger's width on a phone."""
_COLOR = re.compile("|".join(THEMED), re.IGNORECASE)
_IDS = re.compile(r'(\bid="|href="#|url\(#)')


class Tip(NamedTuple):
    """A mark in a figure, in the axes' own data, and what stands beside it when a reader points at it."""

    axes: Axes
    x: float
    y: float
    text: str


class RowNames(NamedTuple):
    """What stands beside the rows of a chart, and how high a row has to be for it, in inches."""

    names: list[str]
    row_in: float


class Printed(NamedTuple):
    """A picture as a PNG, and as the SVG element that HTML holds."""

    png: bytes
    svg: str


class Drawn(NamedTuple):
    """One figure as a part of the document, and its picture both ways."""

    figure: Figure
    png: bytes
    svg: str


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Within it figures have the style of reports, and words are English: no font with other letters can be relied on.

    A caption is no part of the picture: word it outside.
    """
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(STYLE), in_language(ENGLISH):
        yield


def open_canvas(height_in: float) -> tuple[Canvas, Axes]:
    """An empty figure of the width that reports have, and its axes."""
    canvas = open_panels(height_in)
    return canvas, canvas.add_subplot()


def open_panels(height_in: float) -> Canvas:
    """An empty figure of that width, without axes."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH_IN, height_in), layout="constrained")
    canvas.get_layout_engine().set(w_pad=PAD_IN, h_pad=PAD_IN)
    return canvas


def fold_names(names: Sequence[str]) -> RowNames:
    """Names in lines of at most NAME_CHARS letters: longer ones leave no room for the data beside them."""
    folded = [[part for line in name.splitlines() for part in _fold(line)] for name in names]
    lines = max((len(parts) for parts in folded), default=0)
    return RowNames(["\n".join(parts) for parts in folded], ROW_IN + LINE_IN * max(lines - 2, 0))


def _fold(line: str) -> list[str]:
    return textwrap.wrap(line, NAME_CHARS, break_on_hyphens=False)


def print_canvas(canvas: Canvas, name: str, tips: Sequence[Tip] = ()) -> Printed:
    """Print a picture both ways; the same picture gives the same bytes. `name` tells its ids from those of others."""
    canvas.draw_without_rendering()  # lays it out, once for both
    canvas.set_layout_engine(None)
    svg = _svg_of(canvas, name)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    marks = "".join(_mark_of(canvas, tip) for tip in tips)
    return Printed(buffer.getvalue(), svg.removesuffix("</svg>") + f"{marks}</svg>")


def plain_ticks(axis: Axis, share: float = 1.0) -> None:
    """Numbers as a person writes them on a logarithmic axis, as many as there is room for.

    `share`: of the figure's width or height, that the axis has.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = math.log10(high / low) / share
    subs = (1.0,) if decades > 4 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0) if decades > 0.6 else NARROW
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _svg_of(canvas: Canvas, name: str) -> str:
    """The SVG element alone: no prolog, no comments, ids of its own, colours that follow the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas.savefig(buffer, format="svg", metadata=nothing)
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\n\s*", "\n", text)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    prefix = re.sub(r"\W", "-", name)
    rest = _IDS.sub(lambda found: f"{found[1]}{prefix}-", rest)
    rest = _COLOR.sub(lambda found: f"var({THEMED[found[0].lower()]})", rest)
    return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]}>{rest}'


def _mark_of(canvas: Canvas, tip: Tip) -> str:
    """A clear circle over a mark, with its text: browsers show it to whoever points there."""
    across, up = canvas.transFigure.inverted().transform(tip.axes.transData.transform((tip.x, tip.y)))
    width, height = (72 * inches for inches in canvas.get_size_inches())
    place = f'cx="{across * width:.1f}" cy="{(1 - up) * height:.1f}" r="{TIP_RADIUS}"'
    return f'<circle class="tip" {place}><title>{html.escape(tip.text)}</title></circle>'
