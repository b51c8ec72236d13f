"""What bounds each cell and how time grows: derived from one run's results, worded and drawn in `report/`."""

from __future__ import annotations

from tokbench.derive.bounds.curves import find_contexts, find_depths, find_prefills
from tokbench.derive.bounds.fits import fit_steps
from tokbench.derive.bounds.found import Bounds
from tokbench.derive.bounds.points import find_points
from tokbench.derive.bounds.rows import find_choices, find_memory, find_repeats
from tokbench.derive.bounds.verdicts import bound_cell
from tokbench.derive.evaluate import Results
from tokbench.derive.limits_ceiling import explain_ceiling

__all__ = ["Bounds", "find_bounds"]


def find_bounds(results: Results) -> Bounds:
    """Everything that one run tells about its limits; nothing where there are too few points."""
    points = find_points(results)
    fits, unfitted = fit_steps(points)
    bounds = [bound_cell(cell, fits) for cell in results.cells]
    return Bounds(
        run_name=results.name,
        points=points,
        fits=fits,
        unfitted=unfitted,
        cells=tuple(bound for bound in bounds if bound is not None),
        depths=tuple(find_depths(results.cells)),
        contexts=tuple(find_contexts(results.cells)),
        prefills=tuple(find_prefills(results.cells)),
        memory=tuple(find_memory(results.cells)),
        choices=tuple(find_choices(results.cells)),
        repeats=tuple(find_repeats(results.cells)),
        ceiling_sentences=explain_ceiling(results.run),
    )
