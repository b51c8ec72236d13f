"""Writes what a run leaves to read: report.md, report.html, summary.json, cells.csv, figures. Whole files or none."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tokbench.derive.bounds import find_bounds
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.headline import lines_of
from tokbench.derive.published import PublishedFigure
from tokbench.derive.report.bound_figures import draw_bounds
from tokbench.derive.report.energy_figures import draw_energy
from tokbench.derive.report.figures import draw_figures
from tokbench.derive.report.html import render_html
from tokbench.derive.report.markdown import render_markdown
from tokbench.derive.report.material import Material
from tokbench.derive.report.sections import build_document
from tokbench.derive.standing import take_standing
from tokbench.derive.summary import dump_summary, summarise_results
from tokbench.errors import RecordError
from tokbench.record.store import CONFIG_FILE

CSV_COLUMNS = (
    "run",
    "cell_id",
    "pair_key",
    "model",
    "weights",
    "precision",
    "engine",
    "mode",
    "hardware",
    "static_batch",
    "concurrency",
    "prompt_tokens",
    "output_tokens",
    "status",
    "verdict",
    "reasons",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "unit",
    "statistic",
    "missing",
)


class ReportPaths(NamedTuple):
    """Where the files of a report lie."""

    markdown: Path
    html: Path
    summary: Path
    cells: Path
    figures: tuple[Path, ...]


def write_report(
    results: Sequence[Results],
    figures: Sequence[PublishedFigure],
    out: Path,
    *,
    vendors: Sequence[str],
    with_figures: bool = True,
) -> ReportPaths:
    """Write the report of one run, or of several merged, into `out`; what stood there is replaced file by file.

    Raises:
        RecordError: a file cannot be written.
    """
    standing = take_standing(results, figures, vendors)
    cells = [cell for item in results for cell in item.cells]
    bounds = tuple(find_bounds(item) for item in results)
    drawn = (*draw_figures(cells, standing), *draw_bounds(bounds), *draw_energy(cells)) if with_figures else ()
    lines = lines_of(results, standing, vendors)
    shown = tuple(item.figure for item in drawn)
    material = Material(tuple(results), standing, tuple(vendors), lines, shown, bounds)
    document = build_document(material, [_config_of(item) for item in results])
    images = {item.figure.file_name: item.png for item in drawn}
    paths = ReportPaths(
        out / "report.md",
        out / "report.html",
        out / "summary.json",
        out / "cells.csv",
        tuple(out / "figures" / name for name in images),
    )
    for path, png in zip(paths.figures, images.values(), strict=True):
        write_whole(path, png)
    write_whole(paths.summary, dump_summary(summarise_results(results, standing.beside, bounds)).encode())
    write_whole(paths.cells, cells_csv(results).encode())
    write_whole(paths.markdown, render_markdown(document).encode())
    write_whole(paths.html, render_html(document, images).encode())
    return paths


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old one or the new one, whenever the writer is stopped.

    Raises:
        RecordError: it cannot be written.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            name = file.name
            file.write(content)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        name = None
    except OSError as error:
        fix = "free disk space or name another folder; the record is not touched"
        raise RecordError(f"{path}: the report cannot be written: {error.strerror or error}", fix=fix) from None
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _config_of(results: Results) -> str | None:
    path = results.run.folder / CONFIG_FILE
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def cells_csv(results: Sequence[Results]) -> str:
    """Long form: one row per cell and metric; an empty value has its reason in `missing`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for item in results:
        for cell in item.cells:
            writer.writerows([_tame(value) for value in row] for row in _csv_rows(cell))
    return buffer.getvalue()


def _csv_rows(cell: CellResult) -> Iterator[list[object]]:
    conditions = cell.conditions
    head: list[object] = [cell.run_name, cell.cell_id, cell.pair_key, conditions.model, conditions.weights]
    head += [conditions.precision, conditions.engine, conditions.mode, conditions.hardware]
    head += [conditions.static_batch, conditions.concurrency, conditions.prompt_tokens, conditions.output_tokens]
    head += [cell.status, cell.validity.verdict, " ".join(code.name for code in cell.validity.reasons)]
    for name, value in cell.metrics.items():
        if isinstance(value, Missing):
            yield [*head, name, None, None, None, None, None, None, value.reason]
        else:
            yield [*head, name, value.value, value.low, value.high, value.n, value.unit, value.statistic, None]


def _tame(value: object) -> object:
    """A text that a spreadsheet would take for a formula is quoted; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
