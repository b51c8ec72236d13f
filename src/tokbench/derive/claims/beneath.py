"""What lies beneath a measured number: the record, the formula, and each repetition's raw events. Derives nothing."""

from __future__ import annotations

from collections import Counter

from tokbench.derive.claims.evidence import Beneath, Repetition
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import catalog
from tokbench.derive.repetitions import ByPrompt, ByWorker
from tokbench.record.run import Trial
from tokbench.record.store import EVENTS_FILE


def find_beneath(result: Results, cell: CellResult, metric: str) -> Beneath:
    """The way from one metric of one cell down to its events; an axis of a sweep has no formula."""
    values = cell.repetitions.get(metric, ())
    trials = cell.record.good_trials()
    is_each = len(values) == len(trials) and not isinstance(values, ByPrompt | ByWorker)
    each = values if is_each else [None] * len(trials)
    repetitions = [
        Repetition(trial.started.trial_id, trial.started.worker_id, value, events_of(trial))
        for trial, value in zip(trials, each, strict=True)
    ]
    item = catalog().get(metric)
    record = (result.run.folder / EVENTS_FILE).as_posix()
    return Beneath(record, cell.cell_id, metric, item.formula if item is not None else "", tuple(repetitions))


def events_of(trial: Trial) -> tuple[tuple[str, int], ...]:
    """The raw events of a repetition by kind, as they are called in the record; its frame is left out."""
    found: Counter[str] = Counter()
    for window in trial.windows.values():
        found["window_opened"] += 1
        for trace in window.steps:
            found[trace.event] += 1
    for events in (trial.requests, trial.speculation, trial.experts, trial.points, trial.memory):
        for event in events:
            found[event.event] += 1
    for one in (trial.prompts, trial.output):
        if one is not None:
            found[one.event] += 1
    return tuple(found.items())
