"""The tables of the decision: users, and cost and energy of what holds. Words, and computes no number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tokbench.derive import likeness, wording
from tokbench.derive.decision import Decision, DecisionRow
from tokbench.derive.decision.answers import Outcome
from tokbench.derive.decision.grades import Grade, Weakness
from tokbench.derive.decision.rents import HourlyPrice
from tokbench.derive.evaluate import Missing
from tokbench.derive.published import NoComparison
from tokbench.derive.report.decision_words import (
    EDGE_WORDS,
    OUTCOME_WORDS,
    WEAKNESS_WORDS,
    say_workload,
)
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Table
from tokbench.derive.report.fields import value_field
from tokbench.derive.words import SEMICOLON, join, say, t
from tokbench.stats import Estimate
from tokbench.units import format_number

USD = "USD/1M tokens"


def load_table(decision: Decision, several: bool) -> Table:
    """Every workload and promise: the users it holds for and at which measured load it ends."""
    columns = (
        Column(t("Promise"), t("tokens/s per user"), "right"),
        Column(t("Workload")),
        Column(t("Users"), "", "right"),
        Column(t("Ends at"), t("users, measured")),
        Column(t("Decode per user"), t("tokens/s; 95 % interval, n"), "right"),
        Column(t("TTFT p95"), t("95 % interval, n"), "right"),
        Column(t("System"), "tokens/s", "right"),
        *((Column(t("Harness efficiency"), "", "right"),) if _has_harness(decision) else ()),
        Column(t("Evidence")),
    )
    caption = t(
        "The largest measured load whose whole interval of decode speed is at the promise or above it, and whose whole "
        "interval of TTFT p95 is at most {ttft} s; nothing is interpolated between two measured loads. Where none "
        "holds, the numbers are those of the load that comes nearest. Cannot be met: not at this precision without "
        "speculative decoding, since the measured ceilings of memory and arithmetic are below it too. TTFT p95 of a "
        "static batch is that of a log-normal through its passes.",
        ttft=format_number(decision.rows[0].answer.promise.ttft_s, 1),
    )
    with_harness = _has_harness(decision)
    return Table(columns, tuple(_load_row(row, several, with_harness) for row in decision.rows), caption)


def _has_harness(decision: Decision) -> bool:
    """Whether an accelerator is among the boxes: a CPU has no column of it."""
    return any(row.harness is not None for row in decision.rows)


def _load_row(row: DecisionRow, several: bool, with_harness: bool) -> tuple[Cell, ...]:
    cell = row.answer.cell
    unmeasured = Missing(t("no load was measured that could hold the promise"))
    metrics: Mapping[str, Estimate | Missing] = {} if cell is None else cell.metrics
    return (
        promise_field(row),
        _workload_field(row, several),
        _users_field(row),
        _limit_field(row),
        value_field(metrics.get("decode_tokens_per_s", unmeasured), with_interval=True),
        value_field(unmeasured if row.ttft_p95 is None else row.ttft_p95, with_interval=True),
        value_field(metrics.get("output_tokens_per_s", unmeasured)),
        *((_harness_field(row),) if with_harness else ()),
        grade_field(row.grade, row.weaknesses),
    )


def promise_field(row: DecisionRow) -> Cell:
    """The decode speed that is promised."""
    speed = row.answer.promise.tokens_per_s
    return Cell(format_number(speed, 2), sort=speed)


def _workload_field(row: DecisionRow, several: bool) -> Cell:
    """The workload, with the engine and mode of the answer's cell."""
    said, cell = say_workload(row.workload, several), row.answer.cell
    if cell is None:
        return Cell(said)
    return Cell(join((said, wording.say_engine(cell)), SEMICOLON))


def _users_field(row: DecisionRow) -> Cell:
    if row.answer.outcome is Outcome.HELD and row.users is not None:
        bound = t("upper bound without queueing") if row.workload.load_kind == "static_batch" else None
        return Cell(f"{row.users:,}", sort=float(row.users), note=bound)
    return Cell(t(OUTCOME_WORDS[row.answer.outcome]))


def _limit_field(row: DecisionRow) -> Cell:
    found = row.answer
    if found.limit is None:
        users = DASH if row.users is None else f"{row.users:,}"
        return Cell(users if found.why_not is None else f"{users}: {t(EDGE_WORDS[found.why_not])}")
    if found.limit.users is None:
        return Cell(t("not measured above {users}", users=row.users))
    return Cell(f"{found.limit.users:,}: {t(EDGE_WORDS[found.limit.why])}", sort=float(found.limit.users))


def _harness_field(row: DecisionRow) -> Cell:
    harness = row.harness
    if row.answer.cell is None:
        return Cell(DASH, note=t("no load was measured that could hold the promise"))
    if harness is None:
        return Cell(DASH, note=t("asked of measured accelerators alone"))
    if isinstance(harness, Missing):
        return value_field(harness)
    if isinstance(harness, NoComparison):
        return Cell(DASH, note=likeness.say_absence(harness))
    note = likeness.say_best_on_device(harness)
    return Cell(likeness.say_percentage(harness), sort=harness.ours_over_theirs, note=note)


