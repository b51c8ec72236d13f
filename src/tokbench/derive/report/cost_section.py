"""Cost and carbon: the stated inputs, each amount at every utilisation, and which input moves the result most."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from tokbench.derive import wording
from tokbench.derive.cost.amounts import Amount, Point, co2e_g, electricity_usd, hardware_usd, total_usd
from tokbench.derive.cost.joules import METRIC_UTILISATION, find_joules, make_point
from tokbench.derive.cost.prices import prices_of
from tokbench.derive.cost.sensitivity import SWING, Swing, swings
from tokbench.derive.cost.utilisation import AtUse, at_each_use
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.report.document import DASH, Block, Cell, Code, Column, Paragraph, Section, Table
from tokbench.derive.report.fields import cell_columns, cell_fields
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, mark, say, t
from tokbench.record.cost import CostSpec
from tokbench.stats import Estimate
from tokbench.units import format_number

TITLE = mark("Cost and carbon")
COMMAND = "tokbench report RUN --set cost.usd_per_hour=…"
MODEL = mark(
    "One machine does this work for a share of all hours, its utilisation, and stands idle and switched on for the "
    "rest; the tokens of the busy hours pay for all of them. Speed is that of all streams (output_tokens_per_s). "
    "Electricity is of gross joules, the prompt's included, and of idle power over the unused hours."
)
MAX_REASONS = 3
"""More reasons than these stand beside their cells instead of in sentences."""
AMOUNTS: tuple[tuple[str, str, Amount], ...] = (
    (mark("Hardware and electricity"), mark("USD/1M output tokens"), total_usd),
    (mark("Hardware"), mark("USD/1M output tokens"), hardware_usd),
    (mark("Electricity"), mark("USD/1M output tokens"), electricity_usd),
    (mark("Carbon"), mark("gCO2e/1M output tokens"), co2e_g),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Priced:
    """A measured cell of a run that states prices, or why it has no cost."""

    cell: CellResult
    point: Point | Missing


def cost_sections(material: Material) -> list[Section]:
    """The inputs, one part per amount, the sensitivity; without a price one sentence that says how to state it."""
    stated: list[tuple[Results, CostSpec]] = []
    faults: list[Block] = []
    for results in material.results:
        try:
            prices = prices_of(results.run)
        except UndefinedError as undefined:
            faults.append(Paragraph(t("{run}: {reason}.", run=results.name, reason=str(undefined)), "warning"))
            continue
        if prices != CostSpec():
            stated.append((results, prices))
    if not stated:
        said = t("No price is stated, so no cost and no carbon is told: none is filled in. State what you pay:")
        return [Section(t(TITLE), (*faults, Paragraph(said), Code(COMMAND)))]
    rows = [
        _price(cell, results, prices) for results, prices in stated for cell in results.cells if cell.status == "ok"
    ]
    changed = [results.name for results, _ in stated if results.run.prices is not None]
    if changed:
        names = join(changed)
        faults.append(
            Paragraph(
                t("--set changed prices for this report alone, not in the record: {names}.", names=names), "warning"
            )
        )
    blocks = (*faults, Paragraph(t(MODEL)), _inputs_table(stated, material.has_several_runs))
    parts = [(t(title), tuple(_amount_blocks(rows, amount, t(unit), material))) for title, unit, amount in AMOUNTS]
    parts.append((t("Which input moves the result most"), tuple(_sensitivity_blocks(rows))))
    return [Section(t(TITLE), blocks), *(Section(title, found, level=3) for title, found in parts if found)]


def _price(cell: CellResult, results: Results, prices: CostSpec) -> _Priced:
    """A cell with its mean speed and joules, as its metrics have them."""

    def find(name: str) -> Sequence[float]:
        value = cell.metrics[name]
        if isinstance(value, Missing):
            raise UndefinedError(value.reason)
        return [value.value]

    speed = cell.metrics["output_tokens_per_s"]
    if not isinstance(speed, Estimate):
        return _Priced(cell, speed)
    joules, why = find_joules(results.run, cell.record, find)
    return _Priced(cell, make_point(results.run, prices, speed.value, joules, why))


def _inputs_table(stated: Sequence[tuple[Results, CostSpec]], several: bool) -> Table:
    """Every input as stated; what is not stated has no row, and what needs it says so."""
    head = (Column(t("Run")),) if several else ()
    rows = [
        (*((Cell(results.name),) if several else ()), Cell(f"cost.{key}"), Cell(_say_input(value)))
        for results, prices in stated
        for key, value in prices.model_dump(exclude_none=True).items()
        if key != "electricity_included" or value
    ]
    caption = t(
        "As the run's config or --set states them; nothing else is assumed. utilisation: 10, 40 and 80 % "
        "where none is stated. A purchase is spread evenly over its lifetime, without interest."
    )
    return Table((*head, Column(t("Input")), Column(t("Value"), "", "right")), tuple(rows), caption)


def _say_input(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{part:,g}" for part in value)
    return f"{value:,g}" if isinstance(value, float) else str(value).lower()


def _amount_blocks(rows: Sequence[_Priced], amount: Amount, unit: str, material: Material) -> Iterator[Block]:
    """A table of one amount, or its one reason where no cell has it."""
    found = [(row.cell, _at_each_use(row.point, amount)) for row in rows]
    reasons = {uses.reason for _, uses in found if isinstance(uses, Missing)}
    if len(reasons) <= MAX_REASONS and all(isinstance(uses, Missing) for _, uses in found):
        yield from (Paragraph(t("Not told: {reason}.", reason=reason)) for reason in sorted(reasons))
        return
    shares = sorted({share for row in rows if isinstance(row.point, Point) for share in row.point.prices.utilisation})
    columns = (*cell_columns(), *(Column(t("{share:g} % used", share=100 * share), unit, "right") for share in shares))
    fields = tuple(
        (*cell_fields(cell, material.has_several_runs), *(_use_field(uses, share) for share in shares))
        for cell, uses in found
    )
    yield Table(columns, fields, _say_scope(rows, amount))


def _at_each_use(point: Point | Missing, amount: Amount) -> tuple[AtUse, ...] | Missing:
    if isinstance(point, Missing):
        return point
    try:
        return at_each_use(point, amount)
    except UndefinedError as undefined:
        return Missing(str(undefined))


def _use_field(uses: tuple[AtUse, ...] | Missing, share: float) -> Cell:
    if isinstance(uses, Missing):
        return Cell(DASH, note=say(uses.reason))
    found = [use for use in uses if use.utilisation == share]
    if not found:
        return Cell(DASH, note=t("this run states other utilisations"))
    low, high = format_number(found[0].low), format_number(found[0].high)
    return Cell(low if low == high else f"{low} – {high}", sort=found[0].high)


def _say_scope(rows: Sequence[_Priced], amount: Amount) -> str:
    """What the joules of a table cover."""
    if amount is hardware_usd:
        return t("The price of the machine by the hour over the tokens of the hours in use.")
    points = [row.point for row in rows if isinstance(row.point, Point)]
    scopes = sorted({point.joules.scope for point in points if point.joules is not None})
    if not scopes:
        return t("The hourly price pays for the electricity.")
    return t(
        "Joules metered on: {scopes}. A range is between the two ends of cost.host_overhead, which leads "
        "from there to the whole machine; the carbon is that of the electricity alone.",
        scopes=join(scopes),
    )


def _sensitivity_blocks(rows: Sequence[_Priced]) -> Iterator[Block]:
    """One cell stands for all: the fastest, whose cost per token is what a reader would buy."""
    points = [(row.cell, row.point) for row in rows if isinstance(row.point, Point)]
    if not points:
        return
    cell, point = max(points, key=lambda pair: pair[1].tokens_per_s)
    for title, unit, amount in AMOUNTS:
        try:
            found, middle = swings(point, amount), amount(point)
        except UndefinedError:
            continue
        yield Paragraph(
            t(
                "{title} of {cell}: {middle} {unit} at {share:g} % used. {first}",
                title=t(title),
                cell=wording.say_cell(cell),
                middle=format_number(middle),
                unit=t(unit),
                share=100 * METRIC_UTILISATION,
                first=_say_first(found),
            )
        )
        yield _swings_table(found, t(unit))
        return


def _say_first(found: Sequence[Swing]) -> str:
    first = found[0]
    low, high = (format_number(end) for end in sorted((first.at_from, first.at_to)))
    return t("{input} moves it most: {low} to {high}.", input=first.name, low=low, high=high)


def _swings_table(found: Sequence[Swing], unit: str) -> Table:
    columns = (
        Column(t("Input")),
        *(Column(title, "", "right") for title in (t("From"), t("To"))),
        *(Column(title, unit, "right") for title in (t("Result at from"), t("Result at to"), t("Apart"))),
    )
    rows = tuple(
        (
            Cell(
                swing.name,
                note=None if swing.is_stated_range else t("lowered and raised by {share:.0f} %", share=100 * SWING),
            ),
            *(
                Cell(format_number(value), sort=value)
                for value in (swing.from_value, swing.to_value, swing.at_from, swing.at_to, swing.spread)
            ),
        )
        for swing in found
    )
    caption = t("Each input alone, all others as they are; utilisation and host_overhead over their stated ranges.")
    return Table(columns, rows, caption)
