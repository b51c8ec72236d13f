"""Seconds of one forward pass over m tokens a row, from the points of the experiment `verify_cost`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from tokbench.record.observations import ExperimentPoint
from tokbench.record.run import Trial

EXPERIMENT: Final = "verify_cost"


def points_of(trial: Trial) -> list[ExperimentPoint]:
    """The points of one repetition."""
    return [point for point in trial.points if point.experiment == EXPERIMENT]


def seconds_by_m(points: Sequence[ExperimentPoint]) -> dict[int, float]:
    """Seconds of one pass: the median over the windows of each m, of which each holds several passes."""
    windows: dict[int, list[float]] = {}
    for point in points:
        windows.setdefault(int(point.settings["m"]), []).append(point.duration_s / point.values["passes"])
    return {m: statistics.median(times) for m, times in sorted(windows.items())}
