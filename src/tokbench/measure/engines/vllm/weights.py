"""What was loaded: parameters and bytes, counted in the checkpoint's files or, for random weights, in the module.

vLLM may pack a weight into a layout of its own and empty the parameter (on a CPU it does), so that the loaded module
does not tell its size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokbench.measure.engines import EngineRequest
from tokbench.record.facts import ModelFacts

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
EXPERTS = ".experts."
COUNTED_IN_FILES = "parameters counted in the checkpoint's files, which vLLM packs in a layout of its own"
DRAWN = "weights drawn by vLLM (load_format dummy)"


def model_facts(request: EngineRequest, dtype: str, module: Any) -> ModelFacts:
    """Sizes in the type that runs; None where the weights were drawn and the module cannot be counted."""
    folder = request.weights_folder
    numbers = numbers_in_files(folder) if folder is not None else numbers_in_module(module)
    is_tied = bool(json.loads(request.config_json or "{}").get("tie_word_embeddings"))
    facts = ModelFacts(
        name=request.model_name,
        source=request.model.source,
        weights=request.model.weights,
        dtype=dtype,
        parameters=None,
        weight_bytes=None,
        revision=request.revision,
        sha256=request.sha256,
        note="; ".join(note for note in (request.note, DRAWN if folder is None else COUNTED_IN_FILES) if note),
        config_json=request.config_json,
    )
    if numbers is None:
        return facts
    counted = {name: count for name, count in numbers.items() if not (is_tied and name.endswith("lm_head.weight"))}
    embedding = sum(count for name, count in counted.items() if name.endswith("embed_tokens.weight"))
    experts = sum(count for name, count in counted.items() if EXPERTS in f".{name}")
    itemsize = ITEMSIZE[dtype]
    return facts.model_copy(
        update={
            "parameters": sum(counted.values()),
            "weight_bytes": sum(counted.values()) * itemsize,
            "lookup_bytes": 0 if is_tied else embedding * itemsize,
            "expert_bytes": experts * itemsize,
        }
    )


def numbers_in_files(folder: Path) -> Mapping[str, int]:
    """How many numbers each tensor of a folder's safetensors files has, by name; the headers alone are read.

    Source: https://github.com/huggingface/safetensors#format (8 bytes of length, then a JSON header), read 2026-11-22.
    """
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found |= {name: math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return found


def numbers_in_module(module: Any) -> Mapping[str, int] | None:
    """The same of a loaded module; None where it is in other processes or its parameters were packed away."""
    if module is None:
        return None
    numbers = {name: int(parameter.numel()) for name, parameter in module.named_parameters()}
    return numbers if numbers and all(numbers.values()) else None
