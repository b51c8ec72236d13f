"""Why a cell got no more repetitions: its interval was narrow enough, their number was reached, or time was up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from tokbench.record.run import CellRecord, Run
from tokbench.stats import StopRule, estimate_blocks

StoppedBy = Literal["rel_ci", "max_repetitions", "budget", "interrupted", "failures", "unknown"]
STEERED_BY = "decode_tokens_per_s"
"""The metric whose interval the stop rule watches."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """What ended the repetitions of one cell."""

    by: StoppedBy
    rel_ci: float | None
    """The relative half width that was asked for; None where the record does not say."""
    half_width: float | None
    """The one that was reached, of `decode_tokens_per_s`; None without an interval."""


def find_stop(run: Run, cell: CellRecord, blocks: Sequence[Sequence[float]]) -> Stopped:
    """Tell from the rule in the record and the run's end why a measured cell got no more repetitions.

    `blocks`: values of STEERED_BY by worker process. A record without the rule tells only of time and failures.
    """
    half = estimate_blocks(blocks, "").relative_half_width() if blocks else None
    stop = run.header.stop
    if stop is None:
        return Stopped(_by_end(run, cell), None, half)
    rule = StopRule(stop.rel_ci, stop.min_repetitions, stop.max_repetitions, stop.blocks)
    if len(cell.good_trials()) >= stop.max_repetitions:
        return Stopped("max_repetitions", stop.rel_ci, half)
    if rule.is_met(blocks):
        return Stopped("rel_ci", stop.rel_ci, half)
    by = _by_end(run, cell)
    is_narrow = half is not None and half <= stop.rel_ci
    return Stopped("rel_ci" if by == "unknown" and is_narrow else by, stop.rel_ci, half)


def _by_end(run: Run, cell: CellRecord) -> StoppedBy:
    """What is left where the rule was not met, or is not known."""
    causes = [trial.failed.cause for trial in cell.trials if trial.failed is not None]
    if "oom" in causes or (cell.skipped is not None and cell.skipped.cause != "skipped"):
        return "failures"
    if run.ended is None or run.ended.reason in ("interrupted", "terminated"):
        return "interrupted"
    if run.ended.reason == "budget":
        return "budget"
    return "failures" if causes else "unknown"
