"""How firm the numbers are: repetitions, processes and spread behind each, drift, what was disturbed, A beside B."""

from __future__ import annotations

from collections.abc import Iterator

from tokbench.derive import wording
from tokbench.derive.codes import Code
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.metrics import catalog
from tokbench.derive.pairs import CellPair, pair_others
from tokbench.derive.report.bound_tables import share_cell
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table, bullets
from tokbench.derive.report.fields import cell_columns, cell_fields, in_run, metric_field, value_field
from tokbench.derive.report.material import Material
from tokbench.derive.report.pair_fields import LEFT_OUT, basis_field, outcome_field
from tokbench.derive.sentinels import BlockDrift, drift_limit, find_blocks, run_drift
from tokbench.derive.standing import PER_USER
from tokbench.derive.stopping import STEERED_BY, Stopped
from tokbench.derive.words import join, mark, say, t
from tokbench.stats import MIN_BLOCKS
from tokbench.units import format_number

TITLE = mark("How firm the numbers are")
NO_BLOCKS = mark(
    "the record holds no blocks (it is from before they were kept): processes and order are told by its trials alone, "
    "and nothing tells whether the machine drifted meanwhile"
)
NO_STOP = mark("the record does not hold the stop rule (it is from before it was kept)")
WITH_AND_WITHOUT = ("decode_tokens_per_s", "output_tokens_per_s", "ttft_s")
BASIS = {
    "blocks": mark("processes"),
    "repetitions": mark("repetitions"),
    "none": mark("no interval"),
}
ENDINGS = {
    "rel_ci": mark("narrow enough"),
    "max_repetitions": mark("as many repetitions as allowed"),
    "budget": mark("time was up"),
    "interrupted": mark("the run was cut off"),
    "failures": mark("failures"),
    "unknown": mark("not known"),
}


def statistics_sections(material: Material) -> list[Section]:
    """The spread behind each number, drift from the sentinels, disturbed repetitions, pairs inside a run."""
    if not material.measured:
        return []
    intro = bullets(*(text for item in material.results for text in _say_order(item)))
    sections = [
        Section(t(TITLE), (intro, _spread_table(material))),
        Section(t("Drift"), tuple(_drift_blocks(material)), level=3),
        Section(t("With and without disturbed repetitions"), tuple(_disturbed_blocks(material)), level=3),
    ]
    pairs = pair_others(material.measured, PER_USER)
    if pairs:
        sections.append(Section(t("A beside B in one run"), (_pairs_table(pairs, material),), level=3))
    return sections


def _say_order(results: Results) -> list[str]:
    run = results.run
    stop = run.header.stop
    if stop is None:
        rule = t("{run}: {text}.", run=results.name, text=t(NO_STOP))
    else:
        rule = t(
            "{run}: a cell was to be repeated until the interval of its {metric} stays within ±{rel_ci} % "
            "({fewest} to {most} repetitions, {processes} or more), or time was up.",
            run=results.name,
            metric=STEERED_BY,
            rel_ci=format_number(100 * stop.rel_ci, 2),
            fewest=stop.min_repetitions,
            most=stop.max_repetitions,
            processes=t("1 process") if stop.blocks == 1 else t("{count} processes", count=stop.blocks),
        )
    order = t("the order of cells is drawn with seed {seed}", seed=run.header.seed)
    if not run.blocks:
        return [rule, t("{run}: {order}; {text}.", run=results.name, order=order, text=t(NO_BLOCKS))]
    fresh = sum(block.is_fresh for block in run.blocks)
    count = t("1 block") if len(run.blocks) == 1 else t("{count} blocks", count=len(run.blocks))
    return [
        rule,
        t(
            "{run}: {order} anew in each of {blocks}, {fresh} of them with fresh processes; both stand in the "
            "record (order and seed of each block, place of each trial).",
            run=results.name,
            order=order,
            blocks=count,
            fresh=fresh,
        ),
    ]


