"""A report's content without markup: what `sections` words and what `markdown` and `html` print. Computes no number."""

from __future__ import annotations

import dataclasses
import string
from typing import Literal, TypeAlias

DASH = "–"
"""Stands where a value cannot be had; the note beside it says why."""

Tone = Literal["plain", "lead", "warning"]
Align = Literal["left", "right"]


@dataclasses.dataclass(frozen=True, slots=True)
class Paragraph:
    """One or more sentences; a lead opens the report, a warning must not be passed over."""

    text: str
    tone: Tone = "plain"


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One line of a list: `lead` stands out before the text, `url` is the page it rests on."""

    text: str
    url: str | None = None
    link_text: str | None = None
    lead: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Bullets:
    """A list whose order means nothing."""

    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; `unit` is printed under the title."""

    title: str
    unit: str = ""
    align: Align = "left"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table. `sort` orders a column in HTML, `note` becomes a footnote of the table."""

    text: str
    sort: float | None = None
    note: str | None = None
    url: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Footnote:
    """A note of a table with the mark that its cells bear."""

    mark: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells under {len(self.columns)} columns: {row[0].text!r}")

    def footnotes(self) -> tuple[Footnote, ...]:
        """Every note once, in the order in which a reader meets it."""
        notes = dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note)
        return tuple(Footnote(mark_of(index), note) for index, note in enumerate(notes))

    def marks(self) -> dict[str, str]:
        """The mark of each note."""
        return {footnote.text: footnote.mark for footnote in self.footnotes()}


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """An image by its file name under `figures/`."""

    file_name: str
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """Text to be printed as it stands."""

    text: str


Block: TypeAlias = Paragraph | Bullets | Table | Figure | Code


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it; level 2 is a part of the report, level 3 a part of that."""

    title: str
    blocks: tuple[Block, ...]
    level: int = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Chrome:
    """The words of a page that belong to no section."""

    contents: str = "Contents"
    theme: str = "Theme"
    automatic: str = "auto"
    light: str = "light"
    dark: str = "dark"
    sort: str = "Sort by this column"


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]
    language: str = "en"
    chrome: Chrome = Chrome()


def mark_of(index: int) -> str:
    """The mark of the footnote at `index`: a … z, aa, ab …"""
    letters = string.ascii_lowercase
    ahead = mark_of(index // len(letters) - 1) if index >= len(letters) else ""
    return ahead + letters[index % len(letters)]


def bullets(*texts: str) -> Bullets:
    """A list of plain lines."""
    return Bullets(tuple(Item(text) for text in texts))
