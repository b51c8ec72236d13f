"""The request engine: transformers' own continuous batching, its stamps read by the thread that takes the tokens.

Drives the manager through `add_request` and `get_result` alone; schedules nothing itself. A manager whose thread has
died is a `TrialError`, never silence.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import Chunk, Divergence, EngineRequest, MemoryNow, Prepared, Request
from tokbench.measure.engines.transformers import kernels, memory, streamed
from tokbench.measure.engines.transformers.continuous_cache import CacheSize, Room, block_bytes, plan_cache
from tokbench.measure.engines.transformers.continuous_config import cache_nbytes, keep_attention, make_config
from tokbench.measure.engines.transformers.continuous_identity import compare_with_generate
from tokbench.measure.engines.transformers.continuous_options import read_continuous_options
from tokbench.measure.engines.transformers.engine import ENVIRONMENT
from tokbench.measure.engines.transformers.graphs import first_line, is_out_of_memory, out_of_memory_named
from tokbench.measure.engines.transformers.loading import load_model, model_facts
from tokbench.record.facts import EngineFacts, ModelFacts

UNPLANNED = Room(requests=8, prompt_tokens=256, output_tokens=256)
"""What the cache is made for where nobody says what is to come."""
STOP_S = 30.0
"""How long a forward pass that is under way may hold up the end of the manager's thread."""
IDENTITY_S = 300.0


def perf_counter_offset_ns() -> int:
    """What turns `time.perf_counter`, which the manager stamps with, into `time.monotonic`; 0 where both are one clock.

    Source: time.get_clock_info; on Linux both are clock_gettime(CLOCK_MONOTONIC), on macOS mach_absolute_time().
    """
    names = {time.get_clock_info(name).implementation for name in ("monotonic", "perf_counter")}
    return 0 if len(names) == 1 else time.monotonic_ns() - time.perf_counter_ns()


