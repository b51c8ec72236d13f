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
from tokbench.derive.report.fields import CELL_COLUMNS, cell_fields, metric_field, value_field
from tokbench.derive.report.material import Material
from tokbench.derive.report.pair_fields import LEFT_OUT, basis_field, outcome_field
from tokbench.derive.sentinels import BlockDrift, drift_limit, find_blocks, run_drift
from tokbench.derive.standing import PER_USER
from tokbench.derive.stopping import STEERED_BY, Stopped
from tokbench.stats import MIN_BLOCKS
from tokbench.units import format_number

TITLE = "How firm the numbers are"
NO_BLOCKS = (
    "the record holds no blocks (it is from before they were kept): processes and order are told by its trials alone, "
    "and nothing tells whether the machine drifted meanwhile"
)
NO_STOP = "the record does not hold the stop rule (it is from before it was kept)"
WITH_AND_WITHOUT = ("decode_tokens_per_s", "output_tokens_per_s", "ttft_s")
BASIS = {
    "blocks": "processes",
    "repetitions": "repetitions",
    "none": "no interval",
}


def statistics_sections(material: Material) -> list[Section]:
    """The spread behind each number, drift from the sentinels, disturbed repetitions, pairs inside a run."""
    if not material.measured:
        return []
    intro = bullets(*(text for item in material.results for text in _say_order(item)))
    sections = [
        Section(TITLE, (intro, _spread_table(material))),
        Section("Drift", tuple(_drift_blocks(material)), level=3),
        Section("With and without disturbed repetitions", tuple(_disturbed_blocks(material)), level=3),
    ]
    pairs = pair_others(material.measured, PER_USER)
    if pairs:
        sections.append(Section("A beside B in one run", (_pairs_table(pairs, material),), level=3))
    return sections


def _say_order(results: Results) -> list[str]:
    run = results.run
    stop = run.header.stop
    if stop is None:
        rule = f"{results.name}: {NO_STOP}."
    else:
        rule = (
            f"{results.name}: a cell was to be repeated until the interval of its {STEERED_BY} stays within "
            f"±{format_number(100 * stop.rel_ci, 2)} % ({stop.min_repetitions} to {stop.max_repetitions} repetitions, "
            f"{stop.blocks} process{'' if stop.blocks == 1 else 'es'} or more), or time was up."
        )
    order = f"the order of cells is drawn with seed {run.header.seed}"
    if not run.blocks:
        return [rule, f"{results.name}: {order}; {NO_BLOCKS}."]
    fresh = sum(block.is_fresh for block in run.blocks)
    count = f"{len(run.blocks)} block{'' if len(run.blocks) == 1 else 's'}"
    return [
        rule,
        f"{results.name}: {order} anew in each of {count}, {fresh} of them with fresh processes; both stand in "
        "the record (order and seed of each block, place of each trial).",
    ]


def _spread_table(material: Material) -> Table:
    columns = (
        *CELL_COLUMNS,
        Column("Repetitions", "", "right"),
        Column("Processes", "", "right"),
        Column("Spread within a process", "sd", "right"),
        Column("Spread between processes", "sd", "right"),
        Column("Half width", "of the 95 % interval", "right"),
        Column("Interval rests on"),
        Column("Ended by"),
    )
    rows = tuple(_spread_row(cell, material.has_several_runs) for cell in material.measured)
    caption = (
        f"Of {catalog()[STEERED_BY].title.lower()}. The interval is Student's t on logarithms: over the means of the "
        f"processes from {MIN_BLOCKS} of them on, else over all repetitions. Spread: standard deviation of logarithms, "
        "read as a share of the value."
    )
    return Table(columns, rows, caption)


def _spread_row(cell: CellResult, with_run: bool) -> tuple[Cell, ...]:
    head, value = cell_fields(cell, with_run), cell.metrics[STEERED_BY]
    count = len(cell.record.good_trials())
    repetitions = Cell(str(count), sort=float(count))
    if isinstance(value, Missing):
        absent = Cell(DASH, note=value.reason)
        return (*head, repetitions, *([absent] * 5), _stop_field(cell.stopped))
    blocks = value.blocks
    return (
        *head,
        repetitions,
        Cell(DASH, note="not known") if blocks is None else Cell(str(blocks), sort=float(blocks)),
        share_cell(value.sd_within, "needs two repetitions in one process"),
        share_cell(value.sd_between, "needs two processes, and two repetitions in one of them"),
        share_cell(value.relative_half_width(), "needs two repetitions"),
        Cell(BASIS[value.basis], note=LEFT_OUT if value.basis == "repetitions" else None),
        _stop_field(cell.stopped),
    )


def _stop_field(stopped: Stopped | None) -> Cell:
    if stopped is None:
        return Cell(DASH, note="no repetition came to its end")
    reached = "" if stopped.half_width is None else f", at ±{format_number(100 * stopped.half_width, 2)} %"
    words = {
        "rel_ci": f"narrow enough{reached}",
        "max_repetitions": f"as many repetitions as allowed{reached}",
        "budget": f"time was up{reached}",
        "interrupted": f"the run was cut off{reached}",
        "failures": f"failures{reached}",
        "unknown": "the stop rule; which part of it is not known" if stopped.rel_ci is None else f"not known{reached}",
    }
    return Cell(words[stopped.by])


