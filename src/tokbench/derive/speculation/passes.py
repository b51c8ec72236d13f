"""Seconds of one pass, from the points of the experiments `verify_cost` (m tokens a row) and `round_parts`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

from tokbench.record.observations import ExperimentPoint
from tokbench.record.run import Trial

EXPERIMENT: Final = "verify_cost"
PARTS: Final = "round_parts"


class Parts(NamedTuple):
    """Seconds of what a round is made of, each alone, and of the plain step beside it."""

    plain_s: float
    draft_s: float
    """All drafts of a round."""
    verify_s: float


def points_of(trial: Trial) -> list[ExperimentPoint]:
    """The points of one repetition."""
    return [point for point in trial.points if point.experiment == EXPERIMENT]


def seconds_by_m(points: Sequence[ExperimentPoint]) -> dict[int, float]:
    """Seconds of one pass: the median over the windows of each m, of which each holds several passes."""
    windows: dict[int, list[float]] = {}
    for point in points:
        windows.setdefault(int(point.settings["m"]), []).append(point.duration_s / point.values["passes"])
    return {m: statistics.median(times) for m, times in sorted(windows.items())}


def parts_of(trial: Trial) -> Parts | None:
    """The parts of one repetition, the median over the windows of each; None where they were not timed alone."""
    windows: dict[str, list[float]] = {}
    for point in trial.points:
        if point.experiment == PARTS:
            windows.setdefault(str(point.settings["part"]), []).append(point.duration_s / point.values["passes"])
    if not {"plain", "draft", "verify"} <= windows.keys():
        return None
    return Parts(*(statistics.median(windows[name]) for name in ("plain", "draft", "verify")))