def _spread_table(material: Material) -> Table:
    columns = (
        *cell_columns(),
        Column(t("Repetitions"), "", "right"),
        Column(t("Processes"), "", "right"),
        Column(t("Spread within a process"), t("sd"), "right"),
        Column(t("Spread between processes"), t("sd"), "right"),
        Column(t("Half width"), t("of the 95 % interval"), "right"),
        Column(t("Interval rests on")),
        Column(t("Ended by")),
    )
    rows = tuple(_spread_row(cell, material.has_several_runs) for cell in material.measured)
    caption = t(
        "Of {title}. The interval is Student's t on logarithms: over the means of the processes from "
        "{blocks} of them on, else over all repetitions. Spread: standard deviation of logarithms, read "
        "as a share of the value.",
        title=say(catalog()[STEERED_BY].title).lower(),
        blocks=MIN_BLOCKS,
    )
    return Table(columns, rows, caption)


def _spread_row(cell: CellResult, with_run: bool) -> tuple[Cell, ...]:
    head, value = cell_fields(cell, with_run), cell.metrics[STEERED_BY]
    count = len(cell.record.good_trials())
    repetitions = Cell(str(count), sort=float(count))
    if isinstance(value, Missing):
        absent = Cell(DASH, note=say(value.reason))
        return (*head, repetitions, *([absent] * 5), _stop_field(cell.stopped))
    blocks = value.blocks
    return (
        *head,
        repetitions,
        Cell(DASH, note=t("not known")) if blocks is None else Cell(str(blocks), sort=float(blocks)),
        share_cell(value.sd_within, t("needs two repetitions in one process")),
        share_cell(value.sd_between, t("needs two processes, and two repetitions in one of them")),
        share_cell(value.relative_half_width(), t("needs two repetitions")),
        Cell(t(BASIS[value.basis]), note=t(LEFT_OUT) if value.basis == "repetitions" else None),
        _stop_field(cell.stopped),
    )


def _stop_field(stopped: Stopped | None) -> Cell:
    if stopped is None:
        return Cell(DASH, note=t("no repetition came to its end"))
    reached = (
        ""
        if stopped.half_width is None
        else t(", at ±{half_width} %", half_width=format_number(100 * stopped.half_width, 2))
    )
    if stopped.by == "unknown" and stopped.rel_ci is None:
        return Cell(t("the stop rule; which part of it is not known"))
    return Cell(t(ENDINGS[stopped.by]) + reached)


def _drift_blocks(material: Material) -> Iterator[Block]:
    for item in material.results:
        blocks = find_blocks(item.run)
        several = material.has_several_runs
        if not blocks:
            yield Paragraph(in_run(item.name, t("Not known: {reason}.", reason=t(NO_BLOCKS)), several))
            continue
        yield Paragraph(in_run(item.name, _say_drift(item, blocks), several))
        yield _drift_table(item, blocks)


def _say_drift(results: Results, blocks: tuple[BlockDrift, ...]) -> str:
    over, limit = run_drift(blocks), drift_limit(results.run)
    if over is None:
        return t("Drift over the run is not known: the first and the last block have no sentinel in common.")
    named = next(block.started.sentinel for block in blocks if block.started.sentinel is not None)
    sentinel = next(cell for cell in results.cells if cell.cell_id == named)
    return t(
        "A sentinel ({cell}) opens and closes each block; its trials are in no figure. From the first "
        "opening to the last closing its decode speed changed by {change}; a block that changed by more "
        "than {limit:.0f} % makes its cells suspect.",
        cell=wording.say_cell(sentinel),
        change=_say_change(over),
        limit=100 * limit,
    )


def _say_change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _drift_table(results: Results, blocks: tuple[BlockDrift, ...]) -> Table:
    columns = (
        Column(t("Block"), "", "right"),
        Column(t("Seed"), "", "right"),
        Column(t("Cells"), "", "right"),
        Column(t("Processes")),
        Column(t("Sentinel")),
        Column(t("Opening"), "tokens/s", "right"),
        Column(t("Closing"), "tokens/s", "right"),
        Column(t("Change"), "", "right"),
        Column(t("Reading")),
    )
    limit = drift_limit(results.run)
    return Table(columns, tuple(_drift_row(block, limit) for block in blocks))


