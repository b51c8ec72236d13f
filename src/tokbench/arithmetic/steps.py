"""One step in closed form: bytes read, FLOPs, roofline, and the memory that a static batch needs. Never measures."""

from __future__ import annotations

import math
from typing import NamedTuple

from tokbench.arithmetic.precision import (
    Precision,
    bits_per_weight,
    kv_dtype_of,
    weight_bytes,
    weight_bytes_read,
)
from tokbench.arithmetic.shapes import ModelShape, count_parameters, require


class StepBytes(NamedTuple):
    """Bytes that one decode step of a static batch must read at least."""

    weights: float
    kv: float
    total: float


class Ceilings(NamedTuple):
    """What a device can do at most; `matmul_flops_per_s` is None where it is not known, and then does not bind."""

    read_bytes_per_s: float
    matmul_flops_per_s: float | None


def kv_bytes_per_token(shape: ModelShape, dtype: str = "bfloat16", expanded: bool = False) -> float:
    """Bytes that one more token adds to the cache, as long as no attention window is full.

    Formula: 2·layers·kv_heads·head_dim·bytes; with MLA layers·(kv_lora_rank + qk_rope_head_dim)·bytes, or `expanded`
    (transformers 4.57; 5.23.0 caches the latent) layers·heads·qkv_head_dim·bytes. Source: arXiv 2505.09343, table 1.
    """
    return kv_cache_bytes(shape, 1, dtype, expanded)


def kv_cache_bytes(shape: ModelShape, context_tokens: int, dtype: str = "bfloat16", expanded: bool = False) -> float:
    """Bytes of one sequence's cache at `context_tokens`; a window layer holds `window_tokens` at most."""
    elements = 2 * shape.kv_heads * shape.head_dim
    if mla := shape.mla:
        elements = shape.heads * mla.qkv_head_dim if expanded else mla.kv_lora_rank + mla.qk_rope_head_dim
    return _layer_tokens(shape, context_tokens) * elements * bits_per_weight(dtype) / 8


def expected_distinct_experts(experts: int, experts_per_token: int, rows: int) -> float:
    """Expect the distinct experts that `rows` tokens select in a layer, if routed evenly: E·(1 - (1 - k/E)^rows)."""
    require(1, experts=experts, experts_per_token=experts_per_token, rows=rows)
    if experts_per_token > experts:
        raise ValueError(f"{experts_per_token} experts per token, but there are only {experts} experts")
    return experts * (1.0 - (1.0 - experts_per_token / experts) ** rows)


def bytes_read_per_step(
    shape: ModelShape,
    dtype: str | Precision,
    rows: int,
    context_tokens: int,
    kv_dtype: str | None = None,
    distinct_experts: float | None = None,
) -> StepBytes:
    """Bytes that one decode step of `rows` sequences reads, each at `context_tokens`.

    `kv_dtype`: None takes `kv_dtype_of`. `distinct_experts`: per layer, on average; None takes the uniform expectation.
    Formula: weights = all but an untied input embedding and unselected experts; kv = rows · kv_cache_bytes.
    Leaves out activations, cache writes and the expansion of an MLA latent. Source: Pope et al., arXiv 2211.05102.
    """
    require(1, rows=rows)
    experts = shape.experts.experts if shape.experts else 0
    if distinct_experts is None and shape.experts:
        distinct_experts = expected_distinct_experts(experts, shape.experts.experts_per_token, rows)
    if distinct_experts is not None and not 0.0 < distinct_experts <= experts:
        raise ValueError(f"{shape.name}: {distinct_experts} distinct experts, but a layer has {experts}")
    weights = weight_bytes_read(shape, dtype, 0.0 if distinct_experts is None else distinct_experts)
    kv = rows * kv_cache_bytes(shape, context_tokens, kv_dtype or kv_dtype_of(dtype))
    return StepBytes(weights, kv, weights + kv)


def measured_bytes_read_per_step(
    weight_bytes: int, lookup_bytes: int, expert_bytes: int, expert_share: float | None, kv_bytes: float
) -> StepBytes:
    """The same from the bytes of the weights that were really loaded (`ModelFacts`), and those of the read cache.

    `expert_share`: distinct experts that a step reads over all experts of a layer, on average; None in a dense model.
    Formula: weights = weight_bytes - lookup_bytes - (1 - expert_share)·expert_bytes.
    Raises: ValueError for a part that is larger than the whole, or routed experts without their share.
    """
    require(0, lookup_bytes=lookup_bytes, expert_bytes=expert_bytes)
    if lookup_bytes + expert_bytes > weight_bytes:
        raise ValueError(f"{lookup_bytes} + {expert_bytes} bytes of weights are a part, but all are {weight_bytes}")
    if expert_bytes and expert_share is None:
        raise ValueError("the model has routed experts: which share of them a step reads must be known")
    share = 1.0 if expert_share is None else expert_share
    if not 0.0 < share <= 1.0:
        raise ValueError(f"expert_share is above 0 and at most 1, not {share}")
    weights = weight_bytes - lookup_bytes - (1.0 - share) * expert_bytes
    return StepBytes(weights, kv_bytes, weights + kv_bytes)


