"""The tree from a verdict down to the sources it rests on, as lines with a depth. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tokbench.derive.claims.evidence import Beneath, Resolved
from tokbench.derive.claims.saying import (
    STATES,
    say_against,
    say_because,
    say_bilingual,
    say_contrast,
    say_half,
    say_input,
    say_label,
    say_outcome,
    say_source,
    say_statement,
    say_strength,
    say_value,
)
from tokbench.derive.claims.values import Truth
from tokbench.derive.claims.verdicts import ClaimVerdict, PartVerdict
from tokbench.derive.words import join, t
from tokbench.units import format_number


class Line(NamedTuple):
    """One line of the tree."""

    depth: int
    text: str
    url: str | None = None


def explain(verdict: ClaimVerdict) -> tuple[Line, ...]:
    """Everything that is known of one claim's verdict, from the top."""
    return tuple(_lines(verdict))


def _lines(verdict: ClaimVerdict) -> Iterator[Line]:
    claim = verdict.claim
    yield Line(0, t("{id}: {outcome}", id=claim.id, outcome=say_outcome(verdict.outcome)))
    yield Line(1, t("claimed: {statement}", statement=say_statement(claim)))
    yield Line(1, t("by {who}, {document}", who=claim.attributed_to, document=claim.document))
    yield Line(1, t("evidence: {strength}", strength=say_strength(verdict.strength)))
    if verdict.labels:
        yield Line(1, t("labels: {labels}", labels=join([say_label(label) for label in verdict.labels])))
    for part in verdict.parts:
        yield from _part_lines(part, verdict)
    for contrast in verdict.contrasts:
        yield Line(1, say_contrast(contrast))
    for name, item in verdict.inputs.items():
        if not item.row.decides:
            yield Line(1, t("beside it, deciding nothing: {name}", name=name))
            yield from _input_lines(item, 2)
    yield Line(1, t("strongest argument against: {text}", text=say_against(claim)))
    before = claim.rules_before
    yield Line(1, t("rules before: supported if {supports}", supports=before.supports_if))
    yield Line(1, t("rules before: refuted if {refutes}", refutes=before.refutes_if))
    yield Line(1, t("repaired because: {why}", why=before.why))


def _part_lines(part: PartVerdict, verdict: ClaimVerdict) -> Iterator[Line]:
    because = say_because(part.because)
    if len(verdict.parts) > 1:
        yield Line(
            1,
            t(
                "{name}: {outcome}: {says}",
                name=part.half.name,
                outcome=say_outcome(part.outcome),
                says=say_half(part.half),
            ),
        )
    yield Line(2, t("because {reason}", reason=because))
    if part.outcome is not part.by_rules:
        yield Line(2, t("the rules alone say: {outcome}", outcome=say_outcome(part.by_rules)))
    if part.single_sources:
        yield Line(2, t("on one source rest: {names}", names=join(part.single_sources)))
    if part.half.deadline is not None:
        yield Line(2, t("speaks of {date}", date=part.half.deadline))
    yield _rule_line(t("supported if"), part.half.supports_if, part.evaluated.supports)
    yield _rule_line(t("refuted if"), part.half.refutes_if, part.evaluated.refutes)
    yield from _gap_lines(part)
    for name, value in part.evaluated.steps.items():
        yield Line(3, f"{name} = {part.half.let[name]} = {say_value(value)}")
    for name in sorted(part.rules.inputs_of(part.rules.supports, part.rules.refutes)):
        yield from _input_lines(verdict.inputs[name], 3)
    if part.needs is not None:
        yield Line(2, t("to test it: {command}", command=part.needs))
    if part.takes is not None:
        yield Line(2, t("it takes: {what}", what=say_bilingual(part.takes)))


def _rule_line(title: str, rule: str, truth: Truth) -> Line:
    return Line(2, t("{title} {rule}: {state}", title=title, rule=rule, state=t(STATES[truth.state])))


def _gap_lines(part: PartVerdict) -> Iterator[Line]:
    truths = (part.evaluated.supports, part.evaluated.refutes)
    for text in dict.fromkeys(text for truth in truths for text in truth.straddles):
        yield Line(2, t("straddles: {comparison}", comparison=text))
    for cause in sorted({cause for truth in truths for cause in truth.causes}, key=str):
        yield Line(2, t("missing: {name}: {reason}", name=cause.input or "-", reason=cause.reason))


def _beneath_lines(beneath: Beneath, unit: str, depth: int) -> Iterator[Line]:
    """From the number of a cell to the record: the formula, then each repetition with its raw events."""
    cell, record = beneath.cell_id, beneath.record
    yield Line(depth, t("{metric} of cell {cell} in {record}", metric=beneath.metric, cell=cell, record=record))
    if beneath.formula:
        yield Line(depth + 1, t("formula: {formula}", formula=beneath.formula))
    for one in beneath.repetitions:
        events = join([f"{count} {kind}" for kind, count in one.events])
        value = "" if one.value is None else f"{format_number(one.value, 4)} {'' if unit == '1' else unit}".strip()
        where = t("trial {trial} by {worker}: {events}", trial=one.trial_id, worker=one.worker_id, events=events)
        yield Line(depth + 1, where if not value else t("{value} from {where}", value=value, where=where))


def _input_lines(item: Resolved, depth: int) -> Iterator[Line]:
    yield Line(depth, f"{item.name} = {say_input(item)}")
    for source in item.sources:
        yield Line(depth + 1, say_source(source), source.url)
        if source.beneath is not None:
            yield from _beneath_lines(source.beneath, source.unit, depth + 2)
    for text in item.left_out:
        yield Line(depth + 1, t("left out: {what}", what=text))
    if item.row.why is not None:
        yield Line(depth + 1, item.row.why)
