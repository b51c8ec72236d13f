"""The sizes of a model, and its parameters counted part by part from them. Knows no model by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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
        require(1, experts=self.experts, experts_per_token=self.experts_per_token, feed_forward=self.feed_forward)
        require(0, shared_experts=self.shared_experts, leading_dense_layers=self.leading_dense_layers)
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
        require(1, layers=self.layers, hidden=self.hidden, heads=self.heads, kv_heads=self.kv_heads)
        require(1, head_dim=self.head_dim, feed_forward=self.feed_forward, vocab=self.vocab)
        require(1, max_context_tokens=self.max_context_tokens, norms_per_layer=self.norms_per_layer)
        require(0, window_layers=self.window_layers, expert_layers=self.expert_layers)
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


class Linear(NamedTuple):
    """Weight matrices of one size: `copies` of `outputs` x `inputs`. Biases are not among them."""

    copies: int
    outputs: int
    inputs: int


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


def list_linears(shape: ModelShape) -> tuple[Linear, ...]:
    """The matrices of attention and of feed-forwards that are not routed; neither head, embedding nor router.

    Source: the `nn.Linear` modules of transformers 5.23.0, modeling_*.py.
    """
    dense, experts = shape.layers - shape.expert_layers, shape.experts
    found = [Linear(shape.layers, outputs, inputs) for outputs, inputs in _attention_matrices(shape)]
    found += [Linear(2 * dense, shape.feed_forward, shape.hidden), Linear(dense, shape.hidden, shape.feed_forward)]
    if experts and experts.shared_experts:
        width = experts.shared_experts * experts.feed_forward
        found += [Linear(2 * shape.expert_layers, width, shape.hidden)]
        found += [Linear(shape.expert_layers, shape.hidden, width)]
    return tuple(linear for linear in found if linear.copies)


def list_expert_linears(shape: ModelShape) -> tuple[Linear, ...]:
    """The matrices of ONE routed expert; none in a dense model."""
    if shape.experts is None:
        return ()
    width = shape.experts.feed_forward
    return Linear(2, width, shape.hidden), Linear(1, shape.hidden, width)


def expert_parameters(shape: ModelShape) -> int:
    """Parameters of one routed expert, biases included; 0 in a dense model."""
    moe = shape.experts
    return 0 if moe is None else _mlp_parameters(shape.hidden, moe.feed_forward, moe.has_expert_bias)


def _attention_matrices(shape: ModelShape) -> list[tuple[int, int]]:
    """(outputs, inputs) of every matrix of one attention layer."""
    hidden, heads = shape.hidden, shape.heads
    if mla := shape.mla:
        q_out = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        rank = mla.q_lora_rank
        query = [(q_out, hidden)] if rank is None else [(rank, hidden), (q_out, rank)]
        kv_in = (mla.kv_lora_rank + mla.qk_rope_head_dim, hidden)
        kv_out = (heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)
        return [*query, kv_in, kv_out, (hidden, heads * mla.v_head_dim)]
    width, kv_width = heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return [(width, hidden), (kv_width, hidden), (kv_width, hidden), (hidden, width)]


def _attention_parameters(shape: ModelShape) -> int:
    if shape.mla:
        mla = shape.mla
        kv_in = mla.kv_lora_rank + mla.qk_rope_head_dim
        qkv_bias = kv_in if mla.q_lora_rank is None else mla.q_lora_rank + kv_in
    else:
        qkv_bias = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    matrices = sum(outputs * inputs for outputs, inputs in _attention_matrices(shape))
    biases = shape.has_qkv_bias * qkv_bias + shape.has_o_bias * shape.hidden
    return matrices + biases + shape.has_sinks * shape.heads


def _mlp_parameters(hidden: int, width: int, has_bias: bool) -> int:
    return 3 * hidden * width + has_bias * (2 * width + hidden)


def require(minimum: int, **counts: int) -> None:
    """Raise ValueError where a count is below `minimum`."""
    for name, count in counts.items():
        if count < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {count}")
