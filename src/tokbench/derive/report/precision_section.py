"""What fewer bits per weight bring and cost: bytes, speed and joules beside the bytes' prediction, and added nats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokbench.arithmetic import QUANTISATIONS
from tokbench.derive import wording
from tokbench.derive.bounds.points import value_of
from tokbench.derive.evaluate import CellResult
from tokbench.derive.quality.chunks import NATIVE_DTYPE, has_chunks
from tokbench.derive.quality.precisions import PrecisionRow, find_precisions
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table
from tokbench.derive.report.fields import in_run, load_field, metric_column, metric_field, value_field
from tokbench.derive.report.material import Material
from tokbench.derive.standing import estimate_of
from tokbench.derive.words import t
from tokbench.units import BYTES, format_number, format_value

LADDER_METRICS = ("decode_tokens_per_s", "peak_memory_bytes", "energy_j_per_output_token")
SMALL_NATS = 0.02
"""Up to here a difference is not considerable, however surely it is told from 0. Source: data/claims/precision.yaml,
part `loss-afterwards`, `refutes_if`."""


def precision_sections(material: Material) -> list[Section]:
    """The ladder of types and what it costs in foresight; nothing where no model was run in two types."""
    rows = [row for item in material.results for ladder in find_precisions(item) for row in ladder]
    if not rows:
        return []
    blocks: list[Block] = [Paragraph(_say_how_to_read()), _ladder_table(rows, material)]
    sections = [Section(t("What fewer bits cost"), tuple(blocks))]
    readers = [row for row in rows if has_chunks(row.cell.record)]
    if readers:
        loss: tuple[Block, ...] = (Paragraph(_say_loss()), *_warnings(readers), _loss_table(readers, material))
        sections.append(Section(t("What fewer bits cost in foresight"), loss, level=3))
    return sections


def _say_how_to_read() -> str:
    return t(
        "One model in several types of weights. If reading bytes were all that a step does, a type would be faster "
        "than the unquantised one by the ratio of the bytes that a step reads: that is the prediction. What the "
        "measured gain lacks of it is time that is not spent on bytes: unpacking weights, arithmetic, launches. "
        "Embeddings, norms and the cache keep the type of the activations, so half the bits are never half the bytes."
    )


def _say_loss() -> str:
    return t(
        "A frozen text of our own, prose and code in turn, read chunk by chunk. Added nats: the negative "
        "log-likelihood per token beyond that of the same weights unquantised in this run, the plain mean of the "
        "chunks' differences with its interval over chunks. It says nothing of answers, nor of texts of another kind."
    )


def _warnings(rows: Sequence[PrecisionRow]) -> list[Block]:
    others = [row for row in rows if not row.is_native]
    if not others:
        return []
    models = ", ".join(dict.fromkeys(wording.say_model(row.cell) for row in others))
    natives = ", ".join(dict.fromkeys(row.cell.labels.get(NATIVE_DTYPE, t("not stated")) for row in others))
    text = t(
        "Plumbing only, no verdict: the weights of {models} are not known to have been published unquantised (label "
        "native_dtype: {natives}). What was rounded to few bits before loses less, or other things, than what never "
        "was.",
        models=models,
        natives=natives,
    )
    return [Paragraph(text, "warning")]


def _names(row: PrecisionRow, material: Material) -> tuple[Cell, ...]:
    cell = row.cell
    name = in_run(cell.run_name, wording.say_model(cell), material.has_several_runs)
    return Cell(name), Cell(cell.record.spec.model.dtype, note=_say_scales(cell)), Cell(str(cell.conditions.mode))


def _say_scales(cell: CellResult) -> str | None:
    """What shares a scale, where the type is a quantised one."""
    how = QUANTISATIONS.get(cell.record.spec.model.dtype)
    if how is None:
        return None
    if how.group is not None:
        return t("one scale and zero point per {count} inputs of an output", count=how.group)
    if how.block is not None:
        return t("one scale per {side} x {side} weights", side=how.block)
    if how.matrix_bytes:
        return t("one scale per matrix")
    has_zero = not cell.record.spec.model.dtype.startswith("fp8")
    return t("one scale and zero point per output") if has_zero else t("one scale per output")


def _ladder_table(rows: Sequence[PrecisionRow], material: Material) -> Table:
    titles = (t("Weights"), t("Predicted"), t("Gain"), t("By bytes"), t("Measured over predicted"))
    weights, predicted, gain, by_bytes, residual = (Column(title, "", "right") for title in titles)
    columns = (
        *(Column(t("Model")), Column(t("Type of the weights")), Column(t("Mode"))),
        Column(t("Static batch"), "", "right"),
        *(weights, predicted, metric_column("decode_tokens_per_s")),
        *(gain, by_bytes, residual, metric_column("peak_memory_bytes"), metric_column("energy_j_per_output_token")),
    )
    caption = t(
        "Weights: bytes as loaded, and as the closed form has them. Gain: decode speed over that of the unquantised "
        "cell, measured and as the bytes of a step predict. On a CPU the peak memory is that of the whole process, and "
        "holds the weights as they were before they were quantised."
    )
    return Table(columns, tuple(_ladder_row(row, material) for row in rows), caption)


def _ladder_row(row: PrecisionRow, material: Material) -> tuple[Cell, ...]:
    speed, memory, energy = (metric_field(row.cell, name) for name in LADDER_METRICS)
    measured, predicted = row.speed_x, row.predicted_speed_x
    residual = None if measured is None or predicted is None else measured / predicted
    return (
        *_names(row, material),
        load_field(row.cell),
        metric_field(row.cell, "weight_bytes"),
        _bytes(row.predicted_weight_bytes),
        speed,
        *(_times(value, row) for value in (measured, predicted, residual)),
        memory,
        energy,
    )


def _bytes(value: int | None) -> Cell:
    if value is None:
        return Cell(DASH, note=t("no closed form knows the shape"))
    return Cell(format_value(float(value), BYTES), sort=float(value))


def _times(value: float | None, row: PrecisionRow) -> Cell:
    if row.is_reference:
        return Cell(DASH, note=t("the others are set beside it"))
    if row.reference is None:
        return Cell(DASH, note=t("no unquantised cell in the same mode"))
    if value is None:
        return Cell(DASH, note=t("one of the two cells lacks a speed, or the bytes of a step"))
    return Cell(wording.say_times(value), sort=value)


def _loss_table(rows: Sequence[PrecisionRow], material: Material) -> Table:
    columns = (
        *(Column(t("Model")), Column(t("Type of the weights")), Column(t("Mode"))),
        Column(t("Added nats per token"), t("95 % interval, n chunks"), "right"),
        Column(t("Perplexity"), t("factor"), "right"),
        Column(t("Reading")),
    )
    return Table(columns, tuple(_loss_row(row, material) for row in rows))


def _loss_row(row: PrecisionRow, material: Material) -> tuple[Cell, ...]:
    value = row.cell.metrics.get("added_nll_nats")
    found = value_of(row.cell, "added_nll_nats")
    factor = Cell(DASH) if found is None else Cell(format_number(math.exp(found), 4), sort=found)
    return *_names(row, material), value_field(value, with_interval=True), factor, Cell(_reading(row))


def _reading(row: PrecisionRow) -> str:
    """What the interval says; of weights that were quantised before, that it says nothing."""
    value = estimate_of(row.cell, "added_nll_nats")
    if value is None:
        return DASH
    if not row.is_native:
        return t("plumbing only")
    if value.low is None or value.high is None:
        return t("one chunk has no interval")
    if value.low <= 0 <= value.high:
        return t("not told from no loss")
    share = format_number(100 * abs(math.expm1(value.value)), 2)
    if value.low > 0:
        reading = t("loses foresight: perplexity {share} % higher", share=share)
    else:
        reading = t("gains foresight: perplexity {share} % lower", share=share)
    if abs(value.value) > SMALL_NATS:
        return reading
    bound = format_number(SMALL_NATS, 1)
    return t("{reading}; told from 0, but not considerable (up to {bound} nats)", reading=reading, bound=bound)
