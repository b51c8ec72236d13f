"""Where a machine stands: the best cells of the runs, set beside published figures. Words nothing.

Every ratio stands beside the harness efficiency of its cell, so that a gap of the harness is not taken for one of the
device. Nothing projected enters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.arithmetic import count_parameters
from tokbench.derive.cell_shape import shape_of_cell
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.derive.published import (
    Comparison,
    Measured,
    NoComparison,
    PublishedFigure,
    compare_with_published,
    find_harness_efficiency,
    model_key,
)
from tokbench.derive.validity import Code
from tokbench.record.run import Run
from tokbench.stats import Estimate

PER_USER = "decode_tokens_per_s"
SYSTEM = "output_tokens_per_s"
TTFT = "ttft_s"
COST = "usd_per_million_output_tokens"
PER_USER_COMPARED = (PER_USER, TTFT)
"""What is set beside published figures, for the cell of each run and model that is fastest per user."""
SYSTEM_COMPARED = (SYSTEM, COST)
"""The same for the cell that is fastest for all users together: it is the cheapest per token too."""
_STREAM_SPEEDS = (PER_USER, "e2e_tokens_per_s")
HARNESS_OF = {PER_USER: _STREAM_SPEEDS, TTFT: _STREAM_SPEEDS, SYSTEM: (SYSTEM,), COST: (SYSTEM,)}
"""The speeds whose harness efficiency stands beside a ratio of each metric; the first that there is a figure for."""
ENDPOINT_ENGINES = frozenset({"openai"})
"""Engines that measure a service over its network interface; all others measure in the engine's own process."""
FEW_LEAD = 1.5
"""A cell of one or two repetitions comes first only by more than this factor: less may be one good moment. More is not,
and a batch that gives twice the tokens must not be hidden for its few repetitions."""
_VERDICTS = ("valid", "suspect", "invalid")
_MATCHES = ("same_model", "same_size_class", "nearest_size")


class Beside(NamedTuple):
    """One number of one cell beside what one vendor published, or why nothing can be."""

    cell: CellResult
    outcome: Comparison | NoComparison
    harness: Comparison | NoComparison | None = None
    """The cell's speed beside the best published for its own device and model; None where it has no such speed."""


class LikeCount(NamedTuple):
    """How many of the comparisons that were made are like for like."""

    alike: int
    compared: int


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """What a report speaks of first."""

    fastest: CellResult | None
    """The best decode speed of one stream."""
    busiest: CellResult | None
    """The best output speed of all streams together."""
    champions: tuple[CellResult, ...]
    """The fastest cell per user of each run and model."""
    beside: tuple[Beside, ...]
    targets: tuple[PublishedFigure, ...] = ()
    """Per model, the fastest single stream that one of the vendors published: what a projection is set against."""

    def nearest(self, vendor: str) -> Beside | None:
        """The most telling comparison of decode speed: one that may be shown, the closest model, then our fastest."""
        found = [item for item in self.beside if _is_of(item, vendor)]
        return min(found, key=_distance) if found else None

    def count_alike(self) -> LikeCount:
        """How many comparisons are like for like, of all that were made, those of the appendix included."""
        made = [item.outcome for item in self.beside if isinstance(item.outcome, Comparison)]
        return LikeCount(sum(outcome.is_like_for_like for outcome in made), len(made))


def take_standing(results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> Standing:
    """Pick the best cells and set them beside each vendor's figures; cut models only where nothing else ran."""
    cells = [cell for item in results for cell in item.cells]
    cells = [cell for cell in cells if not is_cut(cell)] or cells
    groups: dict[tuple[str, str | None], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.run_name, cell.conditions.model), []).append(cell)
    runs = {item.name: item.run for item in results}
    champions: list[CellResult] = []
    beside: list[Beside] = []
    for group in groups.values():
        for ranked_by, metrics in ((PER_USER, PER_USER_COMPARED), (SYSTEM, SYSTEM_COMPARED)):
            best = best_cell(group, ranked_by)
            if best is None:
                continue
            if ranked_by == PER_USER:
                champions.append(best)
            beside += _set_beside(_Candidate(best, runs[best.run_name]), metrics, figures, vendors)
    targets = find_targets(figures, vendors)
    return Standing(best_cell(cells, PER_USER), best_cell(cells, SYSTEM), tuple(champions), tuple(beside), targets)


