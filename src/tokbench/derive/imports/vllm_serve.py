"""`vllm bench serve --save-result`: means and percentiles over the requests of one load on an endpoint.

Requests that are in flight together slow one another, so they are no repetitions: there is no interval. With
`--save-detailed` the file holds every request, and then the speed per user is computed as tokbench defines it.
vLLM counts from the moment of sending; a request that its own client holds back was scheduled earlier.

Source: vllm/benchmarks/serve.py of vLLM 0.32.0, read 2026-11-22, and files that it wrote.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from tokbench.derive.imported import (
    Count,
    ForeignRow,
    ImportedCell,
    ImportedMetric,
    PositiveFloat,
    PositiveInt,
    Rows,
    Settled,
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
from tokbench.units import REQUESTS_PER_S, SECONDS, TOKENS_PER_S, Better, Unit

TOOL = "vllm-serve"
COMMAND = "vllm bench serve"
NO_LIMIT = "inf"
"""The request rate of a load that sends as soon as it may."""
_STATISTIC = re.compile(r"(mean|median|p\d+(?:\.\d+)?)_(ttft|tpot|itl|e2el|e2el_including_client_queue)_ms")
_WITH_QUEUE: Final = "e2el_including_client_queue"
_OURS: Final = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "itl": "itl_s",
    "e2el": "e2e_latency_s",
    _WITH_QUEUE: "e2e_latency_s",
}
_IN_CATALOG: Final = {"itl_s.p50": "itl_p50_s", "itl_s.p99": "itl_p99_s"}
_WHOLE: Final[tuple[tuple[str, str, Unit], ...]] = (
    ("output_tokens_per_s", "output_throughput", TOKENS_PER_S),
    ("requests_per_s", "request_throughput", REQUESTS_PER_S),
    ("goodput_requests_per_s", "request_goodput", REQUESTS_PER_S),
)
_SPECULATED: Final = "spec_decode_num_drafts"
_TOLD: Final = {"model_id", "date", "tokenizer_id", "duration", "max_concurrency", *(key for _, key, _ in _WHOLE)}
"""Keys that do not stand among the settings: they are conditions or metrics, or hold a path."""


Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class _File(ForeignRow):
    model_id: Text
    backend: Text
    date: str = ""
    request_rate: float | str
    max_concurrency: PositiveInt | None = None
    completed: Count
    failed: Count = 0
    duration: PositiveFloat
    total_input_tokens: Count
    total_output_tokens: Count
    request_throughput: PositiveFloat
    request_goodput: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    output_throughput: PositiveFloat
    input_lens: tuple[Count, ...] = ()
    output_lens: tuple[Count, ...] = ()
    ttfts: tuple[Seconds, ...] = ()
    itls: tuple[tuple[Seconds, ...], ...] = ()
    errors: tuple[str | None, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether a user sends the next request when the last one is answered."""
        return self.request_rate == NO_LIMIT and self.max_concurrency is not None

    @property
    def is_held_back(self) -> bool:
        """Whether requests are scheduled at a rate and wait in the client until one may be sent."""
        return self.request_rate != NO_LIMIT and self.max_concurrency is not None


def is_mine(rows: Rows) -> bool:
    """Whether the objects have the outline of this tool's files; `--append-result` writes one a line."""
    return all({"request_throughput", "output_throughput", "max_concurrency"} <= row.keys() for row in rows)


def read(rows: Rows, file: str, given: Conditions) -> tuple[ImportedCell, ...]:
    """Take over every load.

    Raises:
        DataError: a row is not as vLLM writes it, or no request was answered.
        SpecError: `given` contradicts the file.
    """
    cells = []
    for index, row in enumerate(rows):
        number = None if len(rows) == 1 else index + 1
        if row.get("completed") == 0:
            place = None if number is None else str(number)
            fix = "look at the errors of the endpoint, and measure again"
            raise DataError("no request was answered", file=file, row=place, field="completed", fix=fix)
        parsed = parse_row(_File, row, file, number, f"{COMMAND} --save-result")
        _check_lists(parsed, file, number)
        cells.append(_cell(parsed, row, number, given))
    return tuple(cells)


