"""Our numbers beside what vendors publish: ratio, every condition that differs or is unknown, source and date."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.metrics import catalog
from tokbench.derive.published import Comparison, NoComparison, PublishedFigure
from tokbench.derive.report.document import (
    Block,
    Bullets,
    Cell,
    Column,
    Item,
    Paragraph,
    Section,
    Table,
    bullets,
)
from tokbench.derive.report.fields import value_field
from tokbench.derive.report.material import Material
from tokbench.derive.standing import Beside
from tokbench.record.facts import Agreement, Difference
from tokbench.units import Better, format_value, unit_of

METRIC_WORDS = {"decode_tokens_per_s": "decode per user", "ttft_s": "time to first token"}
CAUTION = (
    "Vendors publish what their service reaches, often at its best and for one stream; they seldom state prompt "
    "length, precision, load or whether speculative decoding was on. What a source does not state counts as unknown, "
    "never as equal to ours. The interval of a ratio is that of our number alone: a published figure has none. Their "
    "time to first token may hold the network and a queue; ours does so only where an endpoint was measured."
)


def vendors_sections(material: Material) -> list[Section]:
    """The comparison, what stands between the two sides, and every published figure that was looked at."""
    names = " and ".join(wording.say_vendor(vendor) for vendor in material.vendors) or "published figures"
    found = [(item, item.outcome) for item in material.standing.beside if isinstance(item.outcome, Comparison)]
    absent = _absent(material)
    blocks: list[Block] = []
    if found:
        blocks.append(_table(found))
    blocks.append(Paragraph(CAUTION))
    if absent:
        blocks.append(bullets(*absent))
    sections = [Section(f"Against {names}", tuple(blocks))]
    if found:
        likeness = Bullets(tuple(_conditions_item(item, outcome) for item, outcome in found))
        sections.append(Section("What stands between the two sides", (likeness,), level=3))
        sections.append(Section("Published figures that were looked at", (_figures_table(found),), level=3))
    return sections


def _absent(material: Material) -> list[str]:
    outcomes = [item.outcome for item in material.standing.beside]
    reasons = [
        f"{wording.say_vendor(outcome.vendor)}, {METRIC_WORDS.get(outcome.metric, outcome.metric)}: {outcome.reason}"
        for outcome in outcomes
        if isinstance(outcome, NoComparison)
    ]
    if not outcomes:
        reasons.append("nothing of ours was measured that could be set beside a published figure")
    return list(dict.fromkeys(reasons))


def _table(found: list[tuple[Beside, Comparison]]) -> Table:
    columns = (
        Column("Vendor"),
        Column("Metric"),
        Column("Our cell"),
        Column("Ours", "", "right"),
        Column("Their model"),
        Column("Theirs", "", "right"),
        Column("Theirs / ours", "95 % interval", "right"),
        Column("Same / different / unknown", "conditions", "right"),
        Column("Like for like"),
    )
    return Table(columns, tuple(_row(item, outcome) for item, outcome in found))


def _row(item: Beside, comparison: Comparison) -> tuple[Cell, ...]:
    figure = comparison.theirs
    counts = [comparison.count(kind) for kind in (Agreement.SAME, Agreement.DIFFERENT, Agreement.UNKNOWN)]
    likeness = wording.say_likeness(comparison)
    factor = wording.say_factor(comparison).replace(" ours", "", 1)
    ours = value_field(comparison.ours)
    lower = " (lower is better)" if catalog()[comparison.metric].better is Better.LOWER else ""
    return (
        Cell(wording.say_vendor(comparison.vendor)),
        Cell(METRIC_WORDS.get(comparison.metric, comparison.metric) + lower),
        Cell(f"{wording.say_model(item.cell)}, {wording.say_load(item.cell)}, {item.cell.conditions.hardware}"),
        Cell(wording.say_value(comparison.ours), sort=ours.sort),
        Cell(wording.short_model(figure.model) if figure.model else "–", note=_figure_note(comparison)),
        Cell(wording.say_published(figure), sort=figure.value),
        Cell(factor, sort=1 / comparison.ours_over_theirs if comparison.ours_over_theirs > 0 else None),
        Cell(" / ".join(str(count) for count in counts), sort=float(counts[1] + counts[2])),
        Cell("no" if likeness else "yes", note=likeness or None),
    )


def _figure_note(comparison: Comparison) -> str:
    figure = comparison.theirs
    return ", ".join([f"{wording.say_measurer(figure.measured_by)}, {figure.published}", *_caveats(figure)])


def _caveats(figure: PublishedFigure) -> list[str]:
    parts = []
    if figure.statistic is not None:
        parts.append({"at_least": "a floor", "rated": "a rated value"}.get(figure.statistic, f"a {figure.statistic}"))
    if figure.speculation not in (None, "none"):
        parts.append("with speculative decoding")
    if not figure.is_primary:
        parts.append("read second-hand")
    if figure.available_until is not None:
        parts.append(f"no longer offered (until {figure.available_until})")
    return parts


def _conditions_item(item: Beside, comparison: Comparison) -> Item:
    figure = comparison.theirs
    differ = [row for row in comparison.differences if row.agreement is Agreement.DIFFERENT]
    unknown = [row for row in comparison.differences if row.agreement is Agreement.UNKNOWN]
    metric = METRIC_WORDS.get(comparison.metric, comparison.metric)
    text = (
        f"{wording.say_vendor(comparison.vendor)}, {metric}, beside {wording.say_model(item.cell)} on "
        f"{item.cell.conditions.hardware}: differ: {', '.join(map(_say_difference, differ)) or 'none'}; unknown: "
        f"{wording.say_fields([row.field for row in unknown]) or 'none'}. {_say_spread(comparison)}"
        f"Published {figure.published}, read {figure.read_on}{'' if figure.is_primary else ', second-hand'}:"
    )
    return Item(text, figure.source_url, figure.source_title)


def _say_difference(row: Difference) -> str:
    return f"{row.field.replace('_', ' ')} ({row.ours} / {row.theirs})"


def _say_spread(comparison: Comparison) -> str:
    """How far other figures of the same match lie apart: the vendor's own uncertainty, as far as it can be seen."""
    values = [other.theirs.value for other in comparison.others]
    if not values:
        return "It is the only figure of this match. "
    unit = unit_of(comparison.theirs.unit)
    low, high = format_value(min(values), unit), format_value(max(values), unit)
    span = low if low == high else f"{low} to {high}"
    return f"{len(values)} other figure{'s' if len(values) > 1 else ''} of this match: {span}. "


def _figures_table(found: list[tuple[Beside, Comparison]]) -> Table:
    columns = (
        Column("Vendor"),
        Column("Model"),
        Column("Metric"),
        Column("Value", "", "right"),
        Column("By"),
        Column("Published"),
        Column("Speculation"),
        Column("Precision"),
        Column("Source"),
    )
    unique = {one.theirs.id: one for _, comparison in found for one in (comparison, *comparison.others)}
    return Table(columns, tuple(_figure_row(one) for one in unique.values()))


def _figure_row(comparison: Comparison) -> tuple[Cell, ...]:
    figure = comparison.theirs
    return (
        Cell(wording.say_vendor(figure.vendor)),
        Cell(wording.short_model(figure.model) if figure.model else "–", note=", ".join(_caveats(figure)) or None),
        Cell(METRIC_WORDS.get(figure.metric, figure.metric)),
        Cell(wording.say_published(figure), sort=figure.value),
        Cell(wording.say_measurer(figure.measured_by)),
        Cell(figure.published),
        Cell(figure.speculation or "not stated"),
        Cell(figure.precision or "not stated"),
        Cell(figure.source_title, url=figure.source_url, note=figure.notes),
    )
