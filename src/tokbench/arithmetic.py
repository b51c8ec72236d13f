"""Closed forms of local inference: parameters, bytes, FLOPs, experts, roofline, speculation, memory.

It never measures, never reads a file, and knows no model by name: a model is the `ModelShape` that it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

# int4_g32 has a bfloat16 scale and zero point per 32 weights (gpt-fast, quantize.py, read 2026-11-21), mxfp4 an
# 8-bit scale per 32 (OCP Microscaling Formats v1.0). int8, float8 and int4 leave out their scales.
BITS_PER_WEIGHT = {
    **{"float32": 32.0, "bfloat16": 16.0, "float16": 16.0, "float8": 8.0, "int8": 8.0},
    **{"int4": 4.0, "int4_g32": 5.0, "mxfp4": 4.25},
}
BITS_OUTSIDE_EXPERTS = BITS_PER_WEIGHT | {"mxfp4": 16.0}


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """The routed feed-forward of a mixture-of-experts model: gate, up and down projections per expert."""

    experts: int
    experts_per_token: int
    feed_forward: int
    shared_experts: int = 0
    leading_dense_layers: int = 0
    has_router_bias: bool = False
    has_correction_bias: bool = False
    has_expert_bias: bool = False

    def __post_init__(self) -> None:
        _require(1, experts=self.experts, experts_per_token=self.experts_per_token, feed_forward=self.feed_forward)
        _require(0, shared_experts=self.shared_experts, leading_dense_layers=self.leading_dense_layers)
        if self.experts_per_token > self.experts:
            raise ValueError(f"{self.experts_per_token} experts per token, but there are only {self.experts} experts")


@dataclass(frozen=True, slots=True)
class LatentShape:
    """Multi-head latent attention (MLA); `q_lora_rank` is None where queries are not compressed."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def qkv_head_dim(self) -> int:
        """Width of one head's expanded key and value together."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder-only transformer with RMS norms and gated feed-forwards.

    `window_layers` of the `layers` attend to the last `window_tokens` only. `mla` replaces `kv_heads` and `head_dim`.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocab: int
    max_context_tokens: int
    is_head_tied: bool = False
    has_qkv_bias: bool = False
    has_o_bias: bool = False
    has_mlp_bias: bool = False
    has_qk_norm: bool = False
    has_sinks: bool = False
    norms_per_layer: int = 2
    window_layers: int = 0
    window_tokens: int | None = None
    experts: ExpertShape | None = None
    mla: LatentShape | None = None

    def __post_init__(self) -> None:
        _require(1, layers=self.layers, hidden=self.hidden, heads=self.heads, kv_heads=self.kv_heads)
        _require(1, head_dim=self.head_dim, feed_forward=self.feed_forward, vocab=self.vocab)
        _require(1, max_context_tokens=self.max_context_tokens, norms_per_layer=self.norms_per_layer)
        _require(0, window_layers=self.window_layers, expert_layers=self.expert_layers)
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.name}: {self.heads} query heads do not divide over {self.kv_heads} kv heads")
        if self.window_layers > (self.layers if self.window_tokens else 0):
            seen = f"{self.window_layers} layers of {self.layers} see {self.window_tokens} tokens"
            raise ValueError(f"{self.name}: {seen}")

    @property
    def expert_layers(self) -> int:
        """Layers with routed experts; 0 for a dense model."""
        return self.layers - self.experts.leading_dense_layers if self.experts else 0


class ParameterCounts(NamedTuple):
    """Parameters by part; the parts add up to `total`. `head` is 0 where it is the input embedding (tied).

    `feed_forward_dense` holds the shared experts, `experts` the routed ones. `active` are used for one token;
    `read_per_token` are read by a decode step of one row: `active` without an untied input embedding.
    """

    total: int
    input_embedding: int
    head: int
    attention: int
    feed_forward_dense: int
    router: int
    experts: int
    norms: int
    active: int
    read_per_token: int


class StepBytes(NamedTuple):
    """Bytes that one decode step of a static batch must read at least."""

    weights: float
    kv: float
    total: float


class Ceilings(NamedTuple):
    """What a device can do at most; `matmul_flops_per_s` is None where it is not known, and then does not bind."""

    read_bytes_per_s: float
    matmul_flops_per_s: float | None


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Count the parameters part by part. Source: the modules of transformers 5.23.0, modeling_*.py."""
    embedding = shape.vocab * shape.hidden
    head = 0 if shape.is_head_tied else embedding
    attention = shape.layers * _attention_parameters(shape)
    dense = (shape.layers - shape.expert_layers) * _mlp_parameters(shape.hidden, shape.feed_forward, shape.has_mlp_bias)
    norm_width = shape.norms_per_layer * shape.hidden + 2 * shape.head_dim * shape.has_qk_norm
    if shape.mla:
        norm_width += shape.mla.kv_lora_rank + (0 if shape.mla.q_lora_rank is None else shape.mla.q_lora_rank)
    norms = shape.layers * norm_width + shape.hidden
    router = routed = unselected = 0
    if moe := shape.experts:
        router = shape.expert_layers * moe.experts * (shape.hidden + moe.has_router_bias + moe.has_correction_bias)
        one = _mlp_parameters(shape.hidden, moe.feed_forward, moe.has_expert_bias)
        dense += shape.expert_layers * _mlp_parameters(shape.hidden, moe.shared_experts * moe.feed_forward, False)
        routed = shape.expert_layers * moe.experts * one
        unselected = shape.expert_layers * (moe.experts - moe.experts_per_token) * one
    total = embedding + head + attention + dense + router + routed + norms
    active, unread = total - unselected, 0 if shape.is_head_tied else embedding
    return ParameterCounts(total, embedding, head, attention, dense, router, routed, norms, active, active - unread)


