"""Durations and rates of one repetition, aggregated from its traces; what several metrics start from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from tokbench.derive.words import t
from tokbench.record import timings
from tokbench.record.observations import RequestTrace, StepTrace, WindowKind
from tokbench.record.run import CellRecord, Trial


class UndefinedError(Exception):
    """A quantity that has no value for a cell; the message is the reason that a reader sees."""


class ByWorker(tuple[float, ...]):
    """Values of trials that are no repetitions, each with the worker process that its trial ran in."""

    workers: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, float]]) -> ByWorker:
        """The values of (worker id, value) in their order."""
        listed = list(pairs)
        made = cls(value for _, value in listed)
        made.workers = tuple(worker for worker, _ in listed)
        return made


class ByPrompt(tuple[float, ...]):
    """Values of prompts: what the text decides differs from prompt to prompt, not from process to process."""

    limits: tuple[float, float] = (-math.inf, math.inf)
    """Where every value must lie, and so its interval."""


class SharesByPrompt(ByPrompt):
    """Such values that are shares."""

    limits = (0.0, 1.0)


class CountedByPrompt(SharesByPrompt):
    """Such shares of which each is 1 or 0: whether a prompt has something."""


def finished_trials(cell: CellRecord) -> list[Trial]:
    """Trials that came to their end.

    Raises:
        UndefinedError: there is none.
    """
    trials = cell.good_trials()
    if not trials:
        raise UndefinedError(t("no trial of this cell came to its end"))
    return trials


def served_requests(trial: Trial) -> list[RequestTrace]:
    """The requests of a trial that count: those that ended in an error are left out of every metric.

    Raises:
        UndefinedError: the trial had requests, and all of them ended in an error.
    """
    served = [trace for trace in trial.requests if trace.error is None]
    if trial.requests and not served:
        raise UndefinedError(t("every request ended in an error"))
    return served


def _traces(trial: Trial, kind: WindowKind) -> list[StepTrace]:
    return [trace for window in trial.of_kind(kind) for trace in window.steps]


def decode_traces(trial: Trial) -> list[StepTrace]:
    """The step traces of a trial's decode windows."""
    return _traces(trial, "decode")


def decode_s(trial: Trial) -> float:
    """Seconds of decode."""
    return sum(timings.trace_duration_s(trace) for trace in decode_traces(trial))


def prefill_s(trial: Trial) -> float:
    """Seconds of prefill, the first output token included.

    Raises:
        UndefinedError: the trial has no prefill window.
    """
    traces = _traces(trial, "prefill")
    if not traces:
        raise UndefinedError(t("the engine does not cut prefill from decode"))
    return sum(timings.trace_duration_s(trace) for trace in traces)


def ceiling_beside(trial: Trial) -> float | None:
    """Bytes per second that the memory gave beside a repetition's decode; None where it was not read on both sides.

    Formula: geometric mean of the fastest pass before and the fastest pass after.
    """
    sides = {read.side: read.read_bytes / min(read.pass_s) for read in trial.reads if read.pass_s}
    return math.sqrt(sides["before"] * sides["after"]) if len(sides) == 2 else None


def rows_of(trial: Trial) -> int:
    """Rows of a static batch.

    Raises:
        UndefinedError: the trial has no step trace.
    """
    traces = (*_traces(trial, "prefill"), *_traces(trial, "decode"))
    if not traces:
        raise UndefinedError(t("no step of this trial was stamped"))
    return traces[0].rows


def all_tokens(trial: Trial) -> int:
    """Output tokens of all rows of a static batch, the first ones included."""
    return sum(_row_counts(trial))


def _row_counts(trial: Trial) -> list[int]:
    traces = (*_traces(trial, "prefill"), *_traces(trial, "decode"))
    counted = [timings.row_token_counts(trace) for trace in traces]
    return [sum(counts) for counts in zip(*counted, strict=True)] or [0]


def row_e2e_s(trial: Trial) -> list[tuple[int, float]]:
    """Output tokens and seconds, from the prefill's start to its last token, of each row; one
    pair where all rows of the static batch are alike.

    Raises:
        UndefinedError: the trial has no prefill window.
    """
    begun_s = prefill_s(trial)
    timed = [timings.row_durations_s(trace) for trace in decode_traces(trial)]
    seconds = [begun_s + math.fsum(times) for times in zip(*timed, strict=True)] or [begun_s] * rows_of(trial)
    pairs = list(zip(_row_counts(trial), seconds, strict=True))
    return pairs[:1] if len(set(pairs)) == 1 else pairs


def decode_rates(cell: CellRecord) -> list[float]:
    """Tokens per second of one stream after its first chunk: one value per repetition.

    Raises:
        UndefinedError: no repetition, or fewer than two stamps in one.
    """
    return [decode_rate(trial) for trial in finished_trials(cell)]


def decode_rate(trial: Trial) -> float:
    """Tokens per second of one stream of one trial after its first chunk.

    Raises:
        UndefinedError: fewer than two stamps.
    """
    if trial.requests:
        rates = [
            timings.request_decode_tokens(trace) / seconds
            for trace in served_requests(trial)
            if (seconds := timings.request_decode_s(trace))
        ]
        rate = statistics.fmean(rates) if rates else None
    else:
        rate = timings.decode_rate_per_row(decode_traces(trial))
    if rate is None:
        raise UndefinedError(t("fewer than two stamps in decode"))
    return rate


def by_process(cell: CellRecord, values: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Values of a metric by the worker process that their repetition ran in, in the order of their first repetition.

    A metric that gives one value for the whole cell (a size, a ceiling, a percentile over all repetitions) has one
    block: which process it came from is not a question for it.
    """
    if isinstance(values, ByPrompt):
        return (tuple(values),)
    workers = values.workers if isinstance(values, ByWorker) else [t.started.worker_id for t in cell.good_trials()]
    if len(values) != len(workers):
        return (tuple(values),)
    blocks: dict[str, list[float]] = {}
    for worker, value in zip(workers, values, strict=True):
        blocks.setdefault(worker, []).append(value)
    return tuple(tuple(block) for block in blocks.values())


def sorted_gaps_s(cell: CellRecord) -> list[list[float]]:
    """Times between neighbouring decode stamps of one stream, shortest first: one list per repetition.

    Raises:
        UndefinedError: no repetition, no stamp in one, or not one stamp per token.
    """
    return [_sorted_gaps_s(trial) for trial in finished_trials(cell)]


def _stamps_every_token(trace: StepTrace) -> bool:
    return all(count == 1 for count in trace.tokens_per_row) and all(
        count == 1 for counts in trace.tokens_by_row for count in counts
    )


def _sorted_gaps_s(trial: Trial) -> list[float]:
    if trial.requests:
        served = served_requests(trial)
        if any(trace.chunk_tokens.count(1) != len(trace.chunk_tokens) for trace in served):
            raise UndefinedError(t("chunks of a request may hold several tokens; see tpot_s"))
        stamps = [trace.chunk_at_ns for trace in served]
    else:
        traces = decode_traces(trial)
        if not all(_stamps_every_token(trace) for trace in traces):
            raise UndefinedError(t("the engine does not stamp every token"))
        stamps = [(trace.start_at_ns, *trace.step_at_ns) for trace in traces]
    gaps = [np.diff(np.asarray(edges, dtype=np.int64)) for edges in stamps]
    times: list[float] = (np.sort(np.concatenate(gaps)) * timings.NS).tolist() if gaps else []
    if not times:
        raise UndefinedError(t("no decode step was stamped"))
    return times
