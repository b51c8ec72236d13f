"""Repetition loops in output tokens: a small model that repeats itself makes every draft right. Judges text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.record.run import CellRecord

WORDS = 4
"""Neighbouring tokens that are looked at together."""
LEAST_DISTINCT = 0.7
"""A row below this share of distinct 4-grams runs in a loop. Our choice: 48 tokens hold 45 of them, and a phrase of a
dozen tokens that is said twice still leaves 0.8."""
LEAST_TOKENS = 16
"""Shorter rows have too few 4-grams to tell."""


class LoopCount(NamedTuple):
    """How many of the output rows that were kept run in a loop."""

    looping: int
    judged: int
    """Different ones: where several prompts came to the same output, it counts once."""
    prompts: int
    """Prompts behind them."""


def distinct_share(tokens: Sequence[int]) -> float | None:
    """Distinct 4-grams over all of them; None where there are too few tokens to tell."""
    if len(tokens) < LEAST_TOKENS:
        return None
    grams = [tuple(tokens[place : place + WORDS]) for place in range(len(tokens) - WORDS + 1)]
    return len(set(grams)) / len(grams)


def find_loops(cell: CellRecord) -> LoopCount:
    """The output rows of a cell that were kept, each distinct one once."""
    rows: set[tuple[int, ...]] = set()
    prompts: set[str] = set()
    for trial in cell.good_trials():
        names = () if trial.prompts is None else trial.prompts.prompt_ids
        made = () if trial.output is None else trial.output.token_ids
        rows.update(made)
        prompts.update(names[row] if row < len(names) else str(row) for row in range(len(made)))
    shares = [share for row in rows if (share := distinct_share(row)) is not None]
    return LoopCount(sum(share < LEAST_DISTINCT for share in shares), len(shares), len(prompts))
