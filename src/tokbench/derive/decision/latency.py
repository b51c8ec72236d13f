"""The 95th percentile of the time to the first token, with an interval. It judges nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.repetitions import UndefinedError, by_process, served_requests
from tokbench.derive.words import t
from tokbench.record import timings
from tokbench.record.run import Trial
from tokbench.stats import Estimate, estimate_blocks, percentile
from tokbench.stats.estimates import spread_of

PERCENT: Final = 95.0
_NORMAL_QUANTILE: Final = NormalDist().inv_cdf(PERCENT / 100)


def ttft_p95(cell: CellResult) -> Estimate | Missing:
    """The 95th percentile of TTFT in seconds.

    Requests: percentile 95 over the requests of each repetition, then the interval over repetitions as for any metric.
    Static batch: all rows of a pass get their first token together, so that the passes are the sample: see
    `normal_p95`. Nobody waits in a queue there: it is the least that a service could promise.
    """
    found = cell.metrics.get("ttft_s")
    if not isinstance(found, Estimate):
        return Missing(found.reason if found is not None else t("no TTFT was measured"))
    trials = cell.record.good_trials()
    if not any(trial.requests for trial in trials):
        return normal_p95(cell.repetitions["ttft_s"], found.unit)
    try:
        values = [_of_requests(trial) for trial in trials]
    except UndefinedError as undefined:
        return Missing(str(undefined))
    return estimate_blocks(by_process(cell.record, values), found.unit)


def _of_requests(trial: Trial) -> float:
    seconds = [timings.request_first_chunk_s(trace) for trace in served_requests(trial)]
    known = [value for value in seconds if value is not None]
    if not known:
        raise UndefinedError("no request got a token")
    return percentile(known, PERCENT)


def normal_p95(values: Sequence[float], unit: str) -> Estimate:
    """The 95th percentile of what positive values are a sample of, if their logarithms are normal.

    Formula: exp(m + 1.645 s), m and s the mean and standard deviation of the n logarithms; the ends of the 95 %
    interval are exp(m + s k / sqrt(n)), k the 2.5th and the 97.5th percentile of the noncentral t distribution with
    n - 1 degrees of freedom and noncentrality 1.645 sqrt(n). Exact for independent values; passes of one process are
    taken as independent.
    Source: G. J. Hahn and W. Q. Meeker, Statistical Intervals, Wiley 1991, chapter 4 (confidence intervals for
    normal quantiles).

    Raises:
        ValueError: no values, or one that is not positive.
    """
    if not values or min(values) <= 0:
        raise ValueError("a percentile of logarithms needs positive values")
    n = len(values)
    if n == 1:
        return Estimate(values[0], None, None, 1, unit, "normal_p95")
    if min(values) == max(values):
        return Estimate(values[0], values[0], values[0], n, unit, "normal_p95", basis="repetitions")
    spread = spread_of([math.log(value) for value in values])
    deviation = math.sqrt(spread.variance * n)
    ends = (_NORMAL_QUANTILE, *(_noncentral(n, share) / math.sqrt(n) for share in (0.025, 0.975)))
    value, low, high = (math.exp(spread.mean + deviation * factor) for factor in ends)
    return Estimate(value, low, high, n, unit, "normal_p95", basis="repetitions")


@functools.lru_cache(maxsize=256)
def _noncentral(n: int, probability: float) -> float:
    from scipy.special import nctdtrit  # scipy costs 0.2 s: not for --help

    return float(nctdtrit(n - 1, _NORMAL_QUANTILE * math.sqrt(n), probability))
