"""KV caches: a growing one for eager decoding, a fixed one for graphs. Knows lengths and bytes, runs no model."""

from __future__ import annotations

from typing import Any

from tokbench.errors import TrialError

PADDING_STEPS = (1024, 512, 256, 128, 64, 16)
MAX_PADDING_SHARE = 0.025
"""A static cache may be longer than needed (fewer shapes to compile) while the padding costs less than this share of
the bytes that a step reads anyway."""


def padded_cache_rows(needed: int, padding_bytes_per_row: float, step_bytes: float) -> int:
    """Tokens per sequence to allocate: rounded up as far as the padding stays cheap.

    Depends on the cell alone, never on its neighbours in a sweep, so that a cell means the same in every run.
    """
    for step in PADDING_STEPS:
        rows = -(-needed // step) * step
        if (rows - needed) * padding_bytes_per_row <= MAX_PADDING_SHARE * step_bytes:
            return rows
    return needed


def cache_bytes(cache: Any) -> int:
    """Bytes of all keys and values as allocated."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rewind_static(cache: Any, position: int) -> None:
    """Set a static cache back to `position` tokens, in place: the addresses that graphs know stay.

    Raises:
        TrialError: a sliding-window layer cannot go back to a position other than 0.
    """
    for layer in cache.layers:
        if layer.is_sliding:
            if position != 0:
                raise TrialError("a sliding-window cache can only be rewound to its beginning", cause="engine")
            layer.reset()
        elif layer.is_initialized:
            layer.cumulative_length.fill_(position)


def rewind_dynamic(cache: Any, position: int, now: int) -> None:
    """Set a growing cache back to `position` tokens; it holds `now`."""
    if now > position > 0:
        cache.crop(position - now)
