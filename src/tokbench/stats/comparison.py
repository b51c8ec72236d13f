"""Two sets of blocks side by side: the ratio with its interval, and what may be said of it. Pure."""

from __future__ import annotations

import dataclasses
import enum
import math
import statistics
from collections.abc import Sequence
from typing import Literal

from tokbench.stats.estimates import MIN_BLOCKS, Estimate, Spread, spread_of
from tokbench.units import Better

Basis = Literal["paired blocks", "unpaired blocks", "repetitions"]
ROUNDING = 1e-9
"""Two numbers closer than this, relatively, are one number computed in another order."""


class Outcome(enum.Enum):
    """What a comparison of b with a shows; `outcome_text` has the words for a metric."""

    HIGHER = "higher"
    LOWER = "lower"
    NO_DIFFERENCE = "no difference shown"
    TOO_NOISY = "too noisy to say"


def outcome_text(outcome: Outcome, better: Better, words: tuple[str, str] = ("faster", "slower")) -> str:
    """What b is, in words: the first of `words` where it is better, the second where it is worse.

    Plain "higher" and "lower" where the metric has no better side. For energy or memory the caller gives other words.
    """
    if outcome in (Outcome.NO_DIFFERENCE, Outcome.TOO_NOISY) or better is Better.NEITHER:
        return outcome.value
    return words[0] if (outcome is Outcome.HIGHER) == (better is Better.HIGHER) else words[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """b set beside a."""

    ratio: Estimate
    """b over a."""
    outcome: Outcome
    basis: Basis
    """`repetitions` leaves out the variance between processes."""
    n_a: int
    """Blocks compared; repetitions where `basis` says so."""
    n_b: int


def compare(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    *,
    paired: bool,
    noise_limit: float = 0.05,
    confidence: float = 0.95,
) -> Comparison:
    """The ratio of b to a with its interval; one inner sequence per worker process, of its repetitions in order.

    Paired: block i of a ran beside block i of b, so what drifts under both cancels; a block that either side lacks is
    left out. Else, or with fewer than MIN_BLOCKS pairs, Welch's t on the log means of the blocks. With fewer than
    MIN_BLOCKS blocks on a side, Welch's t on the repetitions. `noise_limit`: the relative half width above which an
    interval that holds 1 says nothing.

    Raises:
        ValueError: a side is empty, or a value is not finite and positive.
    """
    logs_a, logs_b = _logs(a), _logs(b)
    pairs = [pair for pair in zip(logs_a, logs_b, strict=False) if all(pair)] if paired else []
    if len(pairs) >= MIN_BLOCKS:
        known = spread_of([statistics.fmean(after) - statistics.fmean(before) for before, after in pairs])
        return _judge(known, ("paired blocks", len(pairs), len(pairs)), noise_limit, confidence)
    means_a, means_b = ([statistics.fmean(block) for block in logs if block] for logs in (logs_a, logs_b))
    if min(len(means_a), len(means_b)) >= MIN_BLOCKS:
        known = _welch(means_a, means_b)
        return _judge(known, ("unpaired blocks", len(means_a), len(means_b)), noise_limit, confidence)
    all_a, all_b = ([value for block in logs for value in block] for logs in (logs_a, logs_b))
    known = _welch(all_a, all_b)
    return _judge(known, ("repetitions", len(all_a), len(all_b)), noise_limit, confidence)


def _logs(blocks: Sequence[Sequence[float]]) -> list[list[float]]:
    if not any(blocks):
        raise ValueError("a comparison needs values on both sides")
    if not all(math.isfinite(value) and value > 0 for block in blocks for value in block):
        raise ValueError("a comparison needs finite positive values")
    return [[math.log(value) for value in block] for block in blocks]


def _welch(a: Sequence[float], b: Sequence[float]) -> Spread:
    """The difference of two means. One value on a side: no degrees of freedom, so no interval.

    Source: B. L. Welch, Biometrika 34 (1947) 28, with Satterthwaite's degrees of freedom.
    """
    difference = statistics.fmean(b) - statistics.fmean(a)
    if min(len(a), len(b)) < 2:
        return Spread(difference, 0.0, 0.0)
    of_a, of_b = spread_of(a), spread_of(b)
    variance = of_a.variance + of_b.variance
    if variance == 0:
        return Spread(difference, 0.0, of_a.degrees + of_b.degrees)
    degrees = variance**2 / (of_a.variance**2 / of_a.degrees + of_b.variance**2 / of_b.degrees)
    return Spread(difference, variance, degrees)


def _judge(known: Spread, rests_on: tuple[Basis, int, int], noise_limit: float, confidence: float) -> Comparison:
    """Put the difference of logs back into a ratio, and say what it shows."""
    basis, n_a, n_b = rests_on
    n = n_a if basis == "paired blocks" else n_a + n_b
    found = Estimate(math.exp(known.mean), None, None, n, "", "geometric_mean")
    if known.degrees > 0:
        value, low, high = (math.exp(end) for end in known.interval(confidence))
        found = dataclasses.replace(
            found, value=value, low=low, high=high, basis="repetitions" if basis == "repetitions" else "blocks"
        )
    if basis != "repetitions":
        found = dataclasses.replace(found, blocks=n)
    return Comparison(found, _outcome(found, noise_limit), basis, n_a, n_b)


def _outcome(found: Estimate, noise_limit: float) -> Outcome:
    half = found.relative_half_width()
    if found.low is None or found.high is None or half is None:
        return Outcome.TOO_NOISY
    if found.low > 1 + ROUNDING:
        return Outcome.HIGHER
    if found.high < 1 - ROUNDING:
        return Outcome.LOWER
    return Outcome.TOO_NOISY if half > noise_limit else Outcome.NO_DIFFERENCE
