"""What the converted file holds: bytes of the weights as they are stored. Computes nothing with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.openvino.conversion import Converted
from tokbench.measure.engines.openvino.options import Asked
from tokbench.measure.quantising import EXPERT_KEYS
from tokbench.record.facts import ModelFacts

MODEL_FILE = "openvino_model.xml"
EMBEDDING = "embed_tokens.weight"
"""In the names of the input embedding's constants: its elements, and its scales where it is quantised."""


class Constants(NamedTuple):
    """Bytes of the constants of a converted model, shared ones once."""

    total: int
    embedding: int | None
    """None where no constant has the name that it is known by."""
    types: tuple[str, ...]
    """Element types, those with the most bytes first; scalars and shapes left out."""


def count_constants(folder: Path) -> Constants:
    """Count the constants of a converted model; they are mapped, not read."""
    import openvino

    by_type: dict[str, int] = {}
    embedding: int | None = None
    for node in openvino.Core().read_model(folder / MODEL_FILE).get_ordered_ops():
        if node.get_type_name() != "Constant":
            continue
        size = int(node.get_byte_size())
        kind = str(node.get_element_type().get_type_name())
        if kind not in ("i32", "i64", "string", "boolean"):
            by_type[kind] = by_type.get(kind, 0) + size
            if EMBEDDING in node.get_friendly_name():
                embedding = (embedding or 0) + size
    types = tuple(sorted(by_type, key=lambda kind: -by_type[kind]))
    return Constants(sum(by_type.values()), embedding, types)


def model_facts(request: EngineRequest, asked: Asked, converted: Converted) -> ModelFacts:
    """The weights as they run; None for bytes that OpenVINO makes anew while it compiles."""
    config: dict[str, Any] = json.loads((converted.folder / "config.json").read_text(encoding="utf-8"))
    constants = count_constants(converted.folder)
    exported = converted.manifest.exported
    as_stored = asked.precision.inference in ("float32", "float16")
    notes = [
        request.note,
        f"converted by optimum-intel {exported.versions['optimum-intel']} (--weight-format "
        f"{' '.join((asked.precision.weight_format, *asked.precision.arguments))}): {', '.join(constants.types)}",
        None if as_stored else f"OpenVINO makes {asked.precision.inference} weights of them while it compiles",
    ]
    is_dense = not any(config.get(key) for key in EXPERT_KEYS)
    lookup = 0 if config.get("tie_word_embeddings") else constants.embedding
    return ModelFacts(
        name=request.model_name,
        source=request.model.source,
        weights=request.model.weights,
        dtype=request.model.dtype,
        parameters=exported.parameters,
        weight_bytes=constants.total if as_stored else None,
        lookup_bytes=lookup if as_stored else None,
        expert_bytes=0 if is_dense else None,
        revision=request.revision,
        sha256=request.sha256,
        note="; ".join(note for note in notes if note) or None,
        config_json=request.config_json,
    )
