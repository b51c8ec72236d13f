"""The decision in one sentence, for a headline: which promise holds for how many users. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokbench.derive import wording
from tokbench.derive.decision import Decision, DecisionRow
from tokbench.derive.decision.answers import Outcome
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
    model = wording.short_model(workload.model)
    rows = join((_say_row(row) for row in decision.of(workload)), SEMICOLON)
    if workload.load_kind == "static_batch":
        return t(
            "For a purchase ({model}, an upper bound without queueing), tokens/s per user hold as follows: {rows}.",
            model=model,
            rows=rows,
        )
    return t("For a purchase ({model}, under load), tokens/s per user hold as follows: {rows}.", model=model, rows=rows)


def _say_row(row: DecisionRow) -> str:
    speed, outcome = format_number(row.answer.promise.tokens_per_s, 2), row.answer.outcome
    if outcome is not Outcome.HELD or row.users is None:
        return t(WITHOUT_USERS[outcome], speed=speed)
    grade = t("no grade") if row.grade is None else t("evidence {grade}", grade=row.grade)
    if row.users == 1:
        return t("{speed} for 1 user, {grade}", speed=speed, grade=grade)
    return t("{speed} for {users} users, {grade}", speed=speed, users=row.users, grade=grade)
