"""The first minute: five sentences, what is weak, and one table of all cells."""

from __future__ import annotations

import dataclasses

from tokbench.derive import wording
from tokbench.derive.codes import Code
from tokbench.derive.evaluate import CellResult
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import Block, Bullets, Cell, Column, Item, Paragraph, Section, Table
from tokbench.derive.report.fields import (
    CELL_COLUMNS,
    cell_fields,
    metric_column,
    metric_field,
    share_field,
)
from tokbench.derive.report.material import Material
from tokbench.stats import Estimate

WEIGHED = ("decode_tokens_per_s", "output_tokens_per_s", "ttft_s", "prefill_tokens_per_s")
"""The metrics among which the weakest number is looked for."""
STATUS_WORDS = {
    "oom": "out of memory",
    "timeout": "timed out",
    "failed": "failed",
    "skipped": "not run",
    "planned": "not reached",
}


def opening_section(material: Material) -> Section:
    """Where the machine stands, how firm that is, and every cell in one table."""
    blocks: list[Block] = [Bullets(tuple(_headline_item(line) for line in material.lines)), *_warnings(material)]
    blocks += [Paragraph(say_weakest(material.measured)), _cells_table(material)]
    return Section("In one minute", (*blocks, *material.figure("speed.png")))


def _headline_item(line: str) -> Item:
    """A sentence whose main clause, up to the first bracket, stands out."""
    lead, bracket, rest = line.partition(" (")
    return Item(bracket + rest, lead=lead) if bracket else Item(line)


def _warnings(material: Material) -> list[Block]:
    texts = []
    labels = {wording.label_of(cell) for cell in material.measured} - {""}
    if labels:
        texts.append(
            f"{'Some' if any(not wording.label_of(c) for c in material.measured) else 'All'} cells ran with "
            f"{', '.join(sorted(labels))}: speed and memory are those of the shape, the text they make means nothing."
        )
    for item in material.results:
        if item.run.ended is None:
            texts.append(f"The record of {item.name} has no end: the run is still going on, or it crashed.")
        elif item.run.ended.reason != "complete":
            without = sum(cell.status in {"planned", "skipped"} for cell in item.cells)
            left = f"{without} cells have no number" if without else "every cell had its turn"
            why = {"budget": "its time was up before every interval was as narrow as asked"}.get(item.run.ended.reason)
            texts.append(f"The run {item.name} was ended ({why or item.run.ended.reason}); {left}.")
    doubted = [cell for cell in material.measured if cell.validity.verdict != "valid"]
    if doubted:
        texts.append(f"{len(doubted)} of {len(material.measured)} measured cells are not plainly valid; see Validity.")
    return [Paragraph(text, "warning") for text in texts]


def say_weakest(cells: list[CellResult]) -> str:
    """Name the least firm of the numbers that the opening rests on."""
    rated = [
        (_firmness(value), cell, name, value)
        for cell in cells
        for name in WEIGHED
        if isinstance(value := cell.metrics.get(name), Estimate)
    ]
    if not rated:
        return "There is no weakest number: nothing was measured."
    _, cell, name, value = max(rated, key=lambda row: row[0])
    half = value.relative_half_width()
    if half is None:
        why = f"no interval ({value.n} repetition{'s' if value.n > 1 else ''})"
    else:
        why = f"±{100 * half:.2g} % ({value.n} repetitions)"
    title = catalog()[name].title.lower()
    return f"The weakest number here is the {title} of {wording.say_cell(cell)}: {wording.say_value(value)}, {why}."


def _firmness(value: Estimate) -> tuple[bool, float]:
    half = value.relative_half_width()
    return half is None, 0.0 if half is None else half


def _cells_table(material: Material) -> Table:
    columns = (
        *CELL_COLUMNS,
        metric_column("decode_tokens_per_s", "Decode per user", with_interval=True),
        metric_column("output_tokens_per_s", "System"),
        metric_column("ttft_s", "TTFT"),
        Column("Of the read ceiling", "measured", "right"),
        metric_column("peak_memory_bytes", "Peak memory"),
        Column("Validity"),
        Column("Cell"),
    )
    rows = tuple(_cell_row(cell, material.has_several_runs) for cell in material.cells)
    caption = (
        "Every cell of the sweep, also those that gave no number. System: all output tokens over the time from asking "
        "to the last one, prefill included; decode per user leaves prefill out."
    )
    return Table(columns, rows, caption)


def _cell_row(cell: CellResult, with_run: bool) -> tuple[Cell, ...]:
    return (
        *cell_fields(cell, with_run),
        metric_field(cell, "decode_tokens_per_s", with_interval=True),
        metric_field(cell, "output_tokens_per_s"),
        metric_field(cell, "ttft_s"),
        share_field(cell, "bandwidth_used_ratio"),
        _memory_field(cell),
        verdict_field(cell),
        Cell(cell.cell_id),
    )


def _memory_field(cell: CellResult) -> Cell:
    field = metric_field(cell, "peak_memory_bytes")
    source = wording.say_memory_source(cell)
    return field if field.note or not source.startswith("of ") else dataclasses.replace(field, note=f"peak {source}")


def verdict_field(cell: CellResult) -> Cell:
    """How a cell ended, and for one that was measured the verdict on it."""
    if cell.status != "ok":
        return Cell(STATUS_WORDS[cell.status], note=cell.status_reason)
    sustained = ", sustained" if Code.POWER_CAPPED in cell.validity.reasons else ""
    note = "; ".join(code.value for code in cell.validity.reasons) or None
    return Cell(f"{cell.validity.verdict}{sustained}", note=note)
