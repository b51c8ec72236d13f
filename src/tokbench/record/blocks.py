"""How a run was ordered: its blocks. A part of the union in `observations.py`; no field is computed from another."""

from __future__ import annotations

from typing import Literal

from tokbench.record.facts import Frozen

Purpose = Literal["measure", "sentinel", "energy"]
"""What a trial is for: a repetition of its cell, a look at whether the machine is still the same, or windows that are
long enough for the meters."""


class BlockStarted(Frozen):
    """One pass over all cells that are to be measured begins."""

    event: Literal["block_started"] = "block_started"
    block: int
    at_ns: int
    seed: int
    """The run's; the order is drawn from it and the block's number."""
    order: tuple[str, ...]
    """The cells in the order that was drawn; `TrialStarted.order` tells what was really run."""
    is_fresh: bool
    """Whether every worker process was started after this moment."""
    reason: str | None = None
    """Why the workers of the block before were kept; None where they were not."""
    sentinel: str | None = None
    """The cell that opens and closes the block; None where it has none."""
