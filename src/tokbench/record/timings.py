"""Durations of ONE request or window, from raw stamps. `derive/metrics` aggregates these; nothing else holds them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from tokbench.record.observations import RequestTrace, StepTrace

NS = 1e-9


def step_durations_s(trace: StepTrace) -> list[float]:
    """Seconds between neighbouring stamps, the first from the window's start."""
    edges = (trace.start_at_ns, *trace.step_at_ns)
    return [(after - before) * NS for before, after in itertools.pairwise(edges)]


def trace_duration_s(trace: StepTrace) -> float:
    """Seconds from the start of the first step to the end of the last; 0 stamps give 0."""
    return (trace.step_at_ns[-1] - trace.start_at_ns) * NS if trace.step_at_ns else 0.0


def trace_tokens_per_row(trace: StepTrace) -> int:
    """Output tokens per row over the whole trace; of the row that got the fewest where rows advance apart."""
    return min(row_token_counts(trace)) if trace.tokens_by_row else sum(trace.tokens_per_row)


def row_token_counts(trace: StepTrace) -> list[int]:
    """Output tokens of each row over the whole trace."""
    if not trace.tokens_by_row:
        return [sum(trace.tokens_per_row)] * trace.rows
    return [sum(counts) for counts in zip(*trace.tokens_by_row, strict=True)]


def row_durations_s(trace: StepTrace) -> list[float]:
    """Seconds of each row from the start of the trace to the stamp that gave it its last token; 0 for none."""
    if not trace.tokens_by_row:
        return [trace_duration_s(trace)] * trace.rows
    return [_until_last_s(trace, counts) for counts in zip(*trace.tokens_by_row, strict=True)]


def _until_last_s(trace: StepTrace, counts: Sequence[int]) -> float:
    stamps = [at_ns for at_ns, tokens in zip(trace.step_at_ns, counts, strict=True) if tokens]
    return (stamps[-1] - trace.start_at_ns) * NS if stamps else 0.0


def tokens_at_stamps(trace: StepTrace) -> list[int]:
    """Output tokens of all rows together at each stamp."""
    if trace.tokens_by_row:
        return [sum(counts) for counts in trace.tokens_by_row]
    return [tokens * trace.rows for tokens in trace.tokens_per_row]


def decode_rate_per_row(traces: Sequence[StepTrace]) -> float | None:
    """Tokens per second of one row over decode traces, mean over rows; None where a row has no duration.

    A row's time ends with the stamp that gave it its last token: what others still wait for is not its own.
    """
    if not any(trace.tokens_by_row for trace in traces):  # all rows alike
        seconds = sum(trace_duration_s(trace) for trace in traces)
        tokens = sum(trace_tokens_per_row(trace) for trace in traces)
        return tokens / seconds if seconds > 0 else None
    tokens_of = [sum(counts) for counts in zip(*map(row_token_counts, traces), strict=True)]
    seconds_of = [math.fsum(times) for times in zip(*map(row_durations_s, traces), strict=True)]
    if not all(seconds > 0 for seconds in seconds_of):
        return None
    return statistics.fmean(tokens / seconds for tokens, seconds in zip(tokens_of, seconds_of, strict=True))


def request_first_chunk_s(trace: RequestTrace) -> float | None:
    """Seconds from the scheduled time (or sending, in a closed loop) to the first chunk; None without one."""
    if not trace.chunk_at_ns:
        return None
    origin = trace.scheduled_at_ns if trace.scheduled_at_ns is not None else trace.sent_at_ns
    return (trace.chunk_at_ns[0] - origin) * NS


def request_decode_s(trace: RequestTrace) -> float | None:
    """Seconds from the first to the last chunk; None with fewer than two."""
    if len(trace.chunk_at_ns) < 2:
        return None
    return (trace.chunk_at_ns[-1] - trace.chunk_at_ns[0]) * NS


def chunk_gaps_s(trace: RequestTrace) -> list[float]:
    """Seconds between neighbouring chunks."""
    return [(after - before) * NS for before, after in itertools.pairwise(trace.chunk_at_ns)]


def request_tokens(trace: RequestTrace) -> int:
    """Output tokens of the request."""
    return sum(trace.chunk_tokens)


def request_decode_tokens(trace: RequestTrace) -> int:
    """Output tokens after the first chunk: with speculation a chunk holds several."""
    return sum(trace.chunk_tokens[1:])


def request_e2e_s(trace: RequestTrace) -> float | None:
    """Seconds from the scheduled time to the last chunk; None without one."""
    if not trace.chunk_at_ns:
        return None
    origin = trace.scheduled_at_ns if trace.scheduled_at_ns is not None else trace.sent_at_ns
    return (trace.chunk_at_ns[-1] - origin) * NS