def _drift_blocks(material: Material) -> Iterator[Block]:
    for item in material.results:
        blocks = find_blocks(item.run)
        prefix = f"{item.name}: " if material.has_several_runs else ""
        if not blocks:
            yield Paragraph(f"{prefix}Not known: {NO_BLOCKS}.")
            continue
        yield Paragraph(f"{prefix}{_say_drift(item, blocks)}")
        yield _drift_table(item, blocks)


def _say_drift(results: Results, blocks: tuple[BlockDrift, ...]) -> str:
    over, limit = run_drift(blocks), drift_limit(results.run)
    if over is None:
        return "Drift over the run is not known: the first and the last block have no sentinel in common."
    named = next(block.started.sentinel for block in blocks if block.started.sentinel is not None)
    sentinel = next(cell for cell in results.cells if cell.cell_id == named)
    return (
        f"A sentinel ({wording.say_cell(sentinel)}) opens and closes each block; its trials are in no figure. From the "
        f"first opening to the last closing its decode speed changed by {_say_change(over)}; a block that changed by "
        f"more than {100 * limit:.0f} % makes its cells suspect."
    )


def _say_change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _drift_table(results: Results, blocks: tuple[BlockDrift, ...]) -> Table:
    columns = (
        Column("Block", "", "right"),
        Column("Seed", "", "right"),
        Column("Cells", "", "right"),
        Column("Processes"),
        Column("Sentinel"),
        Column("Opening", "tokens/s", "right"),
        Column("Closing", "tokens/s", "right"),
        Column("Change", "", "right"),
        Column("Reading"),
    )
    limit = drift_limit(results.run)
    return Table(columns, tuple(_drift_row(block, limit) for block in blocks))


def _drift_row(block: BlockDrift, limit: float) -> tuple[Cell, ...]:
    started, ratio = block.started, block.ratio
    absent = Cell(DASH, note=block.missing)
    speeds = (block.opening_tokens_per_s, block.closing_tokens_per_s)
    fields = [absent if speed is None else Cell(format_number(speed), sort=speed) for speed in speeds]
    other = "" if block.is_one_process in (None, True) else "; opened and closed by different processes"
    reading = DASH if ratio is None else f"{'moved' if abs(ratio - 1) > limit else 'steady'}{other}"
    return (
        Cell(str(started.block), sort=float(started.block)),
        Cell(str(started.seed)),
        Cell(str(len(started.order)), sort=float(len(started.order))),
        Cell("fresh" if started.is_fresh else f"kept: {started.reason or 'no reason given'}"),
        Cell(started.sentinel or "none"),
        *fields,
        absent if ratio is None else Cell(_say_change(ratio), sort=ratio),
        Cell(reading),
    )


def _disturbed_blocks(material: Material) -> Iterator[Block]:
    yield Paragraph(
        "Every figure of this report rests on all repetitions that came to their end: none is left out for being "
        "disturbed. Beside it stands the same without those that ran after an unsteady warm-up, with other processes "
        "on the device or the CPU, while heat or the hardware slowed the device, or while its clocks moved. The power "
        "limit is no disturbance: what a device does at it is its sustained speed."
    )
    unseen = [item.name for item in material.results if not item.run.load_samples]
    if unseen:
        yield Paragraph(
            f"No sample of load, clocks or heat is in the record of {', '.join(unseen)}: what they would "
            "have shown is not known."
        )
    capped = [cell.cell_id for cell in material.measured if Code.POWER_CAPPED in cell.validity.reasons]
    if capped:
        yield Paragraph(f"At the power limit, so a sustained speed: {', '.join(capped)}.")
    touched = [cell for cell in material.measured if cell.undisturbed.left_out]
    yield _disturbed_table(touched, material) if touched else Paragraph("No repetition was seen to be disturbed.")


def _disturbed_table(cells: list[CellResult], material: Material) -> Table:
    columns = [*CELL_COLUMNS, Column("Disturbed", "repetitions", "right"), Column("Why")]
    for name in WITH_AND_WITHOUT:
        title = catalog()[name].title
        unit = "95 % interval, n"
        columns += [Column(f"{title}, all", unit, "right"), Column(f"{title}, without", unit, "right")]
    rows = []
    for cell in cells:
        count, left = len(cell.record.good_trials()), cell.undisturbed.left_out
        fields = [*cell_fields(cell, material.has_several_runs), Cell(f"{left} of {count}", sort=float(left))]
        fields.append(Cell(", ".join(code.name for code in cell.undisturbed.why)))
        for name in WITH_AND_WITHOUT:
            without = cell.undisturbed.metrics.get(name, cell.metrics[name])
            fields += [metric_field(cell, name, with_interval=True), value_field(without, with_interval=True)]
        rows.append(tuple(fields))
    return Table(tuple(columns), tuple(rows))


def _pairs_table(pairs: list[CellPair], material: Material) -> Table:
    columns = (
        *CELL_COLUMNS,
        Column("A"),
        Column("B"),
        Column("B / A", "95 % interval, n", "right"),
        Column("Rests on"),
        Column("Reading"),
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
    caption = "Decode speed per user of cells that ask the same of different engines, or of one with other options."
    return Table(columns, rows, caption)
