"""In which order a coarse pass visits cells. Pure."""

from __future__ import annotations

from tokbench.measure.plan import PlannedCell


def tiers(cells: list[PlannedCell]) -> list[list[PlannedCell]]:
    """The coarse pass in two parts: the smallest batches of every group first, so that each mode has a number early."""
    smallest = min((coarse_value(cell)[0] for cell in cells), default=0)
    first = [cell for cell in cells if coarse_value(cell)[0] == smallest]
    return [tier for tier in (first, [cell for cell in cells if cell not in first]) if tier]


def coarse_value(planned: PlannedCell) -> tuple[float, int]:
    """Coarse order: a single stream first, then growing batches, short prompts before long."""
    load = planned.cell.spec.load
    rows = load.static_batch if load.kind == "static_batch" else 1
    return rows, planned.cell.spec.workload.prompt_tokens or 0