def _drift_row(block: BlockDrift, limit: float) -> tuple[Cell, ...]:
    started, ratio = block.started, block.ratio
    absent = Cell(DASH, note=block.missing and say(block.missing))
    speeds = (block.opening_tokens_per_s, block.closing_tokens_per_s)
    fields = [absent if speed is None else Cell(format_number(speed), sort=speed) for speed in speeds]
    other = "" if block.is_one_process in (None, True) else t("; opened and closed by different processes")
    reading = DASH
    if ratio is not None:
        reading = (t("moved") if abs(ratio - 1) > limit else t("steady")) + other
    return (
        Cell(str(started.block), sort=float(started.block)),
        Cell(str(started.seed)),
        Cell(str(len(started.order)), sort=float(len(started.order))),
        Cell(t("fresh") if started.is_fresh else t("kept: {reason}", reason=started.reason or t("no reason given"))),
        Cell(started.sentinel or t("none")),
        *fields,
        absent if ratio is None else Cell(_say_change(ratio), sort=ratio),
        Cell(reading),
    )


def _disturbed_blocks(material: Material) -> Iterator[Block]:
    yield Paragraph(
        t(
            "Every figure of this report rests on all repetitions that came to their end: none is left out for "
            "being disturbed. Beside it stands the same without those that ran after an unsteady warm-up, with "
            "other processes on the device or the CPU, while heat or the hardware slowed the device, or while "
            "its clocks moved. The power limit is no disturbance: what a device does at it is its sustained "
            "speed."
        )
    )
    unseen = [item.name for item in material.results if not item.run.load_samples]
    if unseen:
        yield Paragraph(
            t(
                "No sample of load, clocks or heat is in the record of {unseen}: what they would have shown is not "
                "known.",
                unseen=join(unseen),
            )
        )
    capped = [cell.cell_id for cell in material.measured if Code.POWER_CAPPED in cell.validity.reasons]
    if capped:
        yield Paragraph(t("At the power limit, so a sustained speed: {capped}.", capped=join(capped)))
    touched = [cell for cell in material.measured if cell.undisturbed.left_out]
    yield _disturbed_table(touched, material) if touched else Paragraph(t("No repetition was seen to be disturbed."))


def _disturbed_table(cells: list[CellResult], material: Material) -> Table:
    columns = [*cell_columns(), Column(t("Disturbed"), t("repetitions"), "right"), Column(t("Why"))]
    for name in WITH_AND_WITHOUT:
        title = say(catalog()[name].title)
        unit = t("95 % interval, n")
        columns += [
            Column(t("{title}, all", title=title), unit, "right"),
            Column(t("{title}, without", title=title), unit, "right"),
        ]
    rows = []
    for cell in cells:
        count, left = len(cell.record.good_trials()), cell.undisturbed.left_out
        fields = [
            *cell_fields(cell, material.has_several_runs),
            Cell(t("{left} of {count}", left=left, count=count), sort=float(left)),
        ]
        fields.append(Cell(", ".join(code.name for code in cell.undisturbed.why)))
        for name in WITH_AND_WITHOUT:
            without = cell.undisturbed.metrics.get(name, cell.metrics[name])
            fields += [metric_field(cell, name, with_interval=True), value_field(without, with_interval=True)]
        rows.append(tuple(fields))
    return Table(tuple(columns), tuple(rows))


def _pairs_table(pairs: list[CellPair], material: Material) -> Table:
    columns = (
        *cell_columns(),
        Column("A"),
        Column("B"),
        Column("B / A", t("95 % interval, n"), "right"),
        Column(t("Rests on")),
        Column(t("Reading")),
    )
    rows = tuple(
        (
            *cell_fields(pair.cell, material.has_several_runs),
            Cell(pair.baseline.cell_id),
            Cell(pair.cell.cell_id),
            value_field(pair.compared if isinstance(pair.compared, Missing) else pair.compared.ratio, True),
            basis_field(pair.compared),
            outcome_field(pair.compared, PER_USER),
        )
        for pair in pairs
    )
    caption = t("Decode speed per user of cells that ask the same of different engines, or of one with other options.")
    return Table(columns, rows, caption)
