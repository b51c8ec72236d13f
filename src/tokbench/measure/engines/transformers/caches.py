"""KV caches: a growing one for eager decoding, a fixed one for graphs. Knows lengths and bytes, runs no model."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import StaticCache, StaticLayer

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines.transformers.attention import EXPANDED

PADDING_STEPS = (1024, 512, 256, 128, 64, 16)
MAX_PADDING_SHARE = 0.005
GPU_PADDING_SHARE = 0.025
"""A static cache may be longer than needed (fewer shapes to compile) while the padding costs less than this share of
the bytes that a step reads anyway. On a GPU it may be longer: `split_gqa` needs whole pieces of the cache."""


class WindowLayer(StaticLayer):
    """A static sliding-window layer as a ring: token p stands in slot p mod window, whatever the order.

    transformers' own one moves the whole window at every token and counts in a Python integer, so that each step is
    another graph, or a captured one never advances. Keys carry their rotation, so the order of slots is free. Several
    tokens at once may only be written to an empty ring.
    """

    is_sliding = True

    def __init__(self, max_cache_len: int, sliding_window: int) -> None:
        super().__init__(max_cache_len=min(max_cache_len, sliding_window))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, (rows, heads, tokens, width); give back what the tokens may attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        tokens = key_states.shape[-2]
        kept = min(tokens, self.max_cache_len)
        newest = torch.arange(tokens - kept, tokens, device=self.device) + self.cumulative_length
        slots = newest % self.max_cache_len
        self.cumulative_length.add_(tokens)
        self.keys.index_copy_(2, slots, key_states[:, :, tokens - kept :])
        self.values.index_copy_(2, slots, value_states[:, :, tokens - kept :])
        return (self.keys, self.values) if kept == tokens else (key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what `update` gives back."""
        return max(query_length, self.max_cache_len), 0

    def get_seq_length(self) -> Any:
        """The slot that a query may look back from: once the ring is full it sees all of it."""
        return torch.clamp(self.cumulative_length, max=self.max_cache_len - 1) if self.is_initialized else 0


def padded_cache_rows(
    needed: int, padding_bytes_per_row: float, step_bytes: float, max_share: float = MAX_PADDING_SHARE
) -> int:
    """Tokens per sequence to allocate: rounded up as far as the padding stays cheap.

    Depends on the cell alone, never on its neighbours in a sweep, so that a cell means the same in every run.
    """
    for step in PADDING_STEPS:
        rows = -(-needed // step) * step
        if (rows - needed) * padding_bytes_per_row <= max_share * step_bytes:
            return rows
    return needed


def open_static(config: Any, cache_rows: int) -> Any:
    """A static cache whose sliding layers are rings.

    Raises:
        PlugError: the model's layers cannot be cached at fixed addresses.
    """
    text = config.get_text_config(decoder=True)
    if getattr(text, "attention_chunk_size", None):
        raise PlugError("chunked attention cannot run in the mode compiled", fix="engine.mode=eager")
    cache = StaticCache(config=config, max_cache_len=cache_rows)
    cache.layers = [
        WindowLayer(cache_rows, text.sliding_window) if getattr(layer, "is_sliding", False) else layer
        for layer in cache.layers
    ]
    return cache


def growing_bytes_per_row(config: Any, element_bytes: int) -> float:
    """Bytes that one more cached token of one sequence takes, roughly: enough to choose a padding.

    Sliding windows do not grow.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    latent = getattr(config, "kv_lora_rank", None)
    width = latent + config.qk_rope_head_dim if latent else 2 * heads * head_dim
    if latent and config._attn_implementation == EXPANDED:
        width = config.num_attention_heads * (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return float(sum(kind == "full_attention" for kind in kinds) * width * element_bytes)


def move_together(cache: Any) -> None:
    """Lay all keys and values of a filled static cache side by side: one piece of memory, large pages on a CPU."""
    layers = [layer for layer in cache.layers if isinstance(layer, StaticLayer) and layer.is_initialized]
    tensors = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
    if len({tensor.dtype for tensor in tensors}) != 1:
        return
    stretch = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=tensors[0].dtype, device=tensors[0].device)
    del tensors  # what was copied is let go of: never twice the cache at once
    at = 0
    for layer in layers:
        for name in ("keys", "values"):
            size = getattr(layer, name).numel()
            setattr(layer, name, stretch[at : at + size].view(getattr(layer, name).shape).copy_(getattr(layer, name)))
            at += size


def cache_bytes(cache: Any) -> int:
    """Bytes of all keys and values as allocated."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rewind_static(cache: Any, position: int, now: int) -> None:
    """Set a static cache that holds `now` tokens back to `position`, in place: the addresses that graphs know stay.

    What stood behind `position` stays too, and is masked out.

    Raises:
        TrialError: a window has been overwritten since, or a layer's state cannot go back.
    """
    for layer in cache.layers:
        if not isinstance(layer, StaticLayer):
            if position != 0:
                raise TrialError("a recurrent layer can only be rewound to its beginning", cause="engine")
            layer.reset()
        elif layer.is_sliding and 0 < position < now and now > layer.max_cache_len:
            raise TrialError("a full sliding window can only be rewound to its beginning", cause="engine")
        elif layer.is_initialized:
            layer.cumulative_length.fill_(position)


def rewind_dynamic(cache: Any, position: int, now: int) -> None:
    """Set a growing cache back to `position` tokens; it holds `now`.

    Raises:
        TrialError: a sliding window has been left behind.
    """
    if now == position:
        return
    if any(getattr(layer, "is_sliding", False) and now >= layer.sliding_window for layer in cache.layers):
        raise TrialError("a full sliding window can only be rewound to its beginning", cause="engine")
    cache.crop(position - now)  # a negative count: transformers 5.17 and 5.23 agree on it
