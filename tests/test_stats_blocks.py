"""Blocks by hand: intervals over worker processes, the spread within and between them, two cells side by side."""

from __future__ import annotations

import math

import pytest

from tokbench.stats import Comparison, Estimate, Outcome, compare, estimate, estimate_blocks, outcome_text
from tokbench.units import Better

T_975 = {2: 4.302652730, 4: 2.776445105}
"""Source: any table of Student's t, two-sided 95 %."""


def powers(*blocks: tuple[float, ...]) -> list[list[float]]:
    """e to the power of each number, so that the logarithms are whole."""
    return [[math.exp(value) for value in block] for block in blocks]


def test_the_interval_is_that_of_the_processes_not_of_their_repetitions() -> None:
    # log means 0, 1, 2: mean 1, deviation 1, three of them
    half = T_975[2] / math.sqrt(3)
    found = estimate_blocks(powers((-1, 1), (0, 2), (1, 3)), "s")
    assert (pytest.approx(math.e), 6, 3, "blocks") == (found.value, found.n, found.blocks, found.basis)
    assert (pytest.approx(math.exp(1 - half)), pytest.approx(math.exp(1 + half))) == (found.low, found.high)


def test_the_spread_within_and_between_processes() -> None:
    # within: squares 2 in each of three blocks of two: variance 2. Between: variance of means 16, less 2 / 2.
    found = estimate_blocks(powers((-1, 1), (3, 5), (7, 9)), "")
    assert (pytest.approx(math.sqrt(2)), pytest.approx(math.sqrt(15))) == (found.sd_within, found.sd_between)


def test_blocks_of_different_size_weigh_alike_and_the_spread_knows_their_sizes() -> None:
    # log means 0, 3, 6; within: squares 2 and 0 over two degrees, 1; of it (1/2 + 1/2 + 1) / 3 is in the means' 9
    found = estimate_blocks(powers((-1, 1), (3, 3), (6,)), "")
    assert pytest.approx(math.exp(3)) == found.value
    assert (pytest.approx(1.0), pytest.approx(math.sqrt(9 - 2 / 3))) == (found.sd_within, found.sd_between)


def test_processes_that_differ_less_than_their_repetitions_explain_differ_by_nothing() -> None:
    found = estimate_blocks(powers((-1, 1), (-1, 1), (-1, 1.5)), "")
    assert found.sd_between == 0.0


def test_one_repetition_per_process_cannot_tell_within_from_between() -> None:
    found = estimate_blocks(powers((0,), (1,), (2,)), "")
    assert (None, None, "blocks", 3) == (found.sd_within, found.sd_between, found.basis, found.blocks)


def test_fewer_than_three_processes_rest_on_repetitions_and_say_so() -> None:
    values = [[1.0, 2.0], [4.0, 5.0], []]
    found, pooled = estimate_blocks(values, "s"), estimate([1.0, 2.0, 4.0, 5.0], "s")
    assert (pooled.value, pooled.low, pooled.high, 4) == (found.value, found.low, found.high, found.n)
    assert ("repetitions", 2) == (found.basis, found.blocks)
    assert found.sd_between is not None
    assert estimate_blocks([[1.0, 2.0]], "s").sd_between is None


def test_one_repetition_rests_on_nothing() -> None:
    assert Estimate(3.5, None, None, 1, "s", "geometric_mean", blocks=1, basis="none") == estimate_blocks([[3.5]], "s")


def test_values_that_are_not_all_positive_are_estimated_as_they_are() -> None:
    # means 0, 2, 4: mean 2, deviation 2; no relative spread
    half = T_975[2] * 2 / math.sqrt(3)
    found = estimate_blocks([[-1.0, 1.0], [2.0, 2.0], [4.0]], "J")
    assert (pytest.approx(2.0), pytest.approx(2 - half), "mean") == (found.value, found.low, found.statistic)
    assert (None, None, "blocks") == (found.sd_within, found.sd_between, found.basis)


def test_processes_that_agree_in_every_digit_have_an_interval_without_width() -> None:
    found = estimate_blocks([[0.1, 0.1], [0.1, 0.1], [0.1]], "s")
    assert Estimate(0.1, 0.1, 0.1, 5, "s", "geometric_mean", 3, 0.0, 0.0, "blocks") == found


@pytest.mark.parametrize("blocks", [[], [[], []], [[1.0], [math.nan]]])
def test_nothing_can_be_estimated_from_nothing_or_what_is_not_finite(blocks: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="an estimate needs"):
        estimate_blocks(blocks, "s")


def test_paired_blocks_cancel_what_drifts_under_both() -> None:
    # logs differ by 1, 2, 3 while both sides move by 100
    half = T_975[2] / math.sqrt(3)
    found = compare(powers((0,), (50,), (100,)), powers((1,), (52,), (103,)), paired=True)
    assert ("paired blocks", 3, 3) == (found.basis, found.n_a, found.n_b)
    assert pytest.approx(math.exp(2)) == found.ratio.value
    assert (pytest.approx(math.exp(2 - half)), pytest.approx(math.exp(2 + half))) == (found.ratio.low, found.ratio.high)


