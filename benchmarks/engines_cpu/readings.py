"""What one process of a row said, read from the text that its bench prints or writes; pure but for reading a record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokbench.derive.evaluate import evaluate
from tokbench.record.run import read_run

RATES = ("decode_tokens_per_s", "e2e_tokens_per_s")
LAST_LINES = 12


class UnreadableError(Exception):
    """What a bench left behind does not hold the numbers that were asked for; the message says what is missing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The repetitions of one process, by quantity; a quantity that the bench does not tell is absent."""

    values: dict[str, list[float]]
    """`decode_tokens_per_s`, `e2e_tokens_per_s`, `ttft_s`; of an own loop the library's."""
    beside: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """Of an own loop: the same of tokbench's engine in the same process."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, str | float] = dataclasses.field(default_factory=dict)
    """Precision, bytes of the weights, type of the cache, kernels, build: what tells conditions apart."""


def last_json(text: str) -> Any:
    """The JSON that a program printed after its messages.

    Raises:
        UnreadableError: no line begins one.
    """
    lines = text.splitlines()
    for number in reversed(range(len(lines))):
        if lines[number] in ("{", "["):
            return json.loads("\n".join(lines[number:]))
    raise UnreadableError(f"no JSON in its output, which ends: {' | '.join(lines[-LAST_LINES:])}")


def read_llama_bench(found: Sequence[dict[str, Any]], depth: int, output_tokens: int) -> Reading:
    """llama-bench: the test that generates, at the depth asked for."""
    wanted = {"n_prompt": 0, "n_gen": output_tokens, "n_depth": depth}
    for test in found:
        if all(test[name] == value for name, value in wanted.items()):
            facts = {
                "precision": test["model_type"],
                "weight_bytes": test["model_size"],
                "kv_dtype": test["type_k"],
                "threads": test["n_threads"],
                "flash_attention": {-1: "auto", 0: "off", 1: "on"}[test["flash_attn"]],
            }
            return Reading({"decode_tokens_per_s": test["samples_ts"]}, facts=facts)
    raise UnreadableError(f"no test of {wanted}")


def read_vllm_bench(found: dict[str, Any], output_tokens: int) -> Reading:
    """`vllm bench latency`: seconds of whole requests, so a rate that holds the prompt."""
    return Reading({"e2e_tokens_per_s": [output_tokens / latency for latency in found["latencies"]]})


def read_optimum(found: dict[str, Any]) -> Reading:
    """optimum-benchmark: its decode latency is that of the tokens after the first. Its `per_token` is not read."""
    report, tokens = found["report"], found["output_tokens"]
    prefill, decode = (report[part]["latency"]["values"] for part in ("prefill", "decode"))
    values = {
        "decode_tokens_per_s": [(tokens - 1) / seconds for seconds in decode],
        "ttft_s": prefill,
    }
    return Reading(values, versions=found["versions"], facts={"precision": "float32", "kv_dtype": "float32"})


def read_own(found: dict[str, Any]) -> Reading:
    """What the scripts in benchmarks/peers print: repetitions of the library's own loop and of ours beside it."""
    own, ours = (_columns(found[side]["repetitions"]) for side in ("own", "engine"))
    named = {
        name: str(value) for name, value in found.items() if isinstance(value, str) and name not in ("mode", "dtype")
    }
    return Reading(own, ours, versions=named, facts={"threads": found["threads"]})


def _columns(repetitions: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [each[name] for each in repetitions] for name in repetitions[0]}


def read_record(folder: Path) -> Reading:
    """A run of tokbench with one cell.

    Raises:
        UnreadableError: the cell has no decode rate, with its reason.
    """
    (cell,) = evaluate(read_run(folder), folder.name).cells
    values = {name: list(cell.repetitions[name]) for name in (*RATES, "ttft_s") if name in cell.repetitions}
    engine, model = cell.record.engine, cell.record.model
    if "decode_tokens_per_s" not in values or engine is None or model is None:
        raise UnreadableError(f"the cell is {cell.status}: {cell.status_reason or cell.metrics['decode_tokens_per_s']}")
    facts: dict[str, str | float | None] = {
        "precision": model.dtype,
        "weight_bytes": model.weight_bytes,
        "kv_dtype": engine.kv_dtype,
        "attention_kernel": engine.attention_kernel,
        "threads": engine.threads,
        "build": next((note for note in engine.notes if note.startswith("build: ")), None),
        "validity": cell.validity.verdict,
        "validity_reasons": ", ".join(map(str, cell.validity.reasons)),
    }
    known = {name: value for name, value in facts.items() if value is not None}
    return Reading(values, versions=dict(engine.versions), facts=known)
