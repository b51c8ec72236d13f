"""How a cell kept its keys and values: what the count of its bytes hangs on."""

from __future__ import annotations

from tokbench.arithmetic import precision_on
from tokbench.record.run import CellRecord

EXPANDED = "mla_expanded"
"""The name that an engine gives to latent attention (MLA) whose cache holds keys and values of every head."""


def has_expanded_cache(cell: CellRecord) -> bool:
    """Whether the cache held what its latents expand to: so many times the bytes of the latents themselves."""
    return cell.engine is not None and cell.engine.attention_kernel == EXPANDED


def cache_dtype(cell: CellRecord, device_kind: str) -> str:
    """The type of cached keys and values: the engine's word, else that of the activations beside such weights.

    Raises:
        ValueError: the engine does not tell, and nobody knows the type of the weights.
    """
    told = cell.engine.kv_dtype if cell.engine is not None else None
    return told or precision_on(cell.spec.model.dtype, device_kind).activations
