"""What the points of the experiment `assisted` say: our drafting beside transformers' own, on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult
from tokbench.record.observations import ExperimentPoint

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
        trials = [[p for p in trial.points if p.experiment == "assisted"] for trial in cell.record.good_trials()]
        kept = [points for points in trials if points]
        if kept:
            found.append(_both(cell, kept))
    return tuple(found)


def _both(cell: CellResult, trials: Sequence[Sequence[ExperimentPoint]]) -> BothLoops:
    ours, theirs = (
        [p for points in trials for p in points if p.settings["implementation"] == n] for n in (OURS, THEIRS)
    )
    pairs = list(zip(ours, theirs, strict=True))
    first = ours[0].settings
    return BothLoops(
        cell=cell,
        method=str(first["method"]),
        gamma=int(first["gamma"]),
        prompts=len(pairs),
        same_tokens=sum(one.values["same_tokens"] == one.settings["output_tokens"] for one in ours),
        same_counts=sum(_counts(one) == _counts(other) for one, other in pairs),
        rows=int(first["rows"]),
        ours=_sums(ours, sum(points[0].duration_s for points in trials)),
        theirs=_sums(theirs, sum(point.duration_s for point in theirs)),
    )


def _counts(point: ExperimentPoint) -> tuple[int, ...]:
    return tuple(int(point.values[name]) for name in ("rounds", "drafted", "accepted"))


def _sums(points: Sequence[ExperimentPoint], seconds: float) -> Sums:
    rounds, drafted, accepted = (sum(column) for column in zip(*map(_counts, points), strict=True))
    return Sums(rounds, drafted, accepted, seconds)
