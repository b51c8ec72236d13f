"""Cells that differ in a choice: mode, kernels and options, type of the weights. Ratios are paired where they can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.limits.alike import (
    groups_alike,
    measured_steps,
    step_of,
    variant_of,
    without_dtype,
    without_mode,
    without_options,
)
from tokbench.derive.pairs import paired_ratio
from tokbench.derive.standing import estimate_of
from tokbench.stats import Estimate


class Variant(NamedTuple):
    """One choice beside the best of its group."""

    cell: CellResult
    name: str
    ratio: Estimate | Missing
    """Its step time over that of the best; no interval where no block holds both."""


@dataclasses.dataclass(frozen=True, slots=True)
class OptionsGroup:
    """Cells equal but for kernels and options, the fastest first."""

    variants: tuple[Variant, ...]


class Precision(NamedTuple):
    """One type of the weights beside the widest of its group."""

    cell: CellResult
    speed_ratio: Estimate | Missing
    """Its decode speed over that of the widest."""
    bytes_ratio: float | Missing
    """Bytes that a step of the widest reads over its own: the speed ratio if only bytes counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrecisionLadder:
    """Cells equal but for the type of their weights, the widest first."""

    steps: tuple[Precision, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class JitterRow:
    """One point of the sweep in every mode that ran: its spread of step times as `step_jitter_ratio`."""

    cells: tuple[CellResult, ...]


def jitter_rows(results: Results) -> tuple[JitterRow, ...]:
    """Points where at least one mode has enough steps."""
    groups = groups_alike(measured_steps(results.cells), without_mode)
    known = [group for group in groups if any(estimate_of(cell, "step_jitter_ratio") for cell in group)]
    return tuple(JitterRow(tuple(group)) for group in known)


def options_groups(results: Results) -> tuple[OptionsGroup, ...]:
    """A/B of kernels and options: only groups of at least two."""
    groups = [group for group in groups_alike(measured_steps(results.cells), without_options) if len(group) > 1]
    return tuple(OptionsGroup(_beside_best(sorted(group, key=step_of))) for group in groups)


def _beside_best(cells: Sequence[CellResult]) -> tuple[Variant, ...]:
    best = cells[0]
    itself = Estimate(1.0, None, None, len(best.repetitions.get("tpot_s", ())), "", "exact")
    others = [Variant(cell, variant_of(cell), _ratio(cell, best, "tpot_s")) for cell in cells[1:]]
    return (Variant(best, variant_of(best), itself), *others)


def precision_ladders(results: Results) -> tuple[PrecisionLadder, ...]:
    """Cells equal but for the type: only groups of at least two, the most bytes first."""
    groups = [group for group in groups_alike(measured_steps(results.cells), without_dtype) if len(group) > 1]
    return tuple(_ladder(sorted(group, key=lambda cell: -_bytes(cell))) for group in groups)


def _bytes(cell: CellResult) -> float:
    """Bytes of a step, for the order alone: cells whose bytes are not known come last."""
    value = estimate_of(cell, "bytes_read_per_step")
    return value.value if value is not None else 0.0


def _ladder(cells: Sequence[CellResult]) -> PrecisionLadder:
    widest = cells[0]
    itself = Estimate(1.0, None, None, len(widest.repetitions.get("tpot_s", ())), "", "exact")
    first = Precision(widest, itself, _bytes_ratio(widest, widest))
    others = [
        Precision(cell, _ratio(cell, widest, "decode_tokens_per_s"), _bytes_ratio(cell, widest)) for cell in cells[1:]
    ]
    return PrecisionLadder((first, *others))


def _bytes_ratio(cell: CellResult, widest: CellResult) -> float | Missing:
    for item in (cell, widest):
        value = item.metrics["bytes_read_per_step"]
        if isinstance(value, Missing):
            return value
    return _bytes(widest) / _bytes(cell)


def _ratio(cell: CellResult, other: CellResult, metric: str) -> Estimate | Missing:
    """Paired by block; else the ratio of the two estimates, which has no interval."""
    paired = paired_ratio(cell, other, metric)
    if isinstance(paired, Estimate):
        return paired
    ours, theirs = estimate_of(cell, metric), estimate_of(other, metric)
    if ours is None or theirs is None:
        return paired
    return Estimate(ours.value / theirs.value, None, None, 1, "", "ratio_of_estimates")
