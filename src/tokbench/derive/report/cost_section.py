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
from tokbench.derive.report.fields import CELL_COLUMNS, cell_fields
from tokbench.derive.report.material import Material
from tokbench.record.cost import CostSpec
from tokbench.stats import Estimate
from tokbench.units import format_number

TITLE = "Cost and carbon"
COMMAND = "tokbench report RUN --set cost.usd_per_hour=…"
MODEL = (
    "One machine does this work for a share of all hours, its utilisation, and stands idle and switched on for the "
    "rest; the tokens of the busy hours pay for all of them. Speed is that of all streams (output_tokens_per_s). "
    "Electricity is of gross joules, the prompt's included, and of idle power over the unused hours."
)
MAX_REASONS = 3
"""More reasons than these stand beside their cells instead of in sentences."""
AMOUNTS: tuple[tuple[str, str, Amount], ...] = (
    ("Hardware and electricity", "USD/1M output tokens", total_usd),
    ("Hardware", "USD/1M output tokens", hardware_usd),
    ("Electricity", "USD/1M output tokens", electricity_usd),
    ("Carbon", "gCO2e/1M output tokens", co2e_g),
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
            faults.append(Paragraph(f"{results.name}: {undefined}.", "warning"))
            continue
        if prices != CostSpec():
            stated.append((results, prices))
    if not stated:
        said = "No price is stated, so no cost and no carbon is told: none is filled in. State what you pay:"
        return [Section(TITLE, (*faults, Paragraph(said), Code(COMMAND)))]
    rows = [
        _price(cell, results, prices) for results, prices in stated for cell in results.cells if cell.status == "ok"
    ]
    changed = [results.name for results, _ in stated if results.run.prices is not None]
    if changed:
        names = ", ".join(changed)
        faults.append(Paragraph(f"--set changed prices for this report alone, not in the record: {names}.", "warning"))
    blocks = (*faults, Paragraph(MODEL), _inputs_table(stated, material.has_several_runs))
    parts = [(title, tuple(_amount_blocks(rows, amount, unit, material))) for title, unit, amount in AMOUNTS]
    parts.append(("Which input moves the result most", tuple(_sensitivity_blocks(rows))))
    return [Section(TITLE, blocks), *(Section(title, found, level=3) for title, found in parts if found)]


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
    head = (Column("Run"),) if several else ()
    rows = [
        (*((Cell(results.name),) if several else ()), Cell(f"cost.{key}"), Cell(_say_input(value)))
        for results, prices in stated
        for key, value in prices.model_dump(exclude_none=True).items()
        if key != "electricity_included" or value
    ]
    caption = (
        "As the run's config or --set states them; nothing else is assumed. utilisation: "
        "10, 40 and 80 % where none is stated. A purchase is spread evenly over its lifetime, without interest."
    )
    return Table((*head, Column("Input"), Column("Value", "", "right")), tuple(rows), caption)


def _say_input(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{part:,g}" for part in value)
    return f"{value:,g}" if isinstance(value, float) else str(value).lower()


def _amount_blocks(rows: Sequence[_Priced], amount: Amount, unit: str, material: Material) -> Iterator[Block]:
    """A table of one amount, or its one reason where no cell has it."""
    found = [(row.cell, _at_each_use(row.point, amount)) for row in rows]
    reasons = {uses.reason for _, uses in found if isinstance(uses, Missing)}
    if len(reasons) <= MAX_REASONS and all(isinstance(uses, Missing) for _, uses in found):
        yield from (Paragraph(f"Not told: {reason}.") for reason in sorted(reasons))
        return
    shares = sorted({share for row in rows if isinstance(row.point, Point) for share in row.point.prices.utilisation})
    columns = (*CELL_COLUMNS, *(Column(f"{100 * share:g} % used", unit, "right") for share in shares))
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
        return Cell(DASH, note=uses.reason)
    found = [use for use in uses if use.utilisation == share]
    if not found:
        return Cell(DASH, note="this run states other utilisations")
    low, high = format_number(found[0].low), format_number(found[0].high)
    return Cell(low if low == high else f"{low} – {high}", sort=found[0].high)


def _say_scope(rows: Sequence[_Priced], amount: Amount) -> str:
    """What the joules of a table cover."""
    if amount is hardware_usd:
        return "The price of the machine by the hour over the tokens of the hours in use."
    points = [row.point for row in rows if isinstance(row.point, Point)]
    scopes = sorted({point.joules.scope for point in points if point.joules is not None})
    if not scopes:
        return "The hourly price pays for the electricity."
    return (
        f"Joules metered on: {', '.join(scopes)}. A range is between the two ends of cost.host_overhead, "
        "which leads from there to the whole machine; the carbon is that of the electricity alone."
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
            f"{title} of {wording.say_cell(cell)}: {format_number(middle)} {unit} at "
            f"{100 * METRIC_UTILISATION:g} % used. {_say_first(found)}"
        )
        yield _swings_table(found, unit)
        return


def _say_first(found: Sequence[Swing]) -> str:
    first = found[0]
    ends = " to ".join(format_number(end) for end in sorted((first.at_from, first.at_to)))
    return f"{first.name} moves it most: {ends}."


def _swings_table(found: Sequence[Swing], unit: str) -> Table:
    columns = (
        Column("Input"),
        *(Column(title, "", "right") for title in ("From", "To")),
        *(Column(title, unit, "right") for title in ("Result at from", "Result at to", "Apart")),
    )
    rows = tuple(
        (
            Cell(swing.name, note=None if swing.is_stated_range else f"lowered and raised by {100 * SWING:.0f} %"),
            *(
                Cell(format_number(value), sort=value)
                for value in (swing.from_value, swing.to_value, swing.at_from, swing.at_to, swing.spread)
            ),
        )
        for swing in found
    )
    caption = "Each input alone, all others as they are; utilisation and host_overhead over their stated ranges."
    return Table(columns, rows, caption)
