"""How a promise, a workload, an outcome and the rules of the grade are worded. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokbench.derive import wording
from tokbench.derive.decision import DecisionRow
from tokbench.derive.decision.answers import Edge, Limit, Outcome
from tokbench.derive.decision.breakeven import Pays
from tokbench.derive.decision.grades import MAX_FIGURE_AGE_DAYS, MIN_REQUESTS, VERY_WIDE, WIDE, Weakness
from tokbench.derive.decision.promises import Promise
from tokbench.derive.decision.sweeps import Barred, Workload, users_of
from tokbench.derive.words import mark, t
from tokbench.stats import MIN_BLOCKS, Estimate
from tokbench.units import format_number

BARRED_WORDS: Final[Mapping[Barred, str]] = {
    Barred.RANDOM: mark("random weights"),
    Barred.REPLAY: mark("replayed weights or drafts"),
    Barred.SCRIPTED: mark("a scripted engine"),
    Barred.UNKNOWN_WEIGHTS: mark("weights of unknown origin"),
    Barred.LOSSY: mark("drafts that the model would not have chosen"),
    Barred.EXPERIMENT: mark("an experiment instead of requests"),
    Barred.OPEN_LOAD: mark("an open load, which fixes no number of users"),
}
LIMIT_WORDS: Final[Mapping[Edge, str]] = {
    Edge.SPEED: mark("with {users} the speed is too low"),
    Edge.TTFT: mark("with {users} the first token comes too late"),
    Edge.SPEED_NOT_SHOWN: mark("with {users} the interval of the speed straddles the promise, or there is none"),
    Edge.TTFT_NOT_SHOWN: mark("with {users} the interval of TTFT straddles the promise, or there is none"),
    Edge.INVALID: mark("the cell with {users} is invalid"),
    Edge.MEMORY: mark("{users} do not fit into memory"),
    Edge.FAILED: mark("the cell with {users} failed"),
    Edge.NOT_MEASURED: mark("{users} were not measured"),
}
EDGE_WORDS: Final[Mapping[Edge, str]] = {
    Edge.SPEED: mark("speed too low"),
    Edge.TTFT: mark("first token too late"),
    Edge.SPEED_NOT_SHOWN: mark("interval of the speed straddles the promise, or there is none"),
    Edge.TTFT_NOT_SHOWN: mark("interval of TTFT straddles the promise, or there is none"),
    Edge.INVALID: mark("cell is invalid"),
    Edge.MEMORY: mark("out of memory"),
    Edge.FAILED: mark("cell failed"),
    Edge.NOT_MEASURED: mark("not measured"),
}
OUTCOME_WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.CANNOT: mark("cannot be met on this hardware"),
    Outcome.NOT_MET: mark("not met by what was measured"),
    Outcome.NOT_SHOWN: mark("not shown"),
    Outcome.NOT_MEASURED: mark("not measured at this load"),
}
"""For a promise that no measured load holds."""
WEAKNESS_WORDS: Final[Mapping[Weakness, str]] = {
    Weakness.NO_QUEUE: mark("static batch, no queueing"),
    Weakness.WIDE: mark("wide interval"),
    Weakness.VERY_WIDE: mark("very wide interval, or none"),
    Weakness.FEW_PROCESSES: mark("few worker processes"),
    Weakness.SUSPECT: mark("suspect cell"),
    Weakness.FEW_REQUESTS: mark("few requests"),
    Weakness.FAILED_REQUESTS: mark("requests failed"),
    Weakness.SMALLER_BREAKS: mark("a smaller load breaks the promise"),
    Weakness.OLD_PRICE: mark("list price older than a year"),
    Weakness.SECOND_HAND: mark("list price read second-hand"),
    Weakness.ONE_SOURCE: mark("list price from one source"),
    Weakness.OTHER_MODEL: mark("another model of about the same size"),
    Weakness.UNLIKE: mark("precision or speculation differs or is not stated"),
    Weakness.RENT_RANGE: mark("published rent, not your price"),
}
PAYS_WORDS: Final[Mapping[Pays, str]] = {
    Pays.YES: mark("can pay"),
    Pays.NO: mark("cannot pay, even busy all day"),
    Pays.NOT_SHOWN: mark("not shown"),
}


def say_promise(promise: Promise) -> str:
    """A promise in one phrase."""
    speed, ttft = format_number(promise.tokens_per_s, 2), format_number(promise.ttft_s, 1)
    return t("{speed} tokens/s per user, TTFT p95 of at most {ttft} s", speed=speed, ttft=ttft)


def say_workload(workload: Workload, with_run: bool) -> str:
    """What was decided about, in one phrase."""
    model = wording.short_model(workload.model)
    name = f"{workload.run_name}: {model}" if with_run else model
    load = t("service") if workload.load_kind == "closed" else t("static batch")
    precision = workload.precision or t("unknown precision")
    if workload.prompt_tokens is None:
        return t("{model}, {precision}, {load}, prompts of their own", model=name, precision=precision, load=load)
    return t(
        "{model}, {precision}, {load}, {prompt} prompt + {output} output tokens",
        model=name,
        precision=precision,
        load=load,
        prompt=workload.prompt_tokens,
        output=workload.output_tokens,
    )


def say_box(workload: Workload) -> str:
    """The hardware, with its number where it is more than one device."""
    name, count = workload.hardware or t("unknown hardware"), workload.device_count
    return name if count in (None, 1) else t("{count} of {name}", count=count, name=name)


def say_users(users: int | None) -> str:
    """A number of users."""
    return t("1 user") if users == 1 else t("{users} users", users=users)


def say_answer(row: DecisionRow) -> str:
    """What was found for one promise, in words that follow the promise."""
    found, cell = row.answer, row.answer.cell
    if cell is None and found.why_not in (Edge.MEMORY, Edge.FAILED, Edge.INVALID):
        return t(": no load gave a number to judge ({why}).", why=t(EDGE_WORDS[found.why_not]))
    if cell is None:
        return t(": not measured at a load that could hold it.")
    if found.outcome is Outcome.NOT_SHOWN and found.why_not is not None:
        why = t(LIMIT_WORDS[found.why_not], users=say_users(row.users))
        return t(": not shown, since {why}.", why=why)
    if found.outcome is not Outcome.HELD:
        return _say_broken(row)
    assert found.limit is not None
    users = t("1 user") if row.users == 1 else t("{users} users at once", users=row.users)
    return t(
        ": {users}, {system} for the box; {limit}. Evidence {grade}.",
        users=users,
        system=wording.say_value(cell.metrics.get("output_tokens_per_s")),
        limit=say_limit(found.limit),
        grade=row.grade,
    )


def say_limit(limit: Limit) -> str:
    """Where a promise ends, in words."""
    if limit.cell is None:
        return t("more users were not measured")
    return t(LIMIT_WORDS[limit.why], users=say_users(users_of(limit.cell)))


def _say_broken(row: DecisionRow) -> str:
    found, cell = row.answer, row.answer.cell
    assert cell is not None
    why = t("One user gets {speed}", speed=wording.say_value(cell.metrics.get("decode_tokens_per_s")))
    if found.why_not is Edge.TTFT and isinstance(row.ttft_p95, Estimate):
        why = t("One user waits {ttft} for the first token", ttft=wording.say_value(row.ttft_p95))
    if found.ceiling is None or found.why_not is Edge.TTFT:
        return t(": not met by what was measured. {why}.", why=why)
    ceiling = wording.say_value(found.ceiling)
    if found.outcome is Outcome.CANNOT:
        return t(
            ": cannot be met on this hardware. {why}, and the measured ceilings put one stream in {precision} at no "
            "more than {ceiling} without speculative decoding.",
            why=why,
            precision=row.workload.precision or t("unknown precision"),
            ceiling=ceiling,
        )
    return t(
        ": not met by what was measured. {why}; the measured ceilings put one stream at {ceiling}.",
        why=why,
        ceiling=ceiling,
    )


def say_rules() -> str:
    """The rules of the grade in one paragraph, with their bounds."""
    return t(
        "A to D: A, less one step for each of these. A static batch instead of a service. Half the interval of the "
        "decode speed above {wide} % of it, two steps above {very_wide} % or without an interval, unless all of it is "
        "below the promise. Fewer than {processes} worker processes. A suspect cell. Requests that failed. Fewer than "
        "{requests} requests in a repetition. A smaller load that breaks what the larger one holds. A break-even also "
        "loses one step each for a list price older than {days} days, read second-hand, from one source alone, for a "
        "precision or a speculation that differs or is not stated, and for a published rent instead of your own price; "
        "two for another model.",
        wide=format_number(100 * WIDE, 1),
        very_wide=format_number(100 * VERY_WIDE, 2),
        processes=MIN_BLOCKS,
        requests=MIN_REQUESTS,
        days=MAX_FIGURE_AGE_DAYS,
    )
