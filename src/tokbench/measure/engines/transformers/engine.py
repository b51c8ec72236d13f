"""The step engine: eager and compiled decoding of a static batch. Nothing here waits for the device per token."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from tokbench.errors import TrialError
from tokbench.measure.engines import CellWork, Divergence, EngineRequest, MemoryNow, Prepared, Step, Tokenizer
from tokbench.measure.engines.transformers.clocks import open_clock
from tokbench.measure.engines.transformers.loading import load_model, load_tokenizer, model_facts
from tokbench.measure.engines.transformers.loops import CompiledLoop, EagerLoop
from tokbench.record.facts import EngineFacts, ModelFacts

_ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "TRANSFORMERS_SDPA_FORCE_GQA",
)


class TransformersEngine:
    """One model on one device in one mode."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._device = torch.device(request.device)
        torch.set_num_threads(request.threads)
        torch.set_grad_enabled(False)
        self._model = load_model(request)
        self._model_facts = model_facts(request, self._model)
        self._tokenizer = load_tokenizer(request)
        self._clock = open_clock(self._device)
        self._loop: EagerLoop | CompiledLoop | None = None
        self._ids: torch.Tensor | None = None

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs."""
        config = self._model.config
        loop = self._loop
        return EngineFacts(
            kind="transformers",
            mode=self._request.engine.mode,
            versions={name: importlib.metadata.version(name) for name in ("torch", "transformers")},
            dtype=str(self._model.dtype).removeprefix("torch."),
            kv_dtype=str(self._model.dtype).removeprefix("torch."),
            attention_kernel=getattr(config, "_attn_implementation", None),
            experts_kernel=getattr(config, "_experts_implementation", None) if _is_moe(config) else None,
            stamped_by=self._clock.stamped_by,
            threads=torch.get_num_threads(),
            graphs_compiled=self.graphs_compiled,
            cuda_graphs=loop.uses_device_graph if isinstance(loop, CompiledLoop) else False,
            environment={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )

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
    def graphs_compiled(self) -> int | None:
        """Graphs that dynamo has compiled in this process; None in eager mode."""
        if self._request.engine.mode != "compiled":
            return None
        from torch._dynamo.utils import counters  # loads the compiler

        return int(counters["stats"]["unique_graphs"])

    def _open_loop(self) -> EagerLoop | CompiledLoop:
        if self._loop is None:
            raise TrialError("nothing was prepared", cause="engine")
        return self._loop

    @torch.inference_mode()
    def prepare(self, work: CellWork) -> Prepared:
        """Free the cell before, allocate this one, run it once so that everything is compiled and captured."""
        if self._loop is not None:
            self._loop.close()
        self._loop = self._ids = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        self._ids = torch.tensor(work.prompts, dtype=torch.long, device=self._device)
        kind = CompiledLoop if self._request.engine.mode == "compiled" else EagerLoop
        loop = kind(self._model, work, self._model_facts)
        self._loop = loop
        loop.prefill(self._ids)
        begun = time.monotonic()
        loop.compile()
        self._clock.sync()
        compile_s = time.monotonic() - begun if kind is CompiledLoop else None
        loop.rewind(0)
        loop.prefill(self._ids)
        for _ in range(min(2, work.output_tokens - 1)):
            loop.step()
        self._clock.sync()
        return Prepared(loop.cache_rows, loop.cache_bytes(), compile_s)

    @torch.inference_mode()
    def prefill(self) -> Step:
        """Process the staged prompts up to the first output token of every row."""
        loop = self._open_loop()
        assert self._ids is not None
        self._clock.begin()
        loop.prefill(self._ids)
        self._clock.mark()
        return Step(self._clock.finish()[-1], 1)

    @torch.inference_mode()
    def decode(self, steps: int) -> Iterator[Step]:
        """Launch all steps, then read their stamps."""
        loop, clock = self._open_loop(), self._clock
        clock.begin()
        for _ in range(steps):
            loop.step()
            clock.mark()
        stamps = clock.finish()
        return iter([Step(at_ns, steps // len(stamps)) for at_ns in stamps])

    @torch.inference_mode()
    def rewind(self, position: int) -> None:
        """Go back to `position` tokens per row; 0 empties the cache."""
        self._open_loop().rewind(position)

    def sync(self) -> int:
        """Wait until the device is idle; the host clock then."""
        return self._clock.sync()

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Token ids made since the last prefill."""
        return tuple(tuple(row) for row in self._open_loop().made().tolist())

    def memory(self) -> list[MemoryNow]:
        """The allocator's bytes on a GPU, the process's resident bytes on a CPU."""
        if self._device.type == "cuda":
            return [
                MemoryNow("allocator_peak", torch.cuda.max_memory_allocated(self._device)),
                MemoryNow("allocator_steady", torch.cuda.memory_allocated(self._device)),
                MemoryNow("allocator_reserved", torch.cuda.max_memory_reserved(self._device)),
            ]
        scale = 1 if sys.platform == "darwin" else 1024
        return [MemoryNow("rss_peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)]

    @torch.inference_mode()
    def check_identity(self, tokens: int) -> Divergence | None:
        """Greedy tokens of row 0 beside those of transformers' own `generate` on the same batch."""
        loop = self._open_loop()
        assert self._ids is not None
        count = min(tokens, loop.work.output_tokens)
        loop.rewind(0)
        loop.prefill(self._ids)
        for _ in range(count - 1):
            loop.step()
        ours = loop.made()[0].tolist()[:count]
        loop.rewind(0)
        reference = self._model.generate(
            self._ids,
            attention_mask=torch.ones_like(self._ids),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
            eos_token_id=-1,
            pad_token_id=0,
            disable_compile=True,
            return_dict_in_generate=True,
            output_logits=True,
        )
        theirs = reference.sequences[0, self._ids.shape[1] :].tolist()
        first = next((index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
        gap = None
        if first is not None:
            top = reference.logits[first][0].float().topk(2).values
            gap = float(top[0] - top[1])
        return Divergence("transformers generate, greedy", count, first, gap)

    def close(self) -> None:
        """Free the cache and the weights."""
        if self._loop is not None:
            self._loop.close()
        self._loop = self._ids = None
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _is_moe(config: Any) -> bool:
    return any(getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
