"""`vllm bench latency --output-json FILE`: seconds of whole batches, one value per iteration, of one process.

The file states the model and the seconds alone: lengths, batch, precision and versions stand on the command line, and
the user gives them (`--given output_tokens=128`). The first token's time is part of every value.

Source: vllm/benchmarks/latency.py of vLLM 0.32.0, read 2026-11-22, and files that it wrote.
"""

from __future__ import annotations

import math
import statistics
from typing import Annotated

from pydantic import Field

from tokbench.derive.imported import (
    ForeignRow,
    ImportedCell,
    ImportedMetric,
    PositiveFloat,
    Rows,
    Text,
    model_name,
    one_stream,
    parse_row,
    settle,
    stated_otherwise,
    with_context,
)
from tokbench.derive.words import t
from tokbench.errors import DataError
from tokbench.record.facts import Conditions
from tokbench.units import SECONDS, TOKENS_PER_S, Better, Unit

TOOL = "vllm-latency"
COMMAND = "vllm bench latency"
_AGREEMENT = 1e-6


class _File(ForeignRow):
    model_id: Text
    avg_latency: PositiveFloat
    latencies: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


def is_mine(rows: Rows) -> bool:
    """Whether the file has the outline of this tool's files."""
    return len(rows) == 1 and {"avg_latency", "latencies", "percentiles"} <= rows[0].keys()


def read(rows: Rows, file: str, given: Conditions) -> tuple[ImportedCell, ...]:
    """Take over the one batch that was timed.

    Raises:
        DataError: the file is not as vLLM writes it.
        SpecError: `given` contradicts it.
    """
    parsed = parse_row(_File, rows[0], file, None, COMMAND)
    if not math.isclose(parsed.avg_latency, statistics.fmean(parsed.latencies), rel_tol=_AGREEMENT):
        fault = "not the mean of the latencies"
        raise DataError(fault, file=file, field="avg_latency", fix=f"write it anew with `{COMMAND}`")
    stated = Conditions(model=model_name(parsed.model_id))
    # All sequences of the batch are asked for at once.
    by_tool = Conditions(engine="vllm", measured_by=COMMAND, concurrency=given.static_batch)
    settled = settle(stated, by_tool, given)
    conditions = with_context(settled)
    metrics = _metrics(parsed.latencies, conditions)
    return (
        ImportedCell(
            key=f"{conditions.model}, {_say_load(conditions)}",
            metrics=metrics,
            conditions=conditions,
            settings=stated_otherwise(stated, settled),
            decisive=frozenset(),
            missing=_missing({metric.name for metric in metrics}),
            origins=settled.origins,
            free=one_stream(conditions),
            notes=(t("The time to the first token is part of every value, and is not told by itself."),),
        ),
    )


def _metrics(latencies: tuple[float, ...], conditions: Conditions) -> tuple[ImportedMetric, ...]:
    found = [_metric("e2e_latency_s", SECONDS, latencies)]
    if conditions.output_tokens is not None:
        rates = tuple(conditions.output_tokens / value for value in latencies)
        found.append(_metric("e2e_tokens_per_s", TOKENS_PER_S, rates))
        if conditions.static_batch is not None:
            all_rates = tuple(conditions.static_batch * rate for rate in rates)
            found.append(_metric("output_tokens_per_s", TOKENS_PER_S, all_rates))
    return tuple(found)


def _metric(name: str, unit: Unit, values: tuple[float, ...]) -> ImportedMetric:
    better = Better.LOWER if unit is SECONDS else Better.HIGHER
    return ImportedMetric(name, unit, better, values, statistics.fmean(values), "mean", len(values))


def _missing(known: set[str]) -> dict[str, str]:
    whole = t("the tool times whole batches and stamps no token")
    reasons: dict[str, str] = {
        "ttft_s": whole,
        "prefill_tokens_per_s": whole,
        "decode_tokens_per_s": whole,
        "itl_p50_s": whole,
        "e2e_tokens_per_s": t("the file does not state the output tokens (--given output_tokens=N)"),
        "output_tokens_per_s": t(
            "the file states neither the output tokens nor the batch (--given output_tokens=N --given static_batch=B)"
        ),
        "energy_j_per_output_token": t("{tool} reads no energy meter", tool=COMMAND),
    }
    return {name: reason for name, reason in reasons.items() if name not in known}


def _say_load(conditions: Conditions) -> str:
    lengths = [conditions.prompt_tokens, conditions.output_tokens]
    if None in lengths:
        return "one batch"
    return f"{lengths[0]} + {lengths[1]} tokens"
