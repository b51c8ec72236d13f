"""Writes what a run leaves to read: report.md, report.html, summary.json, tables of all cells, figures.

Whole files or none.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokbench.derive.bounds import find_bounds
from tokbench.derive.bounds.found import Bounds
from tokbench.derive.claims.plain import plain_claims
from tokbench.derive.claims.verdicts import ClaimVerdict
from tokbench.derive.compare.result import Asked, Compared, compare_sides
from tokbench.derive.compare.sides import side_of
from tokbench.derive.decision import Decision, Market, decide, find_rents
from tokbench.derive.distributions import Distribution, find_distributions
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.headline import lines_of
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published_joules import JoulesBeside, set_joules_beside
from tokbench.derive.report.bound_figures import draw_bounds
from tokbench.derive.report.canvas import Drawn
from tokbench.derive.report.cells_file import cells_csv, cells_parquet
from tokbench.derive.report.document import Document
from tokbench.derive.report.energy_figures import draw_energy
from tokbench.derive.report.experts_figures import draw_experts
from tokbench.derive.report.figures import draw_figures
from tokbench.derive.report.html import render_html
from tokbench.derive.report.kv_figures import draw_caches
from tokbench.derive.report.markdown import render_markdown
from tokbench.derive.report.material import Material
from tokbench.derive.report.sections import build_document
from tokbench.derive.report.speculation_figures import draw_speculation
from tokbench.derive.report.verify_figures import draw_verify_cost
from tokbench.derive.speculation.found import SpeculationFound, find_speculation
from tokbench.derive.standing import Standing, take_standing
from tokbench.derive.summary import dump_summary, summarise_results
from tokbench.derive.words import ENGLISH, in_language
from tokbench.errors import RecordError
from tokbench.record.store import CONFIG_FILE

MARKDOWN, HTML, SUMMARY = "report.md", "report.html", "summary.json"
CELLS, PARQUET = "cells.csv", "cells.parquet"


class ReportPaths(NamedTuple):
    """Where the files of a report lie."""

    markdown: Path
    html: Path
    summary: Path
    cells: Path
    parquet: Path | None
    """None where the library for it is not installed."""
    figures: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Extras:
    """What a report may have besides."""

    baseline: Results | None = None
    """A run that each cell is set beside; of several runs the first one, where none is named."""
    language: str = ENGLISH
    claims: tuple[ClaimVerdict, ...] = ()
    """Verdicts that the reader asked to see with the runs."""


NO_EXTRAS = Extras()


def write_report(
    results: Sequence[Results],
    figures: Sequence[PublishedFigure],
    out: Path,
    *,
    vendors: Sequence[str],
    with_figures: bool = True,
    extras: Extras = NO_EXTRAS,
) -> ReportPaths:
    """Write the report of one run, or of several merged, into `out`; what stood there is replaced file by file.

    Raises:
        RecordError: a file cannot be written. SpecError: nobody wrote the language.
    """
    found = _find(results, figures, vendors)
    with in_language(extras.language):
        drawn = _draw(found) if with_figures else ()
        material = _gather(found, tuple(vendors), drawn, extras)
        document = build_document(material, [_config_of(item) for item in results])
        markdown, page = render_markdown(document), render_html(document, {i.figure.file_name: i.svg for i in drawn})
    images = {out / "figures" / item.figure.file_name: item.png for item in drawn}
    parquet = cells_parquet(results)
    for path, png in images.items():
        write_whole(path, png)
    summary = summarise_results(
        results, found.standing.beside, found.bounds, found.decision, plain_claims(extras.claims)
    )
    write_whole(out / SUMMARY, dump_summary(summary).encode())
    write_whole(out / CELLS, cells_csv(results).encode())
    if parquet is None:
        (out / PARQUET).unlink(missing_ok=True)  # of an earlier report: it would contradict this one
    else:
        write_whole(out / PARQUET, parquet)
    write_whole(out / MARKDOWN, markdown.encode())
    write_whole(out / HTML, page.encode())
    return ReportPaths(
        markdown=out / MARKDOWN,
        html=out / HTML,
        summary=out / SUMMARY,
        cells=out / CELLS,
        parquet=None if parquet is None else out / PARQUET,
        figures=tuple(images),
    )


def write_page(document: Document, drawn: Sequence[Drawn], out: Path) -> tuple[Path, Path]:
    """Write a page that is no report of runs: report.md, report.html and its figures.

    Raises:
        RecordError: a file cannot be written.
    """
    for item in drawn:
        write_whole(out / "figures" / item.figure.file_name, item.png)
    write_whole(out / MARKDOWN, render_markdown(document).encode())
    write_whole(out / HTML, render_html(document, {item.figure.file_name: item.svg for item in drawn}).encode())
    return out / MARKDOWN, out / HTML


class _Found(NamedTuple):
    """What is derived before anybody says in which language: it goes into data files too."""

    results: tuple[Results, ...]
    standing: Standing
    bounds: tuple[Bounds, ...]
    distributions: tuple[Distribution, ...]
    decision: Decision
    joules: tuple[JoulesBeside, ...]
    speculation: SpeculationFound
    published: tuple[PublishedFigure, ...]

    @property
    def cells(self) -> list[CellResult]:
        """Every cell of every run, in order."""
        return [cell for item in self.results for cell in item.cells]


def _find(results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> _Found:
    cells = [cell for item in results for cell in item.cells]
    bounds = tuple(find_bounds(item) for item in results)
    decision = decide(results, Market(tuple(figures), tuple(vendors), find_rents(results)))
    standing = take_standing(results, figures, vendors)
    joules = set_joules_beside(results, figures)
    speculation = find_speculation(results, figures)
    spread, published = find_distributions(cells), tuple(figures)
    return _Found(tuple(results), standing, bounds, spread, decision, joules, speculation, published)


def _draw(found: _Found) -> tuple[Drawn, ...]:
    figures = (
        *draw_figures(found.cells, found.standing, found.distributions),
        *draw_speculation(found.speculation),
        *draw_verify_cost(found.results),
        *draw_experts(found.cells),
    )
    return (*figures, *draw_bounds(found.bounds), *draw_energy(found.cells), *draw_caches(found.results))


def _gather(found: _Found, vendors: tuple[str, ...], drawn: Sequence[Drawn], extras: Extras) -> Material:
    return Material(
        results=found.results,
        standing=found.standing,
        vendors=vendors,
        lines=lines_of(found.results, found.standing, vendors, found.decision),
        figures=tuple(item.figure for item in drawn),
        bounds=found.bounds,
        distributions=found.distributions,
        decision=found.decision,
        joules=found.joules,
        published=found.published,
        speculation=found.speculation,
        claims=extras.claims,
        baselines=_set_beside(found.results, extras.baseline),
    )


def _set_beside(results: Sequence[Results], baseline: Results | None) -> tuple[Compared, ...]:
    """Each run beside the baseline; of several runs without one, the others beside the first."""
    first, others = (results[0], results[1:]) if baseline is None else (baseline, results)
    a = side_of(first) if others else None
    return () if a is None else tuple(compare_sides(a, side_of(item), Asked()) for item in others)


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
