"""Cells that differ in one thing only, set beside one another: modes of one engine, machines. Pairs, never pools."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.record.spec import CellSpec
from tokbench.stats import Estimate, ratio

BASELINE_MODE = "eager"
AMBIGUOUS = "several eager cells differ from it in more than the mode (device, attention or other engine options)"


class ModePair(NamedTuple):
    """One mode over the baseline mode of the same engine, all else equal."""

    cell: CellResult
    baseline: CellResult | None
    """None where it cannot be told which cell it is."""
    ratio: Estimate | Missing


class MachineRow(NamedTuple):
    """One point of the sweep on several machines or engines: one cell per run, None where a run lacks it."""

    cells: tuple[CellResult | None, ...]


def pair_modes(cells: Sequence[CellResult], metric: str) -> list[ModePair]:
    """Every other mode over `eager`, joined on run, engine and pair_key; of several, the one alike in all but mode."""
    baselines: dict[tuple[str, str | None, str], list[CellResult]] = {}
    for cell in cells:
        if cell.conditions.mode == BASELINE_MODE:
            baselines.setdefault(_joint(cell), []).append(cell)
    found = []
    for cell in cells:
        eager = baselines.get(_joint(cell), [])
        if not eager or cell.conditions.mode == BASELINE_MODE:
            continue
        alike = [other for other in eager if _without_mode(other) == _without_mode(cell)] or eager
        if len(alike) == 1:
            found.append(ModePair(cell, alike[0], paired_ratio(cell, alike[0], metric)))
        else:
            found.append(ModePair(cell, None, Missing(AMBIGUOUS)))
    return found


def paired_ratio(cell: CellResult, baseline: CellResult, metric: str) -> Estimate | Missing:
    """The ratio of two cells over the blocks that hold both: one pair per block, of geometric means."""
    ours, theirs = _by_block(cell, metric), _by_block(baseline, metric)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        missing = cell if not ours else baseline
        value = missing.metrics.get(metric)
        return value if isinstance(value, Missing) else Missing("no block holds a repetition of both cells")
    if any(value <= 0 for block in shared for value in (*ours[block], *theirs[block])):
        return Missing("a ratio needs positive values")
    means = [[statistics.geometric_mean(values[block]) for block in shared] for values in (ours, theirs)]
    return ratio(means[0], means[1])


def join_machines(results: Sequence[Results]) -> list[MachineRow]:
    """Points of the sweep that at least two runs hold, joined on pair_key and mode."""
    rows: dict[tuple[str, str | None], dict[str, CellResult]] = {}
    for item in results:
        for cell in item.cells:
            rows.setdefault((cell.pair_key, cell.conditions.mode), {}).setdefault(item.name, cell)
    names = [item.name for item in results]
    return [MachineRow(tuple(row.get(name) for name in names)) for row in rows.values() if len(row) > 1]


def _joint(cell: CellResult) -> tuple[str, str | None, str]:
    return cell.run_name, cell.conditions.engine, cell.pair_key


def _without_mode(cell: CellResult) -> CellSpec:
    spec = cell.record.spec
    return spec.model_copy(update={"engine": spec.engine.model_copy(update={"mode": BASELINE_MODE}), "labels": {}})


def _by_block(cell: CellResult, metric: str) -> dict[int, list[float]]:
    """Values by the block that their repetition lies in."""
    values = cell.repetitions.get(metric, ())
    trials = cell.record.good_trials()
    blocks: dict[int, list[float]] = {}
    if len(values) == len(trials):
        for trial, value in zip(trials, values, strict=True):
            blocks.setdefault(trial.started.block, []).append(value)
    return blocks
