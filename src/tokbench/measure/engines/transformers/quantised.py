"""Weight-only int8, int4 and fp8 through torchao: linear layers are quantised, all else keeps the activations' type.

fp8 has one scale per output, `fp8_tensor` one per matrix, `fp8_block` one per 128 x 128 weights; int4 has one per 32
inputs of an output, `int4_g128` one per 128.

Embeddings, norms and biases stay as they are, and so does a head that is the input embedding too. Weights reach the
device one module at a time, so that beside the quantised ones it never holds more than one in full. Measures nothing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tokbench.arithmetic import FP8_BLOCK, QUANTISATIONS, precision_on
from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.quantising import check_quantising

FP8_CAPABILITY = (8, 9)
"""The first NVIDIA cards that convert 8-bit floats. Source: CUDA programming guide, arithmetic instructions."""
INT4_CAPABILITY = (8, 0)
"""Source: torchao 0.18.0, int4_tile_packed_to_4d_tensor.py, `from_hp`."""
INT4_CPU_OUTPUTS = 16
"""Outputs that the packing of int4 on a CPU takes together. Source: torch 2.13, `_convert_weight_to_int4pack_cpu`."""
FIX = "model.dtype=bfloat16 (float32 on a CPU)"

Quantiser = Callable[[Any], None]
"""Quantises the weight of one linear layer in place."""
Fill = Callable[[str, torch.Tensor], None]
"""Gives an empty weight its values; called with its full name."""


def is_quantised(request: EngineRequest) -> bool:
    """Whether the weights are to be quantised here."""
    return request.model.dtype in QUANTISATIONS


def activation_type(request: EngineRequest) -> torch.dtype:
    """What a model computes in: bfloat16 beside quantised weights, but float32 on a CPU."""
    precision = precision_on(request.model.dtype, torch.device(request.device).type)
    found: torch.dtype = getattr(torch, precision.activations)
    return found


def check_request(request: EngineRequest) -> None:
    """Refuse, before anything is loaded, what cannot be quantised.

    Raises:
        PlugError: torchao is missing, the device has no such kernels, or the model no such weights.
    """
    fields = {} if request.config_json is None else json.loads(request.config_json)
    check_quantising(request.model, request.model_name, fields)
    _check_device(request.model.dtype, torch.device(request.device))


def _check_device(dtype: str, device: torch.device) -> None:
    if _is_int4(dtype) and device.type not in ("cuda", "cpu"):
        raise PlugError(
            f"{dtype} weights run on NVIDIA and AMD GPUs and on CPUs, not on {device.type}", fix="model.dtype=int8"
        )
    least = INT4_CAPABILITY if _is_int4(dtype) else FP8_CAPABILITY if dtype.startswith("fp8") else None
    if device.type != "cuda" or least is None:
        return
    has = torch.cuda.get_device_capability(device)
    if has < least:
        message = f"{dtype} weights need compute capability {_dotted(least)}; {device} has {_dotted(has)}"
        raise PlugError(message, fix="model.dtype=int8")


def _is_int4(dtype: str) -> bool:
    return QUANTISATIONS[dtype].element_bits == 4


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


@contextlib.contextmanager
def without_weights(device: str) -> Iterator[None]:
    """Models built inside have buffers on the device and parameters that hold nothing yet."""
    from accelerate import init_empty_weights  # a second of imports

    with torch.device(device), init_empty_weights(include_buffers=False):
        yield


class _Placing(NamedTuple):
    """What every module of one model is placed with."""

    dtype: str
    device: torch.device
    activations: torch.dtype
    in_float32: Sequence[str]
    """Parts of the names of weights that transformers keeps in float32 whatever the type."""
    quantise: Quantiser
    fill: Fill | None


@torch.no_grad()
def place_weights(model: Any, request: EngineRequest, fill: Fill | None = None) -> None:
    """Bring a model onto its device, module by module, linear layers quantised; in place.

    `fill` draws weights that are still empty; without it they are read from where the model holds them now.

    Raises:
        PlugError: a layer's size does not suit the type, or torchao has no kernel for it here.
    """
    device, activations = torch.device(request.device), activation_type(request)
    quantise = _choose_quantiser(request.model.dtype, device)
    in_float32 = tuple(model._get_dtype_plan(activations))
    placing = _Placing(request.model.dtype, device, activations, in_float32, quantise, fill)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = is_head_tied(model)
    for prefix, module in model.named_modules():
        is_tied_head = is_tied and module is head
        _place_module(module, prefix, placing, skip="weight" if is_tied_head else None)
        if isinstance(module, torch.nn.Linear) and not is_tied_head:
            _quantise(module, prefix, placing)
    if is_tied:
        head.weight = embedding.weight
    model.config.dtype = activations


def is_head_tied(model: Any) -> bool:
    """Whether the head is the input embedding too."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def describe(request: EngineRequest, model: Any) -> str:
    """What a reader must know of how the weights are stored."""
    dtype, kept = request.model.dtype, str(activation_type(request)).removeprefix("torch.")
    how = QUANTISATIONS[dtype]
    per = "output" if how.group is None else f"{how.group} inputs of an output"
    per = "matrix" if how.matrix_bytes else per if how.block is None else f"{how.block} x {how.block} weights"
    scales = "a scale" if dtype.startswith("fp8") else "a scale and a zero point"
    head = "embedding and tied head" if is_head_tied(model) else "embedding"
    return (
        f"linear layers quantised to {dtype} while loading (weights alone), {scales} per {per}, by torchao "
        f"{importlib.metadata.version('torchao')}; {head}, norms and activations in {kept}"
    )


