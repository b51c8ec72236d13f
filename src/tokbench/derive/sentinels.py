"""The blocks of a run, and whether the machine was still the same at the end of each: what its sentinel tells.

A sentinel is a cell that opens and closes a block. Its trials are no repetitions of that cell and stand in no metric.
"""

from __future__ import annotations

import dataclasses

from tokbench.derive.codes import CPU_DRIFT_SHARE, GPU_DRIFT_SHARE
from tokbench.derive.disturbances import is_gpu
from tokbench.derive.repetitions import UndefinedError, decode_rate
from tokbench.derive.words import t
from tokbench.record.blocks import BlockStarted
from tokbench.record.run import Run, Trial


@dataclasses.dataclass(frozen=True, slots=True)
class BlockDrift:
    """One block as it began, and its sentinel's decode speed when it opened and when it closed."""

    started: BlockStarted
    opening_tokens_per_s: float | None
    closing_tokens_per_s: float | None
    is_one_process: bool | None
    """Whether both were run by the same worker process; None without both."""
    missing: str | None
    """Why there is no ratio."""

    @property
    def ratio(self) -> float | None:
        """Closing over opening speed: below 1 the machine became slower within the block."""
        if self.opening_tokens_per_s is None or self.closing_tokens_per_s is None:
            return None
        return self.closing_tokens_per_s / self.opening_tokens_per_s


def find_blocks(run: Run) -> tuple[BlockDrift, ...]:
    """Every block of a run in order; empty for a record from before blocks were kept."""
    return tuple(_drift_of(run, started) for started in run.blocks)


def run_drift(blocks: tuple[BlockDrift, ...]) -> float | None:
    """The last closing speed over the first opening one, where one and the same cell gave both; else None."""
    known = [block for block in blocks if block.ratio is not None]
    if not known or known[0].started.sentinel != known[-1].started.sentinel:
        return None
    first, last = known[0].opening_tokens_per_s, known[-1].closing_tokens_per_s
    return None if first is None or last is None else last / first


def drift_limit(run: Run) -> float:
    """How far closing may lie from opening before a block counts as drifted."""
    return GPU_DRIFT_SHARE if is_gpu(run.device) else CPU_DRIFT_SHARE


def drifted_blocks(run: Run) -> frozenset[int]:
    """Numbers of the blocks whose sentinel moved by more than the limit."""
    limit = drift_limit(run)
    ratios = [(block.started.block, block.ratio) for block in find_blocks(run)]
    return frozenset(number for number, ratio in ratios if ratio is not None and abs(ratio - 1) > limit)


def _drift_of(run: Run, started: BlockStarted) -> BlockDrift:
    cell = run.cells.get(started.sentinel) if started.sentinel is not None else None
    if cell is None:
        return BlockDrift(started, None, None, None, t("the block has no sentinel"))
    trials = [trial for trial in cell.sentinels() if trial.started.block == started.block]
    if len(trials) < 2:
        opening = _rate(trials[0]) if trials else None
        return BlockDrift(started, opening, None, None, t("the sentinel did not both open and close the block"))
    opening, closing = _rate(trials[0]), _rate(trials[-1])
    is_one = trials[0].started.worker_id == trials[-1].started.worker_id
    missing = None if opening and closing else t("the sentinel gave no decode speed")
    return BlockDrift(started, opening, closing, is_one, missing)


def _rate(trial: Trial) -> float | None:
    try:
        return decode_rate(trial) or None
    except UndefinedError:
        return None