class ContinuousEngine:
    """One model on one device behind one manager; the manager is made anew where a cell needs another cache."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._options = read_continuous_options(request.engine.options)
        self._device = torch.device(request.device)
        if self._device.type == "cuda" and self._device.index is not None:
            torch.cuda.set_device(self._device)  # the manager sizes its cache by the current device
        self._versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        self._offset_ns = perf_counter_offset_ns()
        torch.set_num_threads(request.threads)
        torch.set_grad_enabled(False)
        with out_of_memory_named():
            self._model = load_model(request)
            if self._device.type == "cpu":
                streamed.move_to_large_pages(self._model)
        self._model_facts = model_facts(request, self._model)
        self._experts = request.engine.experts or kernels.choose_experts(self._model, request, 1).prefill
        kernels.use_experts(self._model, self._experts)
        self._asked_attention = str(self._model.config._attn_implementation)
        self._size: CacheSize | None = None
        self._manager: Any = None
        self._heard: dict[str, int] = {}
        self._refused: list[Chunk] = []

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs; cache and graphs are those of the last cell that room was made for."""
        dtype = str(self._model.dtype).removeprefix("torch.")
        config = None if self._manager is None else self._manager.continuous_batching_config
        return EngineFacts(
            kind="transformers",
            mode=self._request.engine.mode,
            versions=self._versions,
            dtype=dtype,
            kv_dtype=dtype,
            attention_kernel=f"paged|{self._attention.removeprefix('paged|')}",
            experts_kernel=self._experts,
            stamped_by="host",
            threads=torch.get_num_threads(),
            cuda_graphs=None if config is None else any(config.cuda_graph_booleans),
            environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            notes=() if config is None else self._notes(config),
        )

    @property
    def _may_switch(self) -> bool:
        """Whether the manager may take flash attention: only where the config names no kernel."""
        return self._request.engine.attention is None

    @property
    def _attention(self) -> str:
        return str(self._model.config._attn_implementation)

    def _notes(self, config: Any) -> tuple[str, ...]:
        flash = "kept" if self._attention.endswith(self._asked_attention) else f"switched to {self._attention}"
        notes = [
            f"scheduler {config.scheduler_type}, asynchronous batching {'on' if config.use_async_batching else 'off'}",
            f"cache of {config.num_blocks} pages of {self._options.page_size} tokens; at most "
            f"{config.max_batch_tokens} tokens and {config.max_requests_per_batch} requests in one forward pass",
            "prefix cache off (allow_block_sharing=False)",
            f"auto_switch_to_flash={self._may_switch}: {self._asked_attention} {flash}",
            f"decode fast path {'on' if config.max_blocks_per_request else 'off'}",
        ]
        if self._size is not None and self._size.note is not None:
            notes.append(self._size.note)
        return tuple(notes)

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded."""
        return self._model_facts

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self._model.config.vocab_size)

    def reserve(self, requests: int, prompt_tokens: int, output_tokens: int) -> Prepared:
        """Make room for so many requests of such a length at once; on a GPU transformers takes what memory there is.

        Raises:
            PlugError: the attention kernel has no paged form. torch.OutOfMemoryError: the cache does not fit.
        """
        begun = time.monotonic()
        room = Room(requests, prompt_tokens, output_tokens)
        config = self._model.config.get_text_config()
        page_bytes = block_bytes(config, self._model.dtype.itemsize, self._options.page_size)
        size = plan_cache(self._options, room, self._device.type == "cpu", page_bytes)
        if self._manager is None or self._is_other(size):
            self._stop()
            self._open(size)
        memory.reset_peaks(self._device)
        seconds = time.monotonic() - begun if self.facts.cuda_graphs else None
        return Prepared(None, cache_nbytes(self._manager.batch_processor.cache), seconds)

    def _is_other(self, size: CacheSize) -> bool:
        known = self._size
        return known is None or size[:2] != known[:2]

    def _open(self, size: CacheSize) -> None:
        """Allocate the cache, capture what is captured, start the thread; greedy, and never an early end."""
        from transformers import GenerationConfig

        asked = make_config(self._options, size, self._request.seed % 2**31, self._may_switch)
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1)
        try:
            if not self._may_switch:
                keep_attention(self._model, asked)
            manager = self._model.init_continuous_batching(greedy, asked)
        except ValueError as error:
            raise PlugError(
                f"transformers has no continuous batching for this: {error}",
                fix="engine.attention: sdpa, eager or flash_attention_2; engine.options.page_size >= 4",
            ) from error
        with out_of_memory_named():
            manager.warmup()
        if manager.batch_processor.cache.use_prefix_sharing:
            raise TrialError("the manager shares prefixes although it was told not to", cause="engine")
        manager.start()
        self._manager, self._size = manager, size

    def _opened(self) -> Any:
        if self._manager is None:
            self.reserve(*UNPLANNED)
        return self._manager

    def now(self) -> int:
        """The host's monotonic clock."""
        return time.monotonic_ns()

    def submit(self, request: Request) -> None:
        """Hand a request to the manager; one that the whole cache cannot hold is refused when it is next polled for.

        Raises:
            TrialError: the manager's thread is dead.
        """
        manager = self._opened()
        held = manager.continuous_batching_config.num_blocks * self._options.page_size
        needed = len(request.prompt) + request.output_tokens - 1
        if needed > held:
            text = f"{needed} tokens do not fit the cache of {held}: raise engine.options.num_blocks"
            self._refused.append(Chunk(request.request_id, self.now(), 0, None, text))
            return
        self._heard[request.request_id] = 0
        taken = manager.add_request(
            list(request.prompt),
            request_id=request.request_id,
            max_new_tokens=request.output_tokens,
            eos_token_id=-1,
            streaming=True,
            record_timestamps=True,
        )
        if taken is None:
            raise self._ended()

    def poll(self, deadline_ns: int) -> list[Chunk]:
        """Chunks that arrived, waiting until `deadline_ns` at the longest.

        Raises:
            TrialError: the manager's thread is dead: `oom` where memory ran out, else `engine`.
        """
        manager = self._opened()
        chunks, self._refused = self._refused, []
        while not chunks:
            left_s = (deadline_ns - self.now()) * 1e-9
            chunks = self._heard_of(manager.get_result(timeout=max(left_s, 0.0)))
            if not chunks and not manager.is_running():
                raise self._ended()
            if left_s <= 0:
                break
        while (output := manager.get_result(timeout=0.0)) is not None:
            chunks += self._heard_of(output)
        return chunks

    def _heard_of(self, output: Any) -> list[Chunk]:
        """The tokens that one delivery adds to a request; they bear the manager's stamp of the last of them."""
        known = None if output is None else self._heard.get(output.request_id)
        if known is None:
            return []
        fresh = len(output.generated_tokens) - known
        at_ns = self.now()
        if fresh and output.timestamps:
            at_ns = round(output.timestamps[-1] * 1e9) + self._offset_ns
        if not output.is_finished():
            self._heard[output.request_id] += fresh
            return [Chunk(output.request_id, at_ns, fresh)] if fresh else []
        if output.error is not None and self._manager.background_thread_status.can_accept_new_requests() is not None:
            raise self._ended()
        del self._heard[output.request_id]
        finish_reason = "length" if output.error is None else None
        return [Chunk(output.request_id, at_ns, fresh, finish_reason, output.error)]

    def _ended(self) -> TrialError:
        """Why the manager's thread came to an end; waits for that end, since its error is the last thing it tells."""
        self._manager.join(time.perf_counter(), timeout=STOP_S)
        error = self._manager.background_thread_status.fatal_error
        said = "its thread ended without an error" if error is None else first_line(error)
        is_oom = error is not None and is_out_of_memory(error)
        found = TrialError(f"continuous batching stopped: {said}", cause="oom" if is_oom else "engine")
        found.__cause__ = error
        return found

    def cancel(self, request_id: str) -> None:
        """Give up a request; nothing more is heard of it."""
        self._refused = [chunk for chunk in self._refused if chunk.request_id != request_id]
        if self._heard.pop(request_id, None) is not None:
            self._manager.cancel_request(request_id)

    def memory(self) -> list[MemoryNow]:
        """Bytes in use, and the most since the last reading."""
        readings = memory.read_memory(self._device)
        memory.reset_peaks(self._device)
        return readings

    def check_identity(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> Divergence | None:
        """Greedy tokens of prompts answered side by side, beside those of transformers' own `generate` on each alone.

        None where memory does not suffice for the check. Never called with a request in flight.
        """
        try:
            with out_of_memory_named():
                return compare_with_generate(self._model, prompts, self._answers(prompts, tokens))
        except torch.OutOfMemoryError:
            return None
        finally:
            memory.reset_peaks(self._device)

    def _answers(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> list[list[int]]:
        manager = self._opened()
        names = [f"identity-{number}" for number in range(len(prompts))]
        for name, prompt in zip(names, prompts, strict=True):
            manager.add_request(list(prompt), request_id=name, max_new_tokens=tokens, eos_token_id=-1)
        found: dict[str, list[int]] = {}
        deadline_s = time.monotonic() + IDENTITY_S
        while len(found) < len(names):
            output = manager.get_result(timeout=1.0)
            if output is None and not manager.is_running():
                raise self._ended()
            if time.monotonic() > deadline_s or (output is not None and output.error is not None):
                said = f"nothing within {IDENTITY_S:.0f} s" if output is None else output.error
                raise TrialError(f"the identity check got no answer: {said}", cause="engine")
            if output is not None and output.request_id in names:
                found[output.request_id] = output.generated_tokens
        return [found[name] for name in names]

    def _stop(self) -> None:
        """End the thread and free the cache."""
        manager, self._manager, self._size = self._manager, None, None
        self._heard, self._refused = {}, []
        if manager is not None:
            manager.stop(block=True, timeout=STOP_S, hard_stop=True)
        del manager
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """End the thread, free the cache and the weights."""
        self._stop()
        self._model = None
