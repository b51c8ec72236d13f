"""Tokens over time, from the stamps of steps or chunks: how many lie between two moments, and how surely."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokbench.derive.repetitions import UndefinedError, served_requests
from tokbench.derive.words import t
from tokbench.record.observations import RequestTrace, StepTrace
from tokbench.record.run import Trial
from tokbench.record.timings import tokens_at_stamps


class Segment(NamedTuple):
    """A step or the wait for a chunk: so many tokens were made from the one moment to the other."""

    start_at_ns: float
    end_at_ns: float
    tokens: float


class Levels(NamedTuple):
    """Power within a window: the mean, and between what it can have moved; `peak_w` is None where nothing tells it."""

    floor_w: float
    mean_w: float
    peak_w: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What one window made, segment by segment; segments of several streams overlap."""

    segments: tuple[Segment, ...]
    clock_error_s: float
    """How far the stamps can be from the clock that the meter was read by."""

    def between(self, start_at_ns: float, end_at_ns: float) -> float:
        """Tokens from the one moment to the other; a segment that is cut counts by its share of time."""
        return sum(
            part.tokens * (min(part.end_at_ns, end_at_ns) - max(part.start_at_ns, start_at_ns)) / length
            for part in self.segments
            if (length := part.end_at_ns - part.start_at_ns) > 0
            and part.end_at_ns > start_at_ns
            and part.start_at_ns < end_at_ns
        )

    def edge_error(self, at_ns: float, levels: Levels) -> float:
        """Tokens by which the cut at one moment can be wrong, because power moves within a segment.

        A segment that is cut after the share s of its time has had between s * floor and s * peak of its energy, and
        the rest between (1 - s) * floor and (1 - s) * peak; its mean is taken to be the window's.
        """
        up = float("inf") if levels.peak_w is None else max(levels.peak_w / levels.mean_w - 1, 0.0)
        down = max(1 - levels.floor_w / levels.mean_w, 0.0)
        wrong = 0.0
        for part in self.segments:
            if part.start_at_ns < at_ns < part.end_at_ns:
                share = (at_ns - part.start_at_ns) / (part.end_at_ns - part.start_at_ns)
                rest = 1 - share
                wrong += part.tokens * max(min(share * up, rest * down), min(share * down, rest * up))
        return wrong

    def longest_s(self) -> float:
        """Seconds of the longest segment."""
        return max(part.end_at_ns - part.start_at_ns for part in self.segments) * 1e-9


def output_work(traces: Sequence[StepTrace]) -> Work:
    """Output tokens of all rows, step by step.

    Raises:
        UndefinedError: no step was stamped.
    """
    parts = [
        Segment(start, end, tokens)
        for trace in traces
        for start, end, tokens in zip(
            (trace.start_at_ns, *trace.step_at_ns), trace.step_at_ns, tokens_at_stamps(trace), strict=False
        )
    ]
    return _work(parts, traces)


def prompt_work(traces: Sequence[StepTrace], prompt_tokens: int | None) -> Work:
    """Prompt tokens of all rows, prefill by prefill; the first output token's head is a part of each.

    Raises:
        UndefinedError: no prefill was stamped.
    """
    parts = [
        Segment(trace.start_at_ns, trace.step_at_ns[-1], trace.rows * (prompt_tokens or trace.context_tokens))
        for trace in traces
        if trace.step_at_ns
    ]
    return _work(parts, traces)


def _work(parts: Sequence[Segment], traces: Sequence[StepTrace]) -> Work:
    if not parts:
        raise UndefinedError(t("no step was stamped in the energy window"))
    return Work(tuple(parts), max(trace.clock_error_s or 0.0 for trace in traces))


def request_work(trial: Trial) -> Work:
    """Output tokens of every served request, chunk by chunk; the first chunk's from sending on."""
    served = served_requests(trial)
    return Work(tuple(_chunks(served)), max((trace.clock_error_s or 0.0 for trace in served), default=0.0))


def _chunks(served: Sequence[RequestTrace]) -> Iterator[Segment]:
    for trace in served:
        edges = (trace.sent_at_ns, *trace.chunk_at_ns)
        for start, end, tokens in zip(edges, trace.chunk_at_ns, trace.chunk_tokens, strict=False):
            yield Segment(start, end, tokens)


def steady_window(trial: Trial, slots: int | None) -> tuple[int, int]:
    """From when the requests in every slot have had a first token until the first slot runs empty.

    Raises:
        UndefinedError: the load has no slots, or they were never all filled.
    """
    if slots is None:
        raise UndefinedError(t("requests that arrive by themselves have no slots, so no steady window"))
    failed = sum(trace.error is not None for trace in trial.requests)
    if failed:
        raise UndefinedError(
            t("{count} requests ended in an error, and their energy cannot be taken out", count=failed)
        )
    served = sorted((trace for trace in trial.requests if trace.chunk_at_ns), key=lambda item: item.sent_at_ns)
    if len(served) < slots:
        raise UndefinedError(t("{count} requests never filled {slots} slots", count=len(served), slots=slots))
    if served[slots - 1].sent_at_ns > min(trace.chunk_at_ns[-1] for trace in served[:slots]):
        raise UndefinedError(t("{slots} slots were never all filled", slots=slots))
    full = max(trace.chunk_at_ns[0] for trace in served[:slots])
    last_sent = served[-1].sent_at_ns
    empty = min(trace.chunk_at_ns[-1] for trace in served if trace.chunk_at_ns[-1] > last_sent)
    if empty <= full:
        raise UndefinedError(t("the first slot ran empty before all slots had a first token: more requests are needed"))
    return full, empty
