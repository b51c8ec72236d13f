"""Chained and short requests: how long five kinds of work take at measured and at published speeds.

Prediction: prompt tokens over prefill speed, which gives the first output token, then the other ones over decode speed,
once for each call of a chain. Two kinds are run for real where a record has them, and set beside their prediction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published.sheet import first_day
from tokbench.stats import Estimate

BASE_CLAIM, RUN_CLAIM = "answer-time", "scenario"
"""Labels of the cells that a prediction starts from, and of those that are run for real."""
PUBLISHED_METRICS = ("decode_tokens_per_s", "ttft_s")
VENDORS = ("cerebras", "groq")


class Work(NamedTuple):
    """One kind of request: tokens of one call, and calls that wait for one another."""

    name: str
    prompt_tokens: int
    output_tokens: int
    calls: int = 1


WORKS = (
    Work("moderation", 512, 3),
    Work("fraud", 2000, 20),
    Work("pricing", 1000, 50),
    Work("agent", 1000, 400, 5),
    Work("program", 500, 1500),
)
"""The five kinds of request that the claim on chained latency is about: a label, a verdict with a reason, a price with
its terms, five steps that wait for one another, a file of code. Source: data/claims/latency.yaml, read 2026-11-22."""


class Speed(NamedTuple):
    """What a prediction starts from."""

    who: str
    first_s: float | None
    """A vendor's time to the first token, of prompts that it chose; None for ours."""
    prefill_tokens_per_s: float | None
    """Ours alone."""
    tokens_per_s: float
    conditions: str
    """Of ours the weights and the record, of a vendor's the model, who measured, and the rows with their dates."""


class Prediction(NamedTuple):
    """Seconds of one kind of work at one speed."""

    work: Work
    speed: Speed
    seconds: float


class Check(NamedTuple):
    """One call that was run for real, beside its prediction from the short cells of the same model."""

    work: Work
    cell: CellResult
    predicted_s: float
    measured: Estimate

    @property
    def error_ratio(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_s / self.measured.value - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Scenarios:
    """Everything that is known of the five kinds."""

    predictions: tuple[Prediction, ...] = ()
    checks: tuple[Check, ...] = ()


def predict_s(work: Work, speed: Speed) -> float:
    """Seconds of all calls, one after the other.

    Formula: calls * (first token + (output tokens - 1) / decode speed); the first token of ours comes after prompt
    tokens / prefill speed, of a vendor's after what it publishes, whatever the prompt.
    """
    first_s = speed.first_s
    if first_s is None:
        assert speed.prefill_tokens_per_s is not None  # one of the two is what a speed is made of
        first_s = work.prompt_tokens / speed.prefill_tokens_per_s
    return work.calls * (first_s + (work.output_tokens - 1) / speed.tokens_per_s)


def find_scenarios(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> Scenarios:
    """Predictions at every speed that is known, and the checks; empty where no record has the cells."""
    bases = list(_bases(results))
    if not bases:
        return Scenarios()
    speeds = [*(speed for _, speed in bases), *_published(figures)]
    predictions = [Prediction(work, speed, predict_s(work, speed)) for speed in speeds for work in WORKS]
    return Scenarios(tuple(predictions), tuple(_checks(results, bases)))


def _bases(results: Sequence[Results]) -> Iterator[tuple[CellResult, Speed]]:
    """The shortest answer of each model in each record: what its prefill and a short decode tell."""
    shortest: dict[tuple[str, str | None], CellResult] = {}
    for cell in _labelled(results, BASE_CLAIM):
        place = (cell.run_name, cell.conditions.model)
        known = shortest.get(place)
        if known is None or (cell.conditions.output_tokens or 0) < (known.conditions.output_tokens or 0):
            shortest[place] = cell
    for cell in shortest.values():
        prefill, decode = (_estimate(cell, name) for name in ("prefill_tokens_per_s", "decode_tokens_per_s"))
        if prefill is not None and decode is not None:
            who, weights = cell.conditions.model or cell.cell_id, f"{cell.conditions.weights} weights, {cell.run_name}"
            yield cell, Speed(who, None, prefill.value, decode.value, weights)


def _labelled(results: Sequence[Results], claim: str) -> Iterator[CellResult]:
    for item in results:
        for cell in item.cells:
            if cell.labels.get("claim") == claim and cell.status == "ok" and cell.validity.verdict != "invalid":
                yield cell


def _estimate(cell: CellResult, name: str) -> Estimate | None:
    value = cell.metrics.get(name)
    return value if isinstance(value, Estimate) else None


def _checks(results: Sequence[Results], bases: Sequence[tuple[CellResult, Speed]]) -> Iterator[Check]:
    speeds = {(cell.run_name, cell.conditions.model): speed for cell, speed in bases}
    works = {work.name: work for work in WORKS}
    for cell in _labelled(results, RUN_CLAIM):
        work = works.get(cell.labels.get("scenario", ""))
        speed = speeds.get((cell.run_name, cell.conditions.model))
        measured = _estimate(cell, "e2e_latency_s")
        if work is not None and speed is not None and measured is not None:
            yield Check(work, cell, predict_s(work._replace(calls=1), speed), measured)


def _published(figures: Sequence[PublishedFigure]) -> Iterator[Speed]:
    """For each vendor the newest model with both a speed per user and a time to the first token of one measurer."""
    newest: dict[tuple[str, str | None, str], dict[str, PublishedFigure]] = {}
    for figure in figures:
        if figure.vendor in VENDORS and figure.metric in PUBLISHED_METRICS and figure.superseded_by is None:
            both = newest.setdefault((figure.vendor, figure.model, figure.measured_by), {})
            if figure.metric not in both or _age(figure) > _age(both[figure.metric]):
                both[figure.metric] = figure
    for vendor in VENDORS:
        pairs = [
            tuple(both[metric] for metric in PUBLISHED_METRICS)
            for (theirs, _, _), both in newest.items()
            if theirs == vendor and len(both) == len(PUBLISHED_METRICS)
        ]
        if pairs:
            speed, first = max(pairs, key=lambda pair: _age(pair[0]))
            said = f"{speed.model}, {speed.measured_by}: {speed.id} ({speed.published}), {first.id} ({first.published})"
            yield Speed(vendor, first.value, None, speed.value, said)


def _age(figure: PublishedFigure) -> tuple[str, str]:
    """By which the newer of two is the larger: a bare year counts as its first day, and of one day the later name."""
    return f"{first_day(figure.published)}", figure.id