def find_targets(figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> tuple[PublishedFigure, ...]:
    """The fastest single stream that one of the vendors published for each model, in the order of the models' sizes."""
    asked = {vendor.lower() for vendor in vendors}
    fastest: dict[str, PublishedFigure] = {}
    for figure in figures:
        if figure.vendor not in asked or figure.metric != PER_USER or figure.concurrency != 1 or figure.model is None:
            continue
        known = fastest.get(model_key(figure.model))
        if figure.superseded_by is None and (known is None or (figure.value, figure.id) > (known.value, known.id)):
            fastest[model_key(figure.model)] = figure
    return tuple(sorted(fastest.values(), key=lambda figure: (figure.total_params_b or math.inf, figure.id)))


def is_cut(cell: CellResult) -> bool:
    """Whether the model was run with another number of layers than its own: an instrument that nobody would serve."""
    return cell.record.spec.model.layers is not None


def best_cell(cells: Sequence[CellResult], metric: str) -> CellResult | None:
    """The cell with the highest value; None where no cell has the metric.

    An invalid cell is taken only where there is no other, so is one of random weights, of replayed acceptance, or of
    a rule that takes wrong drafts. One of too few repetitions comes first only where it leads by FEW_LEAD; any other
    doubt is told beside the number and chooses nothing.
    """
    rated = [(cell, value) for cell in cells if isinstance(value := cell.metrics.get(metric), Estimate)]
    if not rated:
        return None
    return max(rated, key=lambda pair: _rank(pair[0], pair[1].value))[0]


def _rank(cell: CellResult, value: float) -> tuple[bool, bool, float]:
    is_real = cell.conditions.weights not in ("random", "replay") and not is_lossy(cell)
    return cell.validity.verdict != "invalid", is_real, weigh(cell, value)


def is_lossy(cell: CellResult) -> bool:
    """Whether drafts are accepted that the model would not have chosen: a control, and nobody's speed."""
    speculation = cell.record.spec.speculation
    return speculation != "none" and speculation.accept != "lossless"


def weigh(cell: CellResult, value: float) -> float:
    """The value as it counts where cells are ranked: less by FEW_LEAD where too few repetitions hold it up."""
    return value / FEW_LEAD if Code.TOO_FEW_REPETITIONS in cell.validity.reasons else value


def estimate_of(cell: CellResult | None, metric: str) -> Estimate | None:
    """The estimate of a metric, None where it is missing."""
    value = cell.metrics.get(metric) if cell is not None else None
    return value if isinstance(value, Estimate) else None


class _Candidate(NamedTuple):
    """A cell that is set beside figures, and the run that it is of."""

    cell: CellResult
    run: Run

    def measured(self, metric: str) -> Measured | None:
        """A number of the cell with what it takes to find its match; None where the metric is missing."""
        value = estimate_of(self.cell, metric)
        if value is None:
            return None
        is_endpoint = self.cell.record.spec.engine.kind in ENDPOINT_ENGINES
        return Measured(value, metric, self.cell.conditions, *_sizes_b(self.cell, self.run), is_endpoint)


def _set_beside(
    candidate: _Candidate, metrics: Sequence[str], figures: Sequence[PublishedFigure], vendors: Sequence[str]
) -> list[Beside]:
    rows: list[Beside] = []
    for metric in metrics:
        measured = candidate.measured(metric)
        if measured is not None and vendors:
            harness = _find_harness(candidate, HARNESS_OF[metric], figures)
            outcomes = compare_with_published(measured, figures, vendors)
            rows += [Beside(candidate.cell, outcome, harness) for outcome in outcomes]
    return rows


def _find_harness(
    candidate: _Candidate, speeds: Sequence[str], figures: Sequence[PublishedFigure]
) -> Comparison | NoComparison | None:
    """The harness efficiency of the first speed that has one; else why the first that was measured has none."""
    measured = [value for metric in speeds if (value := candidate.measured(metric)) is not None]
    found = [find_harness_efficiency(value, figures) for value in measured]
    return next((one for one in found if isinstance(one, Comparison)), found[0] if found else None)


def _sizes_b(cell: CellResult, run: Run) -> tuple[float | None, float | None]:
    """Total and active parameters in 1e9, None where they are not known."""
    model = cell.record.model
    total = model.parameters if model is not None else None
    try:
        active: int | None = count_parameters(shape_of_cell(CellContext(cell.record, run))).active
    except UndefinedError:
        active = None
    return (None if total is None else total / 1e9), (None if active is None else active / 1e9)


def _is_of(item: Beside, vendor: str) -> bool:
    return item.outcome.vendor == vendor and item.outcome.metric == PER_USER


def _distance(item: Beside) -> tuple[bool, int, float, int, float]:
    outcome = item.outcome
    if isinstance(outcome, NoComparison):
        return True, len(_MATCHES), math.inf, 0, 0.0
    size = outcome.their_size_over_ours
    apart = math.inf if size is None else abs(math.log(size))
    apart = 0.0 if outcome.match == "same_model" else apart
    verdict = _VERDICTS.index(item.cell.validity.verdict)
    return not outcome.is_presentable, _MATCHES.index(outcome.match), apart, verdict, -outcome.ours.value
