"""The request engine: vLLM stepped by the thread that takes the tokens, each step's tokens stamped when it returned.

vLLM schedules; nothing here does. The engine is made anew where a cell needs more room than the last one had.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tokbench.errors import TrialError
from tokbench.measure.engines import Chunk, Divergence, EngineRequest, MemoryNow, Prepared, Request
from tokbench.measure.engines.vllm import memory
from tokbench.measure.engines.vllm.options import Arguments, Room, choose_arguments, read_options, unplanned_room
from tokbench.measure.engines.vllm.session import Session
from tokbench.measure.engines.vllm.weights import model_facts
from tokbench.record.facts import EngineFacts, ModelFacts

ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
)
"""Variables that change speed, kept in the record where they are set; those named VLLM_… besides."""
STAMPED = "stamped when vLLM's step returned: the tokens of one step, one a request, share a stamp"

OpenSession = Callable[[Arguments], Session]
UNTOLD = frozenset({"KEY", "TOKEN", "SECRET", "PASSWORD", "ROOT", "PATH", "DIR", "HOST", "URL", "SERVER", "IP"})
"""Words in the names of vLLM's variables whose values are nobody's business."""


def is_setting(name: str, value: str) -> bool:
    """Whether a variable is a setting of vLLM that may be told: no secret, no place."""
    return name.startswith("VLLM_") and not UNTOLD & set(name.split("_")) and "/" not in value


class VllmEngine:
    """One model behind one vLLM engine in this process."""

    def __init__(self, request: EngineRequest, open_session: OpenSession) -> None:
        self._request = request
        self._options = read_options(request)
        given = os.environ.items()  # read before vLLM sets names of its own
        self._environment = {name: at for name, at in given if name in ENVIRONMENT or is_setting(name, at)}
        self._open_session = open_session
        self._config_folder: tempfile.TemporaryDirectory[str] | None = None
        self._refused: list[Chunk] = []
        self._flying: set[str] = set()
        self._session: Session | None = None
        self._room = unplanned_room(request)
        self._open(self._room)
        self._model_facts = model_facts(request, self._opened().facts.dtype, self._opened().model)

    def _open(self, room: Room) -> None:
        arguments = choose_arguments(self._request, self._options, self._folder(), room)
        self._close_session()
        self._session = self._open_session(arguments)
        self._room = Room(arguments.max_num_seqs, arguments.max_model_len)

    def _folder(self) -> str:
        """The weights' folder; for random weights one that holds the config alone."""
        if self._request.weights_folder is not None:
            return str(self._request.weights_folder)
        if self._config_folder is None:
            self._config_folder = tempfile.TemporaryDirectory(prefix="tokbench-vllm-")
            config = Path(self._config_folder.name, "config.json")
            config.write_text(self._request.config_json or "{}", encoding="utf-8")
        return self._config_folder.name

    def _opened(self) -> Session:
        if self._session is None:
            raise TrialError("the engine is closed", cause="engine")
        return self._session

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs; sizes are those of the room that was made last."""
        found = self._opened().facts
        return EngineFacts(
            kind="vllm",
            mode=self._request.engine.mode,
            versions=found.versions,
            dtype=found.dtype,
            kv_dtype=found.kv_dtype,
            attention_kernel=found.attention,
            experts_kernel=self._request.engine.experts,
            stamped_by="host",
            threads=found.threads,
            cuda_graphs=found.has_graphs,
            environment={**self._environment, **found.environment},
            notes=(STAMPED, *found.notes),
        )

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded."""
        return self._model_facts

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._opened().facts.vocabulary

    def reserve(self, requests: int, prompt_tokens: int, output_tokens: int) -> Prepared:
        """Make room for so many requests of such a length at once; the engine is opened anew where it is too small.

        Raises:
            TrialError: it does not fit (`oom`), or is longer than the model or the options allow.
        """
        wanted = Room(requests, prompt_tokens + output_tokens)
        self._check_options(wanted)
        compile_s: float | None = None
        if not self._room.holds(wanted._replace(requests=min(requests, self._options.max_num_seqs or requests))):
            begun = time.monotonic()
            self._open(self._room.joined(wanted))
            compile_s = time.monotonic() - begun
        memory.reset_peaks(self._request.device)
        facts = self._opened().facts
        return Prepared(None, facts.cache_bytes, compile_s)

    def _check_options(self, wanted: Room) -> None:
        longest = self._options.max_model_len
        if longest is not None and wanted.request_tokens > longest:
            text = f"requests of {wanted.request_tokens} tokens; engine.options.max_model_len allows {longest}"
            raise TrialError(text, cause="engine")

    def now(self) -> int:
        """The host's monotonic clock."""
        return time.monotonic_ns()

    def submit(self, request: Request) -> None:
        """Hand a request to vLLM; one that it refuses is told of when it is next polled for."""
        refusal = self._opened().add(request.request_id, request.prompt, request.output_tokens)
        if refusal is not None:
            self._refused.append(Chunk(request.request_id, self.now(), 0, None, refusal))
        else:
            self._flying.add(request.request_id)

    def poll(self, deadline_ns: int) -> list[Chunk]:
        """Step until tokens arrived or `deadline_ns` has passed; a step that has begun is finished in any case."""
        session = self._opened()
        chunks, self._refused = self._refused, []
        while not chunks:
            left_ns = deadline_ns - self.now()
            if not session.is_busy():
                time.sleep(max(left_ns, 0) * 1e-9)
                break
            deliveries = session.step()
            at_ns = self.now()
            for request_id, tokens, finish_reason in deliveries:
                if request_id in self._flying:
                    chunks.append(Chunk(request_id, at_ns, len(tokens), finish_reason))
                if finish_reason is not None:
                    self._flying.discard(request_id)
            if left_ns <= 0:
                break
        return chunks

    def cancel(self, request_id: str) -> None:
        """Give up a request; nothing more is heard of it."""
        self._refused = [chunk for chunk in self._refused if chunk.request_id != request_id]
        if request_id in self._flying:
            self._flying.discard(request_id)
            self._opened().abort(request_id)

    def memory(self) -> list[MemoryNow]:
        """Bytes in use, and the most since the last reading; a split model's other processes are not seen."""
        if len(self._request.devices) > 1:
            return []
        readings = memory.read_memory(self._request.device)
        memory.reset_peaks(self._request.device)
        return readings

    def check_identity(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> Divergence | None:
        """Greedy tokens of prompts answered side by side, beside those of transformers' own `generate` on each alone.

        None where there is no checkpoint to load a second time (random weights), or no memory for it. Never called with
        a request in flight.
        """
        if self._request.weights_folder is None or tokens == 0:
            return None
        from tokbench.measure.engines.vllm.identity import compare_with_transformers  # transformers

        answers = self._answers(prompts, tokens)
        try:
            return compare_with_transformers(self._request, prompts, answers)
        finally:
            memory.reset_peaks(self._request.device)

    def _answers(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> list[list[int]]:
        session = self._opened()
        answers: dict[str, list[int]] = {f"identity-{number}": [] for number in range(len(prompts))}
        for name, prompt in zip(answers, prompts, strict=True):
            refusal = session.add(name, prompt, tokens)
            if refusal is not None:
                raise TrialError(f"the identity check was refused: {refusal}", cause="engine")
        while session.is_busy():
            for delivery in session.step():
                answers[delivery.request_id] += delivery.tokens
        return list(answers.values())

    def _close_session(self) -> None:
        session, self._session = self._session, None
        self._refused, self._flying = [], set()
        if session is not None:
            session.close()

    def close(self) -> None:
        """Free the weights and the cache."""
        self._close_session()
        if self._config_folder is not None:
            self._config_folder.cleanup()
            self._config_folder = None
