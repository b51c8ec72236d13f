"""What the points of the experiment `lossless` say: prompts that stay the same, and tests of drawn tokens.

The control is a rule that is lossy on purpose. Where the tests do not find it, they would not find a real loss either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tokbench.record.run import CellRecord

TIE_GAP = 1e-4
"""Two best logits of float32 closer than this are a tie: which of them is taken is a question of rounding."""
FULL_PRECISION = "float32"
"""In which rounding explains ties alone. bfloat16 has 8 bits: logits of 16 to 32 lie 0.125 apart."""
MIN_EXPECTED = 5.0
"""Rarer outcomes are counted together: below it the chi-square distribution of G is off. Source: Cochran 1954,
https://doi.org/10.2307/3001616"""
FLAGGED_BELOW = 0.001
"""The control counts as found below this p; the claims on losslessness use the same bound."""
FOUND_CHANCE = 0.9
"""How often a deviation of the size that `detectable_shift` tells would be found."""

Check = Literal["greedy", "lossy", "batch"]
Arm = Literal["speculative", "lossy"]
Counts = Mapping[str, int | float]


class Matches(NamedTuple):
    """How many prompts of a check came out the same, token by token."""

    prompts: int
    identical: int
    gaps: tuple[float | None, ...]
    """Between the two best logits where each of the others first differs; None where the engine does not show them."""
    places: tuple[int, ...] = ()
    """Tokens before the first that differs, of each of the others."""
    compared: int = 0
    """Tokens compared in each prompt, the fewest of all."""
    dtype: str = FULL_PRECISION
    """What was computed in: in fewer bits rounding moves logits by far more than a tie is wide."""

    @property
    def untied(self) -> int | None:
        """Prompts that differ where there was no tie; None where that is not known of one."""
        known = [gap for gap in self.gaps if gap is not None]
        is_told = len(known) == len(self.gaps) and (not known or self.dtype == FULL_PRECISION)
        return sum(gap >= TIE_GAP for gap in known) if is_told else None


class GTest(NamedTuple):
    """One prefix: whether two histograms can come from one distribution."""

    p_value: float
    statistic: float
    degrees: int
    draws: int
    """Of the smaller side, whose first token the other side has too."""


def count_matches(cell: CellRecord, check: Check) -> Matches | None:
    """All prompts of one greedy check; None where there was none.

    A prompt counts once, by the worst of its repetitions: the same text again is no further prompt. Without a frozen
    set each row has the same prompt in every repetition.
    """
    found: dict[str, list[Counts]] = {}
    for trial in cell.good_trials():
        names = () if trial.prompts is None else trial.prompts.prompt_ids
        for point in trial.points:
            if point.experiment == "lossless" and point.settings["check"] == check:
                row = int(point.settings["row"])
                found.setdefault(names[row] if row < len(names) else str(row), []).append(point.values)
    if not found:
        return None
    worst = [_worst(repeated) for repeated in found.values()]
    parted = [values for values in worst if values["matched"] < values["compared"]]
    return Matches(
        len(worst),
        len(worst) - len(parted),
        tuple(values.get("top2_gap") for values in parted),
        tuple(int(values["matched"]) for values in parted),
        min(int(values["compared"]) for values in worst),
        cell.spec.model.dtype if cell.engine is None else cell.engine.dtype,
    )


def _worst(repeated: Sequence[Counts]) -> Counts:
    """Where a prompt differed in any repetition, that one; of several the one whose logits are not shown, or furthest
    apart."""
    parted = [values for values in repeated if values["matched"] < values["compared"]]
    return max(parted, key=lambda values: values.get("top2_gap", float("inf"))) if parted else repeated[0]


def mismatch_bound(matches: Matches, confidence: float = 0.95) -> float:
    """The largest share of prompts that could differ, by Clopper and Pearson's one-sided bound.

    Formula: the `confidence` quantile of Beta(differing + 1, identical); 1 where none is identical.
    """
    from scipy.special import betaincinv  # scipy costs 0.2 s: not for --help

    if matches.identical == 0:
        return 1.0
    return float(betaincinv(matches.prompts - matches.identical + 1, matches.identical, confidence))


def g_tests(cell: CellRecord, arm: Arm) -> list[GTest]:
    """A G-test per prefix of an arm's draws against those without drafts, where there are enough for one.

    Draws behind one prefix are counted together over the repetitions, where each had random numbers of its own.
    """
    plain, other = _drawn(cell, "plain"), _drawn(cell, arm)
    found = (g_test(plain[prefix], other[prefix]) for prefix in plain if prefix in other)
    return [tested for tested in found if tested is not None]


