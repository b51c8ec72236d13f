"""Prompts with exact token counts. The same cell and seed always give the same prompts."""

from __future__ import annotations

import importlib.resources
import json
import random
from pathlib import Path

from tokbench.errors import SpecError
from tokbench.measure.engines import Tokenizer
from tokbench.measure.tasks import take_prompts
from tokbench.record.spec import WorkloadSpec


def make_prompts(
    workload: WorkloadSpec, rows: int, tokenizer: Tokenizer | None, vocabulary: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Token ids for every row of a static batch, all rows of one length.

    Raises:
        SpecError: the workload needs a tokenizer or a length that it does not have.
    """
    if workload.kind == "task":
        return take_prompts(workload, rows, tokenizer, 0).prompts
    if workload.kind == "synthetic":
        length = workload.prompt_tokens
        if length is None:
            raise SpecError("a synthetic workload needs its length", key="workload.prompt_tokens", fix="e.g. 128")
        if tokenizer is None:
            return _random_prompts(rows, length, vocabulary, seed)
        return _cut_prompts(tokenizer.encode(_corpus()), rows, length, seed)
    if tokenizer is None:
        raise SpecError(
            f"a {workload.kind} workload needs a tokenizer, and these weights came without one",
            key="workload.kind",
            fix="use workload.kind=synthetic",
        )
    texts = [_fixed_text(workload)] if workload.kind == "fixed" else _texts_of(workload)
    encoded = [tokenizer.encode(texts[row % len(texts)]) for row in range(rows)]
    length = workload.prompt_tokens if workload.prompt_tokens is not None else min(len(ids) for ids in encoded)
    if any(len(ids) < length for ids in encoded):
        raise SpecError(
            f"a prompt has {min(len(ids) for ids in encoded)} tokens, fewer than the {length} asked for",
            key="workload.prompt_tokens",
            fix="shorten prompt_tokens or give longer text",
        )
    return tuple(tuple(ids[:length]) for ids in encoded)


def _random_prompts(rows: int, length: int, vocabulary: int, seed: int) -> tuple[tuple[int, ...], ...]:
    draw = random.Random(seed)
    return tuple(tuple(draw.randrange(vocabulary) for _ in range(length)) for _ in range(rows))


def _cut_prompts(ids: list[int], rows: int, length: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Stretches of the corpus, each from its own place, the corpus repeated where it is too short."""
    draw = random.Random(seed)
    repeated = ids * (length // len(ids) + 2)
    starts = [draw.randrange(len(ids)) for _ in range(rows)]
    return tuple(tuple(repeated[start : start + length]) for start in starts)


def _corpus() -> str:
    return (importlib.resources.files("tokbench.data") / "prompts" / "corpus.txt").read_text(encoding="utf-8")


def _fixed_text(workload: WorkloadSpec) -> str:
    if not workload.text:
        raise SpecError("a fixed workload needs its text", key="workload.text", fix="give workload.text")
    return workload.text


def _texts_of(workload: WorkloadSpec) -> list[str]:
    if not workload.path:
        raise SpecError("a jsonl workload needs its file", key="workload.path", fix="give workload.path")
    path = Path(workload.path)
    texts = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=str(path), key="workload.path") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise SpecError("not JSON", file=str(path), line=number, fix='write {"prompt": "…"} on each line') from None
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise SpecError('no "prompt" text', file=str(path), line=number, fix='write {"prompt": "…"} on each line')
        texts.append(row["prompt"])
    if not texts:
        raise SpecError("the file holds no prompt", file=str(path), key="workload.path")
    return texts
