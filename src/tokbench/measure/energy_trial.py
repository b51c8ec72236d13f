"""The energy trial of a visit: how long its windows are, and what it needs of the sampler. It measures nothing."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

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

    def total_s(self, trial_s: float | None) -> float:
        """About how long the trial takes; `trial_s` is a repetition, which each window of work may outlast by."""
        return self.idle_s + 2 * self.window_s + 2 * (trial_s or 0.0)


def window_lengths(spec: Literal["auto", "off"] | EnergySpec, period_s: float | None, *, is_gpu: bool) -> Lengths:
    """As the config says, else long enough for the slowest counter."""
    if isinstance(spec, EnergySpec) and spec.window is not None:
        return Lengths(spec.window, spec.window)
    period_s = UNKNOWN_PERIOD_S if period_s is None else period_s
    window_s = max(LEAST_WINDOW_S, PERIODS * period_s) + EDGES * period_s
    return Lengths(max(window_s, GPU_IDLE_S if is_gpu else LEAST_IDLE_S), window_s)