def _drawn(cell: CellRecord, arm: str) -> dict[str, Counter[str]]:
    """What followed each prefix, over all repetitions; draws of the same random numbers count once."""
    counts: dict[str, Counter[str]] = {}
    seen: set[tuple[str, str]] = set()
    for trial in cell.good_trials():
        names = () if trial.prompts is None else trial.prompts.prompt_ids
        for point in trial.points:
            if point.experiment != "lossless" or point.settings.get("arm") != arm:
                continue
            row = int(point.settings.get("row", 0))
            key = names[row] if row < len(names) else str(row)
            draws = key, str(point.settings.get("seed"))  # older records say none: all repetitions drew the same
            if draws not in seen:
                seen.add(draws)
                counts.setdefault(key, Counter()).update({name: int(count) for name, count in point.values.items()})
    return counts


def combined_p(tests: Sequence[GTest]) -> float:
    """One p for all prefixes, corrected for how many there are.

    A fault may shift all of them a little or one of them much. Both are looked at, and the smaller p is doubled.

    Formula: min(1, 2·min(chi-square tail of ΣG at Σ degrees, n·least p)); of one prefix its own p.

    Raises:
        ValueError: no test.
    """
    if len(tests) < 2:
        return min(test.p_value for test in tests)
    return min(1.0, 2 * min(_pooled_p(tests), len(tests) * min(test.p_value for test in tests)))


def _pooled_p(tests: Sequence[GTest]) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(sum(test.degrees for test in tests), sum(test.statistic for test in tests)))


def detectable_shift(tests: Sequence[GTest]) -> float | None:
    """The share of probability that must move to other tokens to be found; None where no shift at all is sure to be.

    Found means a pooled p below FLAGGED_BELOW in FOUND_CHANCE of all runs. The shift is that of the first drawn token,
    on average over the prefixes, between outcomes that are counted apart.

    Formula: √(λ/2N), N the draws of a side, λ the noncentrality at which chi-square of Σ degrees passes its critical
    value that often. Of all shifts by δ in total variation the one that is hardest to see has 2Nδ² (Cauchy-Schwarz on
    λ = N·Σ(p - q)²/(p + q)).
    """
    from scipy.special import chdtri, chndtrinc

    degrees, draws = sum(test.degrees for test in tests), sum(test.draws for test in tests)
    if not draws:
        return None
    level = FLAGGED_BELOW if len(tests) < 2 else FLAGGED_BELOW / 2
    shift = float((chndtrinc(chdtri(degrees, level), degrees, 1 - FOUND_CHANCE) / (2 * draws)) ** 0.5)
    return shift if shift < 1 else None


def g_test(plain: Counts, other: Counts) -> GTest | None:
    """Whether the tokens behind a first token have one distribution on both sides; None where that cannot be tested.

    The first token is not drawn anew. Behind every beginning that both sides hold, the next token is a table of its
    own: G and degrees of freedom of all tables are summed.

    Formula: G = 2·Σ observed·ln(observed/expected) over outcomes with at least 5 expected on either side, the rarer
    ones counted together; p is the upper tail of the chi-square distribution with Σ(outcomes - 1) degrees of freedom.
    """
    from scipy.special import chdtrc
    from scipy.stats import chi2_contingency

    statistic, degrees, draws = 0.0, 0, 0
    sides = _by_beginning(plain), _by_beginning(other)
    for beginning in sorted(sides[0].keys() & sides[1].keys()):
        table = _bucket(sides[0][beginning], sides[1][beginning])
        if len(table[0]) < 2:
            continue
        tested = chi2_contingency(table, correction=False, lambda_="log-likelihood")
        statistic += float(tested.statistic)
        degrees += int(tested.dof)
        draws += min(sum(table[0]), sum(table[1])) if len(beginning) == 1 else 0
    return GTest(float(chdtrc(degrees, statistic)), statistic, degrees, draws) if degrees else None


def _by_beginning(counts: Counts) -> dict[tuple[str, ...], Counter[str]]:
    """How often which token came next, by all tokens before it; the first token alone is the shortest beginning."""
    sides: dict[tuple[str, ...], Counter[str]] = {}
    for outcome, count in counts.items():
        tokens = tuple(outcome.split(" "))
        for length in range(1, len(tokens)):
            sides.setdefault(tokens[:length], Counter())[tokens[length]] += int(count)
    return sides


def _bucket(left: Counter[str], right: Counter[str]) -> tuple[list[int], list[int]]:
    """Both sides' counts of the same outcomes, each with enough expected on the smaller side."""
    pooled = left + right
    share = min(left.total(), right.total()) / pooled.total()
    kept = [outcome for outcome, count in pooled.most_common() if count * share >= MIN_EXPECTED]
    rare = [outcome for outcome in pooled if outcome not in set(kept)]
    groups: list[Sequence[str]] = [[outcome] for outcome in kept]
    if rare and sum(pooled[outcome] for outcome in rare) * share < MIN_EXPECTED and groups:
        groups[-1] = [*groups[-1], *rare]
    elif rare:
        groups.append(rare)
    left_counts, right_counts = ([sum(side[name] for name in group) for group in groups] for side in (left, right))
    return left_counts, right_counts
