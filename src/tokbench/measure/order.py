"""In which order a block visits its cells. Pure."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Sequence

from tokbench.measure.plan import GroupPlan, Plan, PlannedCell


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One cell's turn, and whose worker it needs."""

    group: GroupPlan
    planned: PlannedCell

    @property
    def cell_id(self) -> str:
        """The identity of the cell."""
        return self.planned.cell.cell_id


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """What decides an order beside the cells."""

    seed: int
    block: int
    """The groups come in reversed order in every other one (ABBA)."""


def coarse_passes(plan: Plan, cells: Sequence[PlannedCell], draw: Draw) -> list[list[Turn]]:
    """The first block in two parts: the smallest batches of every group first, so that each mode has a number early.

    Small cells come before large ones, those of one `pair_key` next to one another.
    """
    passes = []
    by_group = not plan.is_interleaved
    for tier in tiers(cells):
        drawn = _drawn(plan, tier, draw, by_group=by_group)
        together = drawn if by_group else [[turn for unit in drawn for turn in unit]]
        passes.append([turn for unit in together for turn in sorted(unit, key=lambda turn: coarse_value(turn.planned))])
    return passes


def random_pass(plan: Plan, cells: Sequence[PlannedCell], draw: Draw) -> list[Turn]:
    """A later block: cells at random, those of one `pair_key` next to one another; apart groups one after the other."""
    drawn = _drawn(plan, cells, draw, by_group=not plan.is_interleaved)
    return [turn for unit in drawn for turn in unit]


def _drawn(plan: Plan, cells: Collection[PlannedCell], draw: Draw, *, by_group: bool) -> list[list[Turn]]:
    """Turns that stay together: a shuffled group each, or the cells of a pair in shuffled order of the pairs."""
    rng = random.Random(f"{draw.seed}-{draw.block}")
    groups = plan.groups if draw.block % 2 == 0 else tuple(reversed(plan.groups))
    wanted = {cell.cell.cell_id for cell in cells}
    units: dict[str, list[Turn]] = {}
    for group in groups:
        for cell in group.cells:
            if cell.cell.cell_id in wanted:
                units.setdefault(group.group if by_group else cell.cell.pair_key, []).append(Turn(group, cell))
    drawn = list(units.values())
    if by_group:
        for unit in drawn:
            rng.shuffle(unit)
    else:
        rng.shuffle(drawn)
    return drawn


def tiers(cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """The cells of the smallest batch, and the others."""
    smallest = min((coarse_value(cell)[0] for cell in cells), default=0)
    first = [cell for cell in cells if coarse_value(cell)[0] == smallest]
    return [tier for tier in (first, [cell for cell in cells if cell not in first]) if tier]


def coarse_value(planned: PlannedCell) -> tuple[float, int]:
    """Coarse order: a single stream first, then growing batches, short prompts before long."""
    load = planned.cell.spec.load
    rows = load.static_batch if load.kind == "static_batch" else 1
    return rows, planned.cell.spec.workload.prompt_tokens or 0
