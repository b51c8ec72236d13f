"""Our joules per token beside published ones: both scopes, what lies between them, and every condition that differs."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.energy_scope import Beside
from tokbench.derive.published_joules import JoulesBeside
from tokbench.derive.report.document import DASH, Cell, Column, Paragraph, Section, Table
from tokbench.derive.report.fields import value_field
from tokbench.derive.report.material import Material
from tokbench.derive.words import t
from tokbench.record.facts import Agreement
from tokbench.units import format_number


def joules_sections(material: Material) -> list[Section]:
    """A table where something was metered and somebody published joules of the same model; nothing where none was."""
    if not any(cell.energy.headline for cell in material.measured):
        return []
    title = t("Joules per token beside published ones")
    if not material.joules:
        none = t("Nobody is known to have published joules per token of a model that was metered here.")
        return [Section(title, (Paragraph(none),), level=3)]
    caution = t(
        "The joules of a board are never divided by those of a whole machine: where the scopes differ, ours are "
        "brought to theirs by a band that the named sources span, or there is no ratio. A published mean is of its "
        "own load."
    )
    return [Section(title, (_table(material.joules), Paragraph(caution)), level=3)]


def _table(rows: tuple[JoulesBeside, ...]) -> Table:
    columns = (
        Column(t("Our cell")),
        Column(t("Ours, gross"), "J/token", "right"),
        Column(t("Their system")),
        Column(t("Theirs"), "J/token", "right"),
        Column(t("Theirs / ours"), "", "right"),
        Column(t("Scopes")),
        Column(t("Differs")),
        Column(t("Not known")),
        Column(t("Source")),
    )
    return Table(columns, tuple(_row(row) for row in rows))


def _row(row: JoulesBeside) -> tuple[Cell, ...]:
    figure, outcome = row.theirs, row.outcome
    where = f"{wording.say_cell(row.cell)}, {row.cell.conditions.hardware or t('unknown hardware')}"
    if isinstance(outcome, Beside):
        low, high = (f"{format_number(end)}x" for end in (outcome.low, outcome.high))
        ratio = Cell(low if low == high else t("{low} to {high}", low=low, high=high), sort=outcome.low)
        scopes = Cell(outcome.said)
    else:
        ratio, scopes = Cell(DASH, note=outcome.reason), Cell(figure.energy_scope or t("not stated"))
    return (
        Cell(where),
        value_field(row.ours),
        Cell(figure.system, note=f"{wording.say_measurer(figure.measured_by)}, {figure.published}"),
        Cell(wording.say_published(figure), sort=figure.value),
        ratio,
        scopes,
        Cell(wording.say_fields(row.fields(Agreement.DIFFERENT)) or t("none")),
        Cell(wording.say_fields(row.fields(Agreement.UNKNOWN)) or t("none")),
        Cell(figure.source_title, url=figure.source_url),
    )
