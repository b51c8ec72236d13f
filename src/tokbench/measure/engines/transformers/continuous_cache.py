"""How large a paged cache has to be: for the requests of a load on a CPU, as transformers finds best elsewhere."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import psutil

from tokbench.measure.engines.transformers.continuous_options import ContinuousOptions

FREE_SHARE = 0.15
"""Share of pages that the scheduler `fifo` keeps free before it takes in another request; `prefill_first` keeps none.

Source: transformers 5.23, generation/continuous_batching/scheduler.py, `FIFOScheduler.__init__`.
"""
CPU_BATCH_TOKENS = 512
"""Tokens in one forward pass on a CPU, at most: without flash attention every one of them is scored against the cached
tokens of all requests, so more cost more than they bring, and the mask alone takes this many times the cache's tokens.
"""
CPU_MEMORY_SHARE = 0.4
"""Share of the free memory that a cache may take on a CPU; transformers itself would take 60 % of all there is."""


class Room(NamedTuple):
    """What a cell asks of the cache."""

    requests: int
    """Requests in flight at once, at most."""
    prompt_tokens: int
    output_tokens: int

    @property
    def request_tokens(self) -> int:
        """Tokens of one request in the cache; the last output token is never put there."""
        return self.prompt_tokens + self.output_tokens - 1


class CacheSize(NamedTuple):
    """Sizes to ask for; None leaves them to transformers."""

    num_blocks: int | None
    max_batch_tokens: int | None
    note: str | None
    """Why it is smaller than the load asks for."""


def plan_cache(options: ContinuousOptions, room: Room, is_cpu: bool, block_bytes: int) -> CacheSize:
    """Sizes for a load: what the options name, else room for every request at once on a CPU, else no wish."""
    if not is_cpu:
        return CacheSize(options.num_blocks, options.max_batch_tokens, None)
    batch_tokens = min(max(room.requests * room.prompt_tokens, room.requests), CPU_BATCH_TOKENS)
    asked = options.max_batch_tokens or batch_tokens
    if options.num_blocks is not None:
        return CacheSize(options.num_blocks, asked, None)
    each = math.ceil(room.request_tokens / options.page_size)
    kept_free = FREE_SHARE if options.scheduler == "fifo" else 0.0
    wanted = math.ceil(room.requests * each / (1 - kept_free))
    affordable = max(int(psutil.virtual_memory().available * CPU_MEMORY_SHARE) // block_bytes, each)
    note = None
    if affordable < wanted:
        note = f"memory holds {affordable} of the {wanted} pages that {room.requests} requests at once would take"
    return CacheSize(min(wanted, affordable), asked, note)


def block_bytes(config: Any, itemsize: int, page_size: int) -> int:
    """Bytes of one page over all layers: keys and values.

    Source: transformers 5.23, generation/continuous_batching/cache.py, `bytes_per_block`.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * 2 * heads * width * itemsize * page_size)
