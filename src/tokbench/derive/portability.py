"""One model on several frameworks: which ran it, how fast beside the fastest, and whether tokens are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.stats import Estimate

FRAMEWORK, PLATFORM = "framework", "platform"


class FrameworkRow(NamedTuple):
    """One framework on one platform."""

    framework: str
    platform: str
    cell: CellResult
    decode: Estimate | Missing
    share: Estimate | Missing
    """Of the fastest on the same work."""
    beside: str | None
    """Whose tokens stand beside: the first framework of the same run, work and weights that kept any; None for that
    itself. Random weights are drawn by each engine, and are the same within one kind of engine alone."""
    tokens_equal: int | None
    """Output tokens of row 0 up to the first that differs; None where either kept none, or it is the first."""
    tokens: int | None
    """Output tokens that were set side by side."""


def find_frameworks(results: Sequence[Results]) -> tuple[FrameworkRow, ...]:
    """Every cell that names its framework, in the order of the records."""
    rows: list[FrameworkRow] = []
    for item in results:
        firsts: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
        for cell in item.cells:
            if FRAMEWORK in cell.labels:
                rows.append(_row(cell, firsts))
    return tuple(rows)


def _row(cell: CellResult, firsts: dict[tuple[str, str], tuple[str, tuple[int, ...]]]) -> FrameworkRow:
    framework, made = cell.labels[FRAMEWORK], _tokens(cell)
    beside, equal, count = None, None, None
    if made is not None:
        first, theirs = firsts.setdefault((cell.pair_key, _drawn_by(cell)), (framework, made))
        if first != framework:
            count = min(len(made), len(theirs))
            pairs = enumerate(zip(made, theirs, strict=False))
            equal = next((index for index, (one, other) in pairs if one != other), count)
            beside = first
    values = (cell.metrics["decode_tokens_per_s"], cell.metrics["best_framework_ratio"])
    return FrameworkRow(framework, cell.labels.get(PLATFORM, ""), cell, *values, beside, equal, count)


def _drawn_by(cell: CellResult) -> str:
    """The engine that drew the cell's weights; nobody where they were read from a file."""
    spec = cell.record.spec
    return "" if spec.model.weights == "pretrained" else spec.engine.kind


def _tokens(cell: CellResult) -> tuple[int, ...] | None:
    """Row 0 of the first repetition that kept its tokens."""
    kept = [trial.output.token_ids[0] for trial in cell.record.good_trials() if trial.output is not None]
    return kept[0] if kept else None
