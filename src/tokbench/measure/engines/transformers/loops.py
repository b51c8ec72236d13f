"""The two decode loops: prefill, then one forward pass per token with the argmax on the device.

Source of the loop: shared/facts/transformers.md, The raw loop, checked against `generate` on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch

from tokbench.measure.engines import CellWork
from tokbench.measure.engines.transformers import caches
from tokbench.record.facts import ModelFacts

RECOMPILE_LIMIT = 512
"""Every (rows, cache length) is a shape of its own; dynamo's default limit of 8 would end a sweep."""


def greedy_step(model: Any, token: torch.Tensor, position: torch.Tensor, cache: Any) -> torch.Tensor:
    """One forward pass. `token`, `position`: (rows, 1); returns the next token (rows, 1)."""
    logits = model(
        input_ids=token, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits
    next_token: torch.Tensor = logits[:, -1].argmax(-1, keepdim=True)
    return next_token


class _Loop:
    """What both loops share: buffers for tokens made, staged on the device."""

    def __init__(self, model: Any, work: CellWork) -> None:
        self.work = work
        self._model = model
        device = next(model.parameters()).device
        self._token = torch.zeros((work.rows, 1), dtype=torch.long, device=device)
        self._position = torch.zeros((work.rows, 1), dtype=torch.long, device=device)
        self._history = torch.zeros((work.rows, work.output_tokens), dtype=torch.long, device=device)
        self._index = torch.zeros(1, dtype=torch.long, device=device)
        self._made = 0

    def _keep(self, token: torch.Tensor) -> None:
        """Store the token and move on, all on the device."""
        self._token.copy_(token)
        self._history.index_copy_(1, self._index, token)
        self._index.add_(1)
        self._position.add_(1)

    def _restart(self) -> None:
        self._position.fill_(self.work.prompt_tokens - 1)
        self._index.zero_()
        self._made = 1

    def made(self) -> torch.Tensor:
        """Tokens made since prefill: (rows, made)."""
        return self._history[:, : self._made]


class EagerLoop(_Loop):
    """Plain PyTorch with a cache that grows."""

    def __init__(self, model: Any, work: CellWork, facts: ModelFacts) -> None:
        super().__init__(model, work)
        self._cache: Any = None
        self._rewound_to = 0
        self.cache_rows: int | None = None

    def prefill(self, ids: torch.Tensor) -> None:
        """`ids`: (rows, prompt). Fills a fresh cache."""
        from transformers import DynamicCache  # six seconds of imports

        self._cache = DynamicCache(config=self._model.config)
        logits = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits
        self._restart()
        self._keep(logits[:, -1].argmax(-1, keepdim=True))
        self.cache_rows = ids.shape[1]

    def compile(self) -> None:
        """Nothing to compile."""

    def step(self) -> None:
        """One token for every row."""
        self._keep(greedy_step(self._model, self._token, self._position, self._cache))
        self._made += 1

    def rewind(self, position: int) -> None:
        """Crop the cache; 0 drops it."""
        if position == 0:
            self._cache = None
            return
        now = self.work.prompt_tokens + self._made - 1
        caches.rewind_dynamic(self._cache, position, now)
        back = now - position
        self._position.sub_(back)
        self._index.sub_(back)
        self._made -= back
        self._token.copy_(self._history[:, self._made - 1 : self._made])

    def cache_bytes(self) -> int | None:
        """Bytes per prompt's worth of cache; the cache grows, so this is read off a fresh prefill."""
        if self._cache is None or self.cache_rows is None:
            return None
        held = self.cache_rows + self._made - 1
        return caches.cache_bytes(self._cache) * self.cache_rows // held

    def close(self) -> None:
        """Let go of the cache."""
        self._cache = None


class CompiledLoop(_Loop):
    """A static cache and one compiled graph per shape; on a GPU the whole step is captured and replayed."""

    def __init__(self, model: Any, work: CellWork, facts: ModelFacts) -> None:
        from transformers import StaticCache  # six seconds of imports

        super().__init__(model, work)
        needed = work.prompt_tokens + work.output_tokens
        kv_bytes = _kv_bytes_per_row(model) * work.rows
        self.cache_rows: int | None = caches.padded_cache_rows(needed, kv_bytes, float(facts.weight_bytes or 0))
        self._cache: Any = StaticCache(config=model.config, max_cache_len=self.cache_rows)
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
        torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT
        self._compiled = torch.compile(greedy_step, fullgraph=True, dynamic=False)
        self._graph: Any = None

    @property
    def uses_device_graph(self) -> bool:
        """Whether a step is one replay of a captured CUDA or HIP graph."""
        return self._graph is not None

    def prefill(self, ids: torch.Tensor) -> None:
        """`ids`: (rows, prompt). Fills the static cache from its beginning; not compiled."""
        logits = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits
        self._restart()
        self._keep(logits[:, -1].argmax(-1, keepdim=True))

    def _launch(self) -> None:
        self._keep(self._compiled(self._model, self._token, self._position, self._cache))

    def compile(self) -> None:
        """Compile the step; on a GPU capture it: warm up on a side stream first, as graph capture asks for."""
        if self._token.device.type != "cuda":
            self._launch()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._rewind_buffers()
                self._launch()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        self._rewind_buffers()
        with torch.cuda.graph(graph):
            self._launch()
        self._graph = graph

    def _rewind_buffers(self) -> None:
        """Back to just after prefill, so that trying a step out never runs over a buffer's end."""
        caches.rewind_static(self._cache, self.work.prompt_tokens)
        self._restart()
        self._index.fill_(1)
        self._position.fill_(self.work.prompt_tokens)

    def step(self) -> None:
        """One token for every row: a replay, or the compiled call."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._launch()
        self._made += 1

    def rewind(self, position: int) -> None:
        """Set the cache back in place."""
        caches.rewind_static(self._cache, position)
        if position > 0:
            back = self.work.prompt_tokens + self._made - 1 - position
            self._position.sub_(back)
            self._index.sub_(back)
            self._made -= back
            self._token.copy_(self._history[:, self._made - 1 : self._made])

    def cache_bytes(self) -> int | None:
        """Bytes as allocated, padding included."""
        return caches.cache_bytes(self._cache)

    def close(self) -> None:
        """Let go of graph and cache."""
        if self._graph is not None:
            self._graph.reset()
        self._graph = None
        self._cache = None


def _kv_bytes_per_row(model: Any) -> float:
    """Bytes of one token of one sequence, roughly: enough to choose a padding."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    latent = getattr(config, "kv_lora_rank", None)
    width = latent + config.qk_rope_head_dim if latent else 2 * heads * head_dim
    return float(config.num_hidden_layers * width * next(model.parameters()).element_size())
