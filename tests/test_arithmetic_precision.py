"""Bytes of quantised weights in closed form, against sums by hand."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from tokbench.arithmetic import (
    BITS_PER_WEIGHT,
    QUANTISATIONS,
    ExpertShape,
    LatentShape,
    ModelShape,
    Precision,
    bytes_read_per_step,
    count_parameters,
    expert_bytes,
    kv_cache_bytes,
    kv_dtype_of,
    lookup_bytes,
    max_static_batch,
    measured_bytes_read_per_step,
    precision_of,
    precision_on,
    predicted_memory_bytes,
    weight_bytes,
)
from tokbench.arithmetic.shapes import list_linears
from tokbench.derive.evaluate import PRECISIONS
from tokbench.record.catalog import ModelRow, load_models
from tokbench.record.spec import Dtype

SMALL = ModelShape(
    name="small",
    **{"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16},
    **{"feed_forward": 128, "vocab": 512, "max_context_tokens": 128},
)
TIED = dataclasses.replace(SMALL, is_head_tied=True)
MOE = dataclasses.replace(SMALL, experts=ExpertShape(experts=4, experts_per_token=2, feed_forward=32))
OUTPUTS = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
"""Of all linear layers but the head: q, k, v, o, gate, up, down."""
MATRICES = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)
NORMS = 2 * 2 * 64 + 64
EMBEDDING = HEAD = 512 * 64


def on(dtype: str, activations: str = "bfloat16") -> Precision:
    return Precision(dtype, activations)


def test_int8_has_a_scale_and_a_zero_point_per_output() -> None:
    quantised = MATRICES + HEAD + 5 * (OUTPUTS + 512)
    assert quantised + 2 * (EMBEDDING + NORMS) == weight_bytes(SMALL, on("int8")) == weight_bytes(SMALL, "int8")
    assert quantised + 4 * (EMBEDDING + NORMS) == weight_bytes(SMALL, on("int8", "float32"))


def test_fp8_has_a_scale_per_output() -> None:
    assert MATRICES + HEAD + 4 * (OUTPUTS + 512) + 2 * (EMBEDDING + NORMS) == weight_bytes(SMALL, "fp8")


@pytest.mark.parametrize(("activations", "element"), [("bfloat16", 2), ("float32", 4)])
def test_int4_has_a_scale_and_a_zero_point_per_32_inputs_of_an_output(activations: str, element: int) -> None:
    quantised = (MATRICES + HEAD) // 2 + (MATRICES + HEAD) // 32 * 2 * element
    assert quantised + element * (EMBEDDING + NORMS) == weight_bytes(SMALL, on("int4", activations))


def test_the_last_group_of_an_output_may_be_short() -> None:
    wide, plain = dataclasses.replace(TIED, feed_forward=130), dataclasses.replace(TIED, feed_forward=128)
    # Two more rows in gate and up, each with 64 / 32 groups, and two more columns in down, in a fifth group.
    more = 2 * ((2 * 2 * 64 + 2 * 64) // 2 + (2 * 2 * 2 + 64) * 4)
    assert more == weight_bytes(wide, "int4") - weight_bytes(plain, "int4")


def test_a_tied_head_stays_in_the_type_of_the_activations() -> None:
    assert MATRICES + 5 * OUTPUTS + 2 * (EMBEDDING + NORMS) == weight_bytes(TIED, "int8")
    assert 0 == lookup_bytes(TIED, "int8")
    assert weight_bytes(TIED, "int8") == bytes_read_per_step(TIED, "int8", 1, 0).weights


def test_an_untied_embedding_is_looked_up_in_the_type_of_the_activations() -> None:
    for activations, element in (("bfloat16", 2), ("float32", 4)):
        precision = on("int4", activations)
        assert element * EMBEDDING == lookup_bytes(SMALL, precision)
        read = bytes_read_per_step(SMALL, precision, 1, 0).weights
        assert element * EMBEDDING == weight_bytes(SMALL, precision) - read


def test_biases_are_not_quantised() -> None:
    biased = dataclasses.replace(SMALL, has_qkv_bias=True, has_o_bias=True, has_mlp_bias=True)
    biases = count_parameters(biased).total - count_parameters(SMALL).total
    assert 0 < 2 * biases == weight_bytes(biased, "fp8") - weight_bytes(SMALL, "fp8")


def test_routed_experts_are_quantised_and_the_router_is_not() -> None:
    one, outputs = 3 * 64 * 32, 32 + 32 + 64
    assert 2 * 4 * (one + 5 * outputs) == expert_bytes(MOE, "int8")
    attention, router = 2 * 64 * (64 + 32 + 32 + 64), 2 * 4 * 64
    others = attention + 5 * 2 * (64 + 32 + 32 + 64) + HEAD + 5 * 512 + 2 * (router + NORMS + EMBEDDING)
    assert others + expert_bytes(MOE, "int8") == weight_bytes(MOE, "int8")
    assert 0 == expert_bytes(SMALL, "int8")


@pytest.mark.parametrize("row", load_models(), ids=lambda row: row.name)
def test_the_linear_layers_are_all_matrices_outside_experts(row: ModelRow) -> None:
    plain = dataclasses.replace(row.shape, has_qkv_bias=False, has_o_bias=False, has_mlp_bias=False, has_sinks=False)
    counts = count_parameters(plain)
    listed = sum(linear.copies * linear.outputs * linear.inputs for linear in list_linears(plain))
    assert counts.attention + counts.feed_forward_dense == listed


def test_latent_attention_has_five_matrices_a_layer() -> None:
    mla = LatentShape(q_lora_rank=16, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)
    shape = dataclasses.replace(SMALL, mla=mla, layers=1)
    listed = [(linear.outputs, linear.inputs) for linear in list_linears(shape)][:5]
    assert [(16, 64), (4 * 24, 16), (32 + 8, 64), (4 * 32, 32), (64, 4 * 16)] == listed


def test_a_cpu_computes_in_float32_beside_quantised_weights_alone() -> None:
    kinds = ("cpu", "cuda", "rocm", "mps")
    assert ["float32", "bfloat16", "bfloat16", "bfloat16"] == [precision_on("int4", kind).activations for kind in kinds]
    assert {"bfloat16"} == {precision_on("bfloat16", kind).activations for kind in kinds}
    assert "float16" == precision_on("float16", "cpu").activations
    assert ("float32", "bfloat16") == (kv_dtype_of(on("int8", "float32")), kv_dtype_of("int8"))
    assert on("fp8") == precision_of("fp8") == precision_of(on("fp8"))
    with pytest.raises(ValueError, match="unknown dtype 'int3'"):
        precision_on("int3", "cpu")


def test_cache_and_activations_have_the_type_that_is_computed_in() -> None:
    narrow, wide = on("int8"), on("int8", "float32")
    assert 2 * kv_cache_bytes(SMALL, 10) == kv_cache_bytes(SMALL, 10, "float32")
    assert 3 * kv_cache_bytes(SMALL, 10, "float32") == bytes_read_per_step(SMALL, wide, 3, 10).kv
    rows = [predicted_memory_bytes(SMALL, p, 1, 10) - weight_bytes(SMALL, p) - 6 * 512 for p in (narrow, wide)]
    assert 2 * rows[0] == rows[1]
    memory = predicted_memory_bytes(SMALL, wide, 5, 10)
    assert 5 == max_static_batch(SMALL, wide, 10, memory) < max_static_batch(SMALL, narrow, 10, memory)


@pytest.mark.parametrize("shape", [SMALL, TIED, MOE], ids=["untied", "tied", "experts"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4", "fp8"])
def test_measured_bytes_give_the_same_step_as_the_closed_form(shape: ModelShape, dtype: str) -> None:
    parts = [int(part(shape, dtype)) for part in (weight_bytes, lookup_bytes, expert_bytes)]
    predicted = bytes_read_per_step(shape, dtype, 1, 10)
    share = 2 / 4 if shape.experts else None
    assert predicted == measured_bytes_read_per_step(parts[0], parts[1], parts[2], share, predicted.kv)


def test_measured_bytes_by_hand() -> None:
    assert (75.0, 5.0, 80.0) == measured_bytes_read_per_step(100, 10, 20, 0.25, 5.0)
    assert (90.0, 5.0, 95.0) == measured_bytes_read_per_step(100, 10, 0, None, 5.0)


def test_impossible_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="which share of them a step reads must be known"):
        measured_bytes_read_per_step(100, 10, 20, None, 5.0)
    with pytest.raises(ValueError, match="at most 1, not 1.5"):
        measured_bytes_read_per_step(100, 10, 20, 1.5, 5.0)
    with pytest.raises(ValueError, match="are a part, but all are 100"):
        measured_bytes_read_per_step(100, 90, 20, 0.5, 5.0)
    with pytest.raises(ValueError, match="expert_bytes must be at least 0"):
        measured_bytes_read_per_step(100, 90, -1, 0.5, 5.0)


def test_every_dtype_of_a_config_is_counted_and_named_in_the_conditions() -> None:
    named_by_its_file = {"gguf"}
    assert set(PRECISIONS) == set(get_args(Dtype)) - named_by_its_file <= set(BITS_PER_WEIGHT)
    classes = {dtype: dtype.partition("_")[0] for dtype in QUANTISATIONS}
    assert classes == {dtype: PRECISIONS[dtype] for dtype in QUANTISATIONS}
