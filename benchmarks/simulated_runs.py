"""Runs with a known answer: worker processes that differ, repetitions that depend on one another, a drifting machine.

Nothing here is measured: the true ratio is given and the true value is what the drift was on average, so an interval
can be judged.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """How the values of one cell vary, as standard deviations and amplitudes of logarithms."""

    name: str
    between: float
    """From worker process to worker process."""
    within: float
    """From repetition to repetition of one process; each repeats `correlation` of the one before."""
    drift: float
    """A straight line over the run, from -drift to +drift or the other way round."""
    wave: float
    """Amplitude of a sine with half to one and a half periods in a run, and any phase."""
    between_runs: float = 0.0
    """From run to run: another day, another temperature, another neighbour."""
    correlation: float = 0.5

    @property
    def spread(self) -> float:
        """Standard deviation of a block of one repetition."""
        return float(np.hypot(self.between, self.within))

    def without_drift(self) -> Machine:
        """The same, standing still."""
        return dataclasses.replace(self, name=f"{self.name}, drift removed", drift=0.0, wave=0.0)

    def in_another_run(self, between_runs: float) -> Machine:
        """The same, with a level for each run."""
        return dataclasses.replace(self, between_runs=between_runs)


MACHINES = (
    Machine("quiet GPU", between=0.003, within=0.005, drift=0.005, wave=0.002),
    Machine("shared CPU", between=0.010, within=0.015, drift=0.010, wave=0.005),
    Machine("drifting CPU", between=0.010, within=0.015, drift=0.030, wave=0.010),
    Machine("processes differ", between=0.018, within=0.008, drift=0.010, wave=0.005),
    Machine("crowded CPU", between=0.040, within=0.060, drift=0.030, wave=0.010),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How many trials of the experiment, blocks in each, and repetitions in each block."""

    trials: int
    blocks: int
    repetitions: int


class Simulated(NamedTuple):
    """Trials of one run that holds two cells."""

    a: Floats
    """(trials, blocks, repetitions)"""
    b: Floats
    truth_of_a: Floats
    """(trials, blocks): the machine's average until the end of that block; the offset of the run is no part of it."""


def simulate(machine: Machine, shape: Shape, ratio: float, rng: np.random.Generator) -> Simulated:
    """Runs of a and b; a block is a worker process of each, and each block takes them in the other order.

    a b, b a, a b … as docs/design/budget.md has it, or the other way round.
    """
    first = rng.permuted(np.broadcast_to([0, 1], (shape.trials, 2)), axis=1)[:, :1]
    a_place = (first + np.arange(shape.blocks)) % 2
    drift = _drift(machine, shape, rng)
    offset = machine.between_runs * rng.standard_normal((shape.trials, 1, 1))
    values = []
    for place, effect in ((a_place, 0.0), (1 - a_place, np.log(ratio))):
        in_place = np.take_along_axis(drift, place[:, :, None, None], axis=2)[:, :, 0]
        values.append(np.exp(in_place + offset + effect + _process_noise(machine, shape, rng)))
    per_block = drift.mean(axis=(2, 3))
    until = np.cumsum(per_block, axis=1) / np.arange(1, shape.blocks + 1)
    return Simulated(values[0], values[1], np.exp(until))


def tokens_of(values: Floats, tokens: int, spread: float, rng: np.random.Generator) -> Floats:
    """Per-token samples (trials, all tokens) around the repetitions' values."""
    noise = spread * rng.standard_normal((*values.shape, tokens))
    return np.asarray(values[..., None] * np.exp(noise)).reshape(len(values), -1)


def _drift(machine: Machine, shape: Shape, rng: np.random.Generator) -> Floats:
    """What the machine adds at each instant (trials, blocks, 2 places, repetitions), centred on the run's mean."""
    time = np.linspace(-1, 1, shape.blocks * 2 * shape.repetitions)
    sign = rng.choice([-1.0, 1.0], (shape.trials, 1))
    periods, phase = rng.uniform(0.5, 1.5, (shape.trials, 1)), rng.uniform(0, 2 * np.pi, (shape.trials, 1))
    total = machine.drift * sign * time + machine.wave * np.sin(np.pi * periods * time + phase)
    total -= total.mean(axis=1, keepdims=True)
    return np.asarray(total).reshape(shape.trials, shape.blocks, 2, shape.repetitions)


def _process_noise(machine: Machine, shape: Shape, rng: np.random.Generator) -> Floats:
    """A level for each process and a stationary first-order autoregression inside it."""
    fresh = rng.standard_normal((shape.trials, shape.blocks, shape.repetitions))
    noise = fresh.copy()
    kept = np.sqrt(1 - machine.correlation**2)
    for index in range(1, shape.repetitions):
        noise[..., index] = machine.correlation * noise[..., index - 1] + kept * fresh[..., index]
    level = rng.standard_normal((shape.trials, shape.blocks, 1))
    return np.asarray(machine.between * level + machine.within * noise)
