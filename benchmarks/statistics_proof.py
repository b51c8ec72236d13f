"""What the statistics of tokbench promise, counted in simulated runs whose answer is known.

`python -m benchmarks.statistics_proof [--pairs 1000] [--seed 1] [--out reports/statistics]`. Every trial goes through
the functions that a report uses: `estimate_blocks`, `StopRule`, `compare`. It prints and writes the counts; exit code 1
if a bound is broken. The tables called control show what other ways of counting would do; no bound holds them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import statistics_controls as controls
from benchmarks.counting import Row, blocks_of, comparisons, differing, holds, markdown
from benchmarks.simulated_runs import MACHINES, Machine, Shape, simulate
from tokbench.stats import Outcome, StopRule, compare, estimate_blocks

BLOCKS = 7
REPETITIONS = 3
"""Of one process, unless a row says otherwise."""
MOST_FALSE = 0.064
"""Of 1000 pairs without a difference, 97.5 % of experiments at the level of 5 % claim at most 64."""
LEAST_STOPPED = 0.92
SLOWER = 0.95
HARDEST = 0.6
"""The aim, over the spread of one block, at which stopping costs most coverage: the worst of nine that were tried."""
REACH = 0.02
"""The largest spread of single repetitions in fresh processes at which seven of them have to show 5 %."""
SPREADS = (0.005, 0.010, 0.015, 0.020, 0.0225, 0.025, 0.030, 0.040, 0.060)

Count = Callable[[int, np.random.Generator], Iterator[Row]]


def false_differences(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A/A: the same cell twice, in one run and in two; each of 4 x `pairs` pairs."""
    shape = Shape(4 * pairs, BLOCKS, REPETITIONS)
    for machine in MACHINES:
        run, other = simulate(machine, shape, 1.0, rng), simulate(machine, shape, 1.0, rng)
        still = machine.without_drift()
        first, second = simulate(still, shape, 1.0, rng), simulate(still, shape, 1.0, rng)
        for name, design, a, b in (
            (machine.name, "one run, paired blocks", run.a, run.b),
            (machine.name, "two runs, unpaired blocks", run.a, other.a),
            (still.name, "two runs, unpaired blocks", first.a, second.a),
        ):
            hits = differing(comparisons(a, b, paired=b is run.b))
            yield Row("false differences", name, design, hits, shape.trials, at_most=MOST_FALSE)


