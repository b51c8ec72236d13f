"""Cells that differ in one thing only, set beside one another: modes of one engine, machines. Pairs, never pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.repetitions import ByPrompt, ByWorker
from tokbench.derive.words import mark, t
from tokbench.record.spec import CellSpec
from tokbench.stats import Comparison, Estimate, compare

BASELINE_MODE = "eager"
AMBIGUOUS = mark("several eager cells differ from it in more than the mode (device, attention or other engine options)")


class ModePair(NamedTuple):
    """One mode over the baseline mode of the same engine, all else equal."""

    cell: CellResult
    baseline: CellResult | None
    """None where it cannot be told which cell it is."""
    compared: Comparison | Missing

    @property
    def ratio(self) -> Estimate | Missing:
        """This mode over the baseline."""
        return self.compared if isinstance(self.compared, Missing) else self.compared.ratio


class CellPair(NamedTuple):
    """Two cells of one run that ask the same of different engines, or of one engine with other options."""

    cell: CellResult
    baseline: CellResult
    compared: Comparison | Missing


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
            found.append(ModePair(cell, alike[0], compare_cells(cell, alike[0], metric)))
        else:
            found.append(ModePair(cell, None, Missing(AMBIGUOUS)))
    return found


def pair_others(cells: Sequence[CellResult], metric: str) -> list[CellPair]:
    """Every other cell of a run over the first of its pair_key; without the pairs that `pair_modes` gives."""
    firsts: dict[tuple[str, str], CellResult] = {}
    modes = {(pair.cell.run_name, pair.cell.cell_id) for pair in pair_modes(cells, metric) if pair.baseline is not None}
    found = []
    for cell in cells:
        first = firsts.setdefault((cell.run_name, cell.pair_key), cell)
        if first is not cell and (cell.run_name, cell.cell_id) not in modes:
            found.append(CellPair(cell, first, compare_cells(cell, first, metric)))
    return found


def compare_cells(cell: CellResult, baseline: CellResult, metric: str) -> Comparison | Missing:
    """Set two cells of one run side by side over the blocks that hold both: what drifts under both cancels.

    Blocks that share a process of either cell are one pair: the process is what is replicated.
    """
    ours, theirs = _by_block(cell, metric), _by_block(baseline, metric)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        missing = cell if not ours else baseline
        value = missing.metrics.get(metric)
        return value if isinstance(value, Missing) else Missing(t("no block holds a repetition of both cells"))
    if any(value <= 0 for block in shared for _, value in (*ours[block], *theirs[block])):
        return Missing(t("a ratio needs positive values"))
    units = _merge([{worker for worker, _ in (*ours[block], *theirs[block])} for block in shared])
    sides = [
        [[value for index in unit for _, value in values[shared[index]]] for unit in units] for values in (theirs, ours)
    ]
    return compare(sides[0], sides[1], paired=True)


def paired_ratio(cell: CellResult, baseline: CellResult, metric: str) -> Estimate | Missing:
    """The ratio of two cells of one run over the blocks that hold both."""
    compared = compare_cells(cell, baseline, metric)
    return compared if isinstance(compared, Missing) else compared.ratio


def _merge(workers: Sequence[set[str]]) -> list[list[int]]:
    """Indices of blocks, those together that share a worker."""
    units: list[tuple[set[str], list[int]]] = []
    for index, names in enumerate(workers):
        linked = [unit for unit in units if unit[0] & names]
        units = [unit for unit in units if not unit[0] & names]
        merged = names.union(*(unit[0] for unit in linked))
        units.append((merged, [*(member for unit in linked for member in unit[1]), index]))
    return [members for _, members in units]


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


def _by_block(cell: CellResult, metric: str) -> dict[int, list[tuple[str, float]]]:
    """Worker process and value of each repetition, by the block that it lies in."""
    values = cell.repetitions.get(metric, ())
    blocks: dict[int, list[tuple[str, float]]] = {}
    if isinstance(values, ByWorker):  # energy: one value per energy trial, of which a worker has its own
        block_of = {trial.started.worker_id: trial.started.block for trial in reversed(cell.record.all_trials())}
        for worker, value in zip(values.workers, values, strict=True):
            blocks.setdefault(block_of[worker], []).append((worker, value))
        return blocks
    trials = cell.record.good_trials()
    if len(values) == len(trials) and not isinstance(values, ByPrompt):  # a prompt lies in no block
        for trial, value in zip(trials, values, strict=True):
            blocks.setdefault(trial.started.block, []).append((trial.started.worker_id, value))
    return blocks
