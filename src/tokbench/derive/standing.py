"""Where a machine stands: the best cells of the runs, set beside published figures. Words nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.arithmetic import count_parameters
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.derive.metrics.roofline import shape_of_cell
from tokbench.derive.published import Comparison, Measured, NoComparison, PublishedFigure, compare_with_published
from tokbench.derive.validity import Code
from tokbench.record.run import Run
from tokbench.stats import Estimate

PER_USER = "decode_tokens_per_s"
SYSTEM = "output_tokens_per_s"
COMPARED = (PER_USER, "ttft_s")
"""What is set beside published figures, for the cell of each run and model that is fastest per user."""
_VERDICTS = ("valid", "suspect", "invalid")
_MATCHES = ("same_model", "same_size_class", "nearest_size")


class Beside(NamedTuple):
    """One number of one cell beside what one vendor published, or why nothing can be."""

    cell: CellResult
    outcome: Comparison | NoComparison


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

    def nearest(self, vendor: str) -> Beside | None:
        """The most telling comparison of decode speed with a vendor: the closest model, then our fastest."""
        found = [item for item in self.beside if _is_of(item, vendor)]
        return min(found, key=_distance) if found else None


def take_standing(results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> Standing:
    """Pick the best cells and set them beside each vendor's figures."""
    cells = [cell for item in results for cell in item.cells]
    groups: dict[tuple[str, str | None], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.run_name, cell.conditions.model), []).append(cell)
    champions = tuple(best for group in groups.values() if (best := best_cell(group, PER_USER)) is not None)
    runs = {item.name: item.run for item in results}
    beside = [row for cell in champions for row in _set_beside(cell, runs[cell.run_name], figures, vendors)]
    return Standing(best_cell(cells, PER_USER), best_cell(cells, SYSTEM), champions, tuple(beside))


def best_cell(cells: Sequence[CellResult], metric: str) -> CellResult | None:
    """The cell with the highest value; None where no cell has the metric.

    An invalid cell, and one of too few repetitions, is taken only where there is no other; any other doubt is told
    beside the number and chooses nothing.
    """
    rated = [(cell, value) for cell in cells if isinstance(value := cell.metrics.get(metric), Estimate)]
    if not rated:
        return None
    return min(rated, key=lambda pair: (_gives_way(pair[0]), -pair[1].value))[0]


def _gives_way(cell: CellResult) -> int:
    if cell.validity.verdict == "invalid":
        return 2
    return int(Code.TOO_FEW_REPETITIONS in cell.validity.reasons)


def estimate_of(cell: CellResult | None, metric: str) -> Estimate | None:
    """The estimate of a metric, None where it is missing."""
    value = cell.metrics.get(metric) if cell is not None else None
    return value if isinstance(value, Estimate) else None


def _set_beside(cell: CellResult, run: Run, figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> list[Beside]:
    total_b, active_b = _sizes_b(cell, run)
    rows: list[Beside] = []
    for metric in COMPARED:
        value = estimate_of(cell, metric)
        if value is not None:
            measured = Measured(value, metric, cell.conditions, total_b, active_b)
            rows += [Beside(cell, outcome) for outcome in compare_with_published(measured, figures, vendors)]
    return rows


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


def _distance(item: Beside) -> tuple[int, float, int, float]:
    outcome = item.outcome
    if isinstance(outcome, NoComparison):
        return len(_MATCHES), math.inf, 0, 0.0
    size = outcome.their_size_over_ours
    apart = math.inf if size is None else abs(math.log(size))
    apart = 0.0 if outcome.match == "same_model" else apart
    return _MATCHES.index(outcome.match), apart, _VERDICTS.index(item.cell.validity.verdict), -outcome.ours.value