def false_differences_when_stopped(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A/A in one run, measured until the rule is met for both cells: what is left of 92 % coverage bounds it."""
    for machine in MACHINES:
        rule = StopRule(machine.spread, 3, 40, min_blocks=3)
        run = simulate(machine, Shape(2 * pairs, 40, 1), 1.0, rng)
        found = []
        for a, b in zip(blocks_of(run.a), blocks_of(run.b), strict=True):
            blocks = max(len(until_stopped(a, rule)), len(until_stopped(b, rule)))
            found.append(compare(a[:blocks], b[:blocks], paired=True))
        design = f"one run, paired blocks, stopped at ±{100 * rule.rel_ci:.2g} %"
        hits = differing(found)
        yield Row("false differences when stopped", machine.name, design, hits, len(found), at_most=1 - LEAST_STOPPED)


def coverage_of_ratios(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """How often the interval of a paired ratio holds the truth, at a fixed count of blocks."""
    for machine in MACHINES:
        for blocks in (3, 5, 7, 10):
            run = simulate(machine, Shape(4 * pairs, blocks, REPETITIONS), SLOWER, rng)
            hits = sum(holds(item.ratio, SLOWER) for item in comparisons(run.a, run.b, paired=True))
            yield Row("coverage of a ratio", machine.name, f"{blocks} blocks", hits, 4 * pairs, 0.93, 0.97)


def coverage_of_values(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """The same for one cell's value. What drifts widens its interval and has no upper bound, see the page."""
    for machine in MACHINES:
        for moving, at_most in ((machine.without_drift(), 0.97), (machine, None)):
            for blocks in (3, 5, 7, 10):
                run = simulate(moving, Shape(4 * pairs, blocks, REPETITIONS), 1.0, rng)
                found = [estimate_blocks(values, "") for values in blocks_of(run.a)]
                hits = sum(map(holds, found, run.truth_of_a[:, -1].tolist()))
                design = f"{blocks} blocks"
                yield Row("coverage of a value", moving.name, design, hits, 4 * pairs, 0.93, at_most)


def coverage_when_stopped(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """How often the interval holds the truth when its own width decided when to stop, asked after every repetition.

    The hardest aim takes about thirteen blocks: many looks, and no spread that is well known.
    """
    still = MACHINES[1].without_drift()
    designs = [(machine, 1, HARDEST * machine.spread, 8 * pairs) for machine in (still, *MACHINES)]
    designs += [(machine, 1, 0.02, 2 * pairs) for machine in MACHINES]
    designs += [(machine, 3, 0.02, 2 * pairs) for machine in (still, *MACHINES)]
    for machine, repetitions, rel_ci, trials in designs:
        hits = stopped_hits(machine, repetitions, StopRule(rel_ci, 3, 40, min_blocks=3), trials, rng)
        design = f"to ±{100 * rel_ci:.2g} %, {repetitions} per process"
        yield Row("coverage through the stopping rule", machine.name, design, hits, trials, at_least=LEAST_STOPPED)


def stopped_hits(machine: Machine, repetitions: int, rule: StopRule, trials: int, rng: np.random.Generator) -> int:
    """How many of the trials end with an interval that holds the truth."""
    run = simulate(machine, Shape(trials, rule.max_repetitions // repetitions, repetitions), 1.0, rng)
    hits = 0
    for values, truths in zip(blocks_of(run.a), run.truth_of_a.tolist(), strict=True):
        measured = until_stopped(values, rule)
        hits += holds(estimate_blocks(measured, ""), truths[len(measured) - 1])
    return hits


def until_stopped(values: Sequence[list[float]], rule: StopRule) -> list[list[float]]:
    """The blocks that are measured when the rule is asked after every repetition."""
    measured: list[list[float]] = []
    for block in values:
        measured.append([])
        for value in block:
            measured[-1].append(value)
            if rule.is_met(measured):
                return measured
    return measured


def slow_downs(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A slow-down of 5 % with seven repetitions, each in its own process."""
    for machine in MACHINES:
        bound = 0.95 if machine.spread <= REACH else None
        outcomes = _outcomes_of_a_slow_down(machine, 4 * pairs, rng)
        hits = outcomes.count(Outcome.LOWER)
        yield Row("5 % slow-down found", machine.name, "7 repetitions", hits, len(outcomes), bound)


def reach(pairs: int, rng: np.random.Generator) -> Iterator[Row]:
    """The same over the spread of one repetition, and what is said of the slow-downs that are not found."""
    for spread in SPREADS:
        machine = Machine(f"spread {100 * spread:.2f} %", between=spread, within=0.0, drift=0.0, wave=0.0)
        outcomes = _outcomes_of_a_slow_down(machine, 4 * pairs, rng)
        for outcome in (Outcome.LOWER, Outcome.TOO_NOISY, Outcome.NO_DIFFERENCE):
            hits = outcomes.count(outcome)
            yield Row("reach of seven repetitions at 5 %", machine.name, outcome.value, hits, len(outcomes))


def _outcomes_of_a_slow_down(machine: Machine, trials: int, rng: np.random.Generator) -> list[Outcome]:
    run = simulate(machine, Shape(trials, BLOCKS, 1), SLOWER, rng)
    return [item.outcome for item in comparisons(run.a, run.b, paired=True)]


PROMISES: tuple[Count, ...] = (
    false_differences,
    false_differences_when_stopped,
    coverage_of_ratios,
    coverage_of_values,
    coverage_when_stopped,
    slow_downs,
    reach,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print, write; 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="statistics_proof", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("reports/statistics"))
    options = parser.parse_args(arguments)
    counts = PROMISES + controls.CONTROLS
    seeds = np.random.SeedSequence(options.seed).spawn(len(counts))
    rows = [
        row
        for count, seed in zip(counts, seeds, strict=True)
        for row in count(options.pairs, np.random.default_rng(seed))
    ]
    broken = [row for row in rows if row.is_kept is False]
    bounded = [row for row in rows if row.is_kept is not None]
    head = f"# Statistics: {len(bounded) - len(broken)} of {len(bounded)} bounds kept"
    how = f"Simulated, `python -m benchmarks.statistics_proof --pairs {options.pairs} --seed {options.seed}`."
    text = "\n\n".join([head, how, machines_table(), markdown(rows)])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "statistics.md").write_text(text, encoding="utf-8")
    found = {
        "schema": 1,
        "pairs": options.pairs,
        "seed": options.seed,
        "machines": [dataclasses.asdict(machine) for machine in MACHINES],
        "rows": [row.as_json() for row in rows],
    }
    (options.out / "statistics.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 1 if broken else 0


def machines_table() -> str:
    """What is simulated: standard deviations of log values, amplitudes of the drift, in per cent."""
    head = (
        "## Simulated machines\n\n"
        "| machine | between processes | within one | autocorrelation within | straight drift ± | slow wave ± |\n"
        "|---|--:|--:|--:|--:|--:|"
    )
    lines = [
        f"| {m.name} | {100 * m.between:.1f} % | {100 * m.within:.1f} % | {m.correlation:.1f} "
        f"| {100 * m.drift:.1f} % | {100 * m.wave:.1f} % |"
        for m in MACHINES
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    sys.exit(main())
