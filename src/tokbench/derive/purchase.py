"""The decision in one sentence, for a headline: which promise holds for how many users. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokbench.derive import wording
from tokbench.derive.decision import Decision, DecisionRow
from tokbench.derive.decision.answers import Outcome
from tokbench.derive.decision.sweeps import Workload
from tokbench.derive.words import SEMICOLON, join, mark, t
from tokbench.units import format_number

WITHOUT_USERS: Final[Mapping[Outcome, str]] = {
    Outcome.CANNOT: mark("{speed} for nobody: the hardware cannot"),
    Outcome.NOT_MET: mark("{speed} for nobody by what was measured"),
    Outcome.NOT_SHOWN: mark("{speed} not shown"),
    Outcome.NOT_MEASURED: mark("{speed} not measured"),
}


def say_purchase(decision: Decision) -> str:
    """What each promise comes to for the workload that a report speaks of first."""
    workload = decision.headline
    if workload is None:
        return t("For a purchase: no decision, for want of a measured cell with weights of a real model.")
    what = _say_what(workload)
    ttft = format_number(decision.of(workload)[0].answer.promise.ttft_s, 1)
    rows = join((_say_row(row) for row in decision.of(workload)), SEMICOLON)
    if workload.load_kind == "static_batch":
        return t(
            "For a purchase ({what}; TTFT p95 of at most {ttft} s; an upper bound without queueing), tokens/s per user "
            "hold as follows: {rows}.",
            what=what,
            ttft=ttft,
            rows=rows,
        )
    return t(
        "For a purchase ({what}; TTFT p95 of at most {ttft} s; under load), tokens/s per user hold as follows: {rows}.",
        what=what,
        ttft=ttft,
        rows=rows,
    )


def _say_what(workload: Workload) -> str:
    """The model, the lengths and the box: with another of them the same promise may end elsewhere."""
    model, box = wording.short_model(workload.model), workload.hardware or t("unknown hardware")
    if workload.device_count not in (None, 1):
        box = t("{count} of {name}", count=workload.device_count, name=box)
    if workload.prompt_tokens is None:
        return t("{model}, prompts of their own, on {box}", model=model, box=box)
    return t(
        "{model}, {prompt} prompt + {output} output tokens, on {box}",
        model=model,
        prompt=workload.prompt_tokens,
        output=workload.output_tokens,
        box=box,
    )


def _say_row(row: DecisionRow) -> str:
    speed, outcome = format_number(row.answer.promise.tokens_per_s, 2), row.answer.outcome
    if outcome is not Outcome.HELD or row.users is None:
        return t(WITHOUT_USERS[outcome], speed=speed)
    grade = t("no grade") if row.grade is None else t("evidence {grade}", grade=row.grade)
    if row.users == 1:
        return t("{speed} for 1 user, {grade}", speed=speed, grade=grade)
    return t("{speed} for {users} users, {grade}", speed=speed, users=row.users, grade=grade)
