"""What vendors sell instead: their list prices, published speeds, and from where on the box is cheaper."""

from __future__ import annotations

from collections.abc import Iterator

from tokbench.derive import wording
from tokbench.derive.decision import Decision, DecisionRow, OfferBeside
from tokbench.derive.decision.breakeven import BreakEven
from tokbench.derive.decision.offers import NoOffer, Offer
from tokbench.derive.decision.sweeps import Workload
from tokbench.derive.evaluate import Missing
from tokbench.derive.published import PublishedFigure
from tokbench.derive.report.decision_tables import USD, grade_field, promise_field
from tokbench.derive.report.decision_words import PAYS_WORDS
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Table
from tokbench.derive.report.fields import value_field
from tokbench.derive.words import say, t
from tokbench.record.facts import Agreement
from tokbench.stats import Estimate
from tokbench.units import format_number


def offer_blocks(decision: Decision, workload: Workload) -> Iterator[Block]:
    """The offers beside one workload, why a vendor has none, and the break-even of each promise that holds."""
    rows = decision.of(workload)
    offers = rows[0].offers
    if any(isinstance(offer, OfferBeside) for offer in offers):
        yield _offers_table(decision, rows)
    for offer in offers:
        if isinstance(offer, NoOffer):
            yield Paragraph(t("{vendor}: {reason}.", vendor=wording.say_vendor(offer.vendor), reason=say(offer.reason)))
    yield from _even_blocks(rows)


def _offers_table(decision: Decision, rows: tuple[DecisionRow, ...]) -> Table:
    """One row per offer, one column per promise."""
    promises = [row.answer.promise for row in rows]
    columns = (
        Column(t("Offer")),
        Column(t("List price, input"), USD, "right"),
        Column(t("List price, output"), USD, "right"),
        Column(t("Output with its prompts"), USD, "right"),
        Column(t("Published speed"), "tokens/s", "right"),
        Column(t("Published TTFT"), "", "right"),
        *(Column(t("Holds {speed}", speed=format_number(promise.tokens_per_s, 2))) for promise in promises),
    )
    by_offer = zip(*(row.offers for row in rows), strict=True)
    fields = tuple(
        _offer_fields(tuple(item for item in beside if isinstance(item, OfferBeside)))
        for beside in by_offer
        if isinstance(beside[0], OfferBeside)
    )
    caption = t(
        "Offers that could be bought on {today}, the last day on which a price was read: of each vendor its nearest "
        "model. Output with its prompts: what a million output tokens cost with the input tokens that they take here; "
        "a range is that of independent sources. Holds: whether published speed and TTFT reach the promise; they are "
        "medians or peaks as a rule, and no p95.",
        today=decision.today.isoformat(),
    )
    return Table(columns, fields, caption)


def _offer_fields(beside: tuple[OfferBeside, ...]) -> tuple[Cell, ...]:
    offer = beside[0].offer
    return (
        Cell(_say_offer(offer), note=_say_match(offer)),
        _figure_field(offer.price_in, t("no price of input tokens is known")),
        _figure_field(offer.price_out, ""),
        _blended_field(offer.blended),
        _figure_field(offer.speed, t("no speed of this model is published by this vendor")),
        _figure_field(offer.ttft, t("no TTFT of this model is published by this vendor")),
        *(_holds_field(item) for item in beside),
    )


def _say_offer(offer: Offer) -> str:
    name = f"{wording.say_vendor(offer.vendor)}: {wording.short_model(offer.model)}"
    return name if offer.is_asked else t("{offer} (the cheapest other)", offer=name)


def _say_match(offer: Offer) -> str | None:
    """How their model differs from ours; nothing where it is the same."""
    if offer.match == "same_model":
        return None
    ratio = offer.size_ratio
    if ratio is None:
        return t("another model, the sizes are not known")
    times = format_number(max(ratio, 1 / ratio), 2)
    larger, smaller = (
        t("another model, {times} times larger", times=times),
        t("another model, {times} times smaller", times=times),
    )
    return larger if ratio > 1 else smaller


def _figure_field(figure: PublishedFigure | None, absent: str) -> Cell:
    """A published value with who stated it and when."""
    if figure is None:
        return Cell(DASH, note=absent)
    note = t(
        "{who}, {date}; {site}",
        who=wording.say_measurer(figure.measured_by),
        date=figure.published,
        site=wording.say_site(figure.source_url),
    )
    text = wording.say_published(figure).removesuffix(f" {figure.unit}")
    return Cell(text, sort=figure.value, note=note, url=figure.source_url)


