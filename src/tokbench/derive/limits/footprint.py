"""Memory as predicted before the run beside memory as read; a cell that ran out of it is a row like any other."""

from __future__ import annotations

import dataclasses

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.standing import estimate_of
from tokbench.stats import Estimate


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of one cell."""

    cell: CellResult
    predicted_bytes: int | None
    """As planned (`arithmetic.predicted_memory_bytes`); None where the plan holds none."""
    peak: Estimate | Missing
    steady: Estimate | Missing
    peak_ratio: float | Missing
    """Peak over predicted."""


def footprints(results: Results) -> tuple[Footprint, ...]:
    """Cells that have a prediction and a peak, and those that ran out of memory."""
    rows = (_footprint(cell) for cell in results.cells)
    return tuple(row for row in rows if row.cell.status == "oom" or not isinstance(row.peak_ratio, Missing))


def _footprint(cell: CellResult) -> Footprint:
    predicted = cell.record.planned.predicted_memory_bytes
    peak = estimate_of(cell, "peak_memory_bytes")
    ratio: float | Missing
    if predicted is None or predicted <= 0:
        ratio = Missing("the plan holds no prediction of this cell's memory")
    elif peak is None:
        ratio = Missing(_reason(cell))
    else:
        ratio = peak.value / predicted
    return Footprint(cell, predicted, cell.metrics["peak_memory_bytes"], cell.metrics["steady_memory_bytes"], ratio)


def _reason(cell: CellResult) -> str:
    value = cell.metrics["peak_memory_bytes"]
    return value.reason if isinstance(value, Missing) else "no peak was read"