def test_a_block_that_one_side_lacks_is_no_pair() -> None:
    a, b = powers((0,), (), (1,), (2,), (9,)), powers((1,), (7,), (2,), (3,))
    found = compare(a, b, paired=True)
    assert (pytest.approx(math.e), 3, 3) == (found.ratio.value, found.n_a, found.n_b)


def test_unpaired_blocks_are_compared_by_welch() -> None:
    # log means 0, 1, 2 and 10, 10, 10: variance 1/3 + 0, with the two degrees of the side that varies
    half = T_975[2] / math.sqrt(3)
    found = compare(powers((-1, 1), (1,), (2,)), powers((10,), (10,), (10,), (10,)), paired=False)
    assert ("unpaired blocks", 3, 4) == (found.basis, found.n_a, found.n_b)
    assert pytest.approx(math.exp(9)) == found.ratio.value
    assert pytest.approx(math.exp(9 - half)) == found.ratio.low
    assert pytest.approx(math.exp(9 + half)) == found.ratio.high


def test_welchs_degrees_of_two_sides_that_vary_alike_add_up() -> None:
    # both: deviation 1 of three, so variance 2/3 and four degrees
    half = T_975[4] * math.sqrt(2 / 3)
    found = compare(powers((0,), (1,), (2,)), powers((5,), (6,), (7,)), paired=False)
    assert pytest.approx(math.exp(5 - half)) == found.ratio.low


def test_fewer_than_three_blocks_on_a_side_rest_on_repetitions() -> None:
    found = compare(powers((0, 1, 2)), powers((5,), (6,), (7,)), paired=True)
    assert ("repetitions", 3, 3, "repetitions") == (found.basis, found.n_a, found.n_b, found.ratio.basis)
    assert pytest.approx(math.exp(5 - T_975[4] * math.sqrt(2 / 3))) == found.ratio.low


def test_a_single_repetition_is_too_little_to_say() -> None:
    found = compare([[1.0]], [[2.0, 2.0]], paired=False)
    assert (2.0, None, None) == (pytest.approx(found.ratio.value), found.ratio.low, found.ratio.high)
    assert Outcome.TOO_NOISY is found.outcome


@pytest.mark.parametrize(
    ("b", "outcome"),
    [
        ([1.10, 1.11, 1.09], Outcome.HIGHER),
        ([0.90, 0.91, 0.89], Outcome.LOWER),
        ([1.00, 1.01, 0.99], Outcome.NO_DIFFERENCE),
        ([1.00, 1.00, 1.00], Outcome.NO_DIFFERENCE),
        ([1.00, 1.10, 0.91], Outcome.TOO_NOISY),
        ([1 + 1e-12] * 3, Outcome.NO_DIFFERENCE),
    ],
)
def test_what_a_comparison_shows(b: list[float], outcome: Outcome) -> None:
    assert outcome is compare([[1.0]] * 3, [[value] for value in b], paired=True).outcome


def test_the_limit_of_noise_decides_between_nothing_shown_and_nothing_known() -> None:
    def judged(noise_limit: float) -> Comparison:
        return compare([[1.0]] * 3, [[1.0], [1.01], [0.99]], paired=True, noise_limit=noise_limit)

    half = judged(1.0).ratio.relative_half_width()
    assert half is not None
    assert Outcome.NO_DIFFERENCE is judged(half).outcome
    assert Outcome.TOO_NOISY is judged(half * 0.999).outcome


def test_another_confidence_gives_another_width() -> None:
    a, b = [[1.0], [1.0], [1.0]], [[1.0], [1.1], [1.2]]
    wide, narrow = (compare(a, b, paired=True, confidence=share).ratio.relative_half_width() for share in (0.99, 0.5))
    assert wide is not None
    assert narrow is not None
    assert narrow < wide


@pytest.mark.parametrize(
    ("a", "b"), [([], [[1.0]]), ([[1.0]], [[]]), ([[0.0]], [[1.0]]), ([[1.0]], [[-1.0]]), ([[math.inf]], [[1.0]])]
)
def test_a_comparison_that_is_not_defined(a: list[list[float]], b: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="a comparison needs"):
        compare(a, b, paired=False)


@pytest.mark.parametrize(
    ("outcome", "better", "text"),
    [
        (Outcome.HIGHER, Better.HIGHER, "faster"),
        (Outcome.LOWER, Better.HIGHER, "slower"),
        (Outcome.HIGHER, Better.LOWER, "slower"),
        (Outcome.LOWER, Better.LOWER, "faster"),
        (Outcome.HIGHER, Better.NEITHER, "higher"),
        (Outcome.NO_DIFFERENCE, Better.HIGHER, "no difference shown"),
        (Outcome.TOO_NOISY, Better.LOWER, "too noisy to say"),
    ],
)
def test_the_words_of_an_outcome(outcome: Outcome, better: Better, text: str) -> None:
    assert text == outcome_text(outcome, better)


def test_the_words_of_a_metric_that_is_no_speed() -> None:
    assert "more" == outcome_text(Outcome.HIGHER, Better.LOWER, ("less", "more"))
