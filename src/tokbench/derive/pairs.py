"""Cells that differ in one thing only, set beside one another: modes of one engine, machines. Pairs, never pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.stats import Estimate, ratio

BASELINE_MODE = "eager"


class ModePair(NamedTuple):
    """One mode over the baseline mode of the same engine, all else equal."""

    cell: CellResult
    baseline: CellResult
    ratio: Estimate | Missing


class MachineRow(NamedTuple):
    """One point of the sweep on several machines or engines: one cell per run, None where a run lacks it."""

    cells: tuple[CellResult | None, ...]


def pair_modes(cells: Sequence[CellResult], metric: str) -> list[ModePair]:
    """Every other mode over `eager`, joined on run, engine and pair_key."""
    baselines = {_joint(cell): cell for cell in cells if cell.conditions.mode == BASELINE_MODE}
    found = []
    for cell in cells:
        baseline = baselines.get(_joint(cell))
        if baseline is not None and cell.conditions.mode != BASELINE_MODE:
            found.append(ModePair(cell, baseline, paired_ratio(cell, baseline, metric)))
    return found


def paired_ratio(cell: CellResult, baseline: CellResult, metric: str) -> Estimate | Missing:
    """The ratio of two cells over repetitions of the same number, which lie in the same block."""
    ours, theirs = _by_repetition(cell, metric), _by_repetition(baseline, metric)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        missing = cell if not ours else baseline
        value = missing.metrics.get(metric)
        return value if isinstance(value, Missing) else Missing("no repetition has the same number in both cells")
    if any(ours[number] <= 0 or theirs[number] <= 0 for number in shared):
        return Missing("a ratio needs positive values")
    return ratio([ours[number] for number in shared], [theirs[number] for number in shared])


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


def _by_repetition(cell: CellResult, metric: str) -> dict[int, float]:
    """Values by the number of their repetition: trials that failed in between keep their place."""
    values = cell.repetitions.get(metric, ())
    trials = cell.record.good_trials()
    if len(values) != len(trials):
        return {}
    return {trial.started.repetition: value for trial, value in zip(trials, values, strict=True)}
