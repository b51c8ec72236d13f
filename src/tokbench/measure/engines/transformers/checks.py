"""Our tokens beside those of transformers' own `generate`, and beside our own a second time. Outside every window."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from tokbench.measure.engines import Divergence, Repeat
from tokbench.measure.engines.transformers import attention, kernels
from tokbench.measure.engines.transformers.opening import Loop

MAX_LOGITS_BYTES = 10**9
"""What the logits of an identity check may take, all rows and steps in float32; beyond it tokens alone are compared."""


def compare_with_generate(model: Any, loop: Loop, ids: torch.Tensor | None, count: int) -> Divergence:
    """`count` greedy tokens of row 0 beside those of `generate` on the same prompts; the loop ends rewound."""
    assert ids is not None
    _work_through(loop, ids, count - 1)
    ours = loop.made()[0].tolist()
    loop.rewind(0)
    with _own_attention(model):
        theirs, logits = _generate(model, ids, count, loop.experts)
    first = next((index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
    gap = None
    if first is not None and logits is not None:
        top = logits[first][0].float().topk(2).values
        gap = float(top[0] - top[1])
    return Divergence("transformers generate, greedy", count, first, gap)


def _own_attention(model: Any) -> contextlib.AbstractContextManager[None]:
    """transformers' own latent attention for the reference, where ours stands in its place."""
    if model.config._attn_implementation not in attention.LATENT_WAYS:
        return contextlib.nullcontext()
    from tokbench.measure.engines.transformers import mla  # a model class of transformers

    return mla.as_in_transformers(model)


def _generate(
    model: Any, ids: torch.Tensor, count: int, experts: kernels.ExpertsChoice
) -> tuple[list[int], tuple[torch.Tensor, ...] | None]:
    """`generate` without its own compilation: new tokens of row 0, and the logits of every step if they fit."""
    kernels.use_experts(model, experts.prefill)
    try:
        reference = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
            eos_token_id=-1,
            pad_token_id=0,
            disable_compile=True,
            return_dict_in_generate=True,
            output_logits=ids.shape[0] * int(model.config.vocab_size) * 4 * count < MAX_LOGITS_BYTES,
        )
    finally:
        kernels.use_experts(model, experts.decode)
    return reference.sequences[0, ids.shape[1] :].tolist(), reference.logits


def repeat_itself(loop: Loop, ids: torch.Tensor, steps: int) -> Repeat:
    """The same prompts twice: tokens of all rows, and all cached keys and values bit for bit; ends rewound."""
    _work_through(loop, ids, steps)
    tokens, states = loop.made().clone(), [tensor.clone() for tensor in loop.states()]
    _work_through(loop, ids, steps)
    found = _compare_states("itself", steps, (tokens, states), (loop.made(), loop.states()))
    loop.rewind(0)
    return found


def repeat_alone(loop: Loop, alone: Loop, ids: torch.Tensor, steps: int) -> Repeat:
    """Row 0 within the batch beside the same row by itself; both loops end rewound."""
    _work_through(alone, ids[:1], steps)
    _work_through(loop, ids, steps)
    in_batch = [tensor[:1] for tensor in loop.states()]
    found = _compare_states("alone", steps, (alone.made(), alone.states()), (loop.made()[:1], in_batch))
    loop.rewind(0)
    alone.close()
    return found


def _work_through(loop: Loop, ids: torch.Tensor, steps: int) -> None:
    loop.rewind(0)
    loop.draw_again()
    loop.prefill(ids)
    loop.advance(steps)


def _compare_states(
    against: Any,
    steps: int,
    first: tuple[torch.Tensor, list[torch.Tensor]],
    second: tuple[torch.Tensor, list[torch.Tensor]],
) -> Repeat:
    """Tokens and states of two passes; the bits of the states tell more than the tokens."""
    pairs = list(zip(first[1], second[1], strict=True))
    is_same = all(torch.equal(one, other) for one, other in pairs)
    largest = max(float((one.float() - other.float()).abs().max()) for one, other in pairs)
    return Repeat(against, steps, torch.equal(first[0], second[0]), is_same, largest)
