"""How fast and how soon: metrics of static batches and of requests, per stream and for the system."""

from __future__ import annotations

import statistics

from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import (
    all_tokens,
    decode_rates,
    decode_s,
    finished_trials,
    prefill_s,
    row_e2e_s,
    served_requests,
)
from tokbench.derive.words import mark, t
from tokbench.record import timings
from tokbench.record.run import Trial
from tokbench.stats import percentile
from tokbench.units import RATIO, SECONDS, TOKENS_PER_S, Better

JITTER_STEPS = 100
"""Fewer have no 99th percentile."""


def _needs_requests(trial: Trial) -> None:
    if not trial.requests:
        raise UndefinedError(t("a static batch has no requests"))


@metric(SECONDS, Better.LOWER, mark("Time to first token"), order=10)
def ttft_s(context: CellContext) -> Values:
    """Time from asking until the first output token.

    Formula: static batch: prefill window, its start to the stamp of the first output token of every row;
    requests: mean of chunk_at_ns[0] - scheduled_at_ns (sent_at_ns in a closed loop). A network is included.
    """
    values = []
    for trial in finished_trials(context.cell):
        if trial.requests:
            seconds = [timings.request_first_chunk_s(trace) for trace in served_requests(trial)]
            known = [value for value in seconds if value is not None]
            if not known:
                raise UndefinedError(t("no request got a token"))
            values.append(statistics.fmean(known))
        else:
            values.append(prefill_s(trial))
    return values


@metric(TOKENS_PER_S, Better.HIGHER, mark("Prefill speed"), order=12)
def prefill_tokens_per_s(context: CellContext) -> Values:
    """Prompt tokens of all rows over the prefill window.

    Formula: static_batch * prompt_tokens / prefill_s. The first output token's head is part of the window.
    """
    values = []
    for trial in finished_trials(context.cell):
        seconds = prefill_s(trial)
        trace = trial.of_kind("prefill")[0].steps[0]
        prompt_tokens = context.cell.spec.workload.prompt_tokens or trace.context_tokens
        values.append(trace.rows * prompt_tokens / seconds)
    return values


@metric(SECONDS, Better.LOWER, mark("Time per output token"), order=20)
def tpot_s(context: CellContext) -> Values:
    """Mean time of one output token of one stream after the first.

    Formula: decode_s / (output tokens per stream - first chunk's tokens).
    """
    return [1 / rate for rate in decode_rates(context.cell)]


@metric(SECONDS, Better.LOWER, mark("Inter-token latency, p50"), order=21)
def itl_p50_s(context: CellContext) -> Values:
    """Median gap between neighbouring decode stamps of one stream.

    Formula: per repetition, the median of step durations, or of the gaps between the chunks of a request over all
    requests; needs a stamp per token.
    """
    return [percentile(gaps, 50) for gaps in context.gaps_s]


@metric(SECONDS, Better.LOWER, mark("Inter-token latency, p99"), order=22)
def itl_p99_s(context: CellContext) -> Values:
    """The 99th percentile of the gap between neighbouring decode stamps of one stream.

    Formula: per repetition, percentile 99 of step durations, or of the gaps between the chunks of a request over all
    requests; with fewer than 100 of them it is close to the maximum.
    """
    return [percentile(gaps, 99) for gaps in context.gaps_s]


@metric(TOKENS_PER_S, Better.HIGHER, mark("Decode speed per user"), order=1)
def decode_tokens_per_s(context: CellContext) -> Values:
    """Output tokens per second of one stream after the first token: TTFT is left out.

    Formula: static batch: tokens per row in the decode window / its duration; with drafts, mean over rows of the row's
    tokens / the time until its last; requests: mean over requests of (tokens after the first chunk) / (last chunk -
    first chunk).
    """
    return decode_rates(context.cell)


