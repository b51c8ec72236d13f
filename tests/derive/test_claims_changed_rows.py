"""A row that changes changes what rests on it: published figures, facts and rents, each made far larger and smaller."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator

import pytest

from claims_builders import TODAY
from tokbench.derive.claims.evidence import Evidence, load_evidence
from tokbench.derive.claims.judge import judge
from tokbench.derive.claims.resolving import resolve_inputs
from tokbench.derive.claims.rows import ClaimRow
from tokbench.derive.claims.rules import load_claims
from tokbench.derive.claims.verdicts import ClaimVerdict, Outcome
from tokbench.derive.published.facts import Fact
from tokbench.derive.published.prices import RentPrice
from tokbench.derive.published.rows import PublishedFigure

FACTORS = (1000.0, 0.001)
FIRM = (Outcome.SUPPORTED, Outcome.REFUTED)
ROWS = ("published", "fact", "price")
BY_MANY = ("amd-unusable-in-practice", "groq-500-tps")
"""Claims whose rules count cells or take a median, which no single row moves."""


@functools.cache
def evidence() -> Evidence:
    return load_evidence()


def verdict(row: ClaimRow, given: Evidence) -> ClaimVerdict:
    return judge(row, resolve_inputs(row, given), TODAY)


def verdict_with(row: ClaimRow, before: ClaimVerdict, kind: str, name: str, factor: float) -> ClaimVerdict:
    """The verdict with one row changed: the inputs that took it are resolved anew."""
    touched = {key: own for key, own in row.inputs.items() if name in names_of(before, key)}
    anew = resolve_inputs(row.model_copy(update={"inputs": touched}), with_row(evidence(), kind, name, factor))
    return judge(row, {**before.inputs, **anew}, TODAY)


def names_of(found: ClaimVerdict, key: str) -> list[str]:
    """The rows behind one input."""
    item = found.inputs[key]
    names = [source.name for source in item.sources]
    return [name.split(", ")[0] if item.row.kind == "price" else name.partition(".")[0] for name in names]


def said(found: ClaimVerdict) -> tuple[Outcome, ...]:
    return tuple(part.by_rules for part in found.parts)


def rows_of(found: ClaimVerdict) -> list[tuple[str, str]]:
    """Kind and name of every row behind the parts that its rules make firm."""
    rests = {(rest.input, rest.source) for part in found.parts if part.by_rules in FIRM for rest in part.rests}
    pairs = [
        (item.row.kind, shown)
        for name, item in found.inputs.items()
        for source, shown in zip(item.sources, names_of(found, name), strict=True)
        if item.row.kind in ROWS and (name, source.key) in rests
    ]
    return list(dict.fromkeys(pairs))


def with_row(given: Evidence, kind: str, name: str, factor: float) -> Evidence:
    """The same evidence with one row's numbers so many times as large."""
    if kind == "published":
        return dataclasses.replace(given, figures=tuple(scaled_figure(f, name, factor) for f in given.figures))
    if kind == "fact":
        return dataclasses.replace(given, facts={**given.facts, name: scaled_fact(given.facts[name], factor)})
    return dataclasses.replace(given, prices={**given.prices, name: scaled_price(given.prices[name], factor)})


def scaled_figure(figure: PublishedFigure, name: str, factor: float) -> PublishedFigure:
    if figure.id != name:
        return figure
    fields = {"value": figure.value, "value_low": figure.value_low, "value_high": figure.value_high}
    return figure.model_copy(update={key: None if own is None else own * factor for key, own in fields.items()})


def scaled_fact(fact: Fact, factor: float) -> Fact:
    def times(value: object) -> object:
        if isinstance(value, bool):
            return not value
        return tuple(end * factor for end in value) if isinstance(value, tuple) else value * factor  # type: ignore[operator]

    parts = {key: part.model_copy(update={"value": times(part.value)}) for key, part in fact.parts.items()}
    return fact.model_copy(update={"parts": parts, "value": None if fact.value is None else times(fact.value)})


def scaled_price(price: RentPrice, factor: float) -> RentPrice:
    offers = {
        end: offer.model_copy(update={"usd_per_hour": offer.usd_per_hour * factor})
        for end, offer in (("low", price.low), ("mid", price.mid), ("high", price.high))
        if offer is not None
    }
    return price.model_copy(update=offers)


def resting() -> Iterator[ClaimRow]:
    for row in load_claims():
        if rows_of(verdict(row, evidence())):
            yield row


RESTING = list(resting())


def test_many_verdicts_rest_on_rows() -> None:
    assert len(RESTING) >= 20


@pytest.mark.parametrize("row", RESTING, ids=[row.id for row in RESTING])
def test_a_changed_row_changes_the_verdict_that_rests_on_it(row: ClaimRow) -> None:
    """Every row that a firm part rests on can change what the rules say; where many are counted, they can together."""
    before = verdict(row, evidence())
    rows = rows_of(before)
    unnoticed = [
        f"{kind} {name}"
        for kind, name in rows
        if all(said(verdict_with(row, before, kind, name, factor)) == said(before) for factor in FACTORS)
    ]
    assert [] == unnoticed or (row.id in BY_MANY and moves_together(row, before))


def moves_together(row: ClaimRow, before: ClaimVerdict) -> bool:
    """Whether all rows of some input, changed together, change what the rules say."""
    for key, own in row.inputs.items():
        if own.kind == "published":
            for factor in FACTORS:
                names = set(names_of(before, key))
                figures = tuple(scaled_if(one, names, factor) for one in evidence().figures)
                if said(verdict(row, dataclasses.replace(evidence(), figures=figures))) != said(before):
                    return True
    return False


def scaled_if(figure: PublishedFigure, names: Collection[str], factor: float) -> PublishedFigure:
    return scaled_figure(figure, figure.id, factor) if figure.id in names else figure
