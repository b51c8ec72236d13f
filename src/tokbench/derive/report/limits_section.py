"""What a sceptic asks for: what is missing and why, validity cell by cell, threats, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from tokbench.derive import wording
from tokbench.derive.disturbances import Timeline, foreign_cpu_share, sees_only_its_cores
from tokbench.derive.energy.rows import why_no_meter
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.metrics import METRICS_VERSION
from tokbench.derive.remedy import Advice, advise_on
from tokbench.derive.report.document import (
    DASH,
    Block,
    Cell,
    Code,
    Column,
    Item,
    Paragraph,
    Section,
    Table,
    bullets,
)
from tokbench.derive.report.document import Bullets as BulletList
from tokbench.derive.report.fields import cell_columns, cell_fields
from tokbench.derive.report.material import Material
from tokbench.derive.report.opening_section import STATUS_WORDS
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.record.run import Run
from tokbench.units import format_number

NO_AMD = mark("tokbench has never been run on AMD hardware: its ROCm path is written and untested.")
AMD_FIRST = mark(
    "Before this run tokbench had never been run on AMD hardware as far as its authors know: the ROCm path was written "
    "without any at hand, so check it before you rely on it."
)
MAX_CONFIG_CHARACTERS = 20_000


def limits_sections(material: Material, configs: Sequence[str | None]) -> list[Section]:
    """Absence, validity, threats, reproduction; `configs` holds each run's config file, None where it is gone."""
    return [
        Section(t("What was not measured, and why"), _absence(material)),
        Section(t("Validity"), _validity(material)),
        Section(t("Threats to validity"), (bullets(*_threats(material)),)),
        Section(t("How to reproduce"), _reproduction(material, configs)),
    ]


def _absence(material: Material) -> tuple[Block, ...]:
    items = [Item(text) for text in (*_energy(material), *_lost_cells(material), *_failed(material))]
    items += [Item(text) for text in _missing_metrics(material)]
    return (BulletList(tuple(items)),) if items else (Paragraph(t("Every metric has a value in every cell.")),)


def _energy(material: Material) -> list[str]:
    """Runs of which no cell has a joule; for one of several cells the Energy section says it."""
    return [
        t("Energy, {run}: not measured, because {reason}.", run=item.name, reason=_why_no_energy(item))
        for item in material.results
        if not any(cell.energy.headline for cell in item.cells)
    ]


def _why_no_energy(results: Results) -> str:
    """Why nothing was metered: what the measured cells say, or the meters where nothing was measured."""
    reasons = dict.fromkeys(
        cell.energy.missing for cell in results.cells if cell.status == "ok" and cell.energy.missing
    )
    said = [say(reason).rstrip(".。") for reason in reasons if reason]
    return join(said or [say(why_no_meter(results.run)).rstrip(".。")], SEMICOLON)


def _lost_cells(material: Material) -> list[str]:
    """Cells without a number, by cause."""
    causes: dict[tuple[str, str], list[str]] = {}
    for cell in material.cells:
        if cell.status != "ok":
            cause = (STATUS_WORDS[cell.status], cell.status_reason or t("no reason given"))
            causes.setdefault(cause, []).append(
                t(
                    "{cell_id} ({model}, {mode}, {load})",
                    cell_id=cell.cell_id,
                    model=wording.say_model(cell),
                    mode=cell.conditions.mode,
                    load=wording.say_load(cell),
                )
            )
    return [_say_lost(say(status), say(reason), names) for (status, reason), names in causes.items()]


def _say_lost(status: str, reason: str, names: Sequence[str]) -> str:
    cells = join(names)
    if len(names) == 1:
        return t("1 cell {status}: {reason}: {cells}.", status=status, reason=reason, cells=cells)
    return t("{count} cells {status}: {reason}: {cells}.", count=len(names), status=status, reason=reason, cells=cells)


def _failed(material: Material) -> list[str]:
    """How many requests ended in an error: no metric holds them."""
    requests = [trace for cell in material.measured for trial in cell.record.good_trials() for trace in trial.requests]
    errors = sum(trace.error is not None for trace in requests)
    if not errors:
        return []
    said = t(
        "{errors} of {requests} requests ended in an error and are left out of every metric.",
        errors=errors,
        requests=len(requests),
    )
    return [said]


def _missing_metrics(material: Material) -> list[str]:
    """Each reason once, with the metrics it took and how many measured cells."""
    reasons: dict[str, dict[str, int]] = {}
    for cell in material.measured:
        for name, value in cell.metrics.items():
            if isinstance(value, Missing):
                names = reasons.setdefault(value.reason, {})
                names[name] = names.get(name, 0) + 1
    total = len(material.measured)
    return [
        t(
            "{metrics}: {reason} ({count} of {total} measured cells).",
            metrics=join(names),
            reason=say(reason),
            count=max(names.values()),
            total=total,
        )
        for reason, names in reasons.items()
    ]


def _validity(material: Material) -> tuple[Block, ...]:
    columns = (
        *cell_columns(),
        Column(t("Verdict")),
        Column(t("Codes")),
        Column(t("CPU used by others"), "", "right"),
        Column(t("Cell")),
    )
    rows = tuple(_validity_row(cell, item, material) for item in material.results for cell in item.cells)
    caption = t("Nothing is dropped for being suspect: the verdict stands beside the number.")
    return (Table(columns, rows, caption), *_legend(material))


