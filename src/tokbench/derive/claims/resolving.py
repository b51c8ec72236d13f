"""Resolves the named inputs of a claim, each by its kind, and evaluates the steps and rules of a part over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tokbench.derive.claims.evidence import Evidence, Resolved
from tokbench.derive.claims.expressions import Expression, evaluate
from tokbench.derive.claims.followed import Follow, follows
from tokbench.derive.claims.from_measured import resolve_measured
from tokbench.derive.claims.from_published import resolve_published
from tokbench.derive.claims.from_rows import (
    resolve_device,
    resolve_fact,
    resolve_model,
    resolve_number,
    resolve_rent,
    resolve_stated,
)
from tokbench.derive.claims.input_rows import Input
from tokbench.derive.claims.rows import ClaimRow
from tokbench.derive.claims.rules import Rules, fault
from tokbench.derive.claims.values import RuleError, Truth, Truths, Value


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluated:
    """The steps and both rules of one part, with their values."""

    steps: Mapping[str, Value]
    supports: Truth
    refutes: Truth


def resolve_inputs(claim: ClaimRow, evidence: Evidence, device: str | None = None) -> dict[str, Resolved]:
    """Every input of a claim; where several devices made one series, that of `device`, or of whoever made most of it.

    Raises:
        DataError: one names a row, a field, a metric or a unit that is not there.
    """
    found, follow = {}, follows(claim, evidence, device)
    for name, row in claim.inputs.items():
        try:
            found[name] = _resolve(name, row, claim, evidence, follow.get(name, Follow()))
        except RuleError as error:
            raise fault(claim, f"inputs.{name}", str(error)) from None
    return found


def evaluate_rules(claim: ClaimRow, rules: Rules, inputs: Mapping[str, Value]) -> Evaluated:
    """Evaluate one part over values.

    Raises:
        DataError: units that do not agree, or a rule that is no comparison.
    """
    scope = dict(inputs)
    steps: dict[str, Value] = {}
    for name, step in rules.steps.items():
        scope[name] = steps[name] = _evaluate(claim, rules.field(f"let.{name}"), step, scope)
    supports = _truth(claim, rules.field("supports_if"), rules.supports, scope)
    return Evaluated(steps, supports, _truth(claim, rules.field("refutes_if"), rules.refutes, scope))


def _resolve(name: str, row: Input, claim: ClaimRow, evidence: Evidence, follow: Follow) -> Resolved:
    match row.kind:
        case "quantity":
            return resolve_stated(name, row, claim.quantities)
        case "number":
            return resolve_number(name, row)
        case "published":
            return resolve_published(name, row, evidence)
        case "measured":
            return resolve_measured(name, row, evidence, follow)
    by_row = {"fact": resolve_fact, "device": resolve_device, "price": resolve_rent, "model": resolve_model}
    return by_row[row.kind](name, row, evidence)


def _evaluate(claim: ClaimRow, field: str, expression: Expression, scope: Mapping[str, Value]) -> Value:
    try:
        return evaluate(expression, scope)
    except RuleError as error:
        raise fault(claim, field, str(error)) from None


def _truth(claim: ClaimRow, field: str, expression: Expression, scope: Mapping[str, Value]) -> Truth:
    value = _evaluate(claim, field, expression, scope)
    if isinstance(value, Truth):
        return value
    what = "a truth for each key: wrap it in all(…), any(…) or count(…)" if isinstance(value, Truths) else "a number"
    raise fault(claim, field, f"a rule is a comparison, not {what}")
