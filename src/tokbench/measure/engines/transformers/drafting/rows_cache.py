"""A static cache whose rows stand at places of their own, and the masks that go with it. Runs no model.

transformers' static layers keep one length for all rows, so that a row which accepted more than another would have to
wait. Here every pass says where each row's tokens go, and the mask lets each token see what stands before it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, StaticLayer

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines.transformers import attention, caches

BOOLEAN_KERNELS = ("sdpa", *attention.NAMES, *attention.LATENT_WAYS)
"""Attention kernels that take a boolean mask, true where a token may be seen."""
FULL, SLIDING = "full_attention", "sliding_attention"
"""What transformers calls the two kinds of layers, in `layer_types` and in a mapping of masks."""


class RowsLayer(StaticLayer):
    """One layer: row r writes its tokens from `starts[r]` on; a sliding one into a ring of `slots`.

    The ring holds γ tokens more than the window, so that drafts which are not accepted overwrite nothing that can still
    be seen.
    """

    def __init__(self, slots: int, starts: torch.Tensor, window: int | None) -> None:
        super().__init__(max_cache_len=slots)
        self.starts = starts
        self.window = window
        self.is_sliding = window is not None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, (rows, heads, tokens, width); give back what the mask was made for."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, tokens = key_states.shape[0], key_states.shape[2]
        kept = min(tokens, self.max_cache_len)
        newest = torch.arange(tokens - kept, tokens, device=self.device)
        slots = self.starts + newest if self.window is None else (self.starts + newest) % self.max_cache_len
        row = torch.arange(rows, device=self.device)[:, None]
        self.keys[row, :, slots] = key_states[:, :, tokens - kept :].transpose(1, 2)
        self.values[row, :, slots] = value_states[:, :, tokens - kept :].transpose(1, 2)
        return (self.keys, self.values) if kept == tokens else (key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what `update` gives back."""
        return max(query_length, self.max_cache_len), 0

    def get_seq_length(self) -> int:
        """Asked for by transformers' own mask of a prefill alone, which finds nothing cached."""
        return 0


class RowsCache(Cache):
    """The layers of one model. `starts`, (rows, 1), is where the next pass writes; all layers share it."""

    def __init__(self, layers: list[Any], starts: torch.Tensor, config: Any) -> None:
        super().__init__(layers=layers)
        self.starts = starts
        self._kinds = {layer.window: layer.max_cache_len for layer in layers}
        self._is_mapped = len(self._kinds) > 1
        self._is_boolean = config._attn_implementation in BOOLEAN_KERNELS
        self._config = config

    def first(self, layers: int, config: Any) -> RowsCache:
        """The same first layers, for a model that is cut behind them; `config` is that model's."""
        return RowsCache(self.layers[:layers], self.starts, config)

    def masks(self, positions: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """What tokens at `positions`, (rows, tokens), may see; one mask, or one for each kind of layer.

        Each is (rows, 1, tokens, slots): true where a slot may be seen, or a number to add for the kernel `eager`.
        """
        made = {
            SLIDING if window else FULL: self._kernel_mask(_visible(positions, slots, window))
            for window, slots in self._kinds.items()
        }
        return made if self._is_mapped else next(iter(made.values()))

    def _kernel_mask(self, visible: torch.Tensor) -> torch.Tensor:
        if self._is_boolean:
            return visible
        dtype = self._config.dtype
        return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)

    @property
    def has_rings(self) -> bool:
        """Whether a layer keeps no more than its window."""
        return any(layer.is_sliding for layer in self.layers)

    def rewind(self, position: int, now: int) -> None:
        """Check that a cache that holds `now` tokens per row can be read as one that holds `position`.

        Raises:
            TrialError: a window has been overwritten since.
        """
        ring = min((layer.max_cache_len for layer in self.layers if layer.is_sliding), default=now)
        if 0 < position < now and now > ring:
            raise TrialError("a full sliding window can only be rewound to its beginning", cause="engine")


def _visible(positions: torch.Tensor, slots: int, window: int | None) -> torch.Tensor:
    """Which slots the tokens of a pass see: (rows, 1, tokens, slots). The newest token stands at the last position."""
    slot = torch.arange(slots, device=positions.device)
    query = positions[:, None, :, None]
    if window is None:
        return slot <= query
    newest = positions[:, -1:]
    held = (newest - (newest - slot) % slots)[:, None, None, :]
    return (held >= 0) & (held <= query) & (held > query - window)


def open_rows_cache(config: Any, rows: int, capacity: int, gamma: int, device: torch.device) -> RowsCache:
    """An empty cache of `capacity` tokens per row for the layers of a model.

    Raises:
        PlugError: the model has layers, or a kernel, that cannot let rows stand apart.
    """
    name = config._attn_implementation
    if name not in (*BOOLEAN_KERNELS, "eager"):
        raise PlugError(
            f"speculation needs a mask of its own, which the attention kernel {name!r} does not take",
            fix="engine.attention: sdpa or eager, or leave it out",
        )
    starts = torch.zeros((rows, 1), dtype=torch.long, device=device)
    found = caches.open_static(config, capacity).layers
    if not all(isinstance(layer, StaticLayer) for layer in found):
        raise PlugError(
            "a model with recurrent layers cannot take back a draft that was not accepted", fix="speculation: none"
        )
    window = getattr(config.get_text_config(decoder=True), "sliding_window", None)
    layers = [
        RowsLayer(min(capacity, window + gamma), starts, window)
        if layer.is_sliding and window is not None
        else RowsLayer(capacity, starts, None)
        for layer in found
    ]
    return RowsCache(layers, starts, config)
