"""Tokens of continuous batching beside those of `generate` on the same prompts. Never called in a window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tokbench.measure.engines import Divergence

REFERENCE = "transformers generate, greedy, each prompt alone"


@torch.inference_mode()
def compare_with_generate(
    model: Any, prompts: Sequence[tuple[int, ...]], answers: Sequence[Sequence[int]]
) -> Divergence:
    """The earliest token at which any answer leaves `generate`'s, and how near the two best logits were there."""
    earliest: tuple[int, float] | None = None
    compared = min(len(answer) for answer in answers)
    with _unpaged(model):
        for prompt, answer in zip(prompts, answers, strict=True):
            found = _first_divergence(model, prompt, answer)
            if found is not None and (earliest is None or found < earliest):
                earliest = found
    if earliest is None:
        return Divergence(REFERENCE, compared, None, None)
    return Divergence(REFERENCE, compared, *earliest)


def _first_divergence(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> tuple[int, float] | None:
    """Index of the first token that differs, with the gap of the reference's two largest logits there."""
    ids = torch.tensor([prompt], dtype=torch.long, device=model.device)
    reference = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=len(answer),
        min_new_tokens=len(answer),
        eos_token_id=-1,
        pad_token_id=0,
        disable_compile=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    theirs = reference.sequences[0, len(prompt) :].tolist()
    first = next((index for index, pair in enumerate(zip(answer, theirs, strict=True)) if pair[0] != pair[1]), None)
    if first is None:
        return None
    top = reference.logits[first][0].float().topk(2).values
    return first, float(top[0] - top[1])


@contextlib.contextmanager
def _unpaged(model: Any) -> Iterator[None]:
    """Take the kernel that needs a paged cache off the model; the manager must be idle."""
    kernel = str(model.config._attn_implementation)
    if not kernel.startswith("paged|"):
        yield
        return
    model.set_attn_implementation(kernel.removeprefix("paged|"))
    try:
        yield
    finally:
        model.set_attn_implementation(kernel)
