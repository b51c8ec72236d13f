"""Every claim's row: it loads, its units agree, each input and each threshold matters, and its rules are frozen."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from claims_builders import (
    TODAY,
    claim,
    evidence_of,
    lacking,
    near_inputs,
    number,
    sample_inputs,
    scan_inputs,
    times,
    write_rows,
)
from tokbench.derive.claims import freeze
from tokbench.derive.claims.dimensions import Dimension
from tokbench.derive.claims.evidence import Evidence, Resolved, load_awaited, load_evidence
from tokbench.derive.claims.expressions import Expression, thresholds, with_threshold
from tokbench.derive.claims.intervals import hull
from tokbench.derive.claims.judge import decide, judge_claims
from tokbench.derive.claims.names import METRIC_NAMES
from tokbench.derive.claims.resolving import evaluate_rules, resolve_inputs
from tokbench.derive.claims.rows import ClaimRow, Half
from tokbench.derive.claims.rules import Rules, check_use, load_claims
from tokbench.derive.claims.values import Lacking, Quantity, Series, State, Truth, Value
from tokbench.derive.claims.verdicts import Outcome
from tokbench.derive.metrics import catalog
from tokbench.derive.published.rows import METRIC_UNITS
from tokbench.errors import DataError

CLAIMS = load_claims()
FIRM = (Outcome.SUPPORTED, Outcome.REFUTED)
HALVES = [(row, half) for row in CLAIMS for half in row.halves()]
DRAWS = 480
BASES = 16
AROUND = 5
FACTORS = (0.0, 0.01, 0.5, 2.0, 100.0)
MUTATIONS = (lambda x: x * 2, lambda x: x - 1, lambda x: x / 2, lambda x: x * 1.05, lambda x: x / 1.05, lambda x: x + 1)


@functools.cache
def evidence() -> Evidence:
    return load_evidence()


@functools.cache
def inputs_of(name: str) -> dict[str, Resolved]:
    return resolve_inputs(next(row for row in CLAIMS if row.id == name), evidence())


def outcome_of(row: ClaimRow, rules: Rules, values: Mapping[str, Value]) -> Outcome:
    return decide(evaluate_rules(row, rules, values))[0]


def scales_of(rules: Rules, wanted: Mapping[str, Resolved]) -> dict[Dimension, tuple[float, ...]]:
    """Sizes that the claim speaks of, by dimension: its own numbers, and what its rules compare them with."""
    found: dict[Dimension, list[float]] = {}
    for item in wanted.values():
        if isinstance(item.value, Quantity):
            found.setdefault(item.value.dimension, []).append(abs(item.value.interval.mid))
    numbers = [x for e in (*rules.steps.values(), rules.supports, rules.refutes) for x in thresholds(e) if x]
    for dimension in {*found, *(i.value.dimension for i in wanted.values() if isinstance(i.value, Lacking | Series))}:
        found.setdefault(dimension, []).extend(abs(number) for number in numbers)
    return {dimension: tuple(sizes) for dimension, sizes in found.items()}


@dataclasses.dataclass(frozen=True)
class Draws:
    """One part of a claim, with sampled inputs and what its rules say of each."""

    row: ClaimRow
    half: Half
    rules: Rules
    samples: list[dict[str, Value]]
    outcomes: list[Outcome]

    def firm(self) -> list[tuple[dict[str, Value], Outcome]]:
        return [(v, o) for v, o in zip(self.samples, self.outcomes, strict=True) if o in FIRM]


@functools.cache
def draws(index: int) -> Draws:
    row, half = HALVES[index]
    rules = Rules(row, half)
    names = rules.inputs_of(rules.supports, rules.refutes)
    wanted = {name: item for name, item in inputs_of(row.id).items() if name in names}
    samples = list(itertools.islice(sample_inputs(wanted, scales_of(rules, wanted), seed=11), DRAWS))
    drawn = Draws(row, half, rules, samples, [outcome_of(row, rules, values) for values in samples])
    for outcome in set(FIRM) - set(drawn.outcomes):
        look_for(outcome, drawn)
    for outcome in FIRM:
        reached = [values for values, said in drawn.firm() if said is outcome]
        for seed, values in enumerate(reached[:AROUND]):
            extend(drawn, near_inputs(values, seed))
    return drawn


def look_for(outcome: Outcome, drawn: Draws) -> None:
    """Add a draw of a narrow region that chance has missed: a scan finds it."""
    for base in drawn.samples[:: DRAWS // BASES]:
        found = next((v for v in scan_inputs(base) if drawn_outcome(drawn, v) is outcome), None)
        if found is not None:
            extend(drawn, [found])
            return


def extend(drawn: Draws, samples: Iterable[dict[str, Value]]) -> None:
    for values in samples:
        drawn.samples.append(values)
        drawn.outcomes.append(drawn_outcome(drawn, values))


EVERY_HALF = pytest.mark.parametrize("index", range(len(HALVES)), ids=[f"{r.id}.{h.name}" for r, h in HALVES])


@EVERY_HALF
def test_both_verdicts_can_be_reached(index: int) -> None:
    assert set(FIRM) <= set(draws(index).outcomes)


@EVERY_HALF
def test_every_input_matters(index: int) -> None:
    """Taken away it leaves the part untested; given another value it can change what the rules say."""
    drawn, inert = draws(index), []
    resolved, firm = inputs_of(drawn.row.id), drawn.firm()
    for name in drawn.rules.inputs_of(drawn.rules.supports, drawn.rules.refutes):
        gone = without(resolved[name].value)
        if not any(drawn_outcome(drawn, {**values, name: gone}) is Outcome.UNTESTED for values, _ in firm):
            inert.append(f"{name}: may be missing")
        others = ((one, said, other[name]) for (one, said), (other, _) in itertools.pairwise(firm))
        scaled = (
            (one, said, times(one[name], factor)) for one, said in firm for factor in (0.0, 0.01, 0.5, 2.0, 100.0)
        )
        changes = itertools.chain(others, scaled)
        if not any(drawn_outcome(drawn, {**one, name: value}) is not said for one, said, value in changes):
            inert.append(f"{name}: may be anything")
    assert [] == inert


@EVERY_HALF
def test_every_threshold_matters(index: int) -> None:
    drawn, unnoticed = draws(index), []
    rules = drawn.rules
    for field, expression in (*rules.steps.items(), ("supports", rules.supports), ("refutes", rules.refutes)):
        for place, value in enumerate(thresholds(expression)):
            changed = (with_threshold(expression, place, mutate(value)) for mutate in MUTATIONS)
            if not any(is_noticed(drawn, field, one) for one in changed):
                unnoticed.append(f"{field}: {value}")
    assert [] == unnoticed


@EVERY_HALF
def test_an_interval_that_holds_both_verdicts_gives_neither(index: int) -> None:
    """Of every rule: inputs that reach from ones that support it to ones that refute it are firm in nothing."""
    drawn = draws(index)
    ends = [[values for values, said in drawn.firm() if said is outcome][:3] for outcome in FIRM]
    for low, high in itertools.product(*ends):
        wide = {name: spanning(low[name], high[name]) for name in low}
        assert drawn_outcome(drawn, wide) not in FIRM


def spanning(one: Value, other: Value) -> Value:
    """A value that holds both; series keep the keys that both have."""
    if isinstance(one, Quantity) and isinstance(other, Quantity):
        return Quantity(hull([one.interval, other.interval]), one.dimension, one.rests | other.rests)
    if isinstance(one, Series) and isinstance(other, Series):
        yours = {key: (own, rests) for key, own, rests in other.entries}
        both = [(key, own, rests) for key, own, rests in one.entries if key in yours]
        entries = tuple((key, hull([own, yours[key][0]]), rests | yours[key][1]) for key, own, rests in both)
        return Series(one.axis, entries, one.dimension)
    return one if one == other else Truth(State.UNDECIDED)


def without(value: Value) -> Value:
    if isinstance(value, Series | Lacking):
        return lacking(value.dimension, value.axis)
    if isinstance(value, Quantity):
        return lacking(value.dimension)
    return Truth(State.UNDECIDED, causes=lacking().causes)


def drawn_outcome(drawn: Draws, values: dict[str, Value]) -> Outcome:
    return outcome_of(drawn.row, drawn.rules, values)


def is_noticed(drawn: Draws, field: str, changed: Expression) -> bool:
    rules = copy.copy(drawn.rules)
    if field in rules.steps:
        rules.steps = {**rules.steps, field: changed}
    else:
        setattr(rules, field, changed)
    pairs = zip(drawn.samples, drawn.outcomes, strict=True)
    try:
        return any(outcome_of(drawn.row, rules, values) is not said for values, said in pairs)
    except DataError as error:  # a unit that is divided by, and is nought now
        assert "divides by zero" in error.message
        return True


def test_the_rules_are_frozen_and_every_change_has_its_reason() -> None:
    hashes, log = freeze.HASHES.read_text(encoding="utf-8"), freeze.LOG.read_text(encoding="utf-8")
    assert () == freeze.faults(CLAIMS, hashes, log)


def test_a_changed_rule_is_noticed_until_a_reason_is_given(tmp_path: Path) -> None:
    row = claim({"x": number(value=2.0)})
    assert ("some-claim",) == freeze.write([row], "fixed first", TODAY, tmp_path)
    changed = row.model_copy(update={"supports_if": "x > 1.001"})
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("rules.sha256", "CHANGES.md")]
    assert 2 == len(freeze.faults([changed], *texts))
    assert () == freeze.write([row], "nothing new", TODAY, tmp_path)
    assert ("some-claim",) == freeze.write([changed], "the bound was rounded", datetime.date(2026, 12, 1), tmp_path)
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("rules.sha256", "CHANGES.md")]
    assert () == freeze.faults([changed], *texts)
    assert "- 2026-12-01 some-claim" in texts[1]
    assert [1, 1] == [len(freeze.faults(rows, *texts)) for rows in ([], [row])]
    with pytest.raises(DataError):
        freeze.write([changed], "  ", TODAY, tmp_path)


@pytest.mark.parametrize(
    "update",
    [
        {"inputs": {"x": number(value=2.5)}},
        {"refutes_if": "x < 0.99"},
        {"deadline": "2027-01-01"},
    ],
)
def test_what_decides_is_hashed_and_what_explains_is_not(update: dict[str, object]) -> None:
    row = claim({"x": number(value=2.0)})
    assert freeze.hash_of(row) != freeze.hash_of(claim({"x": number(value=2.0), **update.pop("inputs", {})}, **update))  # type: ignore[dict-item, arg-type]
    assert freeze.hash_of(row) == freeze.hash_of(claim({"x": number(value=2.0)}, needs="another command"))


def test_no_code_knows_a_claim_by_name() -> None:
    source = Path(freeze.__file__).parents[2]
    code = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    assert [] == [row.id for row in CLAIMS if row.id in code]


def test_awaited_metrics_are_those_that_nothing_computes() -> None:
    assert set() == {item.id for item in load_awaited()} & set(catalog())


def test_the_table_of_names_leads_to_metrics_that_exist() -> None:
    known = {*catalog(), *METRIC_UNITS, *(item.id for item in load_awaited())}
    assert set() == set(METRIC_NAMES.values()) - known


X = 'x: {number: {value: 2, unit: tokens/s, why: "a test"}}'
ROW = """
claims:
- id: mine
  topic: hardware
  priority: 1
  document: mine.txt
  statement: "Said."
  statement_zh: "说过。"
  attributed_to: "Me"
  kind: arithmetic
  inputs:
    x: {number: {value: 2, unit: tokens/s, why: "a test"}}
  supports_if: "x > q(1, 'tokens/s')"
  refutes_if: "x < q(1, 'tokens/s')"
  against: {en: "Much.", zh: "很多。"}
  rules_before: {supports_if: "a", refutes_if: "b", why: "c"}
