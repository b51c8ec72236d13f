"""vLLM's tokens beside those of transformers' `generate` on the same weights and prompts. Never called in a window."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from tokbench.measure.engines import Divergence, EngineRequest
from tokbench.measure.engines.vllm.weights import ITEMSIZE, numbers_in_files

REFERENCE = "transformers generate, greedy, each prompt alone"
HEADROOM = 1.5
"""Free memory over the bytes of the weights that a second copy is allowed at."""


@torch.inference_mode()
def compare_with_transformers(
    request: EngineRequest, prompts: Sequence[tuple[int, ...]], answers: Sequence[Sequence[int]]
) -> Divergence | None:
    """The earliest token at which any answer leaves `generate`'s, and how near the two best logits were there.

    The weights are loaded a second time, in the same type and on the same device; None where they do not fit there.
    """
    folder = request.weights_folder
    assert folder is not None
    needed = sum(numbers_in_files(folder).values()) * ITEMSIZE[request.model.dtype] * HEADROOM
    if _free_bytes(request.device) < needed:
        return None
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=request.model.dtype, trust_remote_code=request.engine.trust_remote_code
    ).to(request.device)
    found = [
        divergence
        for prompt, answer in zip(prompts, answers, strict=True)
        if (divergence := _first_divergence(model, prompt, answer)) is not None
    ]
    del model
    gc.collect()
    if request.device != "cpu":
        torch.cuda.empty_cache()
    compared = min(len(answer) for answer in answers)
    return Divergence(REFERENCE, compared, *(min(found) if found else (None, None)))


def _free_bytes(device: str) -> int:
    return int(psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0])


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
        return_dict_in_generate=True,
        output_logits=True,
    )
    theirs = reference.sequences[0, len(prompt) :].tolist()
    first = next((index for index, pair in enumerate(zip(answer, theirs, strict=True)) if pair[0] != pair[1]), None)
    if first is None:
        return None
    top = reference.logits[first][0].float().topk(2).values
    return first, float(top[0] - top[1])
