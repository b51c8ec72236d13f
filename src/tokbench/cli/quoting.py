"""`tokbench published`: what was published, row by row with its source; and whether all rows from outside are right."""

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
from tokbench.derive.published.evidence import CONFLICT_RATIO, PERIOD_DAYS, Conflict, conflicts
from tokbench.derive.published.facts import load_facts
from tokbench.derive.published.prices import load_prices
from tokbench.derive.selection import Selection, count_by_vendor, count_subjects, near_models, select
from tokbench.units import format_number

Form = Literal["table", "csv", "json"]

_BOUNDS = {"at_least": "at least ", "at_most": "at most "}
_TABLE_COLUMNS = 160  # below this many characters a table of eleven columns breaks its words
COLUMNS = (
    "vendor",
    "model",
    "metric",
    "value",
    "published",
    "measured by",
    "read",
    "technique",
    "remarks",
    "system",
    "source",
)


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
    """Read every figure, fact and price; print what there is per vendor, how much is independent, and every conflict.

    Raises:
        DataError: the file, the row and the field of the first fault.
    """
    figures, facts, prices = load_published(folder), load_facts(), load_prices()
    for item in count_by_vendor(figures):
        typer.echo(
            f"{item.vendor}: {_count(item.figures, 'figure')} of {_count(item.models, 'model')}, {item.primary} read "
            f"in the source itself, {item.figures - item.primary} second-hand, {item.superseded} superseded, "
            f"{_count(item.reposts, 'repost')}, {_count(item.sources, 'independent source')}, newest {item.newest}"
        )
    found, subjects = conflicts(figures), count_subjects(figures)
    typer.echo(
        f"{subjects.several} of {subjects.total} subjects (vendor, model, metric) have more than one independent source"
    )
    typer.echo(
        f"{len(found)} conflicts, all rows kept: stated conditions agree, published within {PERIOD_DAYS} days, values "
        f"further apart than {format_number(CONFLICT_RATIO)}x"
    )
    for conflict in found:
        typer.echo(f"  {_say_conflict(conflict)}")
    typer.echo(f"{len(figures)} figures, {len(facts)} facts, {len(prices)} prices: every row is well-formed")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _say_conflict(conflict: Conflict) -> str:
    first = conflict.figures[0]
    what = f"{first.vendor} {wording.short_model(first.model) if first.model else first.system} {first.metric}"
    sides = " | ".join(f"{wording.say_published(row)} {row.id} ({row.published})" for row in conflict.figures)
    return f"{format_number(conflict.highest_over_lowest)}x {what}: {sides}"


def _print_table(figures: Sequence[PublishedFigure]) -> None:
    console = Console(markup=False)
    rows = [_fields(figure) for figure in figures]
    if not console.is_terminal:
        for row in (COLUMNS, *rows):
            typer.echo("\t".join(" ".join(field.split()) for field in row))
        return
    title = f"{_count(len(figures), 'published figure')}, newest first"
    if console.width < _TABLE_COLUMNS:
        console.print(title)
        for row in rows:
            _print_block(console, row)
        return
    table = Table(title=title)
    for column in COLUMNS:
        is_short = column in ("metric", "value", "published")
        table.add_column(column, overflow="fold", no_wrap=is_short, justify="right" if column == "value" else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_block(console: Console, row: Sequence[str]) -> None:
    """One figure over several lines: eleven columns in a narrow window would break every word."""
    field = dict(zip(COLUMNS, row, strict=True))
    console.print(f"\n{field['vendor']} {field['model']} {field['metric']}: {field['value']} ({field['published']})")
    for words in (
        f"on {field['system']}",
        f"{field['measured by']}; {field['read']}",
        f"technique: {field['technique']}; remarks: {field['remarks']}",
        field["source"],
    ):
        console.print(f"  {words}", soft_wrap=True)


def _fields(figure: PublishedFigure) -> tuple[str, ...]:
    vendor = wording.say_vendor(figure.vendor)
    measured = wording.say_measurer(figure.measured_by)
    measured += "" if figure.measurer is None else f" ({figure.measurer})"
    is_bound = figure.statistic in _BOUNDS
    return (
        vendor,
        wording.short_model(figure.model) if figure.model is not None else f"machine: {figure.system}",
        figure.metric,
        f"{_BOUNDS.get(figure.statistic or '', '')}{wording.say_published(figure)}",
        figure.published,
        measured if figure.statistic is None or is_bound else f"{measured}, {figure.statistic}",
        "primary" if figure.is_primary else "second-hand",
        _say_technique(figure),
        _say_remarks(figure),
        figure.system,
        figure.source_url,
    )


def _say_technique(figure: PublishedFigure) -> str:
    if figure.speculation is None:
        return "not stated"
    return "no speculation" if figure.speculation == "none" else figure.speculation.replace("-", " ")


def _say_remarks(figure: PublishedFigure) -> str:
    parts = [f"superseded by {figure.superseded_by}"] if figure.superseded_by is not None else []
    parts += [f"repeats {figure.repeats}"] if figure.repeats is not None else []
    parts += [f"our arithmetic on {' and '.join(figure.derived_from)}"] if figure.derived_from else []
    if figure.value_low is not None and figure.value_high is not None:
        parts.append(f"the source gives {figure.value_low:,.10g} to {figure.value_high:,.10g}")
    parts += [f"energy scope: {figure.energy_scope}"] if figure.energy_scope is not None else []
    parts += [f"offered until {figure.available_until}"] if figure.available_until is not None else []
    return "; ".join(parts) or "none"


def _print_csv(figures: Sequence[PublishedFigure]) -> None:
    writer = csv.DictWriter(sys.stdout, list(PublishedFigure.model_fields), lineterminator="\n")
    writer.writeheader()
    for figure in figures:
        writer.writerow({**figure.model_dump(mode="json"), "derived_from": " ".join(figure.derived_from)})


def _say_nothing(figures: Sequence[PublishedFigure], asked: Selection) -> str:
    parts = [f"of {', '.join(asked.vendors)}"] if asked.vendors else []
    parts += [f"for the model {asked.model}"] if asked.model is not None else []
    parts += [f"of {asked.metric}"] if asked.metric is not None else []
    parts += [f"since {asked.since}"] if asked.since is not None else []
    near = near_models(figures, asked.model) if asked.model is not None else []
    hint = f" Models with figures, nearest first: {', '.join(near)}." if near else ""
    return f"No published figure {' '.join(parts)} among the {len(figures)} rows.{hint}"
