"""`tokbench report`: records to reports, from records alone."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokbench.derive.claims.verdicts import ClaimVerdict
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.headline import console_lines
from tokbench.derive.published import PublishedFigure, load_published, model_key
from tokbench.derive.report.cells_file import GET_PARQUET
from tokbench.derive.report.write import Extras, ReportPaths, write_report
from tokbench.derive.standing import PER_USER, SYSTEM
from tokbench.derive.words import ENGLISH, in_language
from tokbench.errors import RecordError, SpecError
from tokbench.record.run import Run, read_run
from tokbench.record.store import CONFIG_FILE
from tokbench.record.sweep import read_config

ALWAYS = ("cerebras", "groq")
"""The vendors that a report sets a machine beside, whatever it ran."""
SPEEDS = (PER_USER, SYSTEM)


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


@dataclasses.dataclass(frozen=True, slots=True)
class ReportRequest:
    """What `tokbench report` was asked for."""

    folders: tuple[Path, ...]
    out: Path
    vendors: tuple[str, ...] | None
    """None: Cerebras, Groq, and whoever publishes a speed of a model that was measured."""
    with_figures: bool = True
    published: Path | None = None
    overrides: tuple[str, ...] = ()
    baseline: Path | None = None
    language: str = ENGLISH
    with_claims: bool = False


def report_runs(request: ReportRequest) -> tuple[ReportPaths, tuple[str, ...]]:
    """Recompute everything from the records and write it: the files, and the sentences that end it on the console.

    Raises:
        RecordError: a record cannot be read, or the report not written. DataError: a row of the figures is wrong.
        SpecError: an override is wrong, or nobody wrote the language.
    """
    with in_language(request.language):  # refused before anything is read
        figures = load_published(request.published)
    results = load_results(request.folders, request.overrides)
    vendors = default_vendors(results, figures) if request.vendors is None else request.vendors
    extras = Extras(
        _load_baseline(request), request.language, _judge_claims(results, figures) if request.with_claims else ()
    )
    paths = write_report(
        results, figures, request.out, vendors=vendors, with_figures=request.with_figures, extras=extras
    )
    return paths, console_lines(results, figures, vendors)


def _load_baseline(request: ReportRequest) -> Results | None:
    if request.baseline is None:
        return None
    name = name_runs((*request.folders, request.baseline))[-1]
    return evaluate(_read_priced(request.baseline, ()), name)


def _judge_claims(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> tuple[ClaimVerdict, ...]:
    from tokbench.derive.claims.evidence import load_evidence
    from tokbench.derive.claims.judge import judge_claims
    from tokbench.derive.claims.rules import load_claims

    today = datetime.datetime.now(datetime.UTC).date()
    return judge_claims(load_claims(), load_evidence(results, figures), today)


def default_vendors(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> tuple[str, ...]:
    """Cerebras and Groq, then by name whoever publishes a speed of a model that was measured here."""
    models = {model_key(cell.conditions.model) for item in results for cell in item.cells if cell.conditions.model}
    others = {
        figure.vendor
        for figure in figures
        if figure.metric in SPEEDS and figure.model is not None and model_key(figure.model) in models
    }
    return (*ALWAYS, *sorted(others - set(ALWAYS)))


def write_run_report(folders: Sequence[Path], out: Path, vendors: Sequence[str], *, with_figures: bool) -> ReportPaths:
    """Write the report of runs with the vendors that their config names.

    Raises:
        RecordError: a record cannot be read, or the report not written. DataError: a row of the figures is wrong.
    """
    return write_report(load_results(folders), load_published(), out, vendors=tuple(vendors), with_figures=with_figures)


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


def say_files(paths: ReportPaths) -> tuple[str, ...]:
    """Where to read on, and what was left out for want of a library."""
    lines = (f"Report: {paths.markdown}; as a page with values on hover: {paths.html}",)
    if paths.parquet is not None:
        return lines
    return (*lines, f"No cells.parquet: pyarrow is not installed ({GET_PARQUET}); cells.csv holds the same rows")


def choose_runs(runs: Sequence[Path], *, latest: bool) -> tuple[Path, ...]:
    """The folders that were named, and the latest one if it is wanted.

    Raises:
        SpecError: there is none, or one stands twice. RecordError: there is no latest one.
    """
    folders = (*runs, latest_run(Path("runs"))) if latest else tuple(runs)
    if not folders:
        raise SpecError("no run named", fix="tokbench report RUN, or tokbench report --latest")
    refuse_twice(folders)
    return folders


def refuse_twice(folders: Sequence[Path]) -> None:
    """A record that is read twice would count as two.

    Raises:
        SpecError: a folder stands twice.
    """
    twice = [str(path) for path, count in Counter(folder.resolve() for folder in folders).items() if count > 1]
    if twice:
        raise SpecError(f"the same run is named twice: {', '.join(twice)}", fix="name each run once")


def latest_run(root: Path) -> Path:
    """The run folder that was written to last.

    Raises:
        RecordError: there is none.
    """
    runs = [folder.parent for folder in root.glob("*/events.jsonl")] if root.is_dir() else []
    if not runs:
        raise RecordError(f"{root}: no run here", fix="tokbench run configs/smoke.yaml")
    return max(runs, key=lambda folder: (folder / "events.jsonl").stat().st_mtime)
