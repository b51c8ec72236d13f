"""Where the time goes: prefill and decode, the share of the roofline, modes and machines side by side."""

from __future__ import annotations

from tokbench.derive.evaluate import CellResult
from tokbench.derive.metrics import catalog
from tokbench.derive.pairs import AMBIGUOUS, MachineRow, ModePair, join_machines, pair_modes
from tokbench.derive.report.document import (
    DASH,
    Block,
    Cell,
    Column,
    Paragraph,
    Section,
    Table,
    bullets,
)
from tokbench.derive.report.fields import (
    cell_columns,
    cell_fields,
    metric_column,
    metric_field,
    share_field,
    value_field,
)
from tokbench.derive.report.material import Material
from tokbench.derive.report.pair_fields import basis_field, outcome_field
from tokbench.derive.standing import PER_USER
from tokbench.derive.validity import Code
from tokbench.derive.words import t
from tokbench.stats import MIN_BLOCKS
from tokbench.units import format_value

PHASES = ("ttft_s", "prefill_tokens_per_s", "tpot_s", "itl_p50_s", "itl_p99_s", "e2e_latency_s", "e2e_tokens_per_s")


def time_sections(material: Material) -> list[Section]:
    """The phases of a request, then the limits they run against, then what changed them."""
    if not material.measured:
        return [Section(t("Where the time goes"), (Paragraph(t("No cell was measured.")),))]
    phases: tuple[Block, ...] = (_phases_table(material), *material.figure("pareto.png"))
    sections = [Section(t("Where the time goes"), phases)]
    roofline: tuple[Block, ...] = (
        _roofline_note(material),
        _roofline_table(material),
        *material.figure("roofline.png"),
    )
    sections.append(Section(t("Against the roofline"), roofline, level=3))
    pairs = pair_modes(material.measured, PER_USER)
    if pairs:
        sections.append(Section(t("Modes against eager"), _pairs_blocks(pairs, material), level=3))
    machines = join_machines(material.results)
    if machines:
        sections.append(Section(t("Run against run"), (_machines_table(machines, material),), level=3))
    return sections


def _phases_table(material: Material) -> Table:
    columns = (*cell_columns(), *(metric_column(name) for name in PHASES))
    rows = tuple(
        (*cell_fields(cell, material.has_several_runs), *(metric_field(cell, name) for name in PHASES))
        for cell in material.measured
    )
    return Table(columns, rows, t("Prefill ends with the first output token, decode is what follows it."))


def _roofline_note(material: Material) -> Block:
    lines = []
    for item in material.results:
        for facts in item.run.ceilings:
            read = _say_rate(facts.read_bytes_per_s, "read_bytes_per_s")
            matmul = _say_rate(facts.matmul_flops_per_s, "matmul_flops_per_s")
            lines.append(
                t(
                    "{run}, {dtype}: read ceiling {read}, matrix-multiply ceiling {matmul}, best of {repetitions} "
                    "({method}).",
                    run=item.name,
                    dtype=facts.dtype,
                    read=read,
                    matmul=matmul,
                    repetitions=facts.repetitions,
                    method=facts.method,
                )
            )
        if not item.run.ceilings:
            lines.append(t("{run}: no ceiling was measured, so no share of one can be told.", run=item.name))
    return bullets(*dict.fromkeys(lines))


def _say_rate(value: float | None, name: str) -> str:
    return t("not measured") if value is None else format_value(value, catalog()[name].unit)


def _roofline_table(material: Material) -> Table:
    columns = (
        *cell_columns(),
        metric_column(PER_USER, t("Decode per user")),
        metric_column("roofline_decode_tokens_per_s", t("Roofline per user")),
        Column(t("Of the read ceiling"), t("measured"), "right"),
        Column(t("Of the bandwidth"), t("datasheet"), "right"),
    )
    rows = tuple(
        (
            *cell_fields(cell, material.has_several_runs),
            metric_field(cell, PER_USER),
            metric_field(cell, "roofline_decode_tokens_per_s"),
            share_field(cell, "bandwidth_used_ratio"),
            share_field(cell, "nominal_bandwidth_used_ratio"),
        )
        for cell in material.measured
    )
    caption = t(
        "The roofline is the speed if each step took no longer than the slower of reading its bytes and "
        "computing its operations, each at its measured ceiling. Both are counted from the model's shape, "
        "not measured: weights once, cache at its mean real length, experts as if routed evenly. The shares "
        "are of memory alone."
    )
    return Table(columns, rows, caption)


def _pairs_blocks(pairs: list[ModePair], material: Material) -> tuple[Block, ...]:
    columns = (
        *cell_columns(),
        Column(t("Eager"), "tokens/s", "right"),
        Column(t("This mode"), "tokens/s", "right"),
        Column(t("Ratio"), t("95 % interval, n"), "right"),
        Column(t("Rests on")),
        Column(t("Reading")),
    )
    notes = [
        t(
            "Decode speed per user over that of eager. From {blocks} blocks on that hold both cells, each in processes "
            "of its own, each gives one ratio of geometric means, so that what drifts under both cancels; with fewer "
            "the repetitions of both are compared. An interval that holds 1 shows no difference, or is too wide to "
            "say.",
            blocks=MIN_BLOCKS,
        )
    ]
    if any(Code.NOT_INTERLEAVED in pair.cell.validity.reasons for pair in pairs):
        notes.append(
            t(
                "The modes did not fit side by side and were measured apart in time, group after group: a ratio may "
                "hold what drifted meanwhile (heat, clocks, other load)."
            )
        )
    rows = tuple(_pair_row(pair, material) for pair in pairs)
    return (*map(Paragraph, notes), Table(columns, rows))


def _pair_row(pair: ModePair, material: Material) -> tuple[Cell, ...]:
    return (
        *cell_fields(pair.cell, material.has_several_runs),
        Cell(DASH, note=t(AMBIGUOUS)) if pair.baseline is None else metric_field(pair.baseline, PER_USER),
        metric_field(pair.cell, PER_USER),
        value_field(pair.ratio, with_interval=True),
        basis_field(pair.compared),
        outcome_field(pair.compared, PER_USER),
    )


def _machines_table(rows: list[MachineRow], material: Material) -> Table:
    columns = (
        *cell_columns(),
        *(Column(item.name, t("decode tokens/s; 95 % interval, n"), "right") for item in material.results),
    )
    return Table(columns, tuple(_machine_row(row) for row in rows), t("The same point of the sweep in several runs."))


def _machine_row(row: MachineRow) -> tuple[Cell, ...]:
    first = next(cell for cell in row.cells if cell is not None)
    return (
        *cell_fields(first, with_run=False),
        *(_machine_field(cell) for cell in row.cells),
    )


def _machine_field(cell: CellResult | None) -> Cell:
    if cell is None:
        return Cell(DASH, note=t("not a cell of this run"))
    return metric_field(cell, PER_USER, with_interval=True)
