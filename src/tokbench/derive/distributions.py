"""How the times behind a cell are spread: percentiles of the time to first token and of the step, from raw stamps.

It pools the repetitions of a cell, so it has no interval: what may be said of a cell is said by its metrics, which
count one value per repetition. A percentile that too few values hold up is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from tokbench.derive.evaluate import CellResult
from tokbench.derive.repetitions import UndefinedError, decode_traces, prefill_s, served_requests
from tokbench.record import timings
from tokbench.record.run import Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray  # costs a tenth of a second

    Times: TypeAlias = NDArray[np.float64]

Quantity = Literal["ttft_s", "gap_s"]
BEYOND = 1
"""A percentile is given from as many values on as put this many beyond it: p90 from 10, p99 from 100."""
FEW = 30
"""Up to this many values are kept one by one: so few are shown as they are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Distribution:
    """The times of one kind in one cell, in seconds, all finished repetitions together."""

    cell: CellResult
    quantity: Quantity
    """`ttft_s`; or `gap_s`: a step of decode, or the time between two chunks of a request."""
    n: int
    repetitions: int
    least_s: float
    p25_s: float
    p50_s: float
    p75_s: float
    p90_s: float | None
    p99_s: float | None
    most_s: float
    values_s: tuple[float, ...]
    """Each value where there are few, else nothing."""


def find_distributions(cells: Sequence[CellResult]) -> tuple[Distribution, ...]:
    """Both kinds of every measured cell that has stamps for them, in the order of the cells."""
    found: list[Distribution] = []
    for cell in cells:
        trials = cell.record.good_trials()
        kinds: tuple[tuple[Quantity, Times], ...] = (("ttft_s", _first_s(trials)), ("gap_s", _gaps_s(trials)))
        found += [_spread(cell, quantity, times, len(trials)) for quantity, times in kinds if times.size]
    return tuple(found)


def _spread(cell: CellResult, quantity: Quantity, times: Times, repetitions: int) -> Distribution:
    low, quarter, half, three, nine, most_of, high = np.percentile(times, (0, 25, 50, 75, 90, 99, 100)).tolist()
    count = int(times.size)
    return Distribution(
        cell=cell,
        quantity=quantity,
        n=count,
        repetitions=repetitions,
        least_s=low,
        p25_s=quarter,
        p50_s=half,
        p75_s=three,
        p90_s=nine if _holds_up(90, count) else None,
        p99_s=most_of if _holds_up(99, count) else None,
        most_s=high,
        values_s=tuple(times.tolist()) if count <= FEW else (),
    )


def _holds_up(percent: int, count: int) -> bool:
    return count * (100 - percent) >= 100 * BEYOND


def _first_s(trials: Sequence[Trial]) -> Times:
    """Seconds until the first output token: one per request, or one per repetition of a static batch."""
    times: list[float] = []
    for trial in trials:
        try:
            if trial.requests:
                waits = (timings.request_first_chunk_s(trace) for trace in served_requests(trial))
                times += [wait for wait in waits if wait is not None]
            else:
                times.append(prefill_s(trial))
        except UndefinedError:
            continue
    return np.asarray(times, dtype=float)


def _gaps_s(trials: Sequence[Trial]) -> Times:
    """Seconds of each step of decode, or between the neighbouring chunks of each request."""
    edges = [
        (trace.start_at_ns, *trace.step_at_ns)
        for trial in trials
        if not trial.requests
        for trace in decode_traces(trial)
    ]
    edges += [
        trace.chunk_at_ns
        for trial in trials
        for trace in trial.requests
        if trace.error is None and len(trace.chunk_at_ns) > 1
    ]
    gaps = [np.diff(np.asarray(stamps, dtype=np.int64)).astype(np.float64) for stamps in edges]
    return np.concatenate(gaps) * timings.NS if gaps else np.empty(0)
