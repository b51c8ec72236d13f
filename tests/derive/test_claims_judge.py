"""The judge: what two rules, one source, a deadline and several parts come to."""

from __future__ import annotations

import datetime

import pytest

from claims_builders import TODAY, band, claim, evidence_of, judged, lacking, number, verdict_on
from tokbench.derive.claims.dimensions import PLAIN
from tokbench.derive.claims.evidence import Resolved, Source
from tokbench.derive.claims.input_rows import Input
from tokbench.derive.claims.intervals import point
from tokbench.derive.claims.judge import judge
from tokbench.derive.claims.values import Quantity, Rest, Series, Value
from tokbench.derive.claims.verdicts import Because, Outcome, Strength
from tokbench.record.facts import Conditions


@pytest.mark.parametrize(
    ("value", "outcome", "because"),
    [
        (band(2, 3), Outcome.SUPPORTED, Because.RULE),
        (band(0.1, 0.2), Outcome.REFUTED, Because.RULE),
        (band(0.6, 0.9), Outcome.PARTLY, Because.NEITHER),
        (band(0.8, 1.2), Outcome.OPEN, Because.STRADDLES),
        (band(0.4, 0.6), Outcome.OPEN, Because.STRADDLES),
        (band(0.4, 1.2), Outcome.OPEN, Because.STRADDLES),
        (lacking(), Outcome.UNTESTED, Because.NOT_TESTED),
        (lacking(can_be_had=False), Outcome.OPEN, Because.NO_EVIDENCE),
        (band(2, 3, sources=1), Outcome.PARTLY, Because.ONE_SOURCE),
        (band(0.1, 0.2, sources=1), Outcome.PARTLY, Because.ONE_SOURCE),
        (band(2, 3, sources=1, counted=False), Outcome.SUPPORTED, Because.RULE),
    ],
)
def test_every_kind_of_outcome(value: Value, outcome: Outcome, because: Because) -> None:
    found = judged(value, supports_if="x > 1", refutes_if="x < 0.5")
    assert (outcome, because) == (found.outcome, found.parts[0].because)


def test_both_rules_at_once_is_disagreement_and_not_support() -> None:
    found = judged(band(2, 3), supports_if="x > 1", refutes_if="x > 1.5")
    assert (Outcome.PARTLY, Because.BOTH) == (found.outcome, found.parts[0].because)


@pytest.mark.parametrize("width", [0.0, 0.01, 0.1, 0.5])
def test_an_interval_that_straddles_is_never_firm(width: float) -> None:
    found = judged(band(1 - width, 1 + width), supports_if="x > 1", refutes_if="x < 1")
    assert found.outcome in (Outcome.OPEN, Outcome.PARTLY)
    assert (found.outcome is Outcome.OPEN) == (width > 0)


def test_a_single_source_is_named_and_what_the_rule_says_is_kept() -> None:
    part = judged(band(2, 3, sources=1)).parts[0]
    assert (Outcome.SUPPORTED, ("x",)) == (part.by_rules, part.single_sources)


def test_a_forecast_is_open_until_its_day_has_passed() -> None:
    row = claim({"x": number(value=2.0)}, deadline="2027-01-31")
    days = [datetime.date(2027, 1, 31), datetime.date(2027, 2, 1)]
    assert [Outcome.OPEN, Outcome.SUPPORTED] == [verdict_on(row, evidence_of(), day).outcome for day in days]
    assert Outcome.SUPPORTED is verdict_on(row, evidence_of(), days[0]).parts[0].by_rules