def bits_per_weight(dtype: str) -> float:
    """Give the stored bits of one weight."""
    if dtype not in BITS_PER_WEIGHT:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(BITS_PER_WEIGHT)}")
    return BITS_PER_WEIGHT[dtype]


def weight_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes that all weights take; a tied embedding counts once.

    `dtype` holds for every parameter; `mxfp4` for the matrices of routed experts alone, all else is bfloat16.
    """
    unread = 0 if shape.is_head_tied else shape.vocab * shape.hidden
    read_bytes = _weight_bytes_read(shape, dtype, shape.experts.experts if shape.experts else 0)
    return math.ceil(read_bytes + unread * BITS_OUTSIDE_EXPERTS[dtype] / 8)


def kv_dtype_of(dtype: str) -> str:
    """The type of the cache beside weights of `dtype`: float32 and float16 keep theirs, all else has bfloat16."""
    return dtype if dtype in ("float32", "float16") else "bfloat16"


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
    _require(1, experts=experts, experts_per_token=experts_per_token, rows=rows)
    if experts_per_token > experts:
        raise ValueError(f"{experts_per_token} experts per token, but there are only {experts} experts")
    return experts * (1.0 - (1.0 - experts_per_token / experts) ** rows)


def bytes_read_per_step(
    shape: ModelShape,
    dtype: str,
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
    _require(1, rows=rows)
    experts = shape.experts.experts if shape.experts else 0
    if distinct_experts is None and shape.experts:
        distinct_experts = expected_distinct_experts(experts, shape.experts.experts_per_token, rows)
    if distinct_experts is not None and not 0.0 < distinct_experts <= experts:
        raise ValueError(f"{shape.name}: {distinct_experts} distinct experts, but a layer has {experts}")
    weights = _weight_bytes_read(shape, dtype, 0.0 if distinct_experts is None else distinct_experts)
    kv = rows * kv_cache_bytes(shape, context_tokens, kv_dtype or kv_dtype_of(dtype))
    return StepBytes(weights, kv, weights + kv)


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
    shape: ModelShape, dtype: str, rows: int, context_tokens: int, ceilings: Ceilings
) -> float:
    """Highest decode rate of each stream: 1 / roofline_step_s, with uniform routing."""
    read = bytes_read_per_step(shape, dtype, rows, context_tokens)
    return 1.0 / roofline_step_s(read.total, rows * flops_per_token(shape, context_tokens), ceilings)


def tokens_per_round(alpha: float, gamma: int) -> float:
    """Expect the tokens of one draft-and-verify round, the target's own (bonus) token included.

    Formula: (1 - alpha^(gamma+1)) / (1 - alpha), and gamma + 1 at alpha = 1. Source: arXiv 2211.17192, equation 1.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is a probability between 0 and 1, not {alpha}")
    _require(0, gamma=gamma)
    return float(gamma + 1) if alpha == 1.0 else (1.0 - alpha ** (gamma + 1)) / (1.0 - alpha)


def speculative_speedup(alpha: float, gamma: int, draft_cost_ratio: float, verify_cost_ratio: float = 1.0) -> float:
    """Expect the speed-up of speculative decoding over one-token steps of the target.

    Ratios to a one-token target step: of one draft step, and of verifying gamma + 1 tokens (1 in the paper).
    Formula: tokens_per_round / (gamma·draft_cost_ratio + verify_cost_ratio). Source: arXiv 2211.17192, theorem 3.8.
    """
    if draft_cost_ratio < 0.0 or verify_cost_ratio <= 0.0:
        raise ValueError(f"not the cost of a step: draft {draft_cost_ratio}, verify {verify_cost_ratio}")
    return tokens_per_round(alpha, gamma) / (gamma * draft_cost_ratio + verify_cost_ratio)


