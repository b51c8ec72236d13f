"""A Llama in JAX: prefill and step as two compiled programs over a cache of fixed size. It stamps nothing."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tokbench.errors import PlugError
from tokbench.measure.array_engine import ArrayEngine, Kept
from tokbench.measure.engines import EngineRequest
from tokbench.measure.llama_arrays import LlamaArrays, LlamaShape, load_arrays, rotations
from tokbench.record.facts import EngineFacts

_Lists = tuple[list[Any], list[Any]]
"""Keys and values by layer."""
ENVIRONMENT = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_DEFAULT_MATMUL_PRECISION")


class _Weights(NamedTuple):
    """What a program reads: a tree of arrays on the device."""

    embedding: Any
    layers: tuple[Mapping[str, Any], ...]
    norm: Any
    head: Any


def open_llama(request: EngineRequest) -> ArrayEngine:
    """The engine on the device that was asked for.

    Raises:
        PlugError: JAX has no such device here.
    """
    platform = "gpu" if request.device.startswith("cuda") else "cpu"
    try:
        device = jax.devices(platform)[int(request.device.partition(":")[2] or 0)]
    except (RuntimeError, IndexError):
        fix = "install jax for this device, or device: cpu"
        raise PlugError(f"JAX has no device {request.device} here", fix=fix) from None
    jax.config.update("jax_default_device", device)
    jax.config.update("jax_default_matmul_precision", "highest")
    arrays = load_arrays(request)
    facts = EngineFacts(
        kind="jax",
        mode=request.engine.mode,
        versions={name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        dtype="float32",
        kv_dtype="float32",
        attention_kernel="einsum",
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        notes=("XLA takes as many threads as it sees cores", "matrix products in full float32 precision"),
    )
    return ArrayEngine(request, arrays, JaxLlama(arrays), facts)


class JaxLlama:
    """The arithmetic of `array_engine.Computation`."""

    def __init__(self, arrays: LlamaArrays) -> None:
        self._shape = arrays.shape
        self._weights = _Weights(
            jnp.asarray(arrays.embedding),
            tuple({name: jnp.asarray(array) for name, array in layer.items()} for layer in arrays.layers),
            jnp.asarray(arrays.norm),
            jnp.asarray(arrays.head),
        )
        if arrays.shape.is_tied:
            self._weights = self._weights._replace(head=self._weights.embedding)
        self._forward = jax.jit(functools.partial(forward, arrays.shape), donate_argnums=(4,))
        self._rotations: tuple[Any, Any] | None = None

    @property
    def graphs_compiled(self) -> int | None:
        """Programs in the cache of the one compiled function."""
        return int(self._forward._cache_size())

    def open_cache(self, rows: int, tokens: int) -> Kept:
        """Zeros, for each layer (rows, heads, tokens, width): one array for all is copied whole at every layer."""
        shape = self._shape
        size = (rows, shape.kv_heads, tokens, shape.head_dim)
        cosines, sines = rotations(shape, tokens)
        self._rotations = (jnp.asarray(cosines), jnp.asarray(sines))
        keys, values = ([jnp.zeros(size, jnp.float32) for _ in range(shape.layers)] for _ in range(2))
        return Kept(keys, values)

    def prefill(self, ids: Any, kept: Kept) -> tuple[Any, Kept]:
        """All prompts in one pass."""
        return self._run(jnp.asarray(ids), 0, kept)

    def step(self, token: Any, position: int, kept: Kept) -> tuple[Any, Kept]:
        """One token a row."""
        return self._run(token[:, None], position, kept)

    def _run(self, ids: Any, position: int, kept: Kept) -> tuple[Any, Kept]:
        token, made = self._forward(self._weights, self._rotations, ids, position, tuple(kept))
        return token, Kept(*made)

    def wait(self, token: Any) -> None:
        """Until XLA is done with it."""
        token.block_until_ready()

    def to_host(self, array: Any) -> Any:
        """As NumPy; the arrays of all layers as one."""
        return np.asarray(jax.device_get(array))


def forward(
    shape: LlamaShape, weights: _Weights, turned: tuple[Any, Any], ids: Any, position: Any, kept: _Lists
) -> tuple[Any, _Lists]:
    """Tokens `ids`, (rows, tokens), that stand at `position` and behind: the next token, (rows,), and the new cache."""
    count = ids.shape[1]
    cosines, sines = (jax.lax.dynamic_slice_in_dim(table, position, count) for table in turned)
    places = jnp.arange(kept[0][0].shape[2])
    seen = places[None, :] <= position + jnp.arange(count)[:, None]
    keys, values = list(kept[0]), list(kept[1])
    states = weights.embedding[ids]
    for index, layer in enumerate(weights.layers):
        query, key, value = _heads(shape, layer, states)
        query, key = (_rotated(one, cosines, sines) for one in (query, key))
        keys[index] = jax.lax.dynamic_update_slice(keys[index], key, (0, 0, position, 0))
        values[index] = jax.lax.dynamic_update_slice(values[index], value, (0, 0, position, 0))
        states = states + _attended(shape, query, keys[index], values[index], seen) @ layer["out"].T
        normed = _normed(states, layer["mlp_norm"], shape.eps)
        states = states + (jax.nn.silu(normed @ layer["gate"].T) * (normed @ layer["up"].T)) @ layer["down"].T
    logits = _normed(states[:, -1], weights.norm, shape.eps) @ weights.head.T
    return jnp.argmax(logits, -1).astype(jnp.int32), (keys, values)


def _heads(shape: LlamaShape, layer: Mapping[str, Any], states: Any) -> list[Any]:
    """Queries, keys and values: (rows, heads, tokens, width) each."""
    normed = _normed(states, layer["norm"], shape.eps)
    rows, count = states.shape[:2]
    split = ((normed @ layer[name].T).reshape(rows, count, -1, shape.head_dim) for name in ("query", "key", "value"))
    return [one.transpose(0, 2, 1, 3) for one in split]


def _attended(shape: LlamaShape, query: Any, keys: Any, values: Any, seen: Any) -> Any:
    """Attention over the whole cache, what is not yet there masked: (rows, tokens, heads * width)."""
    rows, heads, count, width = query.shape
    grouped = query.reshape(rows, shape.kv_heads, heads // shape.kv_heads, count, width)
    scores = jnp.einsum("rkgtw,rksw->rkgts", grouped, keys) / jnp.sqrt(jnp.float32(width))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
    mixed = jnp.einsum("rkgts,rksw->rkgtw", weights, values).reshape(rows, heads, count, width)
    return mixed.transpose(0, 2, 1, 3).reshape(rows, count, heads * width)


def _normed(states: Any, weight: Any, eps: float) -> Any:
    return states * jax.lax.rsqrt(jnp.mean(states**2, -1, keepdims=True) + eps) * weight


def _rotated(heads: Any, cosines: Any, sines: Any) -> Any:
    first, second = jnp.split(heads, 2, -1)
    return heads * cosines + jnp.concatenate([-second, first], -1) * sines
