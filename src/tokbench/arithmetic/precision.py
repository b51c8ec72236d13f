"""In which types a model is stored and computed with, and the bytes that its weights then take. Never measures."""

from __future__ import annotations

import math
from typing import NamedTuple

from tokbench.arithmetic.shapes import (
    Linear,
    ModelShape,
    ParameterCounts,
    count_parameters,
    expert_parameters,
    list_expert_linears,
    list_linears,
)

INT4_GROUP = 32
"""Weights that share a scale and a zero point; 128, torchao's default, divides neither 576 nor 896 inputs (SmolLM2,
Qwen2.5-0.5B)."""


class Quantisation(NamedTuple):
    """How weight-only quantisation stores the matrix of a linear layer."""

    element_bits: float
    row_bytes: int
    """Beside each output: its scale, and its zero point."""
    group: int | None
    """Inputs that share a scale and a zero point, both in the type of the activations; None: no groups."""
    matrix_bytes: int = 0
    """Beside the whole matrix: its one scale."""
    block: int | None = None
    """Side of the squares of weights that share a float32 scale; None: no squares."""


FP8_BLOCK = 128
"""Source: DeepSeek-V3 technical report, arXiv:2412.19437, section 3.3.2: weights are scaled in blocks of 128 x 128."""

# int8 keeps a float32 scale and an int8 zero point per output, fp8 a float32 scale. Source: torchao 0.18.0,
# quantization/quantize_/workflows: int8_tensor.py, float8_tensor.py; prototype/quantization/int4 (read 2026-11-22).
QUANTISATIONS = {
    "int8": Quantisation(8, 5, None),
    "fp8": Quantisation(8, 4, None),
    "fp8_tensor": Quantisation(8, 0, None, matrix_bytes=4),
    "fp8_block": Quantisation(8, 0, None, block=FP8_BLOCK),
    "int4": Quantisation(4, 0, INT4_GROUP),
    "int4_g128": Quantisation(4, 0, 128),
}

# A ternary weight holds log2(3) bits, and each matrix one scale. Nothing here runs such weights, which a model has to
# be trained to: they tell what would fit. Source: BitNet b1.58, arXiv:2402.17764, section 2 (read 2026-11-22).
TERNARY = "ternary"
PACKED = QUANTISATIONS | {TERNARY: Quantisation(math.log2(3), 0, None, matrix_bytes=2)}

# One weight of a large matrix: with its share of a group's scale and zero point (bfloat16 for int4; mxfp4 has an
# 8-bit scale per 32, OCP Microscaling Formats v1.0), without those of an output. float8: a cache, or every parameter.
BITS_PER_WEIGHT = {
    **{"float32": 32.0, "bfloat16": 16.0, "float16": 16.0, "float8": 8.0, "fp8": 8.0, "int8": 8.0},
    **{"fp8_tensor": 8.0, "fp8_block": 8.0, "int4": 5.0, "int4_g128": 4.25, "mxfp4": 4.25},
    **{TERNARY: math.log2(3)},
}
BITS_OUTSIDE_EXPERTS = BITS_PER_WEIGHT | {"mxfp4": 16.0}


class Precision(NamedTuple):
    """The type that weights are named after, and that of activations, cache and all weights which stay as they are."""

    weights: str
    activations: str


def precision_of(dtype: str | Precision) -> Precision:
    """What a dtype stands for on an accelerator: float32 and float16 compute in their own type, all else in bfloat16.

    Raises: ValueError for a dtype that is not known.
    """
    if isinstance(dtype, Precision):
        return dtype
    bits_per_weight(dtype)
    return Precision(dtype, dtype if dtype in ("float32", "float16") else "bfloat16")


def precision_on(dtype: str, device_kind: str) -> Precision:
    """The same on a device: beside quantised weights a CPU computes in float32, many having no bfloat16 instructions.

    Raises: ValueError for a dtype that is not known.
    """
    if dtype in QUANTISATIONS and device_kind == "cpu":
        return Precision(dtype, "float32")
    return precision_of(dtype)


def kv_dtype_of(dtype: str | Precision) -> str:
    """The type of the cache beside weights of `dtype`: that of the activations."""
    return precision_of(dtype).activations