def grade_field(grade: Grade | None, weaknesses: Sequence[Weakness]) -> Cell:
    """A grade with what it was lowered for."""
    if grade is None:
        return Cell(DASH, note=t("nothing to grade"))
    words = join(dict.fromkeys(t(WEAKNESS_WORDS[weakness]) for weakness in weaknesses))
    return Cell(grade, sort=float("ABCD".index(grade)), note=words or None)


def cost_blocks(decision: Decision, several: bool) -> Iterator[Block]:
    """Cost and joules of every row that holds its promise; one sentence where none has a price."""
    rows = [row for row in decision.rows if row.cost is not None]
    if not rows:
        yield Paragraph(t("Told only of a load that holds its promise: none does."))
        return
    shares = sorted({at.utilisation for row in rows if row.cost is not None for at in row.cost.at})
    columns = (
        Column(t("Promise"), t("tokens/s per user"), "right"),
        Column(t("Workload")),
        Column(t("Users"), "", "right"),
        *(_cost_column(share) for share in shares),
        Column(t("Input alone"), USD, "right"),
        Column(t("Output alone"), USD, "right"),
        Column(t("Energy"), t("J/token; 95 % interval, n"), "right"),
        Column(t("Energy scope")),
    )
    yield Table(columns, tuple(_cost_row(row, shares, several) for row in rows), _say_cost_caption(shares))
    yield from (Paragraph(text) for text in dict.fromkeys(_say_price(row) for row in rows))


def _cost_column(share: float) -> Column:
    title = t("Output with its prompts, {share} % used", share=format_number(100 * share, 2))
    return Column(title, USD, "right")


def _cost_row(row: DecisionRow, shares: Sequence[float], several: bool) -> tuple[Cell, ...]:
    assert row.cost is not None and row.energy is not None
    at = {found.utilisation: found for found in row.cost.at}
    split = at.get(_split_share(shares)) if shares else None
    energy = value_field(row.energy.joules, with_interval=True)
    return (
        promise_field(row),
        _workload_field(row, several),
        _users_field(row),
        *(_money_field(at[share].output_with_prompts if share in at else _no_price(row)) for share in shares),
        _money_field(_no_price(row) if split is None else split.input),
        _money_field(_no_price(row) if split is None else split.output),
        energy,
        Cell(row.energy.scope or DASH),
    )


def _split_share(shares: Sequence[float]) -> float:
    """The utilisation at which input and output are told apart: the middle one."""
    return shares[len(shares) // 2]


def _no_price(row: DecisionRow) -> Missing:
    assert row.cost is not None
    if isinstance(row.cost.price, Missing):
        return row.cost.price
    return Missing(t("this run states other utilisations"))


def _money_field(value: Estimate | Missing) -> Cell:
    if isinstance(value, Missing):
        return value_field(value)
    if value.low is None or value.high is None:
        return Cell(t("{value}, no interval", value=format_number(value.value)), sort=value.value)
    ends = f"{format_number(value.low)} – {format_number(value.high)}"
    return Cell(f"{format_number(value.value)} ({ends})", sort=value.value)


def _say_cost_caption(shares: Sequence[float]) -> str:
    if not shares:
        return t("Joules are of output tokens; the scope says what they cover.")
    return t(
        "USD for a million tokens while the box does this work for so much of all hours; the range is between the "
        "cheapest price with the fastest end of the speed's interval and the reverse. Output with its prompts: the "
        "output tokens pay for everything. Input and output alone: the same money at {share} % used, split by the time "
        "that prefill and decode take. Joules are of output tokens; the scope says what they cover.",
        share=format_number(100 * _split_share(shares), 2),
    )


def _say_price(row: DecisionRow) -> str:
    """What an hour of the box costs, and by whose word."""
    assert row.cost is not None
    price = row.cost.price
    box = row.workload.hardware or t("unknown hardware")
    if isinstance(price, Missing):
        return t("{box}: no cost: {reason}.", box=box, reason=say(price.reason))
    low, mid, high = (format_number(value) for value in price.usd_per_hour())
    if price.source == "rent_published":
        return t(
            "{box}: {mid} USD per hour ({low} to {high}), published rents, electricity included: {offers}. State your "
            "own with --set cost.usd_per_hour=….",
            box=box,
            mid=mid,
            low=low,
            high=high,
            offers=_say_rents(price),
        )
    if price.source == "purchase_stated":
        return t("{box}: {mid} USD per hour, from the purchase price that the config states.", box=box, mid=mid)
    return t("{box}: {mid} USD per hour, as the config states.", box=box, mid=mid)


def _say_rents(price: HourlyPrice) -> str:
    return join(
        t(
            "{usd} ({provider}, {term}, {date})",
            usd=format_number(offer.usd_per_hour),
            provider=offer.provider,
            term=offer.term or t("term not stated"),
            date=offer.published,
        )
        for offer in price.offers
    )