def _place_module(module: Any, prefix: str, placing: _Placing, skip: str | None) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        if name == skip:
            continue
        full_name = f"{prefix}.{name}" if prefix else name
        is_float32 = any(part in full_name for part in placing.in_float32)
        dtype = torch.float32 if is_float32 else placing.activations
        if placing.fill is None:
            placed = parameter.detach().to(placing.device, dtype)
        else:
            placed = torch.empty(parameter.shape, dtype=dtype, device=placing.device)
            placing.fill(full_name, placed)
        setattr(module, name, torch.nn.Parameter(placed, requires_grad=False))
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, buffer.to(placing.device))


def _quantise(module: Any, name: str, placing: _Placing) -> None:
    """Quantise one linear layer in place; torchao passes over sizes that it cannot group without a word."""
    _check_size(name, module.weight.shape, placing)
    try:
        placing.quantise(module)
    except (ImportError, NotImplementedError, AssertionError, ValueError) as error:
        raise PlugError(f"torchao cannot quantise {name} to {placing.dtype}: {error}", fix=FIX) from error
    if not hasattr(module.weight, "__tensor_flatten__"):
        raise PlugError(f"torchao left {name} as it was instead of quantising it to {placing.dtype}", fix=FIX)


def _check_size(name: str, size: torch.Size, placing: _Placing) -> None:
    """Refuse a layer of (outputs, inputs) that the type cannot cut into its groups or squares."""
    dtype, how = placing.dtype, QUANTISATIONS[placing.dtype]
    outputs, inputs = size
    if how.block is not None and (outputs % how.block or inputs % how.block):
        needs = f"outputs and inputs that are multiples of {how.block}"
        raise PlugError(f"{dtype} weights need {needs}: {name} is {outputs} x {inputs}", fix="model.dtype=fp8")
    if how.group is None:
        return
    is_on_cpu = placing.device.type == "cpu"
    if inputs % how.group or (is_on_cpu and outputs % INT4_CPU_OUTPUTS):
        needs = f"inputs a multiple of {how.group}" + (f" and outputs of {INT4_CPU_OUTPUTS}" if is_on_cpu else "")
        fix = "model.dtype=int8" if dtype == "int4" else "model.dtype=int4, whose groups are of 32 inputs"
        raise PlugError(f"{dtype} weights need {needs}: {name} is {outputs} x {inputs}", fix=fix)


def _choose_quantiser(dtype: str, device: torch.device) -> Quantiser:
    """What torchao does to a layer for the type."""
    from torchao.quantization import quantize_  # seconds of imports

    if dtype == "fp8_block":
        return _quantise_in_blocks
    config = _torchao_config(dtype, device)
    return lambda module: quantize_(module, config)


def _quantise_in_blocks(module: Any) -> None:
    """Squares of weights that share a scale: torchao's tensor has them, its configs for weights alone do not."""
    from torchao.quantization import Float8Tensor
    from torchao.quantization.granularity import PerBlock

    packed = Float8Tensor.from_hp(module.weight, granularity=PerBlock((FP8_BLOCK, FP8_BLOCK)))
    module.weight = torch.nn.Parameter(packed, requires_grad=False)


def _torchao_config(dtype: str, device: torch.device) -> Any:
    """torchao's name for the type. Its settings for the compiler stay out: they would hold for the whole process."""
    from torchao.quantization import Float8WeightOnlyConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from torchao.quantization.granularity import PerRow, PerTensor

    if dtype == "int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if dtype in ("fp8", "fp8_tensor"):
        granularity = PerRow() if dtype == "fp8" else PerTensor()
        return Float8WeightOnlyConfig(set_inductor_config=False, granularity=granularity)
    group = QUANTISATIONS[dtype].group
    if device.type == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
    layout = "tile_packed_to_4d"  # the only one that needs no package beside torchao
    return Int4WeightOnlyConfig(group_size=group, int4_packing_format=layout, set_inductor_config=False)