def _legend(material: Material) -> Iterator[Table]:
    """Each code that a cell of this report bears: what it means, where it applies, what to do."""
    codes = dict.fromkeys(code for cell in material.cells for code in cell.validity.reasons)
    if codes:
        columns = (Column(t("Code")), Column(t("Does")), Column(t("Applies where")), Column(t("What to do")))
        advice = map(advise_on, codes)
        rows = tuple(_legend_row(item) for item in advice)
        yield Table(columns, rows, t("What the codes above mean; a note does not make a cell suspect."))


def _legend_row(advice: Advice) -> tuple[Cell, ...]:
    return (
        Cell(advice.code),
        Cell(wording.say_verdict(advice.weight)),
        Cell(DASH if advice.criterion is None else say(advice.criterion)),
        Cell(say(advice.remedy)),
    )


def _validity_row(cell: CellResult, results: Results, material: Material) -> tuple[Cell, ...]:
    codes = ", ".join(code.name for code in cell.validity.reasons)
    meanings = (t("{code}: {meaning}", code=code.name, meaning=say(code.value)) for code in cell.validity.reasons)
    words = join(meanings, SEMICOLON)
    verdict = wording.say_verdict(cell.validity.verdict) if cell.status == "ok" else say(STATUS_WORDS[cell.status])
    return (
        *cell_fields(cell, material.has_several_runs),
        Cell(verdict),
        Cell(codes or t("none"), note=words or None),
        _contention_field(cell, results.run),
        Cell(cell.cell_id),
    )


def _contention_field(cell: CellResult, run: Run) -> Cell:
    share = foreign_cpu_share(run, Timeline(run).around(cell.record.good_trials())) if cell.status == "ok" else None
    if share is None:
        quota = t("the host's load is not that of the cores we may use, which are some of them only")
        return Cell(DASH, note=t("too few samples of the CPU's load") if sees_only_its_cores(run) else quota)
    return Cell(f"{format_number(100 * share, 2)} %", sort=share)


def _load_threats(cells: Sequence[CellResult]) -> Iterator[str]:
    kinds = {cell.record.spec.load.kind for cell in cells}
    if "static_batch" in kinds:
        yield t(
            "A static batch sends equal prompts at once and drops nothing: a service with mixed lengths and "
            "arrivals gets less out of the same machine."
        )
    if "closed" in kinds:
        yield t(
            "A closed load sends a request only when another one has ended, and all are of one length: no queue "
            "builds up, as it does where arrivals wait for nobody."
        )


def _threats(material: Material) -> list[str]:
    cells = material.measured
    kinds = {item.run.device.kind for item in material.results if item.run.device is not None}
    texts = [
        t(
            "Published figures are of other machines, other software and other days; several were read second-hand. A "
            "ratio to them places a machine, it does not rank it."
        ),
        *_load_threats(cells),
        t("The share of the roofline rests on counted bytes; what the device really read is not measured."),
        t("Prompts and outputs have fixed lengths; longer contexts read more cache and are slower."),
    ]
    if any(wording.label_of(cell) for cell in cells):
        texts.append(
            t("Random weights: routing of experts, acceptance of drafts and all text differ from a real model's.")
        )
    for host in (item.run.host for item in material.results):
        if host is not None and (host.virtualisation or host.container):
            where = host.virtualisation or host.container
            texts.append(
                t("The host is virtual ({where}): neighbours and their load cannot be seen from inside.", where=where)
            )
    texts.append(
        t(
            "The interval covers what varies between the repetitions and processes of one run; another day, "
            "driver or card is not in it."
        )
    )
    texts.append(t(AMD_FIRST) if "rocm" in kinds else t(NO_AMD))
    return list(dict.fromkeys(texts))


def _reproduction(material: Material, configs: Sequence[str | None]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for item, config in zip(material.results, configs, strict=True):
        header = item.run.header
        blocks.append(
            Paragraph(
                t(
                    "{run}: tokbench {program}, begun {utc}, seed {seed}, config SHA-256 {config_sha256}, "
                    "metrics version {metrics}.",
                    run=item.name,
                    program=header.tokbench_version,
                    utc=header.utc,
                    seed=header.seed,
                    config_sha256=header.config_sha256,
                    metrics=METRICS_VERSION,
                )
            )
        )
        if header.command:
            blocks.append(Code(shlex.join(header.command)))
        if config is None:
            blocks.append(Paragraph(t("The config file is not beside the record.")))
        else:
            blocks.append(Code(_cut(config)))
    blocks.append(Paragraph(t("To derive the numbers anew from the record, on any machine:")))
    folders = " ".join(shlex.quote(item.run.folder.name) for item in material.results)
    return (*blocks, Code(f"tokbench report {folders}"))


def _cut(text: str) -> str:
    if len(text) <= MAX_CONFIG_CHARACTERS:
        return text.rstrip()
    return text[:MAX_CONFIG_CHARACTERS] + "\n# " + t("… cut here; the whole file lies beside the record")
