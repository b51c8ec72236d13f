"""The decision: for each workload and promise the most users, their speed, cost and energy, beside what vendors sell.

It computes and words nothing: `report/decision_section` words it, `listing` writes it as JSON. Numbers of random,
replayed or scripted weights never reach it, and neither do projections.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence
from typing import Final

from tokbench.derive.decision.answers import Answer, Edge, Outcome, answer
from tokbench.derive.decision.breakeven import BreakEven, break_even
from tokbench.derive.decision.commands import command_again, command_at
from tokbench.derive.decision.costs import BoxCost, EnergyPerToken, cost_of, energy_of
from tokbench.derive.decision.grades import Grade, Weakness, grade_of, offer_weaknesses, weaknesses_of
from tokbench.derive.decision.latency import ttft_p95
from tokbench.derive.decision.offers import NoOffer, Offer, endpoint_holds, find_offers, price_day
from tokbench.derive.decision.promises import PROMISES, Promise
from tokbench.derive.decision.rents import Rents
from tokbench.derive.decision.sweeps import LeftOut, Sweep, Workload, find_sweeps, users_of
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published import (
    Comparison,
    Measured,
    NoComparison,
    PublishedFigure,
    find_harness_efficiency,
)
from tokbench.derive.published.beside import COST, compare_one
from tokbench.derive.words import t
from tokbench.record.facts import Difference
from tokbench.record.run import Run
from tokbench.stats import Estimate

TYPICAL_PROMPT_TOKENS: Final = 1000
"""Of several prompt lengths the nearest to this one speaks first. Our choice: a page or two of text."""


@dataclasses.dataclass(frozen=True, slots=True)
class OfferBeside:
    """One offer beside one answer."""

    offer: Offer
    holds: bool | None
    """Whether the endpoint keeps the promise, by its published speed and TTFT; None where they do not settle it."""
    differences: tuple[Difference, ...]
    """Every condition of our cell and of the list price, the same, different or unknown."""
    break_even: BreakEven | Missing
    weaknesses: tuple[Weakness, ...]
    grade: Grade | None
    """Of the break-even, our own side's weaknesses included; None where there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionRow:
    """One promise of one workload, with all that a purchase hangs on."""

    workload: Workload
    size_b: float | None
    """Total parameters of the model in 1e9; None where it was never loaded."""
    is_cpu: bool
    """Whether the box is a CPU, and no accelerator."""
    answer: Answer
    ttft_p95: Estimate | Missing | None
    """Of the answer's cell."""
    cost: BoxCost | None
    """None where no measured load holds the promise: a price per token would be of another service."""
    energy: EnergyPerToken | None
    harness: Comparison | NoComparison | Missing | None
    """The cell's speed beside the best published for the same device, model and load; None on a CPU."""
    offers: tuple[OfferBeside | NoOffer, ...]
    weaknesses: tuple[Weakness, ...]
    grade: Grade | None
    """None where nothing was measured."""
    command: str | None
    """What measures the next load, or this one again; None where nothing is open."""

    @property
    def users(self) -> int | None:
        """Streams of the answer's cell."""
        return None if self.answer.cell is None else users_of(self.answer.cell)


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """All rows, services first, in the order of the runs; and what fed none of them."""

    rows: tuple[DecisionRow, ...]
    left_out: tuple[LeftOut, ...]
    today: datetime.date

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """What was decided about, in order."""
        return tuple(dict.fromkeys(row.workload for row in self.rows))

    @property
    def headline(self) -> Workload | None:
        """What a report speaks of first: a service before batches, the largest model, a prompt of usual length."""
        return min(self.rows, key=_prominence).workload if self.rows else None

    @property
    def headlines(self) -> tuple[Workload, ...]:
        """The same for each run, in order."""
        runs = dict.fromkeys(row.workload.run_name for row in self.rows)
        of_run = ([row for row in self.rows if row.workload.run_name == name] for name in runs)
        return tuple(min(rows, key=_prominence).workload for rows in of_run)

    def of(self, workload: Workload) -> tuple[DecisionRow, ...]:
        """The rows of one workload, one per promise."""
        return tuple(row for row in self.rows if row.workload == workload)


@dataclasses.dataclass(frozen=True, slots=True)
class Market:
    """What is published: figures, the vendors that are asked for, and rents of devices."""

    figures: tuple[PublishedFigure, ...]
    vendors: tuple[str, ...]
    rents: Rents


def decide(results: Sequence[Results], market: Market, promises: Sequence[Promise] = PROMISES) -> Decision:
    """Answer every promise for every workload of the runs."""
    found = find_sweeps(results)
    today = price_day(results, market.figures)
    runs = {item.name: item.run for item in results}
    rows = [
        _Desk(workload, sweeps, runs[workload.run_name], market, today).row(promise)
        for workload, sweeps in found.by_workload.items()
        for promise in promises
    ]
    return Decision(tuple(rows), found.left_out, today)


def _prominence(row: DecisionRow) -> tuple[bool, float, float]:
    prompt = row.workload.prompt_tokens
    apart = math.inf if prompt is None else abs(math.log(prompt / TYPICAL_PROMPT_TOKENS))
    return row.workload.load_kind == "static_batch", 0.0 if row.size_b is None else -row.size_b, apart