@metric(TOKENS_PER_S, Better.HIGHER, mark("End-to-end speed per user"), order=3)
def e2e_tokens_per_s(context: CellContext) -> Values:
    """Output tokens per second of one stream with the time to first token.

    Formula: output tokens of one stream / (prefill_s + decode_s), or / e2e_latency_s of a request, mean over requests;
    with drafts, mean over rows, each until its last token.
    """
    values = []
    for trial in finished_trials(context.cell):
        if trial.requests:
            rates = [
                timings.request_tokens(trace) / seconds
                for trace in served_requests(trial)
                if (seconds := timings.request_e2e_s(trace))
            ]
            if not rates:
                raise UndefinedError(t("no request came to its end"))
            values.append(statistics.fmean(rates))
        else:
            values.append(statistics.fmean(tokens / seconds for tokens, seconds in row_e2e_s(trial)))
    return values


@metric(SECONDS, Better.LOWER, mark("End-to-end latency"), order=24)
def e2e_latency_s(context: CellContext) -> Values:
    """Time from asking until the last output token.

    Formula: prefill_s + decode_s of a static batch; with drafts, mean over rows of the time until the row's last token;
    mean over requests of last chunk - scheduled.
    """
    values = []
    for trial in finished_trials(context.cell):
        if trial.requests:
            known = [s for trace in served_requests(trial) if (s := timings.request_e2e_s(trace)) is not None]
            if not known:
                raise UndefinedError(t("no request came to its end"))
            values.append(statistics.fmean(known))
        else:
            values.append(statistics.fmean(seconds for _, seconds in row_e2e_s(trial)))
    return values


@metric(TOKENS_PER_S, Better.HIGHER, mark("System output speed"), order=2)
def output_tokens_per_s(context: CellContext) -> Values:
    """Output tokens per second of all streams together.

    Formula: all output tokens / time from asking to the last of them: static batch: output tokens of all rows /
    (prefill_s + decode_s); requests: output tokens of all / (last chunk of all - first request sent).
    """
    values = []
    for trial in finished_trials(context.cell):
        if trial.requests:
            served = served_requests(trial)
            stamps = [trace.chunk_at_ns[-1] for trace in served if trace.chunk_at_ns]
            if not stamps:
                raise UndefinedError(t("no request got a token"))
            sent = min(trace.sent_at_ns for trace in served)
            tokens = sum(timings.request_tokens(trace) for trace in served)
            values.append(tokens / ((max(stamps) - sent) * timings.NS))
        else:
            values.append(all_tokens(trial) / (prefill_s(trial) + decode_s(trial)))
    return values


@metric(SECONDS, Better.LOWER, mark("Time to first token from sending"), order=11)
def ttft_from_send_s(context: CellContext) -> Values:
    """Time from sending a request until its first chunk; queueing in the client is left out.

    Formula: mean over requests of chunk_at_ns[0] - sent_at_ns.
    """
    values = []
    for trial in finished_trials(context.cell):
        _needs_requests(trial)
        waits = [(t.chunk_at_ns[0] - t.sent_at_ns) * timings.NS for t in served_requests(trial) if t.chunk_at_ns]
        if not waits:
            raise UndefinedError(t("no request got a token"))
        values.append(statistics.fmean(waits))
    return values


@metric(RATIO, Better.LOWER, mark("Step jitter, p99 over p50"), order=23)
def step_jitter_ratio(context: CellContext) -> Values:
    """How much longer the slowest steps of decode take than the usual one.

    Formula: percentile 99 / percentile 50 of step durations: per repetition where each has 100 steps, else over all
    repetitions together, which need 100. A longer context at the end of a window is part of it.
    """
    all_gaps = context.gaps_s
    if any(len(gaps) < JITTER_STEPS for gaps in all_gaps):
        all_gaps = [[gap for gaps in all_gaps for gap in gaps]]
    if len(all_gaps[0]) < JITTER_STEPS:
        raise UndefinedError(
            t(
                "{count} decode steps were stamped; a 99th percentile needs {least}",
                count=len(all_gaps[0]),
                least=JITTER_STEPS,
            )
        )
    return [percentile(gaps, 99) / percentile(gaps, 50) for gaps in all_gaps]
