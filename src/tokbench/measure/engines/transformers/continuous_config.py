"""What transformers' manager is told, and how large its cache is, in the words of the version that is installed.

transformers 5.17 calls a page a block, holds keys and values apart, and switches to flash attention unasked unless the
kernel is named in its paged form; 5.23 can be told not to. Opens no manager.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tokbench.measure.engines.transformers.continuous_cache import CacheSize
from tokbench.measure.engines.transformers.continuous_options import ContinuousOptions


def make_config(options: ContinuousOptions, size: CacheSize, seed: int, may_switch: bool) -> Any:
    """transformers' ContinuousBatchingConfig. `may_switch`: to flash attention, where that is installed."""
    from transformers import ContinuousBatchingConfig  # seconds of imports

    known = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    named: dict[str, Any] = {"page_size" if "page_size" in known else "block_size": options.page_size}
    if "auto_switch_to_flash" in known:
        named["auto_switch_to_flash"] = may_switch
    return ContinuousBatchingConfig(
        num_blocks=size.num_blocks,
        max_batch_tokens=size.max_batch_tokens,
        scheduler_type=options.scheduler,
        allow_block_sharing=False,
        seed=seed,
        **named,
    )


def keep_attention(model: Any, config: Any) -> None:
    """Let the manager keep the model's kernel, where its config has no word for that: in its paged form it stays."""
    kernel = str(model.config._attn_implementation)
    if not hasattr(config, "auto_switch_to_flash") and not kernel.startswith("paged|"):
        model.set_attn_implementation(f"paged|{kernel}")


def cache_nbytes(cache: Any) -> int:
    """Bytes of a manager's cache as allocated: one tensor, or keys and values of every layer of a group."""
    if hasattr(cache, "cache_tensor"):
        return int(cache.cache_tensor.nbytes)
    return sum(int(tensor.nbytes) for tensor in (*cache.key_cache, *cache.value_cache))
