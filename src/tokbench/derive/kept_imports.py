"""`imported.json`: what `tokbench import --out DIR` keeps of another tool's file. docs/design/imports.md has its shape.

It names no folder of the machine: of the source it holds the file's name and the SHA-256 of its bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from tokbench.derive.imported import (
    Count,
    ForeignRow,
    Imported,
    ImportedCell,
    ImportedMetric,
    Origin,
    PositiveInt,
    Rows,
    Text,
    estimate_of,
    parse_row,
)
from tokbench.errors import DataError
from tokbench.record.facts import Conditions
from tokbench.units import Better, unit_of

FILE_NAME = "imported.json"
SCHEMA: Final = 1
"""1: first version. Keys are only added within a version."""
WRITER = "tokbench import"

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Condition(ForeignRow):
    value: str | int
    stated_by: Origin


class _Metric(ForeignRow):
    value: Finite
    n: PositiveInt
    unit: str
    better: Better
    statistic: Text
    aggregate: Finite
    aggregate_statistic: Text
    values: tuple[Finite, ...]


class _Cell(ForeignRow):
    key: Text
    options: str
    conditions: dict[str, _Condition]
    settings: dict[str, str]
    decisive: tuple[str, ...]
    free: tuple[str, ...]
    metrics: dict[str, _Metric]
    missing: dict[str, str]
    notes: tuple[str, ...]


class _File(ForeignRow):
    schema_version: Annotated[Count, Field(alias="schema")]
    tool: Text
    cells: Annotated[tuple[_Cell, ...], Field(min_length=1)]


def dump(imported: Imported, source: Path) -> str:
    """The import as text, metrics in the order of the tool's file; of the source its name and its SHA-256."""
    plain = {
        "schema": SCHEMA,
        "written_by": WRITER,
        "tool": imported.tool,
        "source": {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
        "cells": [_plain(cell) for cell in imported.cells],
    }
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def is_mine(rows: Rows) -> bool:
    """Whether `tokbench import` wrote the file."""
    return len(rows) == 1 and rows[0].get("written_by") == WRITER


def read(rows: Rows, file: str) -> Imported:
    """Take the cells back as they were.

    Raises:
        DataError: the file was altered, or a later version wrote it.
    """
    parsed = parse_row(_File, rows[0], file, None, f"`{WRITER}`")
    if parsed.schema_version != SCHEMA:
        fix = "import the tool's file again with this version"
        raise DataError(f"of schema {parsed.schema_version}, not {SCHEMA}", file=file, field="schema", fix=fix)
    cells = tuple(_cell(cell, file, number) for number, cell in enumerate(parsed.cells, start=1))
    return Imported(parsed.tool, cells)


def _plain(cell: ImportedCell) -> dict[str, Any]:
    stated = dataclasses.asdict(cell.conditions)
    return {
        "key": cell.key,
        "options": cell.options,
        "conditions": {name: {"value": stated[name], "stated_by": who} for name, who in cell.origins.items()},
        "settings": dict(cell.settings),
        "decisive": sorted(cell.decisive),
        "free": sorted(cell.free),
        "metrics": {metric.name: _plain_metric(metric) for metric in cell.metrics},
        "missing": dict(cell.missing),
        "notes": list(cell.notes),
    }


def _plain_metric(metric: ImportedMetric) -> dict[str, Any]:
    shown = estimate_of(metric)
    return {
        "value": shown.value,
        "low": shown.low,
        "high": shown.high,
        "n": metric.n,
        "unit": metric.unit.symbol,
        "better": metric.better.value,
        "statistic": shown.statistic,
        "aggregate": metric.value,
        "aggregate_statistic": metric.statistic,
        "values": list(metric.values),
    }


def _cell(cell: _Cell, file: str, number: int) -> ImportedCell:
    values = {name: item.value for name, item in cell.conditions.items()}
    try:
        conditions: Conditions = TypeAdapter(Conditions).validate_python(values)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        fault = f"{name} cannot be {values[name]!r}"
        fix = "import the tool's file again"
        raise DataError(fault, file=file, row=str(number), field=f"conditions.{name}", fix=fix) from None
    return ImportedCell(
        key=cell.key,
        metrics=tuple(_metric(name, item) for name, item in cell.metrics.items()),
        conditions=conditions,
        settings=cell.settings,
        decisive=frozenset(cell.decisive),
        options=cell.options,
        missing=cell.missing,
        origins={name: item.stated_by for name, item in cell.conditions.items()},
        free=frozenset(cell.free),
        notes=cell.notes,
    )


def _metric(name: str, item: _Metric) -> ImportedMetric:
    unit = unit_of(item.unit)
    return ImportedMetric(name, unit, item.better, item.values, item.aggregate, item.aggregate_statistic, item.n)
