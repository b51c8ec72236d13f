"""`tokbench published`: what vendors publish, row by row with its source; and whether the rows are right."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.table import Table

from tokbench.derive import wording
from tokbench.derive.published import PublishedFigure, load_published
from tokbench.derive.selection import Selection, count_by_vendor, near_models, select

Form = Literal["table", "csv", "json"]

COLUMNS = ("vendor", "model", "metric", "value", "published", "measured by", "read", "technique", "remarks", "source")


def show_published(asked: Selection, folder: Path | None, form: Form) -> None:
    """Print the figures that are asked for, newest first; CSV and JSON carry every field as the row has it.

    Raises:
        SpecError: an unknown vendor or metric. DataError: a row is wrong.
    """
    figures = load_published(folder)
    chosen = select(figures, asked)
    if form == "json":
        typer.echo(json.dumps([figure.model_dump(mode="json") for figure in chosen], indent=2))
    elif form == "csv":
        _print_csv(chosen)
    elif chosen:
        _print_table(chosen)
    if not chosen:
        typer.echo(_say_nothing(figures, asked), err=form != "table")


def show_published_check(folder: Path | None) -> None:
    """Read every row and print what there is per vendor.

    Raises:
        DataError: the file, the row and the field of the first fault.
    """
    figures = load_published(folder)
    for item in count_by_vendor(figures):
        typer.echo(
            f"{item.vendor}: {item.figures} figures of {item.models} models, {item.primary} read in the source itself, "
            f"{item.figures - item.primary} second-hand, {item.superseded} superseded, newest {item.newest}"
        )
    typer.echo(f"{len(figures)} figures, every row is well-formed")


def _print_table(figures: Sequence[PublishedFigure]) -> None:
    console = Console(markup=False)
    rows = [_fields(figure) for figure in figures]
    if not console.is_terminal:
        for row in (COLUMNS, *rows):
            typer.echo("\t".join(" ".join(field.split()) for field in row))
        return
    table = Table(title=f"{len(figures)} published figures, newest first")
    for column in COLUMNS:
        is_short = column in ("metric", "value", "published")
        table.add_column(column, overflow="fold", no_wrap=is_short, justify="right" if column == "value" else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _fields(figure: PublishedFigure) -> tuple[str, ...]:
    vendor = wording.say_vendor(figure.vendor)
    value, measured = wording.say_published(figure), wording.say_measurer(figure.measured_by)
    return (
        vendor,
        wording.short_model(figure.model) if figure.model is not None else f"machine: {figure.system}",
        figure.metric,
        f"at least {value}" if figure.statistic == "at_least" else value,
        figure.published,
        measured if figure.statistic in (None, "at_least") else f"{measured}, {figure.statistic}",
        "primary" if figure.is_primary else "second-hand",
        _say_technique(figure),
        _say_remarks(figure),
        figure.source_url,
    )


def _say_technique(figure: PublishedFigure) -> str:
    if figure.speculation is None:
        return "not stated"
    return "no speculation" if figure.speculation == "none" else figure.speculation.replace("-", " ")


def _say_remarks(figure: PublishedFigure) -> str:
    parts = [f"superseded by {figure.superseded_by}"] if figure.superseded_by is not None else []
    parts += [f"repeats {figure.repeats}"] if figure.repeats is not None else []
    parts += [f"offered until {figure.available_until}"] if figure.available_until is not None else []
    return "; ".join(parts) or "none"


def _print_csv(figures: Sequence[PublishedFigure]) -> None:
    writer = csv.DictWriter(sys.stdout, list(PublishedFigure.model_fields), lineterminator="\n")
    writer.writeheader()
    for figure in figures:
        writer.writerow(figure.model_dump(mode="json"))


def _say_nothing(figures: Sequence[PublishedFigure], asked: Selection) -> str:
    parts = [f"of {', '.join(asked.vendors)}"] if asked.vendors else []
    parts += [f"for the model {asked.model}"] if asked.model is not None else []
    parts += [f"of {asked.metric}"] if asked.metric is not None else []
    parts += [f"since {asked.since}"] if asked.since is not None else []
    near = near_models(figures, asked.model) if asked.model is not None else []
    hint = f" Models with figures, nearest first: {', '.join(near)}." if near else ""
    return f"No published figure {' '.join(parts)} among the {len(figures)} rows.{hint}"
