"""`tokbench compare`: B beside A with what differs, for a reader, a pull request and an exit code."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from tokbench.cli.console import RunConsole
from tokbench.derive.compare.pages import compared_document
from tokbench.derive.compare.plain import dump_compared
from tokbench.derive.compare.result import Asked, Compared, Verdict, compare_sides
from tokbench.derive.compare.sides import Side, read_side
from tokbench.derive.compare.split import split_side
from tokbench.derive.report.document import Block, Bullets, Cell, Document, Paragraph, Table
from tokbench.derive.report.markdown import render_markdown
from tokbench.errors import SpecError

STDOUT = "-"


class CompareExit(enum.IntEnum):
    """What `tokbench compare` ends with, beside the codes of every command."""

    PASSED = 0
    BROKEN = 1
    UNLIKE = 6
    CANNOT_TELL = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Forms:
    """How the answer is given."""

    as_json: bool = False
    markdown: str | None = None
    """A file, or `-` for standard output."""


def show_comparison(sides: tuple[Side, Side], asked: Asked, forms: Forms) -> CompareExit:
    """Compare, print, and give the exit code.

    Raises:
        SpecError: an unknown metric, a bound that is none, a file that cannot be written.
    """
    if forms.as_json and forms.markdown == STDOUT:
        raise SpecError("--json and --markdown - would both be printed", fix="give --markdown a file")
    compared = compare_sides(*sides, asked)
    document = compared_document(compared)
    if forms.markdown is not None and forms.markdown != STDOUT:
        _write(Path(forms.markdown), render_markdown(document))
    if forms.as_json:
        typer.echo(dump_compared(compared), nl=False)
    elif forms.markdown == STDOUT:
        typer.echo(render_markdown(document), nl=False)
    else:
        print_document(document)
    return _exit_code(compared)


def read_sides(a: Path, b: Path | None, by: str | None) -> tuple[Side, Side]:
    """Two records or files, or one record cut in two.

    Raises:
        RecordError: one cannot be read. SpecError: neither or both of B and `by`, or a `by` that is none.
    """
    if b is not None and by is None:
        return read_side(a), read_side(b)
    if b is None and by is not None:
        return split_side(read_side(a), by)
    message = "one side only" if b is None else "--by cuts one run in two, and there are two"
    raise SpecError(message, fix="tokbench compare A B, or tokbench compare RUN --by engine.mode=eager,compiled")


def _exit_code(compared: Compared) -> CompareExit:
    return CompareExit[Verdict(compared.verdict).name]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fix = "give a file in a folder that can be written"
        raise SpecError(f"{path}: cannot be written: {error.strerror}", key="--markdown", fix=fix) from None


def print_document(document: Document) -> None:
    """Print paragraphs, lists and tables: as wide as they are in a pipe, fitted to a terminal."""
    console = RunConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)
    for section in document.sections:
        console.print(section.title, style="bold")
        for block in section.blocks:
            _print_block(block, console)
        console.print()


def _print_block(block: Block, console: Console) -> None:
    match block:
        case Paragraph():
            console.print(block.text, style="yellow" if block.tone == "warning" else None)
        case Bullets():
            for item in block.items:
                console.print(f"- {item.lead}{item.text}")
        case Table():
            _print_table(block, console)
        case _:
            raise TypeError(f"a comparison has no {type(block).__name__}")


def _print_table(table: Table, console: Console) -> None:
    marks = table.marks()
    rows = [[_text(cell, marks) for cell in row] for row in table.rows]
    if console.is_terminal:
        shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(table.columns):
            shown.add_column(column.title, justify=column.align, overflow="fold", no_wrap=index == 0)
        for row in rows:
            shown.add_row(*row)
        console.print(shown, soft_wrap=False)
    else:
        for line in _align([[column.title for column in table.columns], *rows]):
            console.print(f"  {line}")
    for note in table.footnotes():
        console.print(f"  ({note.mark}) {note.text}")


def _text(cell: Cell, marks: dict[str, str]) -> str:
    return f"{cell.text} ({marks[cell.note]})" if cell.note else cell.text


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, every column as wide as its widest field: a log of CI has no terminal to fit."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
