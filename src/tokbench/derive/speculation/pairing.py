"""A cell with drafts beside the same cell without: paired repetitions of one block. Knows nothing of costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

from tokbench.derive.repetitions import ByWorker, UndefinedError, decode_rate, finished_trials
from tokbench.derive.speculation.passes import PARTS
from tokbench.derive.speculation.rounds import drafting_of
from tokbench.derive.words import t
from tokbench.record.run import CellRecord, Run, Trial
from tokbench.record.spec import CellSpec


class Pair(NamedTuple):
    """One repetition with drafts, and the plain decode speed beside it."""

    trial: Trial
    plain_tokens_per_s: float
    """Of one row: the mean of the plain repetitions of the same block."""


def find_baseline(run: Run, cell: CellRecord) -> CellRecord:
    """The cell of the run that asks the same without drafts.

    Raises:
        UndefinedError: the cell drafts nothing, or there is no such cell.
    """
    drafting_of(cell)
    wanted = unprobed(cell.spec)
    for other in run.cells.values():
        if other.spec.speculation == "none" and unprobed(other.spec) == wanted:
            return other
    raise UndefinedError(t("no cell of this run asks the same without drafts: add `none` to speculation"))


def unprobed(spec: CellSpec) -> str:
    """All that is asked of a cell but drafts, labels, checks outside windows, and a look at the parts of its rounds."""
    tree = spec.model_copy(update={"speculation": "none", "labels": {}})
    if tree.experiment != "none" and tree.experiment.kind == PARTS:
        tree = tree.model_copy(update={"experiment": "none"})
    engine = tree.engine.model_copy(update={"check_tokens": 0, "check_repeat": False})
    return tree.model_copy(update={"engine": engine}).model_dump_json()


def find_pairs(run: Run, cell: CellRecord) -> list[Pair]:
    """The repetitions that have plain ones in their block; those on the same prompts are preferred.

    Raises:
        UndefinedError: there is no such cell, or no block holds a repetition of both cells.
    """
    plain = finished_trials(find_baseline(run, cell))
    pairs = []
    for trial in finished_trials(cell):
        beside = [other for other in plain if other.started.block == trial.started.block]
        alike = [other for other in beside if _prompts(other) == _prompts(trial)] or beside
        if alike:
            pairs.append(Pair(trial, statistics.fmean(decode_rate(other) for other in alike)))
    if not pairs:
        raise UndefinedError(t("no block holds a repetition of both cells"))
    return pairs


def _prompts(trial: Trial) -> tuple[str, ...]:
    return () if trial.prompts is None else trial.prompts.prompt_ids


def by_pair(run: Run, cell: CellRecord, value: Callable[[Pair], float]) -> ByWorker | tuple[float, ...]:
    """A value for each pair: one per repetition where every repetition has one, else told by its process.

    Raises:
        UndefinedError: there is no pair.
    """
    pairs = find_pairs(run, cell)
    values = tuple(value(pair) for pair in pairs)
    if len(pairs) == len(cell.good_trials()):
        return values
    return ByWorker.of((pair.trial.started.worker_id, found) for pair, found in zip(pairs, values, strict=True))
