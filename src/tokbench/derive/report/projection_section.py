"""What it would take: models that were not run, on devices like ours, and what a published speed needs. Projected."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.evaluate import Missing
from tokbench.derive.projection import SCALING_EFFICIENCY, Need, Outlook, Projected, Source, TargetRow, project_targets
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, t
from tokbench.units import BYTES, BYTES_PER_S, format_number, format_value


def projection_sections(material: Material) -> list[Section]:
    """The projection from the best measured cell, or why there is none."""
    title = t("What it would take")
    found = project_targets(material.results, material.standing.targets)
    if isinstance(found, Missing):
        return [Section(title, (Paragraph(t("Nothing is projected: {reason}.", reason=found.reason)),))]
    blocks: list[Block] = [Paragraph(_say_label(), "warning"), Paragraph(_say_source(found.source))]
    if not found.rows:
        none = t("No model of the published figures has a row in models.yaml: {models}.", models=_names(found))
        return [Section(title, (*blocks, Paragraph(none)))]
    blocks.append(_table(found))
    if found.older:
        blocks.append(Paragraph(t("Left out, their figures being older: {models}.", models=join(found.older))))
    if found.without_shape:
        left = t("Left out, for want of a row in models.yaml: {models}.", models=_names(found))
        blocks.append(Paragraph(left))
    return [Section(title, tuple(blocks))]


def _names(found: Outlook) -> str:
    return join(map(wording.short_model, found.without_shape))


def _say_label() -> str:
    return t(
        "Every speed and every number of devices in this part is projected, not measured; none enters a comparison, a "
        "decision or a verdict."
    )


def _say_source(source: Source) -> str:
    basis, cell = source.basis, source.cell
    ratio = basis.used_ratio
    share = f"{format_number(100 * ratio.value)} %"
    if ratio.low is not None and ratio.high is not None:
        share = t(
            "{share} ({low} to {high} %)",
            share=share,
            low=format_number(100 * ratio.low),
            high=format_number(100 * ratio.high),
        )
    return t(
        "From {cell} on {hardware}: decode used {share} of the measured read ceiling, {ceiling}. The projection lets "
        "another model use the same share: tokens/s = share x ceiling x devices x scaling / bytes read per token, at "
        "{context} tokens of context. Scaling is {scaling} from two devices on, what public engines reached with 70B "
        "models on eight A100; smaller models reach less. The interval is that of the share alone. Weights narrower "
        "than the measured cell's cost unpacking: on one A100 a public engine stayed a quarter to two fifths below "
        "such a projection. A small model measured here makes the projection of a large one low.",
        cell=wording.say_cell(cell),
        hardware=cell.conditions.hardware or t("unknown hardware"),
        share=share,
        ceiling=format_value(basis.read_bytes_per_s, BYTES_PER_S),
        context=f"{source.load.context_tokens:,}",
        scaling=format_number(SCALING_EFFICIENCY, 2),
    )


def _table(found: Outlook) -> Table:
    columns = (
        Column(t("Model")),
        Column(t("Weights"), t("dtype")),
        Column(t("Read per token"), "", "right"),
        Column(t("Devices that hold it"), t("projected"), "right"),
        Column(t("Per user on these"), t("tokens/s, projected"), "right"),
        Column(t("Published per user"), "tokens/s", "right"),
        Column(t("That speed reads"), "", "right"),
        Column(t("Devices for it, by bandwidth alone"), t("projected"), "right"),
    )
    caption = t(
        "Devices like the one measured here. A number of devices for a speed supposes links without latency, which no "
        "machine has: it is a floor. Vendors' speeds may rest on speculative decoding, which reads less per token."
    )
    return Table(columns, tuple(map(_row, found.rows)), caption)


def _row(row: TargetRow) -> tuple[Cell, ...]:
    figure, need = row.figure, row.need
    who = t(
        "{vendor}, {measurer}, {date}",
        vendor=wording.say_vendor(figure.vendor),
        measurer=wording.say_measurer(figure.measured_by),
        date=figure.published,
    )
    return (
        Cell(row.model),
        Cell(row.dtype),
        Cell(format_value(need.step_bytes, BYTES), sort=need.step_bytes),
        _holding(need),
        _speed(row.projected),
        Cell(f"{figure.value:,.10g}", sort=figure.value, note=who, url=figure.source_url),
        Cell(format_value(need.bytes_per_s, BYTES_PER_S), sort=need.bytes_per_s),
        _devices(need),
    )


def _holding(need: Need) -> Cell:
    if need.devices_for_memory is None:
        return Cell(DASH, note=t("the memory of a device is not known"))
    return Cell(f"{need.devices_for_memory:,}", sort=float(need.devices_for_memory))


def _speed(projected: Projected | Missing) -> Cell:
    if isinstance(projected, Missing):
        return Cell(DASH, note=projected.reason)
    text = format_number(projected.tokens_per_s)
    if projected.low is not None and projected.high is not None:
        text = f"{text} ({format_number(projected.low)} – {format_number(projected.high)})"
    return Cell(text, sort=projected.tokens_per_s)


def _devices(need: Need) -> Cell:
    text = f"{need.devices_for_speed:,}"
    least, most = need.devices_for_speed_least, need.devices_for_speed_most
    if least is not None and most is not None and least != most:
        text = f"{text} ({least:,} – {most:,})"
    return Cell(text, sort=float(need.devices_for_speed))
