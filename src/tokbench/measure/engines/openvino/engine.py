"""The request engine: OpenVINO GenAI's continuous batching, one forward pass a step, stamped when `step` has returned.

Schedules nothing itself, samples nothing: greedy, to the last token asked for.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.errors import TrialError
from tokbench.measure.engines import Chunk, Divergence, EngineRequest, MemoryNow, Prepared, Request
from tokbench.measure.engines.openvino.compiled import make_pipeline
from tokbench.measure.engines.openvino.conversion import convert_once
from tokbench.measure.engines.openvino.options import OPENVINO_NAMES, read_request
from tokbench.measure.engines.openvino.reference import compare_with_transformers
from tokbench.measure.engines.openvino.weights import model_facts
from tokbench.measure.models import cache_folder
from tokbench.record.facts import EngineFacts, ModelFacts

BLOCK_TOKENS = 32
"""Tokens in a block of the cache on a CPU. Source: openvino.genai 2026.4.1: 40 blocks of 46,080-byte tokens took
58,982,400 bytes (2026-11-22)."""
UNPLANNED = (8, 256, 256)
"""Requests, prompt and output tokens that the cache is made for where nobody says what is to come."""
STATUS = Path("/proc/self/status")


class _Flying(NamedTuple):
    """A request that OpenVINO has."""

    number: int
    handle: Any


class OpenVinoEngine:
    """One model on the CPU behind one pipeline, which is made anew where a cell needs a larger cache."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._asked = read_request(request)
        assert request.weights_folder is not None  # checked above
        self._source = request.weights_folder
        arguments = ("--trust-remote-code",) if request.engine.trust_remote_code else ()
        precision = self._asked.precision._replace(arguments=(*self._asked.precision.arguments, *arguments))
        self._converted = convert_once(self._source, precision, cache_folder(os.environ), os.environ)
        self._model_facts = model_facts(request, self._asked, self._converted)
        self._vocabulary = int(json.loads((self._converted.folder / "config.json").read_text("utf-8"))["vocab_size"])
        self._pipeline: Any = None
        self._resolved: dict[str, str] = {}
        self._blocks = 0
        self._flying: dict[str, _Flying] = {}
        self._refused: list[Chunk] = []
        self._next_number = 0
        self._open(self._blocks_for(*UNPLANNED))

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs: types and threads are those that the compiled model has."""
        import openvino

        ours = {theirs: name for name, theirs in OPENVINO_NAMES.items()}
        resolved = self._resolved
        return EngineFacts(
            kind="openvino",
            mode=self._request.engine.mode,
            versions=self._converted.manifest.exported.versions,
            dtype=ours[resolved["INFERENCE_PRECISION_HINT"]],
            kv_dtype=ours[resolved["KV_CACHE_PRECISION"]],
            attention_kernel="PagedAttention",
            stamped_by="host",
            threads=int(resolved["INFERENCE_NUM_THREADS"]),
            notes=(
                f"device {openvino.Core().get_property('CPU', 'FULL_DEVICE_NAME')}; "
                f"{resolved.get('RUNTIME_REQUIREMENTS', 'no word on instructions')}",
                f"ENABLE_CPU_PINNING={resolved.get('ENABLE_CPU_PINNING')}, "
                f"DYNAMIC_QUANTIZATION_GROUP_SIZE={resolved['DYNAMIC_QUANTIZATION_GROUP_SIZE']}",
                f"cache of {self._blocks} blocks of {BLOCK_TOKENS} tokens, prefix cache off; at most "
                f"{self._batch_tokens} tokens in one forward pass",
            ),
        )

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded."""
        return self._model_facts

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._vocabulary

    @property
    def folder(self) -> Path:
        """The converted model."""
        return self._converted.folder

    @property
    def blocks(self) -> int:
        """Blocks of cache that the pipeline has."""
        return self._blocks

    @property
    def _batch_tokens(self) -> int:
        import openvino_genai

        return self._asked.options.max_batch_tokens or openvino_genai.SchedulerConfig().max_num_batched_tokens

    @staticmethod
    def _blocks_for(requests: int, prompt_tokens: int, output_tokens: int) -> int:
        return requests * math.ceil((prompt_tokens + output_tokens) / BLOCK_TOKENS)

    def reserve(self, requests: int, prompt_tokens: int, output_tokens: int) -> Prepared:
        """Make room for so many requests of such a length at once; the cache only grows.

        Raises:
            PlugError: OpenVINO cannot load the model. TrialError: it answers no request.
        """
        needed = self._blocks_for(requests, prompt_tokens, output_tokens)
        if needed > self._blocks:
            self._close_pipeline()
            self._open(needed)
        self._run_alone(tuple(range(min(prompt_tokens, self._vocabulary))), 2)  # the cache is allocated when first used
        reset_peak()
        metrics = self._pipeline.get_metrics()
        return Prepared(None, int(metrics.kv_cache_size_in_bytes) or None, None)

    def _open(self, blocks: int) -> None:
        self._pipeline, self._resolved = make_pipeline(self._converted.folder, self._asked, blocks)
        self._blocks = blocks

    def now(self) -> int:
        """The host's monotonic clock."""
        return time.monotonic_ns()

    def submit(self, request: Request) -> None:
        """Hand a request over; one that the whole cache cannot hold is refused when it is next polled for."""
        needed, held = len(request.prompt) + request.output_tokens, self._blocks * BLOCK_TOKENS
        if needed > held:
            text = f"{needed} tokens do not fit the cache of {held}"
            self._refused.append(Chunk(request.request_id, self.now(), 0, None, text))
            return
        self._flying[request.request_id] = self._add(request.prompt, request.output_tokens)

    def _add(self, prompt: Sequence[int], output_tokens: int) -> _Flying:
        self._next_number += 1
        handle = self._pipeline.add_request(self._next_number, ids_of(prompt), greedy(output_tokens))
        return _Flying(self._next_number, handle)

    def poll(self, deadline_ns: int) -> list[Chunk]:
        """Chunks of the next forward pass that makes any; a pass under way is not broken off at the deadline."""
        chunks, self._refused = self._refused, []
        while not chunks:
            if not self._pipeline.has_non_finished_requests():
                time.sleep(max(deadline_ns - self.now(), 0) * 1e-9)
                break
            self._pipeline.step()
            chunks = self._heard(self.now())
            if self.now() >= deadline_ns:
                break
        return chunks

    def _heard(self, at_ns: int) -> list[Chunk]:
        """What the last step added to each request."""
        from openvino_genai import GenerationStatus

        chunks = []
        for request_id, flying in list(self._flying.items()):
            fresh = read_tokens(flying.handle)
            status = flying.handle.get_status()
            if status == GenerationStatus.RUNNING:
                if fresh:
                    chunks.append(Chunk(request_id, at_ns, len(fresh)))
                continue
            del self._flying[request_id]
            is_done = status == GenerationStatus.FINISHED
            error = None if is_done else f"OpenVINO gave the request up ({status.name}): the cache is full"
            chunks.append(Chunk(request_id, at_ns, len(fresh), "length" if is_done else None, error))
        return chunks

    def cancel(self, request_id: str) -> None:
        """Give up a request; nothing more is heard of it."""
        self._refused = [chunk for chunk in self._refused if chunk.request_id != request_id]
        flying = self._flying.pop(request_id, None)
        if flying is not None:
            flying.handle.cancel()

    def memory(self) -> list[MemoryNow]:
        """Resident bytes now, and at most since the last reading."""
        peak, steady = _status_bytes("VmHWM"), _status_bytes("VmRSS")
        reset_peak()
        if peak is None or steady is None:  # no Linux: the peak of the process's whole life
            unit = 1 if sys.platform == "darwin" else 1024
            return [MemoryNow("rss_peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)]
        return [MemoryNow("rss_peak", peak), MemoryNow("rss_steady", steady)]

    def check_identity(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> Divergence | None:
        """Tokens of prompts answered side by side, beside transformers' on each alone.

        Where is not computed in float32 the two may differ: then beside OpenVINO's own `generate` on each alone.
        """
        if self._asked.precision.inference == self._asked.kv_dtype == self._request.model.dtype == "float32":
            return compare_with_transformers(self._source, prompts, self._answers(prompts, tokens))
        answers = self._answers(prompts, tokens)
        alone = [self._pipeline.generate([ids_of(prompt)], [greedy(tokens)])[0] for prompt in prompts]
        pairs = zip(answers, (list(result.m_generation_ids[0]) for result in alone), strict=True)
        firsts = [
            next((n for n, pair in enumerate(zip(*both, strict=True)) if pair[0] != pair[1]), None) for both in pairs
        ]
        first = min((first for first in firsts if first is not None), default=None)
        return Divergence("OpenVINO GenAI generate, greedy, each prompt alone", tokens, first, None)

    def _answers(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> list[list[int]]:
        """Greedy tokens of prompts answered side by side.

        Raises:
            TrialError: an answer is shorter than was asked for.
        """
        handles = [self._add(prompt, tokens).handle for prompt in prompts]
        answers: list[list[int]] = [[] for _ in handles]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for answer, handle in zip(answers, handles, strict=True):
                answer.extend(read_tokens(handle))
        if any(len(answer) != tokens for answer in answers):
            made = ", ".join(str(len(answer)) for answer in answers)
            raise TrialError(f"OpenVINO made {made} tokens where {tokens} were asked for", cause="engine")
        return answers

    def _run_alone(self, prompt: tuple[int, ...], tokens: int) -> None:
        self._answers([prompt], tokens)

    def _close_pipeline(self) -> None:
        self._flying, self._refused, self._pipeline = {}, [], None
        gc.collect()

    def close(self) -> None:
        """Free cache and weights."""
        self._close_pipeline()


def ids_of(prompt: Sequence[int]) -> Any:
    """A prompt as OpenVINO takes it: (1, tokens)."""
    import numpy
    import openvino

    return openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))


def greedy(output_tokens: int) -> Any:
    """The likeliest token, so many times, whatever it is."""
    from openvino_genai import GenerationConfig

    config = GenerationConfig()
    config.max_new_tokens = output_tokens
    config.ignore_eos = True
    config.do_sample = False
    config.num_beams = 1
    return config


def read_tokens(handle: Any) -> list[int]:
    """Tokens that a request got since it was last read."""
    fresh: list[int] = []
    while handle.can_read():
        for output in handle.read().values():
            fresh += output.generated_ids
    return fresh


def reset_peak() -> None:
    """Let the peak of resident memory count from now on. Source: proc_pid_clear_refs(5)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None
