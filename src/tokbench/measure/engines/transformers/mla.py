"""Multi-head latent attention of DeepSeek-V3 in three ways that tell the same tokens and move different bytes.

Each way is a class that a layer of transformers takes on in place: no weight is copied, and it can be taken off again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_interleave,
)

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers.attention import ABSORBED, EXPANDED, LATENT, SPLIT_TOKENS


class Projected(NamedTuple):
    """What the tokens of one forward pass put into attention."""

    query: torch.Tensor
    """(rows, heads, tokens, qk_nope_head_dim): the part without a rotation."""
    rotated_query: torch.Tensor
    """(rows, heads, tokens, qk_rope_head_dim)."""
    latent: torch.Tensor
    """(rows, 1, tokens, kv_lora_rank): keys and values of all heads in one."""
    rotated_key: torch.Tensor
    """(rows, 1, tokens, qk_rope_head_dim): one for all heads."""


def project(layer: Any, hidden: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> Projected:
    """Queries, latents and rotated keys of `hidden`, (rows, tokens, width). Source: arXiv 2412.19437, 2.1.1."""
    rows, tokens = hidden.shape[:2]
    query = (
        layer.q_proj(hidden)
        if layer.q_proj is not None
        else layer.q_b_proj(layer.q_a_layernorm(layer.q_a_proj(hidden)))
    )
    by_heads = query.view(rows, tokens, layer.num_heads, layer.qk_head_dim).transpose(1, 2)
    plain, turning = by_heads.split([layer.qk_nope_head_dim, layer.qk_rope_head_dim], dim=-1)
    narrow = layer.kv_a_proj_with_mqa(hidden)[:, None]
    latent, key = narrow.split([layer.kv_lora_rank, layer.qk_rope_head_dim], dim=-1)
    turn = apply_rotary_pos_emb_interleave if layer.config.rope_interleave else apply_rotary_pos_emb
    turned_query, turned_key = turn(turning, key, *rotation)
    return Projected(plain, turned_query, layer.kv_a_layernorm(latent), turned_key)


class ExpandedAttention(DeepseekV3Attention):
    """Keys and values of every head go into the cache: a step expands its own token alone, and reads wide rows."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """`hidden_states`: (rows, tokens, width); the same out."""
        new = project(self, hidden_states, position_embeddings)
        keys, values = self.expand_kv(new.latent, new.rotated_key)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        query = torch.cat((new.query, new.rotated_query), dim=-1)
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        found, _ = attend(self, query, keys, values, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.o_proj(found.flatten(2)), None


class AbsorbedAttention(DeepseekV3Attention):
    """Attention over the latents themselves: the expansion of keys is folded into the query, that of values comes last.

    A pass of so many tokens that folding would multiply more than expanding goes the way of transformers: every prefill
    of a whole prompt. Source: DeepSeek-V2, arXiv 2405.04434, 2.1.2; the bound is `absorbs`.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """`hidden_states`: (rows, tokens, width); the same out."""
        tokens = hidden_states.shape[1]
        if tokens > 1 and (attention_mask is None or not absorbs(self, tokens)):
            found: tuple[torch.Tensor, None] = super().forward(
                hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
            )
            return found
        new = project(self, hidden_states, position_embeddings)
        latents, keys = new.latent, new.rotated_key
        if past_key_values is not None:
            latents, keys = past_key_values.update(latents, keys, self.layer_idx)
        seen = attend_latents(self, new, latents, keys, attention_mask)
        return self.o_proj(seen.transpose(1, 2).flatten(2)), None


def absorbs(layer: Any, tokens: int) -> bool:
    """Whether folding takes fewer multiplications than expanding, per cached token and head.

    Formula: tokens·(2·rank + rope) < rank·(nope + v) + tokens·(nope + rope + v).
    """
    rank, expanded = layer.kv_lora_rank, layer.qk_nope_head_dim + layer.v_head_dim
    return bool(tokens * (2 * rank - expanded) < rank * expanded)


