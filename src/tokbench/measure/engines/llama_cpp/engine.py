"""The request engine: prompts go in as token ids, chunks come out with the host's stamp of their arrival.

llama.cpp says with every chunk how many tokens it has made so far; a chunk holds several where one token alone is no
whole character. It never computes a rate: what llama.cpp's own clock said is kept in `server_timings` for comparing.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.errors import TrialError
from tokbench.measure.engines import Chunk, Divergence, EngineRequest, MemoryNow, Prepared, Request
from tokbench.measure.engines.llama_cpp.gguf_file import check_source
from tokbench.measure.engines.llama_cpp.options import read_options
from tokbench.measure.engines.llama_cpp.server import Arrival, LlamaServer, asking, size_for
from tokbench.record.facts import EngineFacts, ModelFacts
from tokbench.units import BYTES, format_value

ENVIRONMENT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES")
UNPLANNED = (8, 512)
"""Requests, and tokens of each, where nobody says what is to come."""
KEPT_TIMINGS = 1024
REFERENCE = "llama.cpp, greedy, each prompt alone"
PROC = Path("/proc/self")


class ServerTimings(NamedTuple):
    """What llama.cpp's own clock says of one answer; `decode_s` runs from the first token to the last."""

    request_id: str
    prompt_s: float
    decode_s: float
    tokens: int


@dataclasses.dataclass(slots=True)
class _Flying:
    """A request in flight: what is asked, what was heard, and the last token's chunk, held until the end is known."""

    request: Request
    heard: int = 0
    held: Chunk | None = None


