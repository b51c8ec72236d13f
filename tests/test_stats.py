"""Estimates by hand: t intervals on logarithms, pairs, percentiles, the rules of stopping and steadiness."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokbench.stats import (
    Estimate,
    SteadyRule,
    StopRule,
    estimate,
    estimate_blocks,
    estimate_count,
    exact,
    percentile,
    ratio,
    t_quantile,
)

T_975 = {1: 12.706204736, 2: 4.302652730, 4: 2.776445105, 9: 2.262157163}
"""Source: any table of Student's t, two-sided 95 %."""


@pytest.mark.parametrize(("degrees", "expected"), list(T_975.items()))
def test_quantiles_are_those_of_the_table(degrees: int, expected: float) -> None:
    assert expected == pytest.approx(t_quantile(0.975, degrees), abs=1e-8)


def test_positive_values_are_estimated_on_logarithms() -> None:
    # logs 0, ln 2, ln 4: mean ln 2, deviation ln 2
    half = T_975[2] * math.log(2) / math.sqrt(3)
    result = estimate([1.0, 2.0, 4.0], "s")
    assert (pytest.approx(2.0), 3, "s", "geometric_mean") == (result.value, result.n, result.unit, result.statistic)
    assert pytest.approx(2.0 * math.exp(-half)) == result.low
    assert pytest.approx(2.0 * math.exp(half)) == result.high


@pytest.mark.parametrize("shift", [0.0, -10.0])
def test_values_that_are_not_all_positive_are_estimated_as_they_are(shift: float) -> None:
    # 0, 2, 4: mean 2, deviation 2
    half = T_975[2] * 2 / math.sqrt(3)
    result = estimate([0.0 + shift, 2.0 + shift, 4.0 + shift], "J")
    assert (pytest.approx(2.0 + shift), "mean") == (result.value, result.statistic)
    assert pytest.approx(2.0 + shift - half) == result.low
    assert pytest.approx(2.0 + shift + half) == result.high


def test_two_values_give_a_wide_interval() -> None:
    result = estimate([1.0, math.e], "")
    # logs 0 and 1: deviation sqrt(1/2), half t / 2
    assert pytest.approx(math.exp(0.5 - T_975[1] / 2)) == result.low


def test_another_confidence_gives_another_width() -> None:
    narrow, wide = estimate([1.0, 2.0, 4.0], "", 0.5), estimate([1.0, 2.0, 4.0], "", 0.99)
    assert narrow.high is not None
    assert wide.high is not None
    assert narrow.high < wide.high
    assert pytest.approx(2 * math.exp(0.816496580928 * math.log(2) / math.sqrt(3))) == narrow.high


def test_one_value_has_no_interval() -> None:
    assert Estimate(3.5, None, None, 1, "s", "geometric_mean") == estimate([3.5], "s")


def test_values_without_spread_have_an_interval_without_width() -> None:
    assert Estimate(0.1, 0.1, 0.1, 5, "s", "geometric_mean", basis="repetitions") == estimate([0.1] * 5, "s")
    assert Estimate(0.0, 0.0, 0.0, 2, "J", "mean", basis="repetitions") == estimate([0.0, 0.0], "J")


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_nothing_can_be_estimated_from_nothing_or_what_is_not_finite(values: list[float]) -> None:
    with pytest.raises(ValueError, match="an estimate needs"):
        estimate(values, "s")


def test_a_count_is_exact() -> None:
    result = exact(7, "B", 3)
    assert Estimate(7, None, None, 3, "B", "exact") == result
    assert result.relative_half_width() is None


def test_half_the_interval_over_the_value() -> None:
    assert pytest.approx(0.1) == Estimate(10.0, 9.0, 11.0, 3, "", "mean").relative_half_width()
    assert pytest.approx(0.1) == Estimate(-10.0, -11.0, -9.0, 3, "", "mean").relative_half_width()
    assert Estimate(0.0, -1.0, 1.0, 3, "", "mean").relative_half_width() is None


def test_a_ratio_of_pairs_is_taken_pair_by_pair() -> None:
    # the pairs agree on 2 although both sides vary by 100: an unpaired ratio would have a wide interval
    assert Estimate(2.0, 2.0, 2.0, 3, "", "geometric_mean", basis="repetitions") == ratio(
        [2.0, 20.0, 200.0], [1.0, 10.0, 100.0]
    )