def _blended_field(value: Estimate | Missing) -> Cell:
    if isinstance(value, Missing):
        return value_field(value)
    text = format_number(value.value)
    if value.low is None or value.high is None or value.low == value.high:
        return Cell(text, sort=value.value)
    return Cell(f"{text} ({format_number(value.low)} – {format_number(value.high)})", sort=value.value)


def _holds_field(beside: OfferBeside) -> Cell:
    if beside.holds is not None:
        return Cell(t("yes") if beside.holds else t("no"))
    return Cell(t("not published") if beside.offer.speed is None else t("its speed does; no TTFT is published"))


def _even_blocks(rows: tuple[DecisionRow, ...]) -> Iterator[Block]:
    """The break-even of every promise that holds and every offer, and why a pair has none."""
    beside = [(row, item) for row in rows for item in row.offers if isinstance(item, OfferBeside)]
    held = [(row, item) for row, item in beside if row.cost is not None]
    reasons = [(_say_offer(item.offer), item.break_even) for _, item in held]
    for offer, reason in dict.fromkeys(
        (offer, say(even.reason)) for offer, even in reasons if isinstance(even, Missing)
    ):
        yield Paragraph(t("No break-even with {offer}: {reason}.", offer=offer, reason=reason))
    fields = tuple(
        _even_row(row, item, item.break_even) for row, item in held if isinstance(item.break_even, BreakEven)
    )
    if not fields:
        return
    columns = (
        Column(t("Promise"), t("tokens/s per user"), "right"),
        Column(t("Offer")),
        Column(t("Break-even"), t("1e6 output tokens/day"), "right"),
        Column(t("Of what the box makes"), t("share of a day"), "right"),
        Column(t("The box")),
        Column(t("Conditions")),
        Column(t("Evidence")),
    )
    caption = t(
        "Break-even: the output tokens a day at which a day of the box costs their list price. Above 100 % of what the "
        "box makes in a day while it holds the promise it is never reached; demand in peaks needs more than one box. A "
        "list price is the vendor's, with its profit; ours is a cost without staff, network and profit."
    )
    yield Table(columns, fields, caption)


def _even_row(row: DecisionRow, beside: OfferBeside, found: BreakEven) -> tuple[Cell, ...]:
    offer = Cell(_say_offer(beside.offer), note=_say_match(beside.offer))
    grade = grade_field(beside.grade, (*row.weaknesses, *beside.weaknesses))
    return promise_field(row), offer, *_even_fields(found), _conditions_field(beside), grade


def _even_fields(found: BreakEven) -> tuple[Cell, Cell, Cell]:
    pays = Cell(t(PAYS_WORDS[found.pays]))
    if found.tokens_per_day is None or found.share_of_box is None:
        dash = Cell(DASH, note=t("the electricity of a token costs more than the list price"))
        return dash, dash, pays
    return _scaled_field(found.tokens_per_day, 1e-6, ""), _scaled_field(found.share_of_box, 100.0, " %"), pays


def _scaled_field(value: Estimate, scale: float, unit: str) -> Cell:
    text = f"{format_number(scale * value.value)}{unit}"
    if value.low is None or value.high is None:
        return Cell(t("{value}, no interval", value=text), sort=value.value)
    ends = f"{format_number(scale * value.low)} – {format_number(scale * value.high)}"
    return Cell(f"{text} ({ends}{unit})", sort=value.value)


def _conditions_field(beside: OfferBeside) -> Cell:
    """How many conditions of our cell and of the list price differ or are not stated, and which."""
    named = {
        agreement: [row.field for row in beside.differences if row.agreement is agreement] for agreement in Agreement
    }
    different, unknown = named[Agreement.DIFFERENT], named[Agreement.UNKNOWN]
    note = t(
        "different: {different}; not stated: {unknown}",
        different=wording.say_fields(different) or t("none"),
        unknown=wording.say_fields(unknown) or t("none"),
    )
    text = t("{different} differ, {unknown} unknown", different=len(different), unknown=len(unknown))
    return Cell(text, sort=float(len(different) + len(unknown)), note=note)
