"""One llama.cpp server in this process: started for so many slots of such a length, asked without HTTP, ended.

It stamps a chunk when the callback gets it. It never schedules: that is llama.cpp's.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines.llama_cpp.options import LlamaCppOptions

SLOT_STEP = 256
"""llama.cpp rounds a context up to multiples of it."""
ALL_LAYERS = 999
QUIET = 2
"""Errors and warnings; at 3 the server writes five lines a request."""
STOP_S = 30.0
GPU_TYPES = ("GPU", "IGPU")


class Size(NamedTuple):
    """What a server was started for."""

    slots: int
    slot_tokens: int


class Arrival(NamedTuple):
    """One JSON text of one request, stamped when it came; None: the request is over."""

    request_id: str
    at_ns: int
    text: str | None


def size_for(requests: int, tokens: int) -> Size:
    """A slot for each request, long enough for its tokens."""
    return Size(requests, -(-tokens // SLOT_STEP) * SLOT_STEP)


def gpus(library: Any) -> list[str]:
    """The accelerators that this build of llama.cpp can use, as it describes them."""
    found = []
    for device in library.get_device_info():
        kind = str(getattr(device["type"], "name", device["type"])).rpartition("_")[2]
        if kind in GPU_TYPES:
            found.append(str(device["description"]))
    return found


def check_device(library: Any, device: str) -> int:
    """The number of the device; 0 on a CPU.

    Raises:
        PlugError: this build cannot use an accelerator, or not so many.
    """
    kind, _, index = device.partition(":")
    number = int(index or 0)
    if kind == "cpu":
        return 0
    found = gpus(library)
    if number >= len(found):
        has = f"sees {len(found)} of them" if found else "has no GPU backend or sees no GPU"
        raise PlugError(
            f"device {device}: the installed build of llama.cpp {has}",
            fix="device=cpu, or an xllamacpp wheel for this GPU (its project has an index per CUDA or ROCm version)",
        )
    return number


class LlamaServer:
    """A running server and the requests in it."""

    def __init__(self, library: Any, path: Path, device: str, threads: int) -> None:
        self._library = library
        self._path = path
        self._device = device
        self._number = check_device(library, device)
        self._threads = threads
        self._server: Any = None
        self._size: Size | None = None
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._asking: dict[str, threading.Thread] = {}

    @property
    def size(self) -> Size | None:
        """None while it does not run."""
        return self._size

    @property
    def native(self) -> Any:
        """llama.cpp's own server, for a loop without this class; None while it does not run."""
        return self._server

    def start(self, size: Size, options: LlamaCppOptions) -> None:
        """Load the weights and make room; a server of another size is ended first.

        Raises:
            PlugError: llama.cpp cannot load the file, with what it said. TrialError: it does not answer.
        """
        self.stop()
        params = self._params(size, options)
        failure: str | None = None
        with _errors_heard() as said:
            try:
                self._server = self._library.Server(params)
            except (RuntimeError, ValueError) as error:
                failure = str(error)
        if failure is not None:
            reason, room = said[0] if said else failure, f"{size.slots} slots of {size.slot_tokens} tokens"
            raise PlugError(
                f"llama.cpp cannot run {self._path.name} with {room}: {reason}",
                fix="another GGUF, a newer xllamacpp, or fewer and shorter requests",
            )
        self._size = size
        # A server that is ended before its loop runs never ends: one token proves that it does.
        self._answer("first", {**asking((0,), 1), "stream": False})

    def _params(self, size: Size, options: LlamaCppOptions) -> Any:
        library = self._library
        params = library.CommonParams()
        params.model.path = str(self._path)
        params.model_alias = {"m"}
        params.n_parallel = size.slots
        params.n_ctx = size.slots * size.slot_tokens
        params.n_batch, params.n_ubatch = options.batch_tokens, options.ubatch_tokens
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.n_gpu_layers = 0 if self._device == "cpu" else ALL_LAYERS
        params.split_mode = library.llama_split_mode.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = self._number
        flash = library.llama_flash_attn_type
        params.flash_attn_type = (
            flash.LLAMA_FLASH_ATTN_TYPE_ENABLED if options.flash_attention else flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.fit_params = False  # else it may shorten the context or leave layers to the CPU without a word
        params.cache_prompt = params.cache_idle_slots = False
        params.cache_ram_mib = params.n_ctx_checkpoints = 0
        params.slot_prompt_similarity = 0.0
        params.verbosity = QUIET
        params.api_keys = [secrets.token_hex()]  # it listens on a local port too, which nobody is to use
        return params

    def ask(self, request_id: str, body: dict[str, Any]) -> None:
        """Send a request from a thread of its own; what comes back is had from `hear`."""
        thread = threading.Thread(target=self._carry, args=(request_id, json.dumps(body)), daemon=True)
        self._asking[request_id] = thread
        thread.start()

    def _carry(self, request_id: str, body: str) -> None:
        arrivals, cancelled = self._arrivals, self._cancelled

        def heard(text: str) -> bool:
            arrivals.put(Arrival(request_id, time.monotonic_ns(), text))
            return request_id in cancelled

        try:
            self._server.handle_completions(body, heard)
        except (RuntimeError, ValueError) as error:  # what the binding raises where llama.cpp refuses or fails
            arrivals.put(Arrival(request_id, time.monotonic_ns(), json.dumps({"error": {"message": str(error)}})))
        finally:  # else whoever waits for this request waits for ever
            arrivals.put(Arrival(request_id, time.monotonic_ns(), None))

    def hear(self, timeout_s: float) -> Arrival | None:
        """The next thing that came; None where nothing does in time."""
        try:
            arrival = self._arrivals.get(timeout=timeout_s) if timeout_s > 0 else self._arrivals.get_nowait()
        except queue.Empty:
            return None
        if arrival.text is None:
            self._asking.pop(arrival.request_id).join(STOP_S)
            self._cancelled.discard(arrival.request_id)
        return arrival

    def cancel(self, request_id: str) -> None:
        """Have a request end with its next token."""
        if request_id in self._asking:
            self._cancelled.add(request_id)

    def answers(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> list[list[tuple[int, float]]]:
        """Token ids of prompts answered side by side, each with the gap of its two best log-probabilities.

        Never called with a request in flight.
        """
        names = [f"check-{number}" for number in range(len(prompts))]
        for name, prompt in zip(names, prompts, strict=True):
            self.ask(name, {**asking(prompt, tokens), "stream": False, "logprobs": 2})
        texts: dict[str, str] = {}
        while any(name in self._asking for name in names):
            arrival = self._must_hear()
            if arrival.text is not None:
                texts[arrival.request_id] = arrival.text
        return [_tokens_of(texts[name]) for name in names]

    def _answer(self, name: str, body: dict[str, Any]) -> None:
        self.ask(name, body)
        while (arrival := self._must_hear()).text is not None:
            _refuse_error(json.loads(arrival.text))

    def _must_hear(self) -> Arrival:
        arrival = self.hear(STOP_S * 10)
        if arrival is None:
            raise TrialError(f"llama.cpp did not answer within {STOP_S * 10:.0f} s", cause="engine")
        return arrival

    def stop(self) -> None:
        """Cancel what is in flight, end the server, free the weights."""
        self._cancelled.update(self._asking)
        for thread in self._asking.values():
            thread.join(STOP_S)
        self._server, self._size = None, None
        self._asking, self._cancelled, self._arrivals = {}, set(), queue.SimpleQueue()


def asking(prompt: Sequence[int], tokens: int) -> dict[str, Any]:
    """The body of a request: greedy, exactly so many tokens, nothing kept from earlier prompts."""
    return {
        "prompt": list(prompt),
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
        "stream": True,
        "timings_per_token": True,
    }


def _tokens_of(text: str) -> list[tuple[int, float]]:
    answer = json.loads(text)
    _refuse_error(answer)
    found = []
    for token in answer["choices"][0]["logprobs"]["content"]:
        first, second = (float(top["logprob"]) for top in token["top_logprobs"][:2])
        found.append((int(token["id"]), first - second))
    return found


def _refuse_error(answer: dict[str, Any]) -> None:
    if "error" in answer:
        raise TrialError(f"llama.cpp refused a request: {answer['error'].get('message')}", cause="engine")


@contextlib.contextmanager
def _errors_heard() -> Iterator[list[str]]:
    """Collect what llama.cpp writes to stderr meanwhile: the list holds its errors afterwards; all is written on."""
    said: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")
            sys.stderr.write(text)
            said += [line.split(" E ", 1)[1].strip() for line in text.splitlines() if " E " in line]
