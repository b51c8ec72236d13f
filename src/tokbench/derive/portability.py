"""One model on several frameworks: which ran it where, how fast beside the fastest, and whether tokens are the same.

It words nothing; which framework has a build for which platform stands in data/frameworks.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published.sheet import Day, Slug, Text, Url, read_sheet
from tokbench.record.catalog import DATA_DIR
from tokbench.record.facts import Frozen
from tokbench.record.observations import IdentityChecked
from tokbench.stats import Estimate

FRAMEWORK, PLATFORM = "framework", "platform"
BUILDS: Final = DATA_DIR / "frameworks.yaml"


class Build(Frozen):
    """Whether a framework has a build for a kind of device, by its own pages or packages."""

    id: Slug
    framework: Slug
    platform: Slug
    is_built: bool
    note: Text
    read_on: Day
    source_url: Url


class Support(NamedTuple):
    """One framework on one platform: what was seen of it."""

    framework: str
    platform: str
    seen: Literal["ran", "failed", "not_built", "not_tried", "unknown"]
    note: str | None
    """Why it did not run, or what its own pages say of the build."""


class FrameworkRow(NamedTuple):
    """One framework on one platform."""

    framework: str
    platform: str
    cell: CellResult
    decode: Estimate | Missing
    share: Estimate | Missing
    """Of the fastest on the same work."""
    beside: str | None
    """Whose tokens stand beside: the first framework of the same run, work and weights that kept any; None for that
    itself. Random weights are drawn by each engine, and are the same within one kind of engine alone."""
    tokens_equal: int | None
    """Output tokens of row 0 up to the first that differs; None where either kept none, or it is the first."""
    tokens: int | None
    """Output tokens that were set side by side."""
    reference: IdentityChecked | None
    """The first check beside the engine's own reference; None where there was none."""


def load_builds(path: Path = BUILDS) -> tuple[Build, ...]:
    """Every row.

    Raises:
        DataError: the file, a row or a field is wrong.
    """
    return tuple(read_sheet(path, "frameworks", Build))


def find_support(rows: Sequence[FrameworkRow], builds: Sequence[Build]) -> tuple[Support, ...]:
    """Every framework of the cells or of the builds on every platform of either, the cells' first."""
    told = {(build.framework, build.platform): build for build in builds}
    cells: dict[tuple[str, str], list[CellResult]] = {}
    for row in rows:
        cells.setdefault((row.framework, row.platform), []).append(row.cell)
    places = [*cells, *told]
    platforms = [name for name in dict.fromkeys(platform for _, platform in places) if name]
    return tuple(
        _support(framework, platform, cells.get((framework, platform), []), told.get((framework, platform)))
        for framework in dict.fromkeys(framework for framework, _ in places)
        for platform in platforms
    )


def _support(framework: str, platform: str, cells: Sequence[CellResult], build: Build | None) -> Support:
    """A measured cell goes before what a page says."""
    if any(cell.record.good_trials() for cell in cells):
        return Support(framework, platform, "ran", None)
    if failed := [cell for cell in cells if cell.status not in ("skipped", "planned")]:
        return Support(framework, platform, "failed", failed[0].status_reason)
    if build is None:
        return Support(framework, platform, "not_tried" if cells else "unknown", None)
    return Support(framework, platform, "not_tried" if build.is_built else "not_built", build.note)


def find_frameworks(results: Sequence[Results]) -> tuple[FrameworkRow, ...]:
    """Every cell that names its framework, in the order of the records."""
    rows: list[FrameworkRow] = []
    for item in results:
        firsts: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
        for cell in item.cells:
            if FRAMEWORK in cell.labels:
                rows.append(_row(cell, firsts))
    return tuple(rows)


def _row(cell: CellResult, firsts: dict[tuple[str, str], tuple[str, tuple[int, ...]]]) -> FrameworkRow:
    framework, made = cell.labels[FRAMEWORK], _tokens(cell)
    beside, equal, count = None, None, None
    if made is not None:
        first, theirs = firsts.setdefault((cell.pair_key, _drawn_by(cell)), (framework, made))
        if first != framework:
            count = min(len(made), len(theirs))
            pairs = enumerate(zip(made, theirs, strict=False))
            equal = next((index for index, (one, other) in pairs if one != other), count)
            beside = first
    values = (cell.metrics["decode_tokens_per_s"], cell.metrics["best_framework_ratio"])
    checks = cell.record.identity
    reference = checks[0] if checks else None
    return FrameworkRow(framework, cell.labels.get(PLATFORM, ""), cell, *values, beside, equal, count, reference)


def _drawn_by(cell: CellResult) -> str:
    """The engine that drew the cell's weights; nobody where they were read from a file."""
    spec = cell.record.spec
    return "" if spec.model.weights == "pretrained" else spec.engine.kind


def _tokens(cell: CellResult) -> tuple[int, ...] | None:
    """Row 0 of the first repetition that kept its tokens."""
    kept = [trial.output.token_ids[0] for trial in cell.record.good_trials() if trial.output is not None]
    return kept[0] if kept else None
