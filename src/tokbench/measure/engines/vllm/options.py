"""What `engine.options` may say, and what vLLM is asked for. Imports nothing of vLLM."""

from __future__ import annotations

import json
import math
import sys
from typing import NamedTuple

from pydantic import Field, ValidationError

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import EngineRequest
from tokbench.record.facts import Frozen

DTYPES = ("float32", "bfloat16", "float16")
POSITIONS = "max_position_embeddings"
CPU_BLOCK = 128
"""Tokens in a page of the cache on a CPU. Source: vLLM 0.32, platforms/cpu.py, `check_and_update_config`."""


class VllmOptions(Frozen):
    """The options of one engine; None leaves it to tokbench's room or to vLLM."""

    max_num_seqs: int | None = Field(default=None, gt=0)
    """Requests in one forward pass, at most."""
    max_model_len: int | None = Field(default=None, gt=0)
    """Tokens of one request, prompt and output together, at most."""
    max_num_batched_tokens: int | None = Field(default=None, gt=0)
    """Tokens in one forward pass, at most: longer prompts are worked on in parts."""
    kv_cache_bytes: int | None = Field(default=None, gt=0)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""


class Room(NamedTuple):
    """What an engine was made for."""

    requests: int
    request_tokens: int
    """Prompt and output of the longest request."""

    def holds(self, other: Room) -> bool:
        """Whether a load of that size fits."""
        return self.requests >= other.requests and self.request_tokens >= other.request_tokens

    def joined(self, other: Room) -> Room:
        """Room for both."""
        return Room(max(self.requests, other.requests), max(self.request_tokens, other.request_tokens))


UNPLANNED = Room(8, 512)


class Arguments(NamedTuple):
    """What vLLM is asked for; None leaves it to vLLM."""

    model: str
    load_format: str
    dtype: str
    seed: int
    is_eager: bool
    max_num_seqs: int
    max_model_len: int
    max_num_batched_tokens: int | None
    kv_cache_bytes: int | None
    gpu_memory_utilization: float | None
    device_indices: tuple[int, ...] | None
    """As torch counts them; None on a CPU."""
    attention: str | None
    experts: str | None
    trust_remote_code: bool
    threads: int


def read_options(request: EngineRequest) -> VllmOptions:
    """Options from the config.

    Raises:
        PlugError: an option or a type that this engine does not know, or a device that it cannot split over.
    """
    if request.model.dtype not in DTYPES:
        raise PlugError(
            f"engine 'vllm' does not run model.dtype: {request.model.dtype} yet", fix=f"one of {', '.join(DTYPES)}"
        )
    if request.device == "cpu" and len(request.devices) > 1:
        raise PlugError("engine 'vllm' splits a model over GPUs alone", fix="device: cpu, or cuda:0, cuda:1 …")
    try:
        return VllmOptions.model_validate(request.engine.options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PlugError(
            f"engine.options.{where}: {first['msg']}", fix=f"options: {', '.join(VllmOptions.model_fields)}"
        ) from None


def text_config(request: EngineRequest) -> dict[str, int]:
    """The part of the model's own config that tells of the language model."""
    config = json.loads(request.config_json or "{}")
    found: dict[str, int] = config.get("text_config", config)
    return found


def unplanned_room(request: EngineRequest) -> Room:
    """What the engine is made for before a cell is known; no longer than the model takes."""
    return Room(UNPLANNED.requests, min(UNPLANNED.request_tokens, text_config(request).get(POSITIONS, sys.maxsize)))


def choose_arguments(request: EngineRequest, options: VllmOptions, folder: str, room: Room) -> Arguments:
    """What vLLM is asked for, to serve so much.

    Raises:
        TrialError: a request is longer than the model can take.
    """
    text = text_config(request)
    positions = text.get(POSITIONS)
    if positions is not None and room.request_tokens > positions:
        raise TrialError(f"{room.request_tokens} tokens: the model takes {positions} at most", cause="engine")
    devices = request.devices or (request.device,)
    is_cpu = request.device == "cpu"
    return Arguments(
        model=folder,
        load_format="auto" if request.weights_folder else "dummy",
        dtype=request.model.dtype,
        seed=request.seed % 2**31,
        is_eager=request.engine.mode == "eager",
        max_num_seqs=options.max_num_seqs or room.requests,
        max_model_len=options.max_model_len or room.request_tokens,
        max_num_batched_tokens=options.max_num_batched_tokens,
        kv_cache_bytes=options.kv_cache_bytes or (_cache_bytes(request, text, room) if is_cpu else None),
        gpu_memory_utilization=options.gpu_memory_utilization,
        device_indices=None if is_cpu else tuple(int(name.partition(":")[2] or 0) for name in devices),
        attention=request.engine.attention,
        experts=request.engine.experts,
        trust_remote_code=request.engine.trust_remote_code,
        threads=request.threads,
    )


def _cache_bytes(request: EngineRequest, text: dict[str, int], room: Room) -> int:
    """Bytes of keys and values for every request at once; one page more, which vLLM keeps as its empty one."""
    heads = text.get("num_key_value_heads") or text["num_attention_heads"]
    width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    itemsize = 4 if request.model.dtype == "float32" else 2
    pages = room.requests * math.ceil(room.request_tokens / CPU_BLOCK) + 1
    return pages * CPU_BLOCK * 2 * text["num_hidden_layers"] * heads * width * itemsize
