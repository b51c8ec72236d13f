"""Judges claims: both rules of each part over intervals, what caps the result, and how the parts combine.

No claim is known by name here, and no verdict is stored anywhere: the rows hold rules, and the evidence decides.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from tokbench.derive.claims.evidence import Evidence, Resolved, Source
from tokbench.derive.claims.followed import rivals
from tokbench.derive.claims.resolving import Evaluated, evaluate_rules, resolve_inputs
from tokbench.derive.claims.rows import ClaimRow, Half
from tokbench.derive.claims.rules import Rules
from tokbench.derive.claims.truths import least_sources
from tokbench.derive.claims.values import Rest, Rests, State, Truth
from tokbench.derive.claims.verdicts import Because, ClaimVerdict, Contrast, Outcome, PartVerdict, Strength
from tokbench.derive.published.systems import model_key
from tokbench.record.facts import Agreement, Conditions, differences

ENOUGH_SOURCES: Final = 2
"""One source may be wrong alone, or be the one that profits: a firm verdict asks for a second that is independent."""

_UNDECIDED: Final = (Outcome.OPEN, Outcome.UNTESTED)
_CONDITIONS: Final = frozenset(field.name for field in dataclasses.fields(Conditions))
_SCALES: Final = {
    "at-scale": Strength.MEASURED_AT_SCALE,
    "small": Strength.MEASURED_SMALL,
    "replayed": Strength.REPLAYED,
}


def judge_claims(claims: Sequence[ClaimRow], evidence: Evidence, today: datetime.date) -> tuple[ClaimVerdict, ...]:
    """Every claim in order; `today` decides which forecasts are still open.

    Raises:
        DataError: an input or a rule makes no sense.
    """
    return tuple(judge_on_devices(claim, evidence, today) for claim in claims)


def judge_on_devices(claim: ClaimRow, evidence: Evidence, today: datetime.date) -> ClaimVerdict:
    """One claim; where several devices made its series, on each by itself, and firm only where none says otherwise.

    The numbers shown are those of the device that decides the most parts.

    Raises:
        DataError: an input or a rule makes no sense.
    """
    first = judge(claim, resolve_inputs(claim, evidence), today)  # tells of a wrong row with its field
    devices = rivals(claim, evidence)
    if not devices:
        return first
    each = [judge(claim, resolve_inputs(claim, evidence, device), today) for device in devices]
    best = max(each, key=lambda verdict: sum(part.outcome not in _UNDECIDED for part in verdict.parts))
    parts = tuple(_agreed(own, [verdict.parts[place] for verdict in each]) for place, own in enumerate(best.parts))
    return dataclasses.replace(best, parts=parts, outcome=combine_outcomes(parts))


def _agreed(own: PartVerdict, each: Sequence[PartVerdict]) -> PartVerdict:
    """One part over several devices: those that decide it must say the same."""
    decided = {part.outcome for part in each if part.outcome not in _UNDECIDED}
    if len(decided) < 2:
        return own
    return dataclasses.replace(own, outcome=Outcome.PARTLY, because=Because.DEVICES, needs=None, takes=None)


def judge(claim: ClaimRow, inputs: Mapping[str, Resolved], today: datetime.date) -> ClaimVerdict:
    """One claim over resolved inputs.

    Raises:
        DataError: units that do not agree.
    """
    parts = tuple(_judge_part(claim, half, inputs, today) for half in claim.halves())
    rests = frozenset[Rest]().union(*(part.rests for part in parts))
    used = _used_sources(inputs, rests)
    labels = dict.fromkeys(label for _, source in used for label in source.labels)
    strength = _strength(inputs, rests, used)
    return ClaimVerdict(
        claim, combine_outcomes(parts), parts, inputs, strength, tuple(labels), _contrasts(inputs, used)
    )


def combine_outcomes(parts: Sequence[PartVerdict]) -> Outcome:
    """The whole: partly once the parts disagree; else untested, then open, if one is; else what all are."""
    outcomes = {part.outcome for part in parts}
    if Outcome.PARTLY in outcomes or {Outcome.SUPPORTED, Outcome.REFUTED} <= outcomes:
        return Outcome.PARTLY
    for undecided in (Outcome.UNTESTED, Outcome.OPEN):
        if undecided in outcomes:
            return undecided
    return next(iter(outcomes))


def _judge_part(claim: ClaimRow, half: Half, inputs: Mapping[str, Resolved], today: datetime.date) -> PartVerdict:
    rules = Rules(claim, half)
    found = evaluate_rules(claim, rules, {name: item.value for name, item in inputs.items()})
    by_rules, because = decide(found)
    rests = _deciding_rests(found, by_rules)
    outcome, single = by_rules, _single_sources(rests)
    if by_rules in (Outcome.SUPPORTED, Outcome.REFUTED) and least_sources(rests) < ENOUGH_SOURCES:
        outcome, because = Outcome.PARTLY, Because.ONE_SOURCE
    if half.deadline is not None and today <= datetime.date.fromisoformat(half.deadline):
        outcome, because = Outcome.OPEN, Because.DEADLINE
    return PartVerdict(
        half=half,
        rules=rules,
        evaluated=found,
        outcome=outcome,
        because=because,
        by_rules=by_rules,
        single_sources=single if because is Because.ONE_SOURCE else (),
        rests=rests,
        needs=(half.needs or claim.needs) if outcome is Outcome.UNTESTED else None,
        takes=(half.takes or claim.takes) if because in (Because.NOT_TESTED, Because.NO_EVIDENCE) else None,
    )


def decide(found: Evaluated) -> tuple[Outcome, Because]:
    """What both rules together say, before anything stops it."""
    supports, refutes = found.supports.state, found.refutes.state
    if State.UNDECIDED in (supports, refutes):
        return _undecided((found.supports, found.refutes))
    if supports is State.TRUE and refutes is State.TRUE:
        return Outcome.PARTLY, Because.BOTH
    if supports is State.FALSE and refutes is State.FALSE:
        return Outcome.PARTLY, Because.NEITHER
    return (Outcome.SUPPORTED if supports is State.TRUE else Outcome.REFUTED), Because.RULE


def _undecided(truths: Sequence[Truth]) -> tuple[Outcome, Because]:
    causes = [cause for truth in truths if truth.state is State.UNDECIDED for cause in truth.causes]
    if any(cause.can_be_had for cause in causes):
        return Outcome.UNTESTED, Because.NOT_TESTED
    if causes and all(cause.input is None for cause in causes):
        return Outcome.OPEN, Because.UNDEFINED
    return Outcome.OPEN, Because.NO_EVIDENCE if causes else Because.STRADDLES


def _deciding_rests(found: Evaluated, outcome: Outcome) -> Rests:
    if outcome is Outcome.SUPPORTED:
        return found.supports.rests
    if outcome is Outcome.REFUTED:
        return found.refutes.rests
    return found.supports.rests | found.refutes.rests


def _single_sources(rests: Rests) -> tuple[str, ...]:
    names = sorted({rest.input for rest in rests if rest.is_counted})
    return tuple(n for n in names if least_sources(frozenset(r for r in rests if r.input == n)) < ENOUGH_SOURCES)


def _used_sources(inputs: Mapping[str, Resolved], rests: Rests) -> list[tuple[str, Source]]:
    """The sources that decided, each with the input that it speaks for."""
    keys = {(rest.input, rest.source) for rest in rests}
    return [(name, source) for name, item in inputs.items() for source in item.sources if (name, source.key) in keys]


def _strength(inputs: Mapping[str, Resolved], rests: Rests, used: Sequence[tuple[str, Source]]) -> Strength | None:
    """The weakest of the inputs that decided; None where none did."""
    if not rests:
        return None
    found = [_SCALES[source.scale] for _, source in used if source.scale is not None]
    for name in {rest.input for rest in rests if rest.is_counted}:
        own = [source for input_name, source in used if input_name == name]
        is_independent = len({source.key for source in own}) >= ENOUGH_SOURCES
        is_independent &= inputs[name].row.kind == "fact" or not all(source.is_vendor for source in own)
        found.append(Strength.INDEPENDENT if is_independent else Strength.ONE_SOURCE)
    order = list(Strength)
    return max(found, key=order.index, default=Strength.ARITHMETIC)


def _shared_axis(one: Resolved, other: Resolved) -> str | None:
    """The condition by which both are series; None where they have none in common."""
    rows = [item.row.published or item.row.measured for item in (one, other)]
    axes = [None if row is None else row.by for row in rows]
    return axes[0] if axes[0] == axes[1] and axes[0] in _CONDITIONS else None


def _key(conditions: Conditions, axis: str) -> str:
    value = str(dataclasses.asdict(conditions)[axis])
    return model_key(value) if axis == "model" else value


def _contrasts(inputs: Mapping[str, Resolved], used: Sequence[tuple[str, Source]]) -> tuple[Contrast, ...]:
    """Every two inputs with conditions, and the fields in which they differ or do not say.

    Two series by one condition meet key by key, so that only their entries of one key are set side by side.
    """
    conditions: dict[str, list[Conditions]] = {}
    for name, source in used:
        if source.conditions is not None:
            conditions.setdefault(name, []).append(source.conditions)
    found = []
    for (one, ours), (other, theirs) in itertools.combinations(conditions.items(), 2):
        axis = _shared_axis(inputs[one], inputs[other])
        rows = [
            row
            for mine, yours in itertools.product(ours, theirs)
            if axis is None or _key(mine, axis) == _key(yours, axis)
            for row in differences(mine, yours)
        ]
        different = tuple(dict.fromkeys(row.field for row in rows if row.agreement is Agreement.DIFFERENT))
        unknown = (row.field for row in rows if row.agreement is Agreement.UNKNOWN and row.field not in different)
        found.append(Contrast(one, other, different, tuple(dict.fromkeys(unknown))))
    return tuple(found)