class _Desk:
    """What all promises of one workload share."""

    def __init__(
        self, workload: Workload, sweeps: Sequence[Sweep], run: Run, market: Market, today: datetime.date
    ) -> None:
        self._workload = workload
        self._sweeps = sweeps
        self._run = run
        self._market = market
        self._today = today
        sizes = [cell.record.model.parameters for sweep in sweeps for cell in sweep.cells if cell.record.model]
        known = [size / 1e9 for size in sizes if size is not None]
        self._size_b = known[0] if known else None
        self._is_cpu = run.device is not None and run.device.kind == "cpu"
        self._offers = find_offers(workload, self._size_b, market.figures, market.vendors, today)

    def row(self, promise: Promise) -> DecisionRow:
        """Answer one promise."""
        found = answer(self._run, self._sweeps, promise)
        cell = found.cell
        is_held = found.outcome is Outcome.HELD and cell is not None
        cost = cost_of(self._run, cell, self._market.rents) if cell is not None and is_held else None
        weaknesses = weaknesses_of(found)
        return DecisionRow(
            workload=self._workload,
            size_b=self._size_b,
            is_cpu=self._is_cpu,
            answer=found,
            ttft_p95=None if cell is None else ttft_p95(cell),
            cost=cost,
            energy=energy_of(cell) if cell is not None and is_held else None,
            harness=None if cell is None else self._harness(cell),
            offers=tuple(self._beside(offer, found, cost, weaknesses) for offer in self._offers),
            weaknesses=weaknesses,
            grade=None if cell is None else grade_of(weaknesses),
            command=self._command(found),
        )

    def _beside(
        self, offer: Offer | NoOffer, found: Answer, cost: BoxCost | None, ours: Sequence[Weakness]
    ) -> OfferBeside | NoOffer:
        if isinstance(offer, NoOffer):
            return offer
        holds = endpoint_holds(offer, found.promise)
        if found.cell is None or cost is None:
            reason = Missing(t("no measured load of this machine holds the promise"))
            return OfferBeside(offer, holds, (), reason, (), None)
        even = break_even(found.cell, cost, offer)
        beside = self._compare(found.cell, cost, offer)
        is_rent = not isinstance(cost.price, Missing) and cost.price.source == "rent_published"
        theirs = offer_weaknesses(offer, beside, is_rent, self._today)
        grade = None if isinstance(even, Missing) else grade_of([*ours, *theirs])
        rows = () if beside is None else beside.differences
        return OfferBeside(offer, holds, rows, even, theirs, grade)

    def _compare(self, cell: CellResult, cost: BoxCost, offer: Offer) -> Comparison | None:
        """Our cost beside the list price, for their conditions and sources; None without a cost."""
        value = cost.at[0].output_with_prompts if cost.at else None
        if not isinstance(value, Estimate):
            return None
        measured = Measured(value, COST, cell.conditions, self._size_b, None)
        pool = [figure for figure in self._market.figures if figure.vendor == offer.vendor]
        return compare_one(measured, offer.price_out, offer.match, pool)

    def _harness(self, cell: CellResult) -> Comparison | NoComparison | Missing | None:
        """One stream beside one stream, a system beside a system with as many: of more it would be faster anyway."""
        users = users_of(cell)
        metric = "decode_tokens_per_s" if users == 1 else "output_tokens_per_s"
        speed = cell.metrics.get(metric)
        if self._is_cpu or not isinstance(speed, Estimate):
            return None
        measured = Measured(speed, metric, cell.conditions, self._size_b, None)
        found = find_harness_efficiency(measured, self._market.figures)
        if isinstance(found, NoComparison):
            return found
        alike = [figure for figure in self._market.figures if figure.concurrency == users]
        found = find_harness_efficiency(measured, alike)
        if isinstance(found, NoComparison):
            return Missing(t("published figures of this device and model are of other loads"))
        return found

    def _command(self, found: Answer) -> str | None:
        """Larger loads where the largest one holds, fewer where all break, the same again where it is not shown."""
        cell, limit = found.cell, found.limit
        unclear = cell if found.outcome is Outcome.NOT_SHOWN else None
        if limit is not None and limit.why in (Edge.SPEED_NOT_SHOWN, Edge.TTFT_NOT_SHOWN):
            unclear = limit.cell
        if unclear is not None:
            return command_again(self._run, unclear)
        if found.outcome is Outcome.NOT_MEASURED:
            first = min((cell for sweep in self._sweeps for cell in sweep.cells), key=lambda one: users_of(one) or 0)
            is_too_large = found.why_not is Edge.MEMORY and users_of(first) == 1
            return None if is_too_large else command_at(self._run, first, [1])
        if limit is None or cell is None or limit.why not in (Edge.NOT_MEASURED, Edge.FAILED, Edge.INVALID):
            return None
        users = users_of(cell)
        assert users is not None
        return command_at(self._run, cell, [2 * users, 4 * users] if limit.users is None else [limit.users])
