"""How the times behind a cell are spread: percentiles of the first token and of the step, and the figure of both."""

from __future__ import annotations

from tokbench.derive.distributions import Distribution, Quantity
from tokbench.derive.report.bound_tables import unit_cell
from tokbench.derive.report.document import Cell, Column, Section, Table
from tokbench.derive.report.fields import cell_columns, cell_fields
from tokbench.derive.report.material import Material
from tokbench.derive.words import t
from tokbench.units import SECONDS

FIGURE = "latency.png"


def latency_sections(material: Material) -> list[Section]:
    """The spread of raw stamps; nothing where no cell was stamped."""
    if not material.distributions:
        return []
    return [
        Section(t("How the times are spread"), (_table(material), *material.figure(FIGURE)), level=3),
    ]


def _table(material: Material) -> Table:
    columns = [*cell_columns(), Column(t("Time")), Column(t("Values"), "", "right")]
    columns += [Column(name, "", "right") for name in ("p50", "p90", "p99")]
    columns.append(Column(t("Longest"), "", "right"))
    caption = t(
        "From the raw stamps of all repetitions of a cell together. These percentiles have no interval: the values of "
        "one repetition follow from one another. How firm a cell is stands with its metrics."
    )
    rows = tuple(_row(item, material.has_several_runs) for item in material.distributions)
    return Table(tuple(columns), rows, caption)


def _row(item: Distribution, with_run: bool) -> tuple[Cell, ...]:
    few = t("needs {count} values", count=10), t("needs {count} values", count=100)
    return (
        *cell_fields(item.cell, with_run),
        Cell(_say_quantity(item.quantity, bool(item.cell.record.good_trials()[0].requests))),
        Cell(f"{item.n:,}", sort=float(item.n)),
        unit_cell(item.p50_s, SECONDS),
        unit_cell(item.p90_s, SECONDS, few[0]),
        unit_cell(item.p99_s, SECONDS, few[1]),
        unit_cell(item.most_s, SECONDS),
    )


def _say_quantity(quantity: Quantity, is_requests: bool) -> str:
    if quantity == "ttft_s":
        return t("to the first token")
    return t("between two chunks") if is_requests else t("a step of decode")
