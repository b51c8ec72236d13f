"""What a block begins with: whether its workers are new, and which cell watches for drift. It measures nothing.

The unit of replication is a block in fresh worker processes: memory layout, compiled code and placement on cores differ
from one process to the next, and repetitions within one cannot show it. See docs/design/blocks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.measure.budget import Budget
from tokbench.measure.crew import Crew
from tokbench.measure.ledger import Ledger
from tokbench.measure.order import Turn, coarse_value
from tokbench.measure.plan import Plan

SENTINEL_SHARE = 0.1
"""A sentinel that takes more of a block than this is left out; it is run twice."""
CHEAPEST_SHARE = 0.5
"""The cheapest cell's visit over the mean visit, assumed until visits were timed. Measured in reports/smoke-cpu
(2 CPU cores, 2026-11-22): 0.48."""


class Renewal(NamedTuple):
    """Whether a block gets fresh workers; where not, why."""

    is_fresh: bool
    reason: str | None


class Costs(NamedTuple):
    """Seconds that a block is expected to take."""

    warm_s: float
    """Visits as long as the last ones."""
    cold_s: float
    """Loading and compiling in fresh workers, as long as the last time in one."""


def costs(turns: Sequence[Turn], crew: Crew, ledger: Ledger) -> Costs:
    """What visiting these cells in fresh workers takes."""
    groups = {turn.group.group for turn in turns}
    accounts = [ledger.accounts[turn.cell_id] for turn in turns]
    loading_s = sum(crew.open_s.get(group, 0.0) for group in groups)
    return Costs(sum(map(ledger.visit_s, accounts)), loading_s + sum(account.cold_s for account in accounts))


def renewal(expected: Costs, crew: Crew, budget: Budget, blocks: int) -> Renewal:
    """Fresh workers, unless one process is enough or the budget cannot pay for loading and compiling again."""
    if not crew.has_workers():
        return Renewal(True, None)
    if blocks == 1:
        return Renewal(False, "stop.blocks is 1: one worker process is enough")
    if budget.pays(*expected):
        return Renewal(True, None)
    warm_s, cold_s = expected
    return Renewal(
        False,
        f"budget: loading and compiling again would take {cold_s:.0f} s and the visits {warm_s:.0f} s; "
        f"{max(budget.left_s(), 0.0):.0f} s are left, and {budget.cold_left_s():.0f} s for loading and compiling alone",
    )


def choose_sentinel(plan: Plan, turns: Sequence[Turn], ledger: Ledger) -> Turn | None:
    """The cheapest cell of the groups that the block opens: single stream, shortest prompt, first group.

    None where the config says so, where the groups do not fit side by side (its worker would be gone at the block's
    end), where there are fewer than two cells, or where it would take too much of the block.
    """
    opened = {turn.group.group for turn in turns}
    able = [
        Turn(group, cell)
        for group in plan.groups
        if group.group in opened
        for cell in group.cells
        if not ledger.accounts[cell.cell.cell_id].is_closed
    ]
    if not plan.config.run.stop.sentinel or not plan.is_interleaved or len(able) < 2:
        return None
    cheapest = min(able, key=lambda turn: coarse_value(turn.planned))
    return cheapest if _share(cheapest, turns, ledger) <= SENTINEL_SHARE else None


def _share(sentinel: Turn, turns: Sequence[Turn], ledger: Ledger) -> float:
    """How much of the block the sentinel's warm-up and repetition take, once."""
    once_s = ledger.accounts[sentinel.cell_id].once_s
    visits = [ledger.accounts[turn.cell_id].visit_s for turn in turns]
    known = [visit_s for visit_s in visits if visit_s is not None]
    if once_s is None or len(known) < len(visits) or sum(known) <= 0:
        return CHEAPEST_SHARE / len(turns)
    return once_s / sum(known)