"""


def test_a_users_row_is_read(tmp_path: Path) -> None:
    (row,) = load_claims({"mine.yaml": write_rows(tmp_path, ROW)})
    assert Outcome.SUPPORTED is judge_claims([row], evidence_of(), TODAY)[0].outcome


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("topic: hardware", "topic: gossip", "topic", "Input should be"),
        ("id: mine", "id: Mine", "id", "match pattern"),
        ("  kind: arithmetic\n", "", "kind", "required"),
        ("x > q(1", "x >> q(1", "supports_if", "does not belong"),
        ("x > q(1", "y > q(1", "supports_if", "no input or earlier step 'y'"),
        ("\"x < q(1, 'tokens/s')\"", '"x < 1"', "refutes_if", "compares tokens/s with a plain number"),
        ("\"x < q(1, 'tokens/s')\"", '"x"', "refutes_if", "a rule is a comparison"),
        ("unit: tokens/s", "unit: tokns/s", "inputs.x", "is no unit"),
        ("{value: 2", "{value: 2, low: 1", "inputs.x.number.value", "give either"),
        ("    x: {number", "    z: {number: {value: 1, why: t}}\n    x: {number", "inputs.z", "no rule uses it"),
        ("    x: {number", "    abs: {number: {value: 1, why: t}}\n    x: {number", "inputs.abs", "a function"),
        ('x: {number: {value: 2, unit: tokens/s, why: "a test"}}', "x: {fact: no-such}", "inputs.x", "unknown fact"),
        ('x: {number: {value: 2, unit: tokens/s, why: "a test"}}', "x: {quantity: q1}", "inputs.x", "unknown quantity"),
        ('x: {number: {value: 2, unit: tokens/s, why: "a test"}}', "x: {}", "inputs.x", "exactly one"),
        ("  supports_if", '  let: {y: "x / 2"}\n  supports_if', "let.y", "no rule uses this step"),
        ("  supports_if", "  surprise: 1\n  supports_if", "surprise", "not permitted"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(tmp_path: Path, old: str, new: str, field: str, message: str) -> None:
    assert old in ROW
    with pytest.raises(DataError, match="mine.yaml") as caught:
        judge_claims(load_claims({"mine.yaml": write_rows(tmp_path, ROW.replace(old, new, 1))}), evidence_of(), TODAY)
    assert (field, True) == (caught.value.field, message in str(caught.value))


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    text = ROW + ROW.replace("\nclaims:\n", "")
    with pytest.raises(DataError, match="stands twice"):
        load_claims({"mine.yaml": write_rows(tmp_path, text)})


def test_a_measured_input_needs_its_command() -> None:
    measured = {"measured": {"select": {"weights": "random"}, "metric": "tpot_s"}}
    row = claim({"x": measured}, "x > q(1, 's')", "x < q(1, 's')")
    with pytest.raises(DataError, match="needs the command"):
        check_use(row)