def attend_latents(
    layer: Any, new: Projected, latents: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """What the new tokens see, (rows, heads, tokens, v_head_dim).

    `latents`: (rows, 1, cached tokens, rank); `keys`: (rows, 1, cached tokens, rope); `mask`: true where visible, None
    where everything is. Heads stand beside one another in one product with the latents, which are read twice.
    """
    rows, heads, tokens, _ = new.query.shape
    expansion = layer.kv_b_proj.weight.view(heads, layer.qk_nope_head_dim + layer.v_head_dim, layer.kv_lora_rank)
    of_keys, of_values = expansion.split([layer.qk_nope_head_dim, layer.v_head_dim], dim=1)
    folded = torch.matmul(new.query, of_keys)
    held, turning = latents[:, 0], keys[:, 0]
    scores = torch.matmul(folded.flatten(1, 2), held.transpose(1, 2))
    scores = scores + torch.matmul(new.rotated_query.flatten(1, 2), turning.transpose(1, 2))
    by_heads = scores.view(rows, heads, tokens, -1).float() * layer.scaling
    if mask is not None:
        by_heads = by_heads.masked_fill(~mask, float("-inf"))
    shares = torch.softmax(by_heads, -1).to(held.dtype).flatten(1, 2)
    seen = sum_of_pieces(shares, held).view(rows, heads, tokens, -1)
    return torch.matmul(seen, of_values.transpose(1, 2))


def sum_of_pieces(shares: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """`shares`, (rows, queries, cached), times `latents`, (rows, cached, rank), cut along the context where it divides.

    One product would give one row's whole context to the few multiprocessors that its outputs fill.
    """
    rows, queries, cached = shares.shape
    if cached % SPLIT_TOKENS or cached == SPLIT_TOKENS:
        return torch.matmul(shares, latents)
    pieces = cached // SPLIT_TOKENS
    by_pieces = shares.view(rows, queries, pieces, SPLIT_TOKENS).transpose(1, 2)
    found = torch.matmul(by_pieces, latents.view(rows, pieces, SPLIT_TOKENS, -1))
    return found.sum(1, dtype=torch.float32).to(latents.dtype)


WAYS: dict[str, type[Any]] = {
    EXPANDED: ExpandedAttention,
    LATENT: DeepseekV3Attention,
    ABSORBED: AbsorbedAttention,
}
"""`mla_latent` is what transformers 5.23 does: the cache holds latents, and each step expands all of them."""


def install(model: Any, way: str) -> None:
    """Let every attention layer of a model work in one of the three ways.

    Raises:
        PlugError: its attention is not DeepSeek-V3's.
    """
    layers = _layers(model)
    if not layers:
        raise PlugError(
            f"engine.attention: {way} is for DeepSeek-V3's latent attention, and {type(model).__name__} has none of it",
            fix="leave engine.attention out, or take a model of type deepseek_v3 (DeepSeek-V3, DeepSeek-R1)",
        )
    if way == ABSORBED and any(type(layer.kv_b_proj.weight) is not torch.nn.Parameter for layer in layers):
        raise PlugError(
            f"engine.attention: {way} folds a matrix into queries, and a quantised one cannot be cut into its parts",
            fix="model.dtype=bfloat16, or engine.attention=mla_latent",
        )
    for layer in layers:
        layer.__class__ = WAYS[way]


@contextlib.contextmanager
def as_in_transformers(model: Any) -> Iterator[None]:
    """The model with transformers' own attention meanwhile: what a check compares with is none of ours."""
    taken = [(layer, type(layer)) for layer in _layers(model)]
    try:
        for layer, _ in taken:
            layer.__class__ = DeepseekV3Attention
        yield
    finally:
        for layer, way in taken:
            layer.__class__ = way


def _layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, DeepseekV3Attention)]