def predicted_memory_bytes(
    shape: ModelShape, dtype: str, rows: int, cache_tokens: int, prefill_tokens: int | None = None
) -> int:
    """Predict the peak device memory of a static batch with a cache of `cache_tokens` per row (float32, else 16 bits).

    `prefill_tokens`: most tokens of one row in one forward pass; None means the whole cache (no chunks).
    Formula: weight_bytes + rows·(kv_cache_bytes + 6·vocab + prefill·width·element), where 6 is a logit in 16 and in
    32 bits, and width = 2·hidden + the widest of attention (q, k, v, out) and feed-forward (gate, up, product).
    Leaves out device context, workspaces, fragmentation and graphs; our choice, to be judged against measured peaks.
    """
    prefill = cache_tokens if prefill_tokens is None else prefill_tokens
    _require(1, rows=rows, cache_tokens=cache_tokens, prefill_tokens=prefill)
    heads_width = shape.mla.qkv_head_dim * shape.heads if shape.mla else (shape.heads + shape.kv_heads) * shape.head_dim
    routed = moe.experts_per_token * (3 * moe.feed_forward + 2 * shape.hidden) if (moe := shape.experts) else 0
    dense = 3 * shape.feed_forward if shape.layers > shape.expert_layers else 0
    width, element = 2 * shape.hidden + max(2 * heads_width, dense, routed), 4 if dtype == "float32" else 2
    row = kv_cache_bytes(shape, cache_tokens, kv_dtype_of(dtype)) + 6 * shape.vocab + prefill * width * element
    return weight_bytes(shape, dtype) + rows * math.ceil(row)


def max_static_batch(
    shape: ModelShape, dtype: str, cache_tokens: int, memory_bytes: int, prefill_tokens: int | None = None
) -> int:
    """Give the most rows whose `predicted_memory_bytes` fit; 0 means that not even one row does."""
    weights = weight_bytes(shape, dtype)
    row = predicted_memory_bytes(shape, dtype, 1, cache_tokens, prefill_tokens) - weights
    return max(0, (memory_bytes - weights) // row)


def _weight_bytes_read(shape: ModelShape, dtype: str, experts_read: float) -> float:
    """Bytes of the weights that a step reads: all but an untied input embedding, which is as large as the head."""
    bits, counts = bits_per_weight(dtype), count_parameters(shape)
    read_bits = (counts.total - counts.experts - counts.head) * BITS_OUTSIDE_EXPERTS[dtype]
    if shape.experts:
        matrices = 3 * shape.hidden * shape.experts.feed_forward
        biases = _mlp_parameters(shape.hidden, shape.experts.feed_forward, shape.experts.has_expert_bias) - matrices
        read_bits += shape.expert_layers * experts_read * (matrices * bits + biases * BITS_OUTSIDE_EXPERTS[dtype])
    elif dtype == "mxfp4":
        raise ValueError(f"mxfp4 stores routed experts, and {shape.name} has none")
    return read_bits / 8


def _attention_parameters(shape: ModelShape) -> int:
    if shape.mla:
        mla, q_out = shape.mla, shape.heads * (shape.mla.qk_nope_head_dim + shape.mla.qk_rope_head_dim)
        kv_in = mla.kv_lora_rank + mla.qk_rope_head_dim
        q = shape.hidden * q_out if mla.q_lora_rank is None else mla.q_lora_rank * (shape.hidden + q_out)
        kv = shape.hidden * kv_in + mla.kv_lora_rank * shape.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        out = shape.heads * mla.v_head_dim
        qkv_bias = kv_in if mla.q_lora_rank is None else mla.q_lora_rank + kv_in
    else:
        out, kv_out = shape.heads * shape.head_dim, 2 * shape.kv_heads * shape.head_dim
        q, kv, qkv_bias = shape.hidden * out, shape.hidden * kv_out, out + kv_out
    biases = shape.has_qkv_bias * qkv_bias + shape.has_o_bias * shape.hidden
    return q + kv + out * shape.hidden + biases + shape.has_sinks * shape.heads


def _mlp_parameters(hidden: int, width: int, has_bias: bool) -> int:
    return 3 * hidden * width + has_bias * (2 * width + hidden)


def _layer_tokens(shape: ModelShape, context_tokens: int) -> int:
    """Sum over the layers of the tokens that each attends to."""
    _require(0, context_tokens=context_tokens)
    windowed = context_tokens if shape.window_tokens is None else min(context_tokens, shape.window_tokens)
    return shape.window_layers * windowed + (shape.layers - shape.window_layers) * context_tokens


def _require(minimum: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {count}")
