"""The read share of benchmarks/harness_vs_bare: its halves tell states of the memory apart, not noise of the sum."""

from __future__ import annotations

import random

import pytest
from benchmarks.harness_vs_bare import read_shares

PAIRS = 400


def halves(rates: list[float], shares: list[float], noise: float) -> tuple[float, float]:
    """The shares of the slower and the faster half of pairs, where both sides are held up at random."""
    draw = random.Random(7)
    ours = [rate * share * draw.lognormvariate(0, noise) for rate, share in zip(rates, shares, strict=True)]
    theirs = [rate * draw.lognormvariate(0, noise) for rate in rates]
    found = read_shares(ours, ours, theirs)
    return found["read_share_slower_half"]["value"], found["read_share_faster_half"]["value"]


def test_halves_of_one_state_do_not_lie_apart() -> None:
    slower, faster = halves([34e9] * PAIRS, [0.9] * PAIRS, noise=0.1)
    assert slower == pytest.approx(0.9, abs=0.02) and faster == pytest.approx(0.9, abs=0.02)


def test_halves_of_two_states_do() -> None:
    half = PAIRS // 2
    slower, faster = halves([34e9] * half + [62e9] * half, [0.95] * half + [0.84] * half, noise=0.05)
    assert slower == pytest.approx(0.95, abs=0.02) and faster == pytest.approx(0.84, abs=0.02)
