"""The step engine: eager and compiled decoding of a static batch. Nothing here waits for the device per token."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.metadata
import os
import time
from collections.abc import Iterator
from typing import Any

import torch

from tokbench.errors import TrialError
from tokbench.measure.engines import (
    Anchor,
    CellWork,
    Divergence,
    EngineRequest,
    MemoryNow,
    Prepared,
    Repeat,
    Step,
    Tokenizer,
)
from tokbench.measure.engines.transformers import checks, kernels, memory, quantised, streamed
from tokbench.measure.engines.transformers.clocks import open_clock
from tokbench.measure.engines.transformers.drafting.drafter import Keeper
from tokbench.measure.engines.transformers.drafting.loop import DraftingLoop, Seat
from tokbench.measure.engines.transformers.experts import count_touches, lay_out_experts
from tokbench.measure.engines.transformers.experts_drawn import is_routing_drawn
from tokbench.measure.engines.transformers.graphs import out_of_memory_named
from tokbench.measure.engines.transformers.loading import load_model, load_tokenizer, model_facts
from tokbench.measure.engines.transformers.loops import EagerLoop
from tokbench.measure.engines.transformers.opening import Loop, compiles_prefill, count_kernels, is_greedy, open_loop
from tokbench.measure.engines.transformers.options import read_options
from tokbench.measure.routing import LayerTouches
from tokbench.record.facts import EngineFacts, ModelFacts

ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "THP_MEM_ALLOC_ENABLE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "TRANSFORMERS_SDPA_FORCE_GQA",
)
"""Variables that change speed, kept in the record where they are set."""


MIN_READ_BYTES = 1 << 28
"""Fewer bytes of weights may stay in a large cache between two passes over them."""


class TransformersEngine:
    """One model on one device in one mode."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        options = read_options(request.engine.options)
        is_named = request.engine.attention is not None
        self._options = dataclasses.replace(options, time_attention=options.time_attention and not is_named)
        self._device = torch.device(request.device)
        if self._device.type == "cuda" and self._device.index is not None:
            torch.cuda.set_device(self._device)  # streams, events and captured graphs go to the current device
        packages = ("torch", "transformers", *(("torchao",) if quantised.is_quantised(request) else ()))
        self._versions = {name: importlib.metadata.version(name) for name in packages}
        torch.set_num_threads(request.threads)
        torch.set_grad_enabled(False)
        self._stretch: torch.Tensor | None = None
        with out_of_memory_named():
            self._model = load_model(request)
            self._experts_notes = lay_out_experts(self._model, self._options, request)
            self._streamed = self._lay_out_weights()
        self._model_facts = model_facts(request, self._model)
        self._tokenizer = load_tokenizer(request)
        self._clock = open_clock(self._device)
        self._loop: Loop | None = None
        self._keeper = Keeper()
        self._ids: torch.Tensor | None = None

    def _lay_out_weights(self) -> int:
        """On a CPU, weights in large pages and linear layers as loops over them; how many layers."""
        if self._device.type != "cpu":
            return 0
        self._stretch, count = streamed.lay_out(self._model, self._request.engine.mode, self._options)
        return count

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs."""
        config, loop = self._model.config, self._loop
        experts = kernels.choose_experts(self._model, self._request, 1) if loop is None else loop.experts
        return EngineFacts(
            kind="transformers",
            mode=self._request.engine.mode,
            versions=self._versions,
            dtype=str(self._model.dtype).removeprefix("torch."),
            kv_dtype=str(self._model.dtype).removeprefix("torch."),
            attention_kernel=config._attn_implementation,
            experts_kernel=experts.decode,
            stamped_by=self._clock.stamped_by,
            threads=torch.get_num_threads(),
            graphs_compiled=self.graphs_compiled,
            cuda_graphs=loop is not None and loop.uses_device_graph,
            environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            notes=self._notes(experts),
        )

    def _notes(self, experts: kernels.ExpertsChoice) -> tuple[str, ...]:
        notes = [*self._experts_notes, *(() if self._loop is None else self._loop.notes)]
        if experts.prefill != experts.decode:
            notes.append(f"experts kernel of the prefill: {experts.prefill}")
        if kernels.loops_over_experts(self._model, self._request.engine.mode, experts.decode):
            notes.append(f"experts kernel {experts.decode}: a loop over experts in Python, which waits for the device")
        if self._request.engine.mode == "compiled":
            notes.append("prefill: compiled" if compiles_prefill(self._loop) else "prefill: not compiled")
            if self._streamed:
                rows = f"up to {streamed.STREAMED_ROWS} rows"
                notes.append(f"{self._streamed} linear layers are loops over their weights for {rows}, no BLAS")
            if self._options.compile_backend != "inductor":
                notes.append(f"compile backend {self._options.compile_backend}: no code was generated")
        if self._options.prefill_chunk:
            notes.append(f"prefill: in chunks of {self._options.prefill_chunk} tokens per row")
        return tuple(notes)

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded."""
        return self._model_facts

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the weights came without one."""
        return self._tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self._model.config.vocab_size)

    @property
    def clock_error_s(self) -> float | None:
        """Residual of the device clock in the last window."""
        return self._clock.error_s

    @property
    def launched_at_ns(self) -> int | None:
        """When the host had launched all steps of the last window."""
        return self._clock.launched_at_ns

    @property
    def graphs_compiled(self) -> int | None:
        """Graphs that dynamo has compiled in this process; None in eager mode."""
        if self._request.engine.mode != "compiled":
            return None
        from torch._dynamo.utils import counters  # loads the compiler

        return int(counters["stats"]["unique_graphs"])

    def _open_loop(self) -> Loop:
        if self._loop is None:
            raise TrialError("nothing was prepared", cause="engine")
        return self._loop

    def _release(self) -> None:
        """Free the prepared cell; on a GPU what hangs in cycles too, since the next cell was sized for all memory."""
        if self._loop is not None:
            self._loop.close()
        self._loop = self._ids = None
        self._free_unused()

    def _free_unused(self) -> None:
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _released_on_failure(self) -> Iterator[None]:
        """Leave no cell behind that is half prepared, or whose memory somebody else may need now."""
        with contextlib.ExitStack() as undo, out_of_memory_named():
            undo.callback(self._keeper.turn_to, None)
            undo.callback(self._release)
            yield
            undo.pop_all()

    @torch.inference_mode()
    def prepare(self, work: CellWork) -> Prepared:
        """Free the cell before, allocate this one, run it once so that everything is compiled and captured."""
        self._release()
        memory.reset_peaks(self._device)  # a peak at a failure is then this cell's
        with self._released_on_failure():
            return self._prepare(work)

    def _prepare(self, work: CellWork) -> Prepared:
        self._ids = torch.tensor(work.prompts, dtype=torch.long, device=self._device)
        is_compiled = self._request.engine.mode == "compiled"
        seat = Seat(self._model, self._request, self._options, self._model_facts.weight_bytes or 0, self._keeper)
        self._loop = loop = open_loop(seat, work)
        self._clock.reserve(work.output_tokens)
        if isinstance(loop, DraftingLoop):
            loop.reserve(self._clock)
        begun = time.monotonic()
        loop.prefill(self._ids)
        kv_bytes = loop.cache_bytes()
        begun = begun if compiles_prefill(loop) else time.monotonic()
        loop.compile()
        self._clock.sync()
        compile_s = time.monotonic() - begun if is_compiled else None
        kernel_count, counted_by = count_kernels(loop)
        loop.rewind(0)  # trying the step out left the cache beyond its prefill
        return Prepared(loop.cache_rows, kv_bytes, compile_s, kernel_count, counted_by)

    @torch.inference_mode()
    def read_weights(self, passes: int) -> tuple[int, tuple[float, ...]] | None:
        """The weights summed up where they lie; None on an accelerator, and where caches may hold them."""
        if self._stretch is None or self._stretch.numel() < MIN_READ_BYTES:
            return None
        return self._stretch.numel(), streamed.read_whole(self._stretch, passes)

    @property
    def model(self) -> Any:
        """The model itself, for experiments."""
        return self._model

    @property
    def rounds(self) -> DraftingLoop | None:
        """The prepared rounds of drafting, for experiments."""
        return self._loop if isinstance(self._loop, DraftingLoop) else None

    @torch.inference_mode()
    def stage(self, prompts: tuple[tuple[int, ...], ...]) -> None:
        """Take prompts of the same number and length in the place of those prepared."""
        ids = torch.tensor(prompts, dtype=torch.long, device=self._device)
        if self._ids is None or ids.shape != self._ids.shape:
            raise TrialError("prompts can only be exchanged for as many of the same length", cause="engine")
        self._ids.copy_(ids)

    def draw_from(self, repetition: int) -> None:
        """Let the next prefill begin with the random numbers, and the trace, of that repetition of the cell."""
        self._open_loop().draw_again(repetition)

    @torch.inference_mode()
    def prefill(self) -> Step:
        """Process the staged prompts up to the first output token of every row."""
        loop, ids = self._open_loop(), self._ids
        assert ids is not None
        with self._released_on_failure():
            self._clock.begin()
            loop.prefill(ids)
            self._clock.mark()
            return Step(self._clock.finish()[-1], 1)

    @torch.inference_mode()
    def decode(self, steps: int) -> Iterator[Step]:
        """Launch all steps, then read their stamps.

        Raises:
            TrialError: nothing was prefilled, or the cell has no room for so many tokens.
        """
        loop, clock = self._open_loop(), self._clock
        if not 0 < steps <= loop.steps_left or loop.steps_left == loop.work.output_tokens:
            raise TrialError(f"cannot decode {steps} steps: {loop.steps_left} are left after a prefill", cause="engine")
        with self._released_on_failure():
            if isinstance(loop, DraftingLoop):
                return iter(loop.decode(steps, clock))
            clock.begin()
            for _ in range(steps):
                loop.step()
                clock.mark()
            stamps = clock.finish()
        return iter([Step(at_ns, steps // len(stamps)) for at_ns in stamps])

    @torch.inference_mode()
    def rewind(self, position: int) -> None:
        """Go back to `position` tokens per row; 0 empties the cache, and memory peaks count from there."""
        self._open_loop().rewind(position)
        if position == 0:
            memory.reset_peaks(self._device)

    def sync(self) -> int:
        """Wait until the device is idle; the host clock then."""
        return self._clock.sync()

    def anchors(self) -> list[Anchor]:
        """The anchors of the last window."""
        return self._clock.anchors()

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Token ids made since the last prefill."""
        return tuple(tuple(row) for row in self._open_loop().made().tolist())

    def memory(self) -> list[MemoryNow]:
        """The allocator's bytes on a GPU, the process's resident bytes on a CPU."""
        return memory.read_memory(self._device)

    @torch.inference_mode()
    def check_identity(self, tokens: int) -> Divergence | None:
        """Greedy tokens of row 0 beside those of transformers' own `generate` on the same batch.

        None where memory is short, where tokens are drawn or accepted otherwise, and where routing is drawn, which
        `generate` does not know; the cell stays prepared.
        """
        loop = self._open_loop()
        if is_routing_drawn(self._model) or not is_greedy(loop.work):
            return None
        count = min(tokens, loop.work.output_tokens)
        with self._released_on_failure(), contextlib.suppress(torch.OutOfMemoryError), out_of_memory_named():
            return checks.compare_with_generate(self._model, loop, self._ids, count)
        loop.rewind(0)
        self._free_unused()
        return None

    @torch.inference_mode()
    def check_repeat(self, steps: int) -> list[Repeat]:
        """The staged prompts twice, bit for bit; and in the mode eager row 0 by itself. Empty where memory is short."""
        loop, ids = self._open_loop(), self._ids
        assert ids is not None
        count = min(steps, loop.work.output_tokens - 1)
        with self._released_on_failure(), contextlib.suppress(torch.OutOfMemoryError), out_of_memory_named():
            found = [checks.repeat_itself(loop, ids, count)]
            if isinstance(loop, EagerLoop) and loop.work.rows > 1 and loop.work.temperature == 0:
                work = CellWork(loop.work.prompts[:1], loop.work.output_tokens)
                alone = EagerLoop(self._model, work, loop.experts, self._options)
                found.append(checks.repeat_alone(loop, alone, ids, count))
            return found
        loop.rewind(0)
        self._free_unused()
        return []

    @torch.inference_mode()
    def touch_experts(self) -> list[LayerTouches]:
        """Which experts the cell's decode selects; empty for a dense model, and where memory does not suffice."""
        loop, ids = self._open_loop(), self._ids
        assert ids is not None
        with contextlib.suppress(torch.OutOfMemoryError), out_of_memory_named():
            return count_touches(self._model, EagerLoop(self._model, loop.work, loop.experts, self._options), ids)
        self._free_unused()
        return []

    def close(self) -> None:
        """Free the cache and the weights, those of a draft too."""
        self._model = None
        self._release()
        self._keeper.turn_to(None)
