"""The two decode loops: prefill, whole or in chunks, then one forward pass per token with the argmax on the device.

Nothing in a step waits for the device. Source of the loop: shared/facts/transformers.md, The raw loop, checked against
`generate` by tests/measure/test_transformers_engine.py.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import StaticLayer

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import CellWork
from tokbench.measure.engines.transformers import attention, caches, graphs, kernels, replay
from tokbench.measure.engines.transformers.attention_choice import take_fastest
from tokbench.measure.engines.transformers.compiling import compiled, cpu_backend
from tokbench.measure.engines.transformers.experts_drawn import follow_steps
from tokbench.measure.engines.transformers.options import Options
from tokbench.measure.engines.transformers.sampling import Sampling, open_noise, take

COMPILED_PREFILL_TOKENS = 1024
"""Up to so many prompt tokens of all rows a GPU's prefill is compiled by itself: beyond them the device works longer
than the host needs to launch (8 billion parameters: 16 TFLOP, 20 ms on an H200), and every length is another graph."""


class Buffers(NamedTuple):
    """Where a step finds what it needs and leaves what it made: at fixed places on the device, (rows, …) each."""

    token: torch.Tensor
    position: torch.Tensor
    index: torch.Tensor
    """Where in the history the next token goes."""
    history: torch.Tensor


def greedy_step(
    model: Any, token: torch.Tensor, position: torch.Tensor, cache: Any, sampling: Sampling | None = None
) -> torch.Tensor:
    """One forward pass over `token` at `position`, (rows, 1) each; the next token, (rows, 1): likeliest, or drawn."""
    logits = model(
        input_ids=token, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits
    return take(logits[:, -1], sampling)


def kept_step(model: Any, buffers: Buffers, cache: Any, sampling: Sampling | None) -> None:
    """One forward pass that leaves its token where the next one looks for it, and in the history."""
    token = greedy_step(model, buffers.token, buffers.position, cache, sampling)
    buffers.token.copy_(token)
    buffers.history.scatter_(1, buffers.index, token)
    buffers.index.add_(1)
    buffers.position.add_(1)


def prefill_step(
    model: Any, ids: torch.Tensor, positions: torch.Tensor, cache: Any, sampling: Sampling | None
) -> torch.Tensor:
    """The same for several tokens; a function of its own, since dynamo counts and keeps graphs by function."""
    return greedy_step(model, ids, positions, cache, sampling)


class _Loop(abc.ABC):
    """What both loops share: the token, its position and all tokens made, at fixed places on the device."""

    def __init__(self, model: Any, work: CellWork, experts: kernels.ExpertsChoice, options: Options) -> None:
        self.work = work
        self.experts = experts
        self.notes: tuple[str, ...] = ()
        self.kernels_per_step: int | None = None
        self._options = options
        self._chunk = options.prefill_chunk or work.prompt_tokens
        self._prefill: Any = prefill_step
        self.uses_device_graph = False
        self._model = model
        self._cache: Any = None
        device = next(model.parameters()).device
        self._buffers = Buffers(
            *(
                torch.zeros((work.rows, width), dtype=torch.long, device=device)
                for width in (1, 1, 1, work.output_tokens)
            )
        )
        self._prompt_positions = torch.arange(work.prompt_tokens, device=device).expand(work.rows, -1)
        self._noise = open_noise(device, work.seed, work.temperature)
        self._sampling = None if self._noise is None else self._noise.sampling(work.rows, model.config.vocab_size)
        self._made = 0

    @property
    def steps_left(self) -> int:
        """Steps until the buffers of the cell are full."""
        return self.work.output_tokens - self._made

    @property
    def _held(self) -> int:
        """Tokens in the cache: all but the newest one."""
        return self.work.prompt_tokens + self._made - 1 if self._made else 0

    def _fill(self, ids: torch.Tensor) -> None:
        """Prefill `ids`, (rows, prompt), into an empty cache, chunk by chunk."""
        if self._made:
            raise TrialError("a prefill needs an empty cache: rewind to 0 first", cause="engine")
        kernels.use_experts(self._model, self.experts.prefill)
        follow_steps(self._model, self._buffers.index)
        if self._noise is not None:
            self._noise.begin()
        try:
            for start in range(0, self.work.prompt_tokens, self._chunk):
                attention.set_prefill_from_empty(start == 0)
                piece = slice(start, start + self._chunk)
                positions = self._prompt_positions[:, piece]
                token = self._prefill(self._model, ids[:, piece], positions, self._cache, self._sampling)
        finally:
            attention.set_prefill_from_empty(False)
            kernels.use_experts(self._model, self.experts.decode)
        self._set(1)
        self._buffers.token.copy_(token)
        self._buffers.history[:, :1].copy_(token)

    def _set(self, made: int) -> None:
        """Let the buffers say that so many tokens were made."""
        self._made = made
        self._buffers.index.fill_(made)
        self._buffers.position.fill_(self.work.prompt_tokens + made - 1)

    def rewind(self, position: int) -> None:
        """Go back to where the cache holds `position` tokens; 0 empties it.

        Raises:
            TrialError: that lies inside the prompt, ahead, or before a window that was overwritten.
        """
        if position == 0:
            self._rewind_cache(0)
            self._made = 0
            return
        if not self.work.prompt_tokens <= position <= self._held:
            raise TrialError(
                f"cannot rewind to {position}: the prompt has {self.work.prompt_tokens} tokens, the cache {self._held}",
                cause="engine",
            )
        self._rewind_cache(position)
        self._set(position - self.work.prompt_tokens + 1)
        self._buffers.token.copy_(self._buffers.history[:, self._made - 1 : self._made])

    def restart(self) -> None:
        """Back to just after the prefill."""
        self.rewind(self.work.prompt_tokens)

    def draw_again(self, repetition: int = 0) -> None:
        """Let the next prefill start the random numbers of a repetition; nothing where none are drawn."""
        if self._noise is not None:
            self._noise.restart(repetition)

    @abc.abstractmethod
    def _pass(self) -> None:
        """Launch one forward pass over the newest token of every row."""

    def step(self) -> None:
        """One token for every row."""
        if self._noise is not None:
            self._noise.refill()
        self._pass()
        self._made += 1

    def advance(self, steps: int) -> None:
        """So many tokens for every row."""
        for _ in range(steps):
            self.step()

    def states(self) -> list[torch.Tensor]:
        """Cached keys and values, layer by layer, as far as they are filled: (rows, heads, tokens, width) each."""
        tensors = [tensor for layer in self._cache.layers for tensor in (layer.keys, layer.values)]
        return [tensor[:, :, : self._held] for tensor in tensors if tensor is not None]

    @abc.abstractmethod
    def _rewind_cache(self, position: int) -> None:
        """Let the cache hold `position` tokens per row; 0 empties it."""

    def made(self) -> torch.Tensor:
        """Tokens made since prefill: (rows, made)."""
        return self._buffers.history[:, : self._made]

    def cache_bytes(self) -> int | None:
        """Bytes of the cache as it now is: as allocated where it is static, padding included."""
        return None if self._cache is None else caches.cache_bytes(self._cache)


class EagerLoop(_Loop):
    """Plain PyTorch with a cache that grows."""

    def __init__(self, model: Any, work: CellWork, experts: kernels.ExpertsChoice, options: Options) -> None:
        super().__init__(model, work, experts, options)
        self.cache_rows = work.prompt_tokens

    def prefill(self, ids: torch.Tensor) -> None:
        """`ids`: (rows, prompt). Fills a fresh cache."""
        self._cache = DynamicCache(config=self._model.config)
        self._fill(ids)

    def compile(self) -> None:
        """Nothing to compile."""

    def _pass(self) -> None:
        kept_step(self._model, self._buffers, self._cache, self._sampling)

    def _rewind_cache(self, position: int) -> None:
        if position == 0:
            self._cache = None
        else:
            caches.rewind_dynamic(self._cache, position, self._held)

    def close(self) -> None:
        """Let go of the cache."""
        self._cache = None


class CompiledLoop(_Loop):
    """A static cache and one compiled graph per shape; on a GPU the whole step is captured and replayed."""

    def __init__(
        self, model: Any, work: CellWork, experts: kernels.ExpertsChoice, weight_bytes: int, options: Options
    ) -> None:
        super().__init__(model, work, experts, options)
        growth = caches.growing_bytes_per_row(model.config, next(model.parameters()).element_size())
        needed = work.prompt_tokens + work.output_tokens
        share = caches.GPU_PADDING_SHARE if self._buffers.token.is_cuda else caches.MAX_PADDING_SHARE
        self.cache_rows = caches.padded_cache_rows(needed, growth * work.rows, float(weight_bytes), share)
        self._cache = caches.open_static(model.config, self.cache_rows)
        if self._chunk < work.prompt_tokens and any(layer.is_sliding for layer in self._cache.layers):
            raise PlugError(
                "a sliding window cannot be filled in chunks in the mode compiled", fix="leave out prefill_chunk"
            )
        self._device_type = self._buffers.token.device.type
        self._compiled = compiled(kept_step, options, self._device_type)
        if self.compiles_prefill:
            self._prefill = compiled(prefill_step, options, self._device_type)
        self._graph: Any = None
        self._direct: Callable[[], None] | None = None

    @property
    def compiles_prefill(self) -> bool:
        """Whether the prefill is a graph of its own; by itself on a GPU, where short prompts wait for the host."""
        if self._options.compile_prefill != "auto":
            return self._options.compile_prefill == "always"
        return self._device_type == "cuda" and self.work.rows * self._chunk <= COMPILED_PREFILL_TOKENS

    def prefill(self, ids: torch.Tensor) -> None:
        """`ids`: (rows, prompt). Fills the static cache from its beginning."""
        if self.compiles_prefill:
            self._lay_out(ids)
        self._fill(ids)

    def _lay_out(self, ids: torch.Tensor) -> None:
        """Make keys and values by a token that is forgotten, before a compiled prefill first runs.

        They are made at a layer's first use: a graph that did so would serve that one pass, and the next pass, in the
        warm-up or in a window, would be compiled anew.
        """
        if all(layer.is_initialized for layer in self._cache.layers if isinstance(layer, StaticLayer)):
            return
        kernels.use_experts(self._model, self.experts.prefill)
        follow_steps(self._model, self._buffers.index)
        prefill_step(self._model, ids[:, :1], self._prompt_positions[:, :1], self._cache, None)
        caches.rewind_static(self._cache, 0, 1)

    def _launch(self) -> None:
        if self._direct is not None:
            self._direct()
        else:
            self._compiled(self._model, self._buffers, self._cache, self._sampling)

    def compile(self) -> None:
        """Compile the step, and on a GPU capture it; the cache has to be rewound to 0 after it."""
        if self._device_type != "cuda":
            if self._device_type == "cpu" and self._options.compile_backend == "inductor":
                self._compile_for_cpu()
            else:
                self._launch()
            return
        chosen = self._choose_attention()
        graphs.warm_up(self._launch, self.restart)
        if not self._options.device_graph:
            self.notes = (*chosen, "no device graph: engine.options.device_graph is false")
            return
        self.restart()
        captured = graphs.capture(self._launch)
        self._graph, self.kernels_per_step = captured.graph, captured.kernels
        self.uses_device_graph = self._graph is not None
        self.notes = chosen if captured.note is None else (*chosen, captured.note)

    def _compile_for_cpu(self) -> None:
        """Call the generated code without its guards, and without its wrapper where it only calls kernels."""
        caches.move_together(self._cache)
        launch = cpu_backend().hear(self._launch)
        try:
            self.restart()
            recorded = replay.record(launch)
        except replay.NotReplayableError as refused:
            self._direct, self.notes = launch, (f"kernels not replayed as one call: {refused}",)
            return
        if self._buffers_after(launch) != self._buffers_after(recorded):
            raise TrialError("the replayed kernels do not do what the generated code does", cause="engine")
        self._direct, self.notes = recorded, (f"{recorded.kernels} generated kernels replayed as one call",)

    def _buffers_after(self, step: Callable[[], None]) -> list[list[list[int]]]:
        """Token, position, index, history and the cache's lengths after two steps from just after the prefill.

        A ring that is full would show the second step other keys: there it is one.
        """
        self.rewind(self.work.prompt_tokens)
        self._buffers.history[:, 1:].fill_(-1)
        has_rings = any(layer.is_sliding for layer in self._cache.layers)
        for _ in range(1 if has_rings else min(2, self.work.output_tokens - 1)):
            step()
        lengths = [layer.cumulative_length for layer in self._cache.layers if hasattr(layer, "cumulative_length")]
        return [buffer.tolist() for buffer in (*self._buffers, *(length.reshape(1, -1) for length in lengths))]

    def _choose_attention(self) -> tuple[str, ...]:
        """Take the fastest of our kernels over this cell's cache, unless the config named one; what was found."""
        if not self._options.time_attention:
            return ()
        return take_fastest(self._model, self._cache, 1, self.work.prompt_tokens)

    def restart(self) -> None:
        """Back to just after the prefill, so that trying a step out never runs over a buffer's end."""
        caches.rewind_static(self._cache, self.work.prompt_tokens, self.work.prompt_tokens)
        self._set(1)

    def _pass(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        else:
            self._launch()

    def _rewind_cache(self, position: int) -> None:
        caches.rewind_static(self._cache, position, self._held)

    def close(self) -> None:
        """Let go of graph and cache."""
        if self._graph is not None:
            self._graph.reset()
        self._graph = self._direct = None
        self._cache = None