def _cell(parsed: _File, row: Mapping[str, object], number: int | None, given: Conditions) -> ImportedCell:
    stated = Conditions(
        model=model_name(parsed.model_id),
        prompt_tokens=_same(parsed.input_lens),
        output_tokens=_same(parsed.output_lens),
        concurrency=parsed.max_concurrency if parsed.is_closed else None,
        engine="vllm" if parsed.backend == "vllm" else None,
        as_of=_date(parsed.date),
    )
    settled = settle(stated, Conditions(measured_by=COMMAND), given)
    conditions = with_context(settled)
    metrics = (*_whole(parsed), *_statistics(parsed, row), *_per_user(parsed, has_speculation=_SPECULATED in row))
    load = f"concurrency {parsed.max_concurrency}" if parsed.is_closed else f"{parsed.request_rate} requests/s"
    return ImportedCell(
        key=f"{conditions.model}, {load}",
        metrics=metrics,
        conditions=conditions,
        settings={**_settings(parsed, row), **stated_otherwise(stated, settled)},
        decisive=frozenset({"request_rate", "burstiness"}),
        options="" if number is None else f"row {number}",
        missing=_missing(parsed, row, {metric.name for metric in metrics}),
        origins=settled.origins,
        free=one_stream(conditions),
        notes=_notes(parsed, settled),
    )


def _whole(parsed: _File) -> list[ImportedMetric]:
    """Rates of the whole load."""
    found = []
    values = (parsed.output_throughput, parsed.request_throughput, parsed.request_goodput)
    for (name, _, unit), value in zip(_WHOLE, values, strict=True):
        if value is not None:
            found.append(ImportedMetric(name, unit, Better.HIGHER, (), value, "rate", parsed.completed))
    return found


def _statistics(parsed: _File, row: Mapping[str, object]) -> list[ImportedMetric]:
    """Means and percentiles in seconds. A 0 is what vLLM writes where there was nothing to take the mean of."""
    found: dict[str, ImportedMetric] = {}
    for key, value in row.items():
        match = _STATISTIC.fullmatch(key)
        if match is None or not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            continue
        statistic = "p50" if match[1] == "median" else match[1]
        for name in _names(match[2], statistic, is_held_back=parsed.is_held_back):
            metric = ImportedMetric(name, SECONDS, Better.LOWER, (), value / 1e3, statistic, parsed.completed)
            found.setdefault(name, metric)
    return list(found.values())


def _names(quantity: str, statistic: str, *, is_held_back: bool) -> list[str]:
    suffix = "" if statistic == "mean" else f".{statistic}"
    name = f"{_OURS[quantity]}{suffix}"
    if quantity == "ttft":
        from_send = f"ttft_from_send_s{suffix}"
        return [from_send] if is_held_back else [name, from_send]
    if quantity == "e2el" and is_held_back:
        return []
    return [_IN_CATALOG.get(name, name)]


def _per_user(parsed: _File, *, has_speculation: bool) -> list[ImportedMetric]:
    """The mean over requests of each one's rate, where the file has every request and a chunk is one token."""
    answered = [
        (tokens, first, sum(gaps))
        for tokens, first, gaps, error in zip(parsed.output_lens, parsed.ttfts, parsed.itls, parsed.errors, strict=True)
        if not error and tokens > 1 and sum(gaps) > 0
    ]
    if not answered or has_speculation:
        return []
    rates = {"decode_tokens_per_s": [(tokens - 1) / decode for tokens, _, decode in answered]}
    if not parsed.is_held_back:
        rates["e2e_tokens_per_s"] = [tokens / (first + decode) for tokens, first, decode in answered]
    return [
        ImportedMetric(name, TOKENS_PER_S, Better.HIGHER, (), statistics.fmean(values), "mean", len(values))
        for name, values in rates.items()
    ]


