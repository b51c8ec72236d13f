"""The socket of importers: results of other tools, read from the file that the tool wrote. One plug per tool.

A plug takes over what its file states, in our names and units; where a file holds aggregates only, there are no values.
What it computes is at most a rate from a duration and a count that the file or the user states.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from tokbench.derive import kept_imports
from tokbench.derive.imported import Imported, ImportedCell, ImportedMetric, Rows
from tokbench.errors import DataError, SpecError
from tokbench.record.facts import Conditions

__all__ = ["ImportPlug", "Imported", "ImportedCell", "ImportedMetric", "kinds", "load_plug", "names", "read_imported"]

NOTHING_GIVEN = Conditions()


class ImportPlug(Protocol):
    """The module of a plug."""

    TOOL: str

    def is_mine(self, rows: Rows) -> bool:
        """Whether the objects have the outline of this tool's files."""

    def read(self, rows: Rows, file: str, given: Conditions) -> tuple[ImportedCell, ...]:
        """Take over every result.

        Raises:
            DataError: the file is not as the tool writes it; which row and field, and what to do.
            SpecError: `given` contradicts the file.
        """


def names() -> list[str]:
    """The modules of the tools whose files can be read."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_plug(name: str) -> ImportPlug:
    """Import one plug of `names()`."""
    return cast(ImportPlug, importlib.import_module(f"{__name__}.{name}"))


def kinds() -> dict[str, ImportPlug]:
    """Every plug by the name of its tool, as `--kind` takes it."""
    plugs = [load_plug(name) for name in names()]
    return {plug.TOOL: plug for plug in plugs}


def read_imported(path: Path, kind: str | None = None, given: Conditions = NOTHING_GIVEN) -> Imported:
    """Read a JSON or JSON Lines file of whichever tool wrote it, or what `tokbench import` made of one.

    Raises:
        DataError: it cannot be read, is not JSON, or is not what the tool writes.
        SpecError: there is no such kind, or `given` contradicts the file.
    """
    known = kinds()
    if kind is not None and kind not in known:
        raise SpecError(
            f"{kind!r} is no tool whose files are read", key="--kind", fix=f"use one of: {', '.join(known)}"
        )
    rows, file = _load(path), str(path)
    if kept_imports.is_mine(rows):
        if kind is not None or given != NOTHING_GIVEN:
            fix = "give the file that the tool wrote, with --kind and --given"
            raise SpecError(f"{file} is imported already", fix=fix)
        return kept_imports.read(rows, file)
    plug = known[kind] if kind is not None else next((item for item in known.values() if item.is_mine(rows)), None)
    if plug is None:
        raise _unknown(rows, path, known)
    cells = plug.read(rows, file, given)
    if not cells:
        raise DataError("holds no result", file=file, fix=f"write it anew with {plug.TOOL}")
    return Imported(plug.TOOL, cells)


def _unknown(rows: Rows, path: Path, known: dict[str, ImportPlug]) -> DataError:
    fix = f"give a JSON file of: {', '.join(known)}; a run of tokbench is compared as the folder that it is"
    if rows and {"schema", "cells", "run"} <= rows[0].keys():
        fix = f"this is tokbench's own summary; name the run folder that it lies in: {path.parent}"
    return DataError("JSON, but not the results of a tool that is known here", file=str(path), fix=fix)


def _load(path: Path) -> Rows:
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        fix = "name a JSON file that exists and can be read"
        raise DataError(f"cannot be read: {error.strerror}", file=file, fix=fix) from None
    except UnicodeDecodeError:
        raise DataError("cannot be read: not UTF-8 text", file=file, fix="name a run folder or a JSON file") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _load_lines(text, file)
        raise _not_json(error, file, None) from None
    except RecursionError:
        raise DataError("nested too deeply: not JSON", file=file, fix="write the file anew") from None
    rows = tuple(found) if isinstance(found, list) else (found,)
    if not rows or not all(isinstance(row, dict) for row in rows):
        fix = "name a run folder or a tool's JSON file"
        raise DataError("JSON, but not an object with keys, nor a list of such", file=file, fix=fix)
    return rows


def _load_lines(text: str, file: str) -> Rows:
    """JSON Lines: one object a line."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise _not_json(error, file, number) from None
        if not isinstance(row, dict):
            fix = "name a run folder or a tool's JSON file"
            raise DataError("JSON, but not an object with keys", file=file, row=str(number), fix=fix)
        rows.append(row)
    return tuple(rows)


def _not_json(error: ValueError | RecursionError, file: str, line: int | None) -> DataError:
    said = "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        said = f"line {line or error.lineno}, column {error.colno}: {error.msg}"
    return DataError(f"not JSON: {said}", file=file, row=None if line is None else str(line), fix="write the file anew")
