"""A Llama in MLX: one forward pass over a cache of fixed size, evaluated when it is waited for. It stamps nothing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from tokbench.errors import PlugError
from tokbench.measure.array_engine import ArrayEngine, Kept
from tokbench.measure.engines import EngineRequest
from tokbench.measure.llama_arrays import LlamaArrays, load_arrays, rotations
from tokbench.record.facts import EngineFacts


def open_llama(request: EngineRequest) -> ArrayEngine:
    """The engine on the device that was asked for.

    Raises:
        PlugError: MLX has no such device here.
    """
    wanted = mx.cpu if request.device == "cpu" else mx.gpu
    if request.device not in ("cpu", "mps", "cuda", "cuda:0") or not mx.is_available(wanted):
        fix = "device: cpu; for an NVIDIA GPU install mlx[cuda13] in this environment, it is taken as cuda:0"
        raise PlugError(f"MLX has no device {request.device} here", fix=fix)
    mx.set_default_device(wanted)
    arrays = load_arrays(request)
    facts = EngineFacts(
        kind="mlx",
        mode=request.engine.mode,
        versions={"mlx": importlib.metadata.version("mlx")},
        dtype="float32",
        kv_dtype="float32",
        attention_kernel="mx.fast.scaled_dot_product_attention",
        notes=("MLX chooses its threads itself",),
    )
    return ArrayEngine(request, arrays, MlxLlama(arrays), facts)


class MlxLlama:
    """The arithmetic of `array_engine.Computation`."""

    def __init__(self, arrays: LlamaArrays) -> None:
        self._shape = arrays.shape
        self._embedding, self._norm = mx.array(arrays.embedding), mx.array(arrays.norm)
        lay = _laid if mx.default_device().type == mx.cpu else mx.array
        self._head = lay(arrays.head)
        self._layers = [{name: lay(array) for name, array in layer.items()} for layer in arrays.layers]
        self._rotations: tuple[Any, Any] | None = None

    @property
    def graphs_compiled(self) -> int | None:
        """None: MLX runs its operations one by one."""
        return None

    def open_cache(self, rows: int, tokens: int) -> Kept:
        """Zeros: (layers, rows, heads, tokens, width)."""
        shape = self._shape
        size = (shape.layers, rows, shape.kv_heads, tokens, shape.head_dim)
        cosines, sines = rotations(shape, tokens)
        self._rotations = (mx.array(cosines), mx.array(sines))
        return Kept(mx.zeros(size), mx.zeros(size))

    def prefill(self, ids: Any, kept: Kept) -> tuple[Any, Kept]:
        """All prompts in one pass."""
        return self._run(mx.array(ids), 0, kept)

    def step(self, token: Any, position: int, kept: Kept) -> tuple[Any, Kept]:
        """One token a row."""
        return self._run(token[:, None], position, kept)

    def _run(self, ids: Any, position: int, kept: Kept) -> tuple[Any, Kept]:
        shape, end = self._shape, position + ids.shape[1]
        assert self._rotations is not None  # made with the cache
        turned = tuple(table[position:end] for table in self._rotations)
        seen = mx.arange(end)[None, :] <= mx.arange(position, end)[:, None]
        rows, count = ids.shape
        states = self._embedding[ids.reshape(-1)]  # (rows * tokens, hidden)
        for index, layer in enumerate(self._layers):
            query, key, value = self._heads(layer, states, rows)
            query, key = (_rotated(one, *turned) for one in (query, key))
            kept.keys[index, :, :, position:end] = key
            kept.values[index, :, :, position:end] = value
            past = (kept.keys[index, :, :, :end], kept.values[index, :, :, :end])
            mixed = mx.fast.scaled_dot_product_attention(query, *past, scale=shape.head_dim**-0.5, mask=seen)
            states = states + mixed.transpose(0, 2, 1, 3).reshape(rows * count, -1) @ layer["out"].T
            normed = mx.fast.rms_norm(states, layer["mlp_norm"], shape.eps)
            gate = normed @ layer["gate"].T
            states = states + (gate * mx.sigmoid(gate) * (normed @ layer["up"].T)) @ layer["down"].T
        last = states.reshape(rows, count, -1)[:, -1]
        logits = mx.fast.rms_norm(last, self._norm, shape.eps) @ self._head.T
        mx.eval(kept.keys, kept.values)
        return mx.argmax(logits, -1), kept

    def _heads(self, layer: Mapping[str, Any], states: Any, rows: int) -> list[Any]:
        """Queries, keys and values: (rows, heads, tokens, width) each."""
        normed = mx.fast.rms_norm(states, layer["norm"], self._shape.eps)
        split = (normed @ layer[name].T for name in ("query", "key", "value"))
        cut = (one.reshape(rows, normed.shape[0] // rows, -1, self._shape.head_dim) for one in split)
        return [one.transpose(0, 2, 1, 3) for one in cut]

    def wait(self, token: Any) -> None:
        """Evaluate it and everything before it."""
        mx.eval(token)

    def to_host(self, array: Any) -> Any:
        """As NumPy."""
        return np.array(array)


def _laid(array: Any) -> Any:
    """A matrix (out, in) that lies in memory as (in, out), a norm as it is.

    The BLAS in MLX's wheel for Linux works that off in half the processor time (one row, 2 shared vCPUs of an AMD EPYC,
    mlx 0.32.4). A tied head is so a second copy of the embedding; a step reads one of the two.
    """
    return mx.array(np.ascontiguousarray(array.T)).T if array.ndim == 2 else mx.array(array)


def _rotated(heads: Any, cosines: Any, sines: Any) -> Any:
    first, second = mx.split(heads, 2, -1)
    return heads * cosines + mx.concatenate([-second, first], -1) * sines
