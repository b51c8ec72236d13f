"""What goes wrong in other ways of counting, in the same simulated runs. Nothing here is promised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats as reference

from benchmarks.counting import Row, blocks_of, comparisons, differing
from benchmarks.simulated_runs import MACHINES, Floats, Shape, simulate, tokens_of
from tokbench.stats import estimate_blocks

BLOCKS = 7
REPETITIONS = 3
TOKENS = 64
TOKEN_SPREAD = 0.05
RESAMPLES = 999
FALSE = "control: false differences"
HELD = "control: coverage of a value"
FIRST_LOOK = "control: coverage when the first narrow interval ends it"


def other_units(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A/A of one run with other units of replication than the process."""
    for machine in MACHINES:
        run = simulate(machine, Shape(pairs, BLOCKS, REPETITIONS), 1.0, rng)
        alone = simulate(machine, Shape(pairs, 1, BLOCKS), 1.0, rng)
        tokens = [tokens_of(values, TOKENS, TOKEN_SPREAD, rng) for values in (run.a, run.b)]
        flat = [values.reshape(pairs, -1) for values in (run.a, run.b)]
        single = differing(comparisons(alone.a, alone.b, paired=False))
        yield Row(FALSE, machine.name, "7 repetitions in one process per side, b after a", single, pairs)
        yield Row(FALSE, machine.name, "t over pooled repetitions of 7 processes", _welch_differs(*flat), pairs)
        yield Row(FALSE, machine.name, f"t over tokens, {TOKENS} per repetition", _welch_differs(*tokens), pairs)


def runs_apart(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A/A of two runs whose machine was 1 % faster or slower as a whole: no interval of one run can know."""
    for machine in MACHINES:
        first, second = (
            simulate(machine.in_another_run(0.01), Shape(pairs, BLOCKS, REPETITIONS), 1.0, rng) for _ in "ab"
        )
        hits = differing(comparisons(first.a, second.a, paired=False))
        yield Row(FALSE, machine.name, "two runs, each shifted as a whole by 1 %, unpaired", hits, pairs)
        hits = differing(comparisons(first.a, first.b, paired=True))
        yield Row(FALSE, machine.name, "one such run, paired blocks", hits, pairs)


def other_intervals(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Intervals of one cell that are not t: min to max of the blocks, and bootstraps over blocks."""
    machine = MACHINES[1].without_drift()
    for blocks in (3, 5, 7, 10):
        run = simulate(machine, Shape(pairs, blocks, REPETITIONS), 1.0, rng)
        means = np.log(run.a).mean(axis=2)
        hits = int(np.count_nonzero((means.min(axis=1) <= 0) & (means.max(axis=1) >= 0)))
        yield Row(HELD, machine.name, f"{blocks} blocks, min to max", hits, pairs)
        for method in ("percentile", "BCa"):
            found = reference.bootstrap(
                (means,), np.mean, axis=1, n_resamples=RESAMPLES, method=method, random_state=rng
            ).confidence_interval
            hits = int(np.count_nonzero((found.low <= 0) & (found.high >= 0)))
            yield Row(HELD, machine.name, f"{blocks} blocks, {method} bootstrap", hits, pairs)


def first_look(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """One narrow interval of three blocks or more is enough."""
    for machine in MACHINES:
        aim = 0.6 * machine.spread
        run = simulate(machine.without_drift(), Shape(2 * pairs, 40, 1), 1.0, rng)
        hits = 0
        for values in blocks_of(run.a):
            for count in range(3, 41):
                item = estimate_blocks(values[:count], "")
                half = item.relative_half_width()
                if half is not None and half <= aim:
                    break
            hits += item.low is not None and item.high is not None and item.low <= 1 <= item.high
        design = f"to ±{100 * aim:.2g} %, 1 per process"
        yield Row(FIRST_LOOK, machine.name, design, hits, 2 * pairs)


def _welch_differs(a: Floats, b: Floats) -> int:
    found = reference.ttest_ind(np.log(a), np.log(b), axis=1, equal_var=False)
    return int(np.count_nonzero(found.pvalue < 0.05))


CONTROLS = (other_units, runs_apart, other_intervals, first_look)
