"""From a cell's speed and joules to the points that are reckoned with. It takes them by name and derives none."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from tokbench.derive.cost.amounts import Joules, Point, joules_of_request
from tokbench.derive.cost.prices import prices_of
from tokbench.derive.energy.rows import find_energy
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.cost import CostSpec
from tokbench.record.run import CellRecord, Run

METRIC_UTILISATION = 0.4
"""The utilisation of the four metrics, whichever ones the table shows: a metric is of one condition."""
Find = Callable[[str], Sequence[float]]
"""The values of a metric of the cell by its name; raises UndefinedError."""


def points_of(run: Run, cell: CellRecord, find: Find) -> list[Point]:
    """One point for each repetition's speed; the joules, of windows of their own, are the cell's mean.

    Raises:
        UndefinedError: the speed is missing, or the prices cannot be read.
    """
    prices = prices_of(run)
    joules, why = find_joules(run, cell, find)
    return [make_point(run, prices, rate, joules, why) for rate in find("output_tokens_per_s")]


def make_point(run: Run, prices: CostSpec, tokens_per_s: float, joules: Joules | None, why: str) -> Point:
    """A point at the metrics' utilisation."""
    return Point(
        prices=prices,
        tokens_per_s=tokens_per_s,
        joules=joules,
        why_no_joules=why,
        device=run.device.name if run.device is not None else None,
        utilisation=METRIC_UTILISATION,
    )


def find_joules(run: Run, cell: CellRecord, find: Find) -> tuple[Joules | None, str]:
    """What the metered part takes, or why that is not known."""
    energy = find_energy(run, cell)
    if not energy.headline:
        return None, energy.missing or t("no energy of this cell was measured")
    try:
        decode = statistics.fmean(find("energy_j_per_output_token"))
        is_batch = cell.spec.load.kind == "static_batch"
        prefill = statistics.fmean(find("energy_j_per_prompt_token")) if is_batch else None
        idle = statistics.fmean(find("idle_power_w"))
        return Joules(joules_of_request(decode, prefill, cell.spec), idle, energy.headline[0].group.scope), ""
    except UndefinedError as undefined:
        return None, str(undefined)