PARTS = {
    Outcome.SUPPORTED: "x > 1",
    Outcome.REFUTED: "x < 1",
    Outcome.PARTLY: "x > 9",
    Outcome.OPEN: "w > 1",
    Outcome.UNTESTED: "gone > 1",
}


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        ((Outcome.SUPPORTED, Outcome.SUPPORTED), Outcome.SUPPORTED),
        ((Outcome.REFUTED, Outcome.REFUTED), Outcome.REFUTED),
        ((Outcome.SUPPORTED, Outcome.REFUTED), Outcome.PARTLY),
        ((Outcome.SUPPORTED, Outcome.PARTLY), Outcome.PARTLY),
        ((Outcome.UNTESTED, Outcome.PARTLY), Outcome.PARTLY),
        ((Outcome.SUPPORTED, Outcome.UNTESTED), Outcome.UNTESTED),
        ((Outcome.OPEN, Outcome.UNTESTED), Outcome.UNTESTED),
        ((Outcome.SUPPORTED, Outcome.OPEN), Outcome.OPEN),
        ((Outcome.SUPPORTED, Outcome.REFUTED, Outcome.UNTESTED), Outcome.PARTLY),
    ],
)
def test_parts_combine(outcomes: tuple[Outcome, ...], whole: Outcome) -> None:
    opposite = {Outcome.REFUTED: "x > 1", Outcome.SUPPORTED: "x < 1"}
    parts = [
        {
            "name": f"part-{index}",
            "says": {"en": "A.", "zh": "甲。"},
            "supports_if": PARTS[outcome],
            "refutes_if": opposite.get(outcome, "x > 99 and w > -1"),
            "needs": "tokbench run config.yaml",
        }
        for index, outcome in enumerate(outcomes)
    ]
    inputs = {
        "x": number(value=2.0),
        "w": number(low=0.0, mid=1.0, high=2.0),
        "gone": {"measured": {"select": {"weights": "pretrained"}, "metric": "step_jitter_ratio"}},
    }
    row = claim(inputs, parts=parts)
    found = verdict_on(row, evidence_of())
    assert (outcomes, whole) == (tuple(part.outcome for part in found.parts), found.outcome)
    assert (("tokbench run config.yaml",) if Outcome.UNTESTED in outcomes else ()) == found.needs


def test_a_division_by_what_may_be_zero_is_no_want_of_evidence() -> None:
    found = judged(band(-1, 1), supports_if="1 / x > 1", refutes_if="1 / x < 1")
    assert (Outcome.OPEN, Because.UNDEFINED) == (found.outcome, found.parts[0].because)
    assert ("`1 / x`: a division by zero, or by an interval that holds it",) == found.missing


def test_strength_is_that_of_the_weakest_evidence() -> None:
    assert Strength.ARITHMETIC is judged(band(2, 3, counted=False)).strength
    assert Strength.ONE_SOURCE is judged(band(2, 3, sources=1)).strength
    assert judged(lacking()).strength is None


def test_a_number_of_ours_is_labelled_unless_a_page_stands_behind_it() -> None:
    bare, sourced = number(value=2.0), number(value=2.0)
    sourced["number"] = {**sourced["number"], "source_url": "https://example.org/"}  # type: ignore[dict-item]
    labels = [verdict_on(claim({"x": item}), evidence_of()).labels for item in (bare, sourced)]
    assert [("our assumption",), ()] == labels


def test_only_what_decided_is_counted() -> None:
    rests = frozenset({Rest("x", "a", True), Rest("x", "b", True)})
    value = Quantity(point(2.0), PLAIN, rests)
    assert Outcome.SUPPORTED is judged(value, supports_if="x > 1 or x > 99", refutes_if="x < 1").outcome


def test_series_by_one_condition_differ_in_it_nowhere() -> None:
    def published(name: str, device: str, by: str | None) -> Resolved:
        conditions = [Conditions(hardware=device, concurrency=count) for count in (4, 8)]
        sources = [Source(name, f"{name} {c.concurrency}", point(2.0), "1", conditions=c) for c in conditions]
        asked = {"select": {"vendor": "nvidia", "metric": "tps_user"}, "by": by}
        rests = frozenset({Rest(name, name, False)})
        value = Series(by, (("4", point(2.0), rests), ("8", point(2.0), rests)), PLAIN) if by else None
        row = Input.model_validate({"published": asked})
        return Resolved(name, row, value or Quantity(point(2.0), PLAIN, rests), "1", tuple(sources))

    def differ(by: str | None, rule: str) -> tuple[str, ...]:
        inputs = {"a": published("a", "one", by), "b": published("b", "other", by)}
        row = claim({name: {"published": {"select": {"vendor": "nvidia", "metric": "tps_user"}}} for name in inputs})
        row = row.model_copy(update={"supports_if": f"{rule}(a >= b)", "refutes_if": f"{rule}(a < b)"})
        return judge(row, inputs, TODAY).contrasts[0].different

    assert ("hardware",) == differ("concurrency", "all")
    assert ("concurrency", "hardware") == tuple(sorted(differ(None, "")))
