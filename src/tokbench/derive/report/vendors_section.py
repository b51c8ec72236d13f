"""Our numbers beside what vendors publish: ratio, every condition that differs or is unknown, source and date.

A ratio below the minimum stands in the appendix alone, with what keeps it out.
"""

from __future__ import annotations

from typing import NamedTuple

from tokbench.derive import likeness, wording
from tokbench.derive.metrics import catalog
from tokbench.derive.published import MAX_OPEN, Comparison, NoComparison
from tokbench.derive.report.document import (
    DASH,
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
from tokbench.derive.words import join, t
from tokbench.record.facts import Agreement, Difference
from tokbench.units import Better, format_value, unit_of


class _Made(NamedTuple):
    """A comparison that could be made, with its cell and the harness efficiency of that."""

    item: Beside
    outcome: Comparison


def vendors_sections(material: Material) -> list[Section]:
    """The ratios that reach the minimum, what stands between the two sides, and the figures that were looked at."""
    names = join(map(wording.say_vendor, material.vendors)) if material.vendors else t("published figures")
    made = _made(material)
    shown = [row for row in made if row.outcome.is_presentable]
    blocks: list[Block] = [Paragraph(_say_how_many(material, len(shown)))] if made else []
    if shown:
        blocks.append(_table(shown, in_appendix=False))
    blocks.append(Paragraph(_say_caution()))
    absent = _absent(material)
    if absent:
        blocks.append(bullets(*absent))
    sections = [Section(t("Against {names}", names=names), tuple(blocks))]
    if shown:
        sections.append(Section(t("What stands between the two sides"), (_conditions(shown),), level=3))
        sections.append(Section(t("Published figures that were looked at"), (_figures_table(shown),), level=3))
    return sections


def appendix_sections(material: Material) -> list[Section]:
    """The ratios below the minimum, each with what keeps it out of the summary; empty where there are none."""
    kept_out = [row for row in _made(material) if not row.outcome.is_presentable]
    if not kept_out:
        return []
    why = t(
        "These ratios say too little to stand in a summary or a chart: the minimum is one model, one quantity, one "
        "stream beside one stream for what one user gets, and at most {most} of weights, precision, concurrency, "
        "speculation and the handling of the first token different or not stated. They are printed so that nothing "
        "that was looked at is hidden.",
        most=MAX_OPEN,
    )
    return [
        Section(t("Appendix: comparisons below the minimum"), (Paragraph(why), _table(kept_out, in_appendix=True))),
        Section(t("What stands between their two sides"), (_conditions(kept_out),), level=3),
        Section(t("Published figures behind them"), (_figures_table(kept_out),), level=3),
    ]


def _made(material: Material) -> list[_Made]:
    return [_Made(item, item.outcome) for item in material.standing.beside if isinstance(item.outcome, Comparison)]


def _say_how_many(material: Material, shown: int) -> str:
    alike, compared = material.standing.count_alike()
    said = t("{alike} of {compared} comparisons are like for like.", alike=alike, compared=compared)
    left = compared - shown
    if shown and left:
        parts = t("Shown here: {shown}; below the minimum, in the appendix: {left}.", shown=shown, left=left)
        return f"{said} {parts}"
    if left:
        return f"{said} " + t("None reaches the minimum for a table here; all stand in the appendix.")
    return f"{said} " + t("All reach the minimum for a table here.")


def _say_caution() -> str:
    return t(
        "Vendors publish what their service reaches, often at its best and for one stream; they seldom state prompt "
        "length, precision, load or whether speculative decoding was on. What a source does not state counts as "
        "unknown, never as equal to ours. The interval of a ratio is interval arithmetic on both sides: ours of "
        "repetitions, theirs the least to the greatest of independent sources within half a year; with one source it "
        "is ours alone. A time to first token is like theirs only where ours was measured at an endpoint. What a "
        "token costs us is no price: it holds no profit, staff or network."
    )


def _absent(material: Material) -> list[str]:
    outcomes = [item.outcome for item in material.standing.beside]
    reasons = [
        t(
            "{vendor}, {metric}: {reason}",
            vendor=wording.say_vendor(outcome.vendor),
            metric=likeness.say_metric(outcome.metric),
            reason=likeness.say_absence(outcome),
        )
        for outcome in outcomes
        if isinstance(outcome, NoComparison)
    ]
    if not outcomes:
        reasons.append(t("nothing of ours was measured that could be set beside a published figure"))
    return list(dict.fromkeys(reasons))


def _table(made: list[_Made], *, in_appendix: bool) -> Table:
    columns = (
        Column(t("Vendor")),
        Column(t("Metric")),
        Column(t("Our cell")),
        Column(t("Ours"), "", "right"),
        Column(t("Their model")),
        Column(t("Theirs"), "", "right"),
        Column(t("Theirs / ours"), t("interval"), "right"),
        Column(t("Same / different / unknown"), t("conditions"), "right"),
        Column(t("What keeps it out") if in_appendix else t("Like for like")),
        Column(t("Harness efficiency"), "", "right"),
    )
    caption = t(
        "Harness efficiency: the speed of our cell over the best that anybody published for the same device and model; "
        "what it lacks of 100 % is not the device's."
    )
    return Table(columns, tuple(_row(row, in_appendix) for row in made), caption)


def _row(made: _Made, in_appendix: bool) -> tuple[Cell, ...]:
    item, comparison = made
    figure, cell = comparison.theirs, made.item.cell
    counts = [comparison.count(kind) for kind in (Agreement.SAME, Agreement.DIFFERENT, Agreement.UNKNOWN)]
    unlike = wording.say_likeness(comparison)
    verdict = Cell(likeness.say_kept_out(comparison)) if in_appendix else Cell(t("no") if unlike else t("yes"))
    factor = likeness.say_quotient(comparison)
    hardware = cell.conditions.hardware or t("unknown hardware")
    return (
        Cell(wording.say_vendor(comparison.vendor)),
        Cell(_say_direction(comparison)),
        Cell(join((wording.say_model(cell), wording.say_load(cell), hardware))),
        Cell(wording.say_value(comparison.ours), sort=value_field(comparison.ours).sort),
        Cell(wording.short_model(figure.model) if figure.model else DASH, note=_say_figure(comparison)),
        Cell(wording.say_published(figure), sort=figure.value, note=likeness.say_their_range(comparison)),
        Cell(factor, sort=1 / comparison.ours_over_theirs if comparison.ours_over_theirs > 0 else None),
        Cell(" / ".join(str(count) for count in counts), sort=float(counts[1] + counts[2])),
        Cell(verdict.text, note=unlike or None),
        _harness_field(item),
    )


def _harness_field(item: Beside) -> Cell:
    if not isinstance(item.harness, Comparison):
        return Cell(DASH, note=likeness.say_harness(item.harness))
    share = item.harness.ours_over_theirs
    return Cell(likeness.say_percentage(item.harness), sort=share, note=likeness.say_best_on_device(item.harness))


def _say_direction(comparison: Comparison) -> str:
    metric = likeness.say_share(comparison)
    if catalog()[comparison.metric].better is not Better.LOWER:
        return metric
    return t("{metric} (lower is better)", metric=metric)


def _say_figure(comparison: Comparison) -> str:
    figure = comparison.theirs
    parts = [wording.say_measurer(figure.measured_by), figure.published, *likeness.say_caveats(figure)]
    return join(parts)


def _conditions(made: list[_Made]) -> Bullets:
    return Bullets(tuple(_conditions_item(row) for row in made))


def _conditions_item(made: _Made) -> Item:
    comparison, cell = made.outcome, made.item.cell
    figure = comparison.theirs
    differ = [row for row in comparison.differences if row.agreement is Agreement.DIFFERENT]
    unknown = [row for row in comparison.differences if row.agreement is Agreement.UNKNOWN]
    subject = t(
        "{vendor}, {metric}, beside {model} on {hardware}: differ: {differ}; unknown: {unknown}.",
        vendor=wording.say_vendor(comparison.vendor),
        metric=likeness.say_share(comparison),
        model=wording.say_model(cell),
        hardware=cell.conditions.hardware or t("unknown hardware"),
        differ=join(map(_say_difference, differ)) if differ else t("none"),
        unknown=wording.say_fields([row.field for row in unknown]) if unknown else t("none"),
    )
    read = t("Published {date}, read {read_on}:", date=figure.published, read_on=figure.read_on)
    if not figure.is_primary:
        read = t("Published {date}, read {read_on}, second-hand:", date=figure.published, read_on=figure.read_on)
    return Item(f"{subject} {_say_spread(comparison)} {read}", figure.source_url, figure.source_title)


def _say_difference(row: Difference) -> str:
    return f"{row.field.replace('_', ' ')} ({row.ours} / {row.theirs})"


def _say_spread(comparison: Comparison) -> str:
    """The range of its period, and how far other figures of the same match lie apart, of whatever date."""
    theirs = t("Theirs: {range}.", range=likeness.say_their_range(comparison))
    values = [other.theirs.value for other in comparison.others]
    if not values:
        return f"{theirs} " + t("It is the only figure of this match.")
    unit = unit_of(comparison.theirs.unit)
    low, high = format_value(min(values), unit), format_value(max(values), unit)
    if len(values) == 1:
        return f"{theirs} " + t("1 other figure of this match: {value}.", value=low)
    span = low if low == high else t("{low} to {high}", low=low, high=high)
    return f"{theirs} " + t("{count} other figures of this match: {span}.", count=len(values), span=span)


def _figures_table(made: list[_Made]) -> Table:
    columns = (
        Column(t("Vendor")),
        Column(t("Model")),
        Column(t("Metric")),
        Column(t("Value"), "", "right"),
        Column(t("By")),
        Column(t("Published")),
        Column(t("Speculation")),
        Column(t("Precision")),
        Column(t("Source")),
    )
    unique = {one.theirs.id: one for row in made for one in (row.outcome, *row.outcome.others)}
    return Table(columns, tuple(_figure_row(one) for one in unique.values()))


def _figure_row(comparison: Comparison) -> tuple[Cell, ...]:
    figure = comparison.theirs
    caveats = join(likeness.say_caveats(figure))
    return (
        Cell(wording.say_vendor(figure.vendor)),
        Cell(wording.short_model(figure.model) if figure.model else DASH, note=caveats or None),
        Cell(likeness.say_share(comparison)),
        Cell(wording.say_published(figure), sort=figure.value),
        Cell(wording.say_measurer(figure.measured_by)),
        Cell(figure.published),
        Cell(figure.speculation or t("not stated")),
        Cell(figure.precision or t("not stated")),
        Cell(figure.source_title, url=figure.source_url, note=figure.notes),
    )