def bits_per_weight(dtype: str) -> float:
    """Give the stored bits of one weight, or of one element of a cache."""
    if dtype not in BITS_PER_WEIGHT:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(BITS_PER_WEIGHT)}")
    return BITS_PER_WEIGHT[dtype]


def weight_bytes(shape: ModelShape, dtype: str | Precision) -> int:
    """Bytes that all weights take; a tied embedding counts once.

    float32, bfloat16, float16 and float8 hold for every parameter; `mxfp4` for the matrices of routed experts alone,
    all else is bfloat16; the other types for every linear layer, the head among them unless it is tied: embeddings,
    norms, router and biases have the type of the activations.
    Leaves out what a kernel pads (int4 on NVIDIA: inputs to multiples of 1024).
    """
    experts = shape.experts.experts if shape.experts else 0
    return math.ceil(weight_bytes_read(shape, dtype, experts) + lookup_bytes(shape, dtype))


def lookup_bytes(shape: ModelShape, dtype: str | Precision) -> float:
    """Bytes of an input embedding that is not the head too: a step looks rows of it up and reads no more; 0 if tied."""
    return 0.0 if shape.is_head_tied else shape.vocab * shape.hidden * _bits_outside(precision_of(dtype)) / 8


def expert_bytes(shape: ModelShape, dtype: str | Precision) -> float:
    """Bytes of all routed experts, their biases included; 0 in a dense model."""
    if shape.experts is None:
        return 0.0
    return shape.expert_layers * shape.experts.experts * _one_expert_bytes(shape, precision_of(dtype))


def weight_bytes_read(shape: ModelShape, dtype: str | Precision, experts_read: float) -> float:
    """Bytes of the weights that a step reads, with so many distinct experts a layer: all but `lookup_bytes`.

    Raises: ValueError for mxfp4 in a model without routed experts, or a dtype that is not known.
    """
    precision, counts = precision_of(dtype), count_parameters(shape)
    if precision.weights == "mxfp4" and shape.experts is None:
        raise ValueError(f"mxfp4 stores routed experts, and {shape.name} has none")
    # An untied input embedding, which is not read, is as large as the head.
    others = counts.total - counts.experts - counts.head
    linears = _quantised_linears(shape, precision, counts)
    others -= sum(linear.copies * linear.outputs * linear.inputs for linear in linears)
    read = others * _bits_outside(precision) / 8 + sum(linear_bytes(linear, precision) for linear in linears)
    if shape.experts:
        read += shape.expert_layers * experts_read * _one_expert_bytes(shape, precision)
    return read


def linear_bytes(linear: Linear, precision: Precision) -> float:
    """Bytes of the matrices, with the scales and zero points of a quantised type."""
    weights = linear.outputs * linear.inputs
    if precision.weights not in PACKED:
        return linear.copies * weights * bits_per_weight(precision.weights) / 8
    how = PACKED[precision.weights]
    scales = 0 if how.group is None else 2 * linear.outputs * math.ceil(linear.inputs / how.group)
    scale_bytes = scales * bits_per_weight(precision.activations) / 8
    blocks = 0 if how.block is None else math.ceil(linear.outputs / how.block) * math.ceil(linear.inputs / how.block)
    beside = linear.outputs * how.row_bytes + how.matrix_bytes + 4 * blocks + scale_bytes
    return linear.copies * (weights * how.element_bits / 8 + beside)


def _quantised_linears(shape: ModelShape, precision: Precision, counts: ParameterCounts) -> tuple[Linear, ...]:
    """The matrices outside routed experts that do not have the type of the activations."""
    if precision.weights not in PACKED:
        return ()
    head = (Linear(1, shape.vocab, shape.hidden),) if counts.head else ()
    return list_linears(shape) + head


def _one_expert_bytes(shape: ModelShape, precision: Precision) -> float:
    linears = list_expert_linears(shape)
    biases = expert_parameters(shape) - sum(linear.copies * linear.outputs * linear.inputs for linear in linears)
    return sum(linear_bytes(linear, precision) for linear in linears) + biases * _bits_outside(precision) / 8


def _bits_outside(precision: Precision) -> float:
    """Bits of a weight that is neither in a quantised linear layer nor in the matrix of a routed expert."""
    if precision.weights in PACKED:
        return bits_per_weight(precision.activations)
    return BITS_OUTSIDE_EXPERTS[precision.weights]
