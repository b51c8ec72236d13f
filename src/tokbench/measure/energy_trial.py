"""The energy trial of a visit: how long its windows are, and what it needs of the sampler. It measures nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from tokbench.record.run import Run
from tokbench.record.spec import EnergySpec

LEAST_WINDOW_S = 2.0
PERIODS = 40
"""Periods of a counter in a window: movements seen within 0.1 of a period at either end then bound it to 1 %, with a
wide margin for series of looks that are left out."""
EDGES = 2
"""Periods that the window is longer: its first and its last movement lie up to one within."""
UNKNOWN_PERIOD_S = 0.1
"""Of a counter whose period is not known yet: the longest of a GPU's. Source: shared/facts/energy.md, 2.1."""
LEAST_IDLE_S, GPU_IDLE_S = 2.0, 5.0


class EnergySource(Protocol):
    """What a visit needs of the sampler."""

    def has_meters(self) -> bool:
        """Whether any meter can be read."""

    def period_s(self) -> float | None:
        """The longest period of a counter that is known by now."""

    def begin_energy(self) -> None:
        """Look closely at the counters from now on."""

    def end_energy(self) -> None:
        """No more."""


class Lengths(NamedTuple):
    """How long the windows of an energy trial last."""

    idle_s: float
    window_s: float

    def total_s(self, trial_s: float | None, *, has_work: bool) -> float:
        """About how long the trial takes; `trial_s` is a repetition, which each window of work may outlast by.

        `has_work`: of a static batch; requests have an idle window alone.
        """
        return self.idle_s + (2 * self.window_s + 2 * (trial_s or 0.0) if has_work else 0.0)


def why_no_time(needed_s: float, left_s: float, trial_s: float) -> str | None:
    """Why an energy trial cannot take place: the budget's rest or `budget.trial` is too short; None where it can."""
    if left_s < needed_s:
        return f"it needs {needed_s:.0f} s, and {left_s:.0f} s of the budget are left"
    if trial_s < needed_s:
        return f"it needs {needed_s:.0f} s, and a trial may take {trial_s:.0f} s (budget.trial)"
    return None


def lost_before(earlier: Run) -> set[str]:
    """Cells whose energy trial failed in an earlier part of a run: they have no further one in this run either.

    One that was left out for lack of time did not fail, and is made up for.
    """
    return {
        cell.cell_id
        for cell in earlier.cells.values()
        for trial in cell.energy_trials
        if trial.failed is not None and trial.failed.cause != "skipped"
    }


def window_lengths(spec: Literal["auto", "off"] | EnergySpec, period_s: float | None, *, is_gpu: bool) -> Lengths:
    """As the config says, else long enough for the slowest counter."""
    if isinstance(spec, EnergySpec) and spec.window is not None:
        return Lengths(spec.window, spec.window)
    period_s = UNKNOWN_PERIOD_S if period_s is None else period_s
    window_s = max(LEAST_WINDOW_S, PERIODS * period_s) + EDGES * period_s
    return Lengths(max(window_s, GPU_IDLE_S if is_gpu else LEAST_IDLE_S), window_s)
