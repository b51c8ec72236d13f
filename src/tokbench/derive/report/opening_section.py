"""The first minute: five sentences, one table of all cells, what is weak, and the speeds in one picture."""

from __future__ import annotations

import dataclasses
import re

from tokbench.derive import wording
from tokbench.derive.codes import Code
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import Block, Bullets, Cell, Column, Item, Paragraph, Section, Table
from tokbench.derive.report.fields import (
    cell_columns,
    cell_fields,
    metric_column,
    metric_field,
    share_field,
)
from tokbench.derive.report.material import Material
from tokbench.derive.standing import is_cut
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.stats import Estimate
from tokbench.units import format_number

WEIGHED = ("decode_tokens_per_s", "output_tokens_per_s", "ttft_s", "prefill_tokens_per_s")
"""The metrics among which the weakest number is looked for."""
STATUS_WORDS = {
    "oom": mark("out of memory"),
    "timeout": mark("timed out"),
    "failed": mark("failed"),
    "skipped": mark("not run"),
    "planned": mark("not reached"),
}


def opening_section(material: Material) -> Section:
    """Where the machine stands, how firm that is, and every cell in one table."""
    blocks: list[Block] = [Bullets(tuple(_headline_item(line) for line in material.lines)), _cells_table(material)]
    blocks += [Paragraph(say_weakest(material.measured)), *_warnings(material)]
    return Section(t("In one minute"), (*blocks, *material.figure("speed.png")))


def _headline_item(line: str) -> Item:
    """A sentence whose main clause, up to the first bracket, stands out."""
    found = re.search(r" \(|（", line)
    return Item(line) if found is None else Item(line[found.start() :], lead=line[: found.start()])


def _warnings(material: Material) -> list[Block]:
    texts = [_say_labels(material.measured)]
    texts += [_say_end(item) for item in material.results]
    doubted = sum(cell.validity.verdict != "valid" for cell in material.measured)
    if doubted:
        texts.append(
            t(
                "{doubted} of {measured} measured cells are not plainly valid; see Validity.",
                doubted=doubted,
                measured=len(material.measured),
            )
        )
    return [Paragraph(text, "warning") for text in texts if text]


def _say_labels(cells: list[CellResult]) -> str:
    labels = {wording.label_of(cell) for cell in cells} - {""}
    if not labels:
        return ""
    named = join(sorted(labels))
    if any(not wording.label_of(cell) for cell in cells):
        return t(
            "Some cells ran with {labels}: speed and memory are those of the shape, the text they make means nothing.",
            labels=named,
        )
    return t(
        "All cells ran with {labels}: speed and memory are those of the shape, the text they make means nothing.",
        labels=named,
    )


def _say_end(item: Results) -> str:
    if item.run.ended is None:
        return t("The record of {run} has no end: the run is still going on, or it crashed.", run=item.name)
    reason = item.run.ended.reason
    if reason == "complete":
        return ""
    without = sum(cell.status in {"planned", "skipped"} for cell in item.cells)
    left = t("{count} cells have no number", count=without) if without else t("every cell had its turn")
    why = t("its time was up before every interval was as narrow as asked") if reason == "budget" else reason
    return t("The run {run} was ended ({why}); {left}.", run=item.name, why=why, left=left)


def say_weakest(cells: list[CellResult]) -> str:
    """Name the least firm of the numbers that the opening rests on."""
    rated = [
        (_firmness(value), cell, name, value)
        for cell in cells
        for name in WEIGHED
        if isinstance(value := cell.metrics.get(name), Estimate)
    ]
    if not rated:
        return t("There is no weakest number: nothing was measured.")
    _, cell, name, value = max(rated, key=lambda row: row[0])
    half = value.relative_half_width()
    if half is None and value.n == 1:
        why = t("no interval (1 repetition)")
    elif half is None:
        why = t("no interval ({n} repetitions)", n=value.n)
    else:
        why = t("±{percent} % ({n} repetitions)", percent=format_number(100 * half, 2), n=value.n)
    return t(
        "The weakest number here is the {title} of {cell}: {value}, {why}.",
        title=_title_of(name),
        cell=wording.say_cell(cell),
        value=wording.say_value(value),
        why=why,
    )


def _title_of(name: str) -> str:
    return say(catalog()[name].title).lower()


def _firmness(value: Estimate) -> tuple[bool, float]:
    half = value.relative_half_width()
    return half is None, 0.0 if half is None else half


def _cells_table(material: Material) -> Table:
    columns = (
        *cell_columns(),
        metric_column("decode_tokens_per_s", t("Decode per user"), with_interval=True),
        metric_column("output_tokens_per_s", t("System")),
        metric_column("ttft_s", "TTFT"),
        Column(t("Of the read ceiling"), t("measured"), "right"),
        metric_column("peak_memory_bytes", t("Peak memory")),
        Column(t("Validity")),
        Column(t("Cell")),
    )
    whole_first = sorted(material.cells, key=is_cut)
    rows = tuple(_cell_row(cell, material.has_several_runs) for cell in whole_first)
    caption = t(
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
    if field.note or source in ("", t("on the device")):
        return field
    return dataclasses.replace(field, note=t("peak {source}", source=source))


def verdict_field(cell: CellResult) -> Cell:
    """How a cell ended, and for one that was measured the verdict on it."""
    if cell.status != "ok":
        return Cell(say_status(cell.status), note=cell.status_reason)
    verdict = wording.say_verdict(cell.validity.verdict)
    if Code.POWER_CAPPED in cell.validity.reasons:
        verdict = t("{verdict}, sustained", verdict=verdict)
    note = join((say(code.value) for code in cell.validity.reasons), SEMICOLON) or None
    return Cell(verdict, note=note)


def say_status(status: str) -> str:
    """How a cell without a number ended."""
    return t(STATUS_WORDS[status])