def test_a_ratio_knows_its_order() -> None:
    result = ratio([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert pytest.approx(2.0) == result.value
    inverse = ratio([1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    assert result.high is not None
    assert (pytest.approx(0.5), pytest.approx(1 / result.high)) == (inverse.value, inverse.low)


@pytest.mark.parametrize(
    ("top", "bottom", "message"),
    [([1.0], [1.0, 2.0], "as many"), ([0.0], [1.0], "positive"), ([1.0], [-1.0], "positive"), ([], [], "at least one")],
)
def test_a_ratio_that_is_not_defined(top: list[float], bottom: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ratio(top, bottom)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_those_of_numpy(count: int, percent: float) -> None:
    values = [float(value) for value in np.random.default_rng(count).normal(size=count)]
    assert pytest.approx(float(np.percentile(values, percent)), rel=1e-12) == percentile(values, percent)


def test_a_percentile_by_hand_in_any_order() -> None:
    assert 3.7 == pytest.approx(percentile([4.0, 1.0, 3.0, 2.0], 90))
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 50)


RULE = StopRule(rel_ci=0.1, min_repetitions=3, max_repetitions=5)


@pytest.mark.parametrize(
    ("values", "is_met"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([1.0, 1.02, 0.98], True),
        ([1.0, 1.5, 0.7], False),
        ([1.0, 1.5, 0.7, 1.2], False),
        ([1.0, 1.5, 0.7, 1.2, 2.0], True),
    ],
)
def test_enough_repetitions(values: list[float], is_met: bool) -> None:
    assert is_met is RULE.is_met([values])


def test_the_interval_decides_at_its_bound() -> None:
    values = [1.0, 1.02, 0.98]
    half = estimate(values, "").relative_half_width()
    assert half is not None
    assert StopRule(half, 3, 9).is_met([values])
    assert not StopRule(half * 0.999, 3, 9).is_met([values])


def test_a_maximum_below_the_minimum_still_ends_a_cell() -> None:
    assert StopRule(0.1, 9, 2).is_met([[1.0, 5.0]])


def test_values_around_zero_never_meet_the_interval_and_end_with_the_count() -> None:
    assert not StopRule(0.1, 2, 4).is_met([[-1.0, 1.0, 0.0]])
    assert StopRule(0.1, 2, 4).is_met([[-1.0, 1.0, 0.0, 0.0]])


def looks(*last: float) -> list[list[float]]:
    """Three processes that agree, and then one for each value."""
    return [[1.0, 1.0], [1.0, 1.0], [1.01, 1.01], *([value] for value in last)]


OVER_PROCESSES = StopRule(rel_ci=0.03, min_repetitions=3, max_repetitions=9, min_blocks=3)


def test_one_narrow_interval_over_processes_is_not_enough() -> None:
    assert not OVER_PROCESSES.is_met(looks())
    assert not OVER_PROCESSES.is_met(looks(1.0))
    assert OVER_PROCESSES.is_met(looks(1.0, 1.0))


def test_an_interval_that_was_wide_two_looks_ago_asks_for_more() -> None:
    wide = [[1.0], [1.0], [1.05], [1.0], [1.0]]
    half = estimate_blocks(wide, "").relative_half_width()
    assert half is not None
    assert half <= 0.03
    assert not OVER_PROCESSES.is_met(wide)
    assert OVER_PROCESSES.is_met([*wide, [1.0], [1.0]])


def test_repetitions_of_too_few_processes_never_end_a_cell_but_by_their_number() -> None:
    assert not OVER_PROCESSES.is_met([[1.0] * 4, [1.0] * 4])
    assert OVER_PROCESSES.is_met([[1.0] * 4, [1.0] * 5])


def test_a_process_without_repetitions_is_none() -> None:
    assert not OVER_PROCESSES.is_met([[], *looks(1.0)])


def test_where_one_process_is_asked_for_one_narrow_interval_is_enough() -> None:
    assert StopRule(0.03, 3, 9, min_blocks=1).is_met([[1.0] * 3])
    assert StopRule(0.03, 3, 9, min_blocks=1).is_met(looks())


@pytest.mark.parametrize(
    ("medians", "is_met"),
    [
        ([], False),
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([9.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 1.051], False),
        ([0.98, 1.0, 1.029], True),
        ([1.0, 1.0, 1.0, 9.0], False),
    ],
)
def test_steady_when_the_last_samples_lie_together(medians: list[float], is_met: bool) -> None:
    assert is_met is SteadyRule(samples=3, tolerance=0.05).is_met(medians)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(16, 16, 0.7941, 1.0), (0, 4, 0.0, 0.6024), (5, 6, 0.3588, 0.9958)]
)
def test_all_of_a_few_cases_make_nothing_certain(hits: int, count: int, low: float, high: float) -> None:
    """Clopper and Pearson: 16 of 16 leave room for a fifth."""
    found = estimate_count(hits, count, "")
    assert (hits / count, pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5), count) == (
        found.value,
        found.low,
        found.high,
        found.n,
    )
    with pytest.raises(ValueError):
        estimate_count(count + 1, count, "")
