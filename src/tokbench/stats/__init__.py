"""Estimates from repetitions in blocks: intervals, comparison, the stopping rule and the rule of steadiness.

Pure: it knows numbers and worker processes, no run, no record and no device.
"""

from tokbench.stats.comparison import Comparison, Outcome, compare, outcome_text
from tokbench.stats.estimates import (
    MIN_BLOCKS,
    Estimate,
    estimate,
    estimate_blocks,
    estimate_count,
    estimate_plain,
    exact,
    percentile,
    ratio,
    t_quantile,
)
from tokbench.stats.rules import SteadyRule, StopRule

__all__ = [
    "MIN_BLOCKS",
    "Comparison",
    "Estimate",
    "Outcome",
    "SteadyRule",
    "StopRule",
    "compare",
    "estimate",
    "estimate_blocks",
    "estimate_count",
    "estimate_plain",
    "exact",
    "outcome_text",
    "percentile",
    "ratio",
    "t_quantile",
]