class LlamaCppEngine:
    """One GGUF file behind one server, made anew where a cell needs more slots or longer ones."""

    def __init__(self, request: EngineRequest) -> None:
        import xllamacpp

        self._request = request
        self._options = read_options(request.engine)
        self._file = check_source(request)
        self._system = " ".join(part.strip() for part in str(xllamacpp.get_system_info()).split("|") if part.strip())
        self._server = LlamaServer(xllamacpp, self._file.path, request.device, request.threads)
        self._server.start(size_for(*UNPLANNED), self._options)
        self._flying: dict[str, _Flying] = {}
        self.server_timings: collections.deque[ServerTimings] = collections.deque(maxlen=KEPT_TIMINGS)

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs; slots are those of the last cell that room was made for."""
        size, options = self._server.size, self._options
        room = () if size is None else (f"{size.slots} slots of {size.slot_tokens} tokens",)
        return EngineFacts(
            kind="llama_cpp",
            mode=self._request.engine.mode,
            versions={name: importlib.metadata.version(name) for name in ("xllamacpp", "gguf")},
            dtype=self._file.precision,
            kv_dtype="float16",
            attention_kernel="ggml_flash" if options.flash_attention else "ggml_plain",
            stamped_by="host",
            threads=self._request.threads,
            environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            notes=(
                *room,
                f"at most {options.ubatch_tokens} tokens in a forward pass, {options.batch_tokens} in a call",
                "layers on the CPU" if self._request.device == "cpu" else f"all layers on {self._request.device}",
                "prompt cache off; the end token is barred (ignore_eos), so that answers have the length asked for",
                "stamps: when llama.cpp's callback reaches Python, in this process, without HTTP",
                f"build: {self._system}",
            ),
        )

    @property
    def model_facts(self) -> ModelFacts:
        """The weights of the file, as its header tells; the mapping of the file is what is loaded."""
        request, file = self._request, self._file
        size = format_value(file.weight_bytes, BYTES)
        return ModelFacts(
            name=request.model_name,
            source=request.model.source,
            weights="pretrained",
            dtype=file.precision,
            parameters=file.parameters,
            weight_bytes=file.weight_bytes,
            lookup_bytes=file.lookup_bytes,
            expert_bytes=file.expert_bytes,
            revision=request.revision,
            sha256=request.sha256,
            note=f"{file.path.name} as it is: {file.precision}, {size}",
            config_json=request.config_json,
        )

    @property
    def native_server(self) -> Any:
        """llama.cpp's own server, for a loop that is set beside this engine; no request may be in flight here."""
        return self._server.native

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._file.vocabulary

    def reserve(self, requests: int, prompt_tokens: int, output_tokens: int) -> Prepared:
        """Make a slot for each request, by a server made anew where the one that runs is of another size.

        Raises:
            TrialError: longer than the model's context. PlugError: llama.cpp cannot make so much room.
        """
        tokens = prompt_tokens + output_tokens
        longest = self._file.context_tokens
        if longest is not None and tokens > longest:
            raise TrialError(f"{tokens} tokens are more than the model's context of {longest}", cause="engine")
        size = size_for(requests, tokens)
        if self._server.size != size:
            self._server.start(size, self._options)
        rows = size.slots * size.slot_tokens
        each = self._file.kv_bytes_per_token
        return Prepared(size.slot_tokens, None if each is None else rows * each, None)

    def now(self) -> int:
        """The host's monotonic clock."""
        return time.monotonic_ns()

    def submit(self, request: Request) -> None:
        """Hand a request to llama.cpp from a thread of its own."""
        self._flying[request.request_id] = _Flying(request)
        self._server.ask(request.request_id, asking(request.prompt, request.output_tokens))

    def poll(self, deadline_ns: int) -> list[Chunk]:
        """Chunks that arrived, waiting until `deadline_ns` at the longest.

        Raises:
            TrialError: llama.cpp worked on another prompt than it was given.
        """
        chunks: list[Chunk] = []
        while not chunks:
            arrival = self._server.hear((deadline_ns - self.now()) * 1e-9)
            if arrival is None:
                return chunks
            chunks += self._chunks_of(arrival)
        while (arrival := self._server.hear(0.0)) is not None:
            chunks += self._chunks_of(arrival)
        return chunks

    def _chunks_of(self, arrival: Arrival) -> list[Chunk]:
        """The tokens that one arrival adds to a request, and its end."""
        flying = self._flying.get(arrival.request_id)
        if flying is None:
            return []
        if arrival.text is None:
            del self._flying[arrival.request_id]
            return [Chunk(arrival.request_id, arrival.at_ns, 0, None, "llama.cpp ended the answer without a reason")]
        said = json.loads(arrival.text)
        if "error" in said:
            del self._flying[arrival.request_id]
            return [Chunk(arrival.request_id, arrival.at_ns, 0, None, str(said["error"].get("message")))]
        return self._tokens_of(flying, arrival.at_ns, said)

    def _tokens_of(self, flying: _Flying, at_ns: int, said: dict[str, Any]) -> list[Chunk]:
        request, timings = flying.request, said["timings"]
        if (timings["prompt_n"], timings["cache_n"]) != (len(request.prompt), 0):
            raise TrialError(
                f"llama.cpp worked on {timings['prompt_n']} tokens of the prompt and took {timings['cache_n']} from a "
                f"cache, {len(request.prompt)} were asked for",
                cause="engine",
            )
        fresh = int(timings["predicted_n"]) - flying.heard
        flying.heard += fresh
        reason = said["choices"][0]["finish_reason"]
        if reason is None:
            chunk = Chunk(request.request_id, at_ns, fresh)
            if flying.heard < request.output_tokens:
                return [chunk] if fresh else []
            flying.held = chunk  # the last token: the message of the end comes behind it and adds none
            return []
        del self._flying[request.request_id]
        self._keep_timings(request, timings)
        if flying.held is not None and not fresh:
            return [flying.held._replace(finish_reason=reason)]
        held = [flying.held] if flying.held is not None else []
        return [*held, Chunk(request.request_id, at_ns, fresh, reason)]

    def _keep_timings(self, request: Request, timings: dict[str, Any]) -> None:
        prompt_s, decode_s = timings["prompt_ms"] * 1e-3, timings["predicted_ms"] * 1e-3
        self.server_timings.append(ServerTimings(request.request_id, prompt_s, decode_s, int(timings["predicted_n"])))

    def cancel(self, request_id: str) -> None:
        """Give up a request; nothing more is heard of it."""
        if self._flying.pop(request_id, None) is not None:
            self._server.cancel(request_id)

    def memory(self) -> list[MemoryNow]:
        """Resident bytes of this process, and the most since the last reading; none on a GPU, which llama.cpp hides."""
        if self._request.device != "cpu":
            return []
        readings = [("rss_peak", _status_bytes("VmHWM")), ("rss_steady", _status_bytes("VmRSS"))]
        with contextlib.suppress(OSError):
            (PROC / "clear_refs").write_text("5")
        return [MemoryNow(source, found) for source, found in readings if found is not None]

    def check_identity(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> Divergence | None:
        """Greedy tokens of prompts answered side by side, beside those of the same server on each alone.

        The products of several rows are not rounded as those of one: a divergence tells of a near tie, and `top2_gap`
        (of log-probabilities) how near. Another engine's tokens cannot be set beside these: its weights are others.
        """
        together = self._server.answers(prompts, tokens)
        alone = [self._server.answers([prompt], tokens)[0] for prompt in prompts]
        differing = [
            (index, theirs[1])
            for ours_all, theirs_all in zip(together, alone, strict=True)
            for index, (ours, theirs) in enumerate(zip(ours_all, theirs_all, strict=True))
            if ours[0] != theirs[0]
        ]
        first, gap = min(differing, default=(None, None))
        return Divergence(REFERENCE, tokens, first, gap)

    def close(self) -> None:
        """End the server and free the weights."""
        self._flying.clear()
        self._server.stop()
        gc.collect()


def _status_bytes(key: str) -> int | None:
    """One line of the process's status; None where the system has no such file."""
    with contextlib.suppress(OSError):
        for line in (PROC / "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None
