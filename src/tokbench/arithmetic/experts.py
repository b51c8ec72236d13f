"""Distinct experts that a step selects under routing of a known law. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokbench.arithmetic.shapes import require
from tokbench.arithmetic.steps import expected_distinct_experts

GRID = 400
"""Points of the integral over the time of arrival; twice as many move the chances of 128 experts by under 1e-10."""


def correlated_distinct_experts(experts: int, experts_per_token: int, rows: int, probability: float) -> float:
    """Expect the distinct experts of `rows` tokens; each takes the one before's with `probability`, else even ones.

    Formula: E·(1 - m·(p + (1 - p)·m)^(rows - 1)), with m = 1 - k/E the chance that one draw misses an expert: the
    first token draws, and so does every further one with probability 1 - p.
    """
    one = expected_distinct_experts(experts, experts_per_token, 1)
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability lies between 0 and 1, not {probability}")
    require(1, rows=rows)
    missed = 1.0 - one / experts
    return experts * (1.0 - missed * (probability + (1.0 - probability) * missed) ** (rows - 1))


def zipf_distinct_experts(experts: int, experts_per_token: int, rows: int, exponent: float) -> float:
    """Expect the distinct experts of `rows` tokens whose experts are drawn one after the other with weights 1/rank^s.

    Formula: sum over experts of 1 - (1 - π)^rows, with π the chance that one token selects the expert.
    """
    require(1, rows=rows)
    return sum(1.0 - (1.0 - chance) ** rows for chance in selection_chances(experts, experts_per_token, exponent))


def selection_chances(experts: int, experts_per_token: int, exponent: float) -> list[float]:
    """The chance of each expert, the most popular first, to be among `experts_per_token` drawn without repetition.

    Draws one after the other with weights w are the first arrivals of exponential clocks with rates w, so the chance
    is the integral over t of w·exp(-w·t)·P(fewer than k of the others came before t).
    """
    require(1, experts=experts, experts_per_token=experts_per_token)
    if experts_per_token > experts:
        raise ValueError(f"{experts_per_token} experts per token, but there are only {experts} experts")
    if experts_per_token == experts:
        return [1.0] * experts
    weights = [(rank + 1.0) ** -exponent for rank in range(experts)]
    chances = [0.0] * experts
    # In u = log t the integrand is smooth and dies off at both ends: the trapezoidal rule converges at once.
    low, high = math.log(1e-9 / weights[0]), math.log(60.0 / weights[-1])
    step = (high - low) / GRID
    for point in range(GRID + 1):
        time = math.exp(low + point * step)
        arrived = [-math.expm1(-weight * time) for weight in weights]
        for expert, before in enumerate(_chances_of_fewer(arrived, experts_per_token)):
            chances[expert] += weights[expert] * math.exp(-weights[expert] * time) * before * time * step
    return chances


def _chances_of_fewer(arrived: Sequence[float], count: int) -> list[float]:
    """For each expert, the chance that fewer than `count` of the others have arrived."""
    ahead = [[1.0] + [0.0] * (count - 1)]
    behind = [[1.0] + [0.0] * (count - 1)]
    for chance in arrived[:-1]:
        ahead.append(_with_one_more(ahead[-1], chance))
    for chance in reversed(arrived[1:]):
        behind.append(_with_one_more(behind[-1], chance))
    found = []
    for before, after in zip(ahead, reversed(behind), strict=True):
        at_most = [math.fsum(after[: size + 1]) for size in range(count)]
        found.append(math.fsum(before[held] * at_most[count - 1 - held] for held in range(count)))
    return found


def _with_one_more(spread: Sequence[float], chance: float) -> list[float]:
    """The distribution of a count below its length, after one more independent arrival."""
    moved = [0.0, *spread[:-1]]
    return [stays * (1.0 - chance) + comes * chance for stays, comes in zip(spread, moved, strict=True)]
