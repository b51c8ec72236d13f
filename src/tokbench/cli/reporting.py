"""`tokbench report`: records to reports, from records alone."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.headline import console_lines
from tokbench.derive.published import load_published
from tokbench.derive.report.write import ReportPaths, write_report
from tokbench.errors import RecordError, SpecError
from tokbench.record.run import Run, read_run
from tokbench.record.store import CONFIG_FILE
from tokbench.record.sweep import read_config


def load_results(folders: Sequence[Path], overrides: Sequence[str] = ()) -> list[Results]:
    """Evaluate every record, each under a name of its own; `overrides` are prices in place of those of its config.

    Raises:
        RecordError: one cannot be read. SpecError: an override is wrong, or of another key than `cost`.
    """
    names = name_runs(folders)
    return [evaluate(_read_priced(folder, overrides), name) for folder, name in zip(folders, names, strict=True)]


def _read_priced(folder: Path, overrides: Sequence[str]) -> Run:
    run = read_run(folder)
    for override in overrides:
        if not override.startswith("cost."):
            fix = "tokbench report RUN --set cost.usd_per_hour=2.5; to change anything else, run it anew"
            raise SpecError(
                f"a report can change prices alone, not {override.partition('=')[0]!r}", key="--set", fix=fix
            )
    if overrides:
        run.prices = read_config(folder / CONFIG_FILE, overrides).run.cost
    return run


def name_runs(folders: Sequence[Path]) -> list[str]:
    """Unique names: the folder's, with its parent's where two are alike, with a number where those are alike too."""
    paths = [folder.resolve() for folder in folders]
    counts = Counter(path.name for path in paths)
    names: list[str] = []
    for path in paths:
        wanted = name = path.name if counts[path.name] == 1 else f"{path.parent.name}/{path.name}"
        number = 1
        while name in names:
            number += 1
            name = f"{wanted}-{number}"
        names.append(name)
    return names


def write_run_report(
    folders: Sequence[Path],
    out: Path,
    vendors: Sequence[str],
    *,
    with_figures: bool,
    published: Path | None = None,
    overrides: Sequence[str] = (),
) -> ReportPaths:
    """Recompute everything from the records and write it to `out`.

    Raises:
        RecordError: a record cannot be read, or the report not written. DataError: a row of the figures is wrong.
    """
    results = load_results(folders, overrides)
    return write_report(results, load_published(published), out, vendors=tuple(vendors), with_figures=with_figures)


def check_vendors(vendors: Sequence[str], published: Path | None = None) -> None:
    """Refuse a vendor that no published figure names.

    Raises:
        SpecError: which one, and the nearest. DataError: a row of the published figures is wrong.
    """
    known = sorted({figure.vendor for figure in load_published(published)})
    for vendor in vendors:
        if vendor.lower() not in known:
            near = difflib.get_close_matches(vendor.lower(), known, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            fix = f"{hint}vendors with published figures: {', '.join(known)}"
            raise SpecError(f"no published figure names the vendor {vendor!r}", key="--vendor", fix=fix)


def say_headline(results: Sequence[Results], vendors: Sequence[str], published: Path | None = None) -> tuple[str, ...]:
    """The sentences that end a run on the console."""
    return console_lines(results, load_published(published), vendors)


def latest_run(root: Path) -> Path:
    """The run folder that was written to last.

    Raises:
        RecordError: there is none.
    """
    runs = [folder.parent for folder in root.glob("*/events.jsonl")] if root.is_dir() else []
    if not runs:
        raise RecordError(f"{root}: no run here", fix="tokbench run configs/smoke.yaml")
    return max(runs, key=lambda folder: (folder / "events.jsonl").stat().st_mtime)
