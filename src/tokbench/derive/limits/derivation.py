"""Results -> Limits: all that the record says about what bounds its cells. Pure: it reads no file and no device."""

from __future__ import annotations

import dataclasses

from tokbench.derive.evaluate import Missing, Results
from tokbench.derive.limits.bounds import Bound, bound_cells
from tokbench.derive.limits.footprint import Footprint, footprints
from tokbench.derive.limits.memory_fit import FitGroup, fit_groups
from tokbench.derive.limits.roofline import Roofline, place_cells
from tokbench.derive.limits.sweeps import (
    ContextSweep,
    DepthSweep,
    PrefillSweep,
    context_sweeps,
    depth_sweeps,
    prefill_sweeps,
)
from tokbench.derive.limits.variants import (
    JitterRow,
    OptionsGroup,
    PrecisionLadder,
    jitter_rows,
    options_groups,
    precision_ladders,
)
from tokbench.derive.limits_ceiling import explain_ceiling


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the cells of one run, how far they are from the device's rates, and what changes it."""

    results: Results
    bounds: dict[str, Bound | Missing]
    """By cell_id."""
    ceiling: tuple[str, ...]
    """Sentences on the read ceiling beside the datasheet."""
    fits: tuple[FitGroup, ...]
    depth: tuple[DepthSweep, ...]
    context: tuple[ContextSweep, ...]
    prefill: tuple[PrefillSweep, ...]
    jitter: tuple[JitterRow, ...]
    memory: tuple[Footprint, ...]
    options: tuple[OptionsGroup, ...]
    precision: tuple[PrecisionLadder, ...]
    roofline: Roofline


def derive_limits(results: Results) -> Limits:
    """Derive the limits of one run."""
    fits = fit_groups(results)
    return Limits(
        results=results,
        bounds=bound_cells(results, fits),
        ceiling=explain_ceiling(results.run),
        fits=fits,
        depth=depth_sweeps(results),
        context=context_sweeps(results),
        prefill=prefill_sweeps(results),
        jitter=jitter_rows(results),
        memory=footprints(results),
        options=options_groups(results),
        precision=precision_ladders(results),
        roofline=place_cells(results),
    )
