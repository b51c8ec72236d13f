"""How a cell kept its keys and values: what the count of its bytes hangs on."""

from __future__ import annotations

from tokbench.record.run import CellRecord

EXPANDED = "mla_expanded"
"""The name that an engine gives to latent attention (MLA) whose cache holds keys and values of every head."""


def has_expanded_cache(cell: CellRecord) -> bool:
    """Whether the cache held what its latents expand to: so many times the bytes of the latents themselves."""
    return cell.engine is not None and cell.engine.attention_kernel == EXPANDED
