"""Whether drafts are accepted independently of one another: run lengths beside the geometric law, and its bias."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from tokbench.arithmetic import tokens_per_round
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.speculation.rounds import drafting_of, events_once
from tokbench.derive.words import t
from tokbench.record.run import CellRecord

LEAST_EXPECTED = 5.0
"""Lengths that are expected less often are put together. Source: the rule of thumb of Pearson's test (Cochran 1954)."""


class RunLengths(NamedTuple):
    """How many drafts in a row were accepted, beside what one probability for all of them expects."""

    gamma: int
    alpha: float
    seen: tuple[int, ...]
    """Rounds that accepted 0 … gamma drafts; rounds that drafted fewer than gamma are left out."""
    expected: tuple[float, ...]
    p_value: float | None
    """Of Pearson's chi-square; None where too few lengths are expected often enough."""
    degrees: int
    independent_tokens: float
    """Tokens per round by the closed form for that alpha."""
    measured_tokens: float
    """Of the same rounds: accepted + 1."""

    @property
    def bias(self) -> float:
        """The closed form over what was measured, less 1: above 0 it promises too much."""
        return round(self.independent_tokens / self.measured_tokens - 1, 12)  # at gamma 1 both are one number

    @property
    def is_bursty(self) -> bool:
        """Whether a draft behind an accepted one is accepted more often than the first of a round."""
        rounds, first = sum(self.seen), sum(self.seen[1:])
        hits = sum(count * (length - 1) for length, count in enumerate(self.seen) if length)
        tries = hits + sum(self.seen[1 : self.gamma])
        return hits * rounds > first * tries


def find_run_lengths(cell: CellRecord) -> RunLengths:
    """The accepted drafts of every full round of a cell, each prompt once, against the geometric law cut at gamma.

    Rounds of one prompt are taken as independent of one another: where they are not, the p-value is too small.

    Raises:
        UndefinedError: no round, or none that drafted as many as asked.
    """
    events, gamma = events_once(cell), drafting_of(cell).gamma
    full = [n for event in events for d, n in zip(event.drafted, event.accepted, strict=True) if d == gamma]
    if not full:
        raise UndefinedError(t("no round drafted as many tokens as asked"))
    accepted, refused = sum(full), sum(n < gamma for n in full)
    alpha, lengths = accepted / (accepted + refused), Counter(full)
    seen = tuple(lengths[n] for n in range(gamma + 1))
    law = [alpha**n * (1 - alpha) for n in range(gamma)] + [alpha**gamma]
    expected = tuple(len(full) * share for share in law)
    p_value, degrees = _pearson(seen, expected)
    closed = tokens_per_round(alpha, gamma)
    return RunLengths(gamma, alpha, seen, expected, p_value, degrees, closed, 1 + accepted / len(full))


def _pearson(seen: tuple[int, ...], expected: tuple[float, ...]) -> tuple[float | None, int]:
    """Chi-square with one parameter estimated; neighbours are put together until each is expected often enough."""
    groups: list[list[float]] = []
    for found, law in zip(seen, expected, strict=True):
        if groups and groups[-1][1] < LEAST_EXPECTED:
            groups[-1] = [groups[-1][0] + found, groups[-1][1] + law]
        else:
            groups.append([found, law])
    if len(groups) > 1 and groups[-1][1] < LEAST_EXPECTED:
        last = groups.pop()
        groups[-1] = [groups[-1][0] + last[0], groups[-1][1] + last[1]]
    degrees = len(groups) - 2
    if degrees < 1:
        return None, degrees
    from scipy.special import chdtrc  # scipy costs 0.2 s: not for --help

    return float(chdtrc(degrees, math.fsum((found - law) ** 2 / law for found, law in groups))), degrees
