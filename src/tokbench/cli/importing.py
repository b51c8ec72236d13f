"""`tokbench import`: results of another tool in our names and units, on the console or kept as imported.json."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from tokbench.cli.comparing import print_document
from tokbench.derive import kept_imports
from tokbench.derive.imported import Imported, read_given
from tokbench.derive.imported_page import imported_document
from tokbench.derive.imports import read_imported
from tokbench.errors import SpecError


@dataclasses.dataclass(frozen=True, slots=True)
class AskedImport:
    """What to import, and what becomes of it."""

    path: Path
    kind: str | None = None
    """The tool; told from the content where it is None."""
    given: tuple[str, ...] = ()
    out: Path | None = None
    as_json: bool = False


def show_import(asked: AskedImport) -> None:
    """Read the file, keep it where that was asked for, and print it.

    Raises:
        DataError: the file is not what a tool writes.
        SpecError: no such kind or condition, or a folder that cannot be written.
    """
    imported = read_imported(asked.path, asked.kind, read_given(asked.given))
    kept = None if asked.out is None else _keep(imported, asked.path, asked.out)
    if asked.as_json:
        typer.echo(kept_imports.dump(imported, asked.path), nl=False)
        return
    print_document(imported_document(imported, str(asked.path)))
    if kept is not None:
        typer.echo(f"wrote {kept}")


def _keep(imported: Imported, source: Path, folder: Path) -> Path:
    path = folder / kept_imports.FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(kept_imports.dump(imported, source), encoding="utf-8")
    except OSError as error:
        fix = "give a folder that can be written"
        raise SpecError(f"{path}: cannot be written: {error.strerror}", key="--out", fix=fix) from None
    return path