def flops_per_token(shape: ModelShape, context_tokens: int) -> float:
    """Floating-point operations of one token at `context_tokens`; a multiply-add counts as two.

    Formula: 2·read_per_token + 4·layers·heads·head_dim·context; with MLA 2·qkv_head_dim in place of 4·head_dim.
    Leaves out softmax, rope and the expansion of an MLA latent. Source: PaLM, arXiv 2204.02311, appendix B.
    """
    per_head = shape.mla.qkv_head_dim if shape.mla else 2 * shape.head_dim
    attention = 2.0 * _layer_tokens(shape, context_tokens) * shape.heads * per_head
    return 2.0 * count_parameters(shape).read_per_token + attention


def roofline_step_s(read_bytes: float, flops: float, ceilings: Ceilings) -> float:
    """Least time of a step that must read `read_bytes` and compute `flops`; both are of the whole step."""
    if any(ceiling is not None and ceiling <= 0 for ceiling in ceilings):
        raise ValueError(f"a ceiling must be above 0: {ceilings}")
    memory_s = read_bytes / ceilings.read_bytes_per_s
    return memory_s if ceilings.matmul_flops_per_s is None else max(memory_s, flops / ceilings.matmul_flops_per_s)


def roofline_decode_tokens_per_s(
    shape: ModelShape, dtype: str | Precision, rows: int, context_tokens: int, ceilings: Ceilings
) -> float:
    """Highest decode rate of each stream: 1 / roofline_step_s, with uniform routing."""
    read = bytes_read_per_step(shape, dtype, rows, context_tokens)
    return 1.0 / roofline_step_s(read.total, rows * flops_per_token(shape, context_tokens), ceilings)


def predicted_memory_bytes(
    shape: ModelShape, dtype: str | Precision, rows: int, cache_tokens: int, prefill_tokens: int | None = None
) -> int:
    """Predict the peak device memory of a static batch with a cache of `cache_tokens` per row (float32, else 16 bits).

    `prefill_tokens`: most tokens of one row in one forward pass; None means the whole cache (no chunks).
    Formula: weight_bytes + rows·(kv_cache_bytes + 6·vocab + prefill·width·element), where 6 is a logit in 16 and in
    32 bits, and width = 2·hidden + the widest of attention (q, k, v, out) and feed-forward (gate, up, product).
    Leaves out device context, workspaces, fragmentation and graphs; our choice, to be judged against measured peaks.
    """
    prefill = cache_tokens if prefill_tokens is None else prefill_tokens
    require(1, rows=rows, cache_tokens=cache_tokens, prefill_tokens=prefill)
    heads_width = shape.mla.qkv_head_dim * shape.heads if shape.mla else (shape.heads + shape.kv_heads) * shape.head_dim
    routed = moe.experts_per_token * (3 * moe.feed_forward + 2 * shape.hidden) if (moe := shape.experts) else 0
    dense = 3 * shape.feed_forward if shape.layers > shape.expert_layers else 0
    width, element = 2 * shape.hidden + max(2 * heads_width, dense, routed), bits_per_weight(kv_dtype_of(dtype)) / 8
    row = kv_cache_bytes(shape, cache_tokens, kv_dtype_of(dtype)) + 6 * shape.vocab + prefill * width * element
    return weight_bytes(shape, dtype) + rows * math.ceil(row)


def max_static_batch(
    shape: ModelShape, dtype: str | Precision, cache_tokens: int, memory_bytes: int, prefill_tokens: int | None = None
) -> int:
    """Give the most rows whose `predicted_memory_bytes` fit; 0 means that not even one row does."""
    weights = weight_bytes(shape, dtype)
    row = predicted_memory_bytes(shape, dtype, 1, cache_tokens, prefill_tokens) - weights
    return max(0, (memory_bytes - weights) // row)


def _layer_tokens(shape: ModelShape, context_tokens: int) -> int:
    """Sum over the layers of the tokens that each attends to."""
    require(0, context_tokens=context_tokens)
    windowed = context_tokens if shape.window_tokens is None else min(context_tokens, shape.window_tokens)
    return shape.window_layers * windowed + (shape.layers - shape.window_layers) * context_tokens
