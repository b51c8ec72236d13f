"""The socket of importers: results of other tools, read from the file that the tool wrote. One plug per tool.

A plug takes over what its file states and computes nothing: where a file holds aggregates only, there are no values.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from tokbench.errors import RecordError
from tokbench.record.facts import Conditions
from tokbench.units import Better, Unit


@dataclasses.dataclass(frozen=True, slots=True)
class ImportedMetric:
    """One quantity of one cell. Without `values` the file held only the aggregate `value`, named by `statistic`."""

    name: str
    unit: Unit
    better: Better
    values: tuple[float, ...]
    """One per repetition, all of one process, in the order measured."""
    value: float
    statistic: str
    n: int
    """Repetitions behind `value`."""


@dataclasses.dataclass(frozen=True, slots=True)
class ImportedCell:
    """One result with a name that is the same in every file of the tool."""

    key: str
    metrics: tuple[ImportedMetric, ...]
    conditions: Conditions
    settings: Mapping[str, str]
    """What else the file states of machine, versions and options."""
    decisive: frozenset[str]
    """The settings that have to be alike in two cells that are compared."""


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """One file of another tool."""

    tool: str
    cells: tuple[ImportedCell, ...]


class ImportPlug(Protocol):
    """The module of a plug."""

    TOOL: str

    def is_mine(self, document: Mapping[str, object]) -> bool:
        """Whether the document has the outline of this tool's files."""

    def read(self, document: Mapping[str, object], file: str) -> tuple[ImportedCell, ...]:
        """Take over every result.

        Raises:
            RecordError: the document is not as the tool writes it; which key, and what to do.
        """


def names() -> list[str]:
    """The tools whose files can be read."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_plug(name: str) -> ImportPlug:
    """Import one plug of `names()`."""
    return cast(ImportPlug, importlib.import_module(f"{__name__}.{name}"))


def read_imported(path: Path) -> Imported:
    """Read a JSON file of whichever tool wrote it.

    Raises:
        RecordError: it cannot be read, is not JSON, or of no tool that is known here.
    """
    document = _load(path)
    plugs = [load_plug(name) for name in names()]
    tools = ", ".join(plug.TOOL for plug in plugs)
    plug = next((plug for plug in plugs if plug.is_mine(document)), None)
    if plug is None:
        fix = f"name a run folder of tokbench, or a JSON file of: {tools}"
        if {"schema", "cells", "run"} <= document.keys():
            fix = f"this is tokbench's own summary; name the run folder that it lies in: {path.parent}"
        raise RecordError(f"{path}: JSON, but not the results of a tool that is known here", fix=fix)
    return Imported(plug.TOOL, plug.read(document, str(path)))


def _load(path: Path) -> Mapping[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}", fix="look at its permissions") from None
    except UnicodeDecodeError:
        raise RecordError(f"{path}: cannot be read: not UTF-8 text", fix="name a run folder or a JSON file") from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = f":{error.lineno}: column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
        raise RecordError(f"{path}{where or ': nested too deeply'}: not JSON", fix="write the file anew") from None
    if not isinstance(document, dict):
        raise RecordError(f"{path}: JSON, but not an object with keys", fix="name a run folder or a tool's JSON file")
    return document