def _missing(parsed: _File, row: Mapping[str, object], known: set[str]) -> dict[str, str]:
    detail = t("the file has no single requests, and a mean over them needs each (--save-detailed)")
    if parsed.itls:
        detail = t("no answered request made two tokens apart from each other")
    if _SPECULATED in row:
        detail = t("a chunk holds several tokens in speculative decoding, and the file does not tell the first one's")
    queue = t("requests waited in the client, and vLLM counts from the moment of sending")
    absent = t("the file does not have it: --percentile-metrics ttft,tpot,itl,e2el")
    zero = t("the file says 0, which vLLM writes where nothing was stamped")
    reasons: dict[str, str] = {
        "ttft_s": queue if parsed.is_held_back else _zero_or(row, "mean_ttft_ms", zero, absent),
        "ttft_from_send_s": _zero_or(row, "mean_ttft_ms", zero, absent),
        "tpot_s": _zero_or(row, "mean_tpot_ms", zero, absent),
        "itl_s": _zero_or(row, "mean_itl_ms", zero, absent),
        "e2e_latency_s": queue if parsed.is_held_back else _zero_or(row, "mean_e2el_ms", zero, absent),
        "decode_tokens_per_s": detail,
        "e2e_tokens_per_s": queue if parsed.is_held_back else detail,
        "goodput_requests_per_s": t("no bound was asked for (--goodput)"),
        "energy_j_per_output_token": t("{tool} reads no energy meter", tool=COMMAND),
    }
    return {name: reason for name, reason in reasons.items() if name not in known}


def _zero_or(row: Mapping[str, object], key: str, zero: str, absent: str) -> str:
    return zero if key in row else absent


def _notes(parsed: _File, settled: Settled) -> tuple[str, ...]:
    notes: list[str] = [t("Requests of one load slow one another and are no repetitions: there is no interval.")]
    if parsed.failed:
        notes.append(t("failed requests: {failed}; they are in no number.", failed=parsed.failed))
    if settled.conditions.engine is None:
        notes.append(t("The file names the endpoint's protocol and not the engine behind it (--given engine=NAME)."))
    return tuple(notes)


def _settings(parsed: _File, row: Mapping[str, object]) -> dict[str, str]:
    """Every other plain value, `--metadata` too; no path, no text that was generated."""
    found = {
        name: str(value)
        for name, value in row.items()
        if isinstance(value, str | int | float) and name not in _TOLD and _STATISTIC.fullmatch(name) is None
    }
    found["prompt tokens per request"] = f"{parsed.total_input_tokens / parsed.completed:g}"
    found["output tokens per request"] = f"{parsed.total_output_tokens / parsed.completed:g}"
    if parsed.max_concurrency is not None:
        found["max_concurrency"] = str(parsed.max_concurrency)
    return {
        name: value for name, value in found.items() if not {"/", "\\"} & set(value) and not name.startswith("std_")
    }


def _check_lists(parsed: _File, file: str, number: int | None) -> None:
    """Of `--save-detailed`, every list has an entry per request or none does."""
    requests = len(parsed.output_lens)
    sizes = {
        "input_lens": len(parsed.input_lens),
        "ttfts": len(parsed.ttfts),
        "itls": len(parsed.itls),
        "errors": len(parsed.errors),
    }
    for name, size in sizes.items():
        if size != requests:
            place = None if number is None else str(number)
            fault = f"{size} entries, and output_lens has {requests}"
            raise DataError(fault, file=file, row=place, field=name, fix=f"write it anew with `{COMMAND}`")


def _same(lengths: tuple[int, ...]) -> int | None:
    """The length that every request has; None where they differ or are not told."""
    return lengths[0] if lengths and len(set(lengths)) == 1 else None


def _date(text: str) -> str | None:
    """`20261122-092114` as a date."""
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if re.fullmatch(r"\d{8}-\d{6}", text) else None
