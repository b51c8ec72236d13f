"""Durations of ONE request or window, from raw stamps. `derive/metrics` aggregates these; nothing else holds them."""

from __future__ import annotations

import itertools
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
    """Output tokens per row over the whole trace."""
    return sum(trace.tokens_per_row)


def decode_rate_per_row(traces: Sequence[StepTrace]) -> float | None:
    """Tokens per second of one row over decode traces; None without a duration."""
    seconds = sum(trace_duration_s(trace) for trace in traces)
    tokens = sum(trace_tokens_per_row(trace) for trace in traces)
    return tokens / seconds if seconds > 0 else None


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
