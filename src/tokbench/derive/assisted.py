"""What the points of the experiment `assisted` say: our drafting beside transformers' own, on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult
from tokbench.record.observations import ExperimentPoint
from tokbench.record.run import Trial

OURS, THEIRS = "tokbench", "transformers"


class Sums(NamedTuple):
    """What one implementation did over all prompts, in the rounds that both begin alike."""

    rounds: int
    drafted: int
    accepted: int
    seconds: float
    """Of whole prompts, reading them included; a static batch of several rows counts once."""


class BothLoops(NamedTuple):
    """Both implementations in one cell."""

    cell: CellResult
    method: str
    gamma: int
    prompts: int
    """Different ones: a prompt that comes round again counts once, by its worst repetition."""
    same_tokens: int
    """Prompts whose output is the same token by token."""
    same_counts: int
    """Prompts with as many rounds, drafted and accepted tokens."""
    rows: int
    """In our static batch; transformers takes one prompt at a time."""
    ours: Sums
    theirs: Sums


def find_both(cells: Sequence[CellResult]) -> tuple[BothLoops, ...]:
    """The cells that ran the experiment, and what it saw in all their repetitions."""
    found = []
    for cell in cells:
        trials = [trial for trial in cell.record.good_trials() if _points(trial)]
        if trials:
            found.append(_both(cell, trials))
    return tuple(found)


def _points(trial: Trial) -> list[ExperimentPoint]:
    return [point for point in trial.points if point.experiment == "assisted"]


def _sides(trial: Trial) -> tuple[list[ExperimentPoint], list[ExperimentPoint]]:
    """Ours and theirs, row by row."""
    ours, theirs = ([p for p in _points(trial) if p.settings["implementation"] == name] for name in (OURS, THEIRS))
    return ours, theirs


def _by_prompt(trials: Sequence[Trial]) -> list[list[tuple[ExperimentPoint, ExperimentPoint]]]:
    """Both implementations in every repetition of each prompt; without a frozen set a row has one prompt in all."""
    found: dict[str, list[tuple[ExperimentPoint, ExperimentPoint]]] = {}
    for trial in trials:
        names = () if trial.prompts is None else trial.prompts.prompt_ids
        for one, other in zip(*_sides(trial), strict=True):
            row = int(one.settings["row"])
            found.setdefault(names[row] if row < len(names) else str(row), []).append((one, other))
    return list(found.values())


def _both(cell: CellResult, trials: Sequence[Trial]) -> BothLoops:
    ours, theirs = ([point for trial in trials for point in _sides(trial)[side]] for side in (0, 1))
    prompts = _by_prompt(trials)
    first = ours[0].settings
    return BothLoops(
        cell=cell,
        method=str(first["method"]),
        gamma=int(first["gamma"]),
        prompts=len(prompts),
        same_tokens=sum(all(_is_same(one) for one, _ in pairs) for pairs in prompts),
        same_counts=sum(all(_counts(one) == _counts(other) for one, other in pairs) for pairs in prompts),
        rows=int(first["rows"]),
        ours=_sums(ours, sum(_sides(trial)[0][0].duration_s for trial in trials)),
        theirs=_sums(theirs, sum(point.duration_s for point in theirs)),
    )


def _is_same(ours: ExperimentPoint) -> bool:
    return ours.values["same_tokens"] == ours.settings["output_tokens"]


def _counts(point: ExperimentPoint) -> tuple[int, ...]:
    return tuple(int(point.values[name]) for name in ("rounds", "drafted", "accepted"))


def _sums(points: Sequence[ExperimentPoint], seconds: float) -> Sums:
    rounds, drafted, accepted = (sum(column) for column in zip(*map(_counts, points), strict=True))
    return Sums(rounds, drafted, accepted, seconds)
