"""The closed forms against published tables, computed sizes and cases by hand."""

from __future__ import annotations

import dataclasses

import pytest

from tokbench.arithmetic import (
    BITS_PER_WEIGHT,
    Ceilings,
    ExpertShape,
    LatentShape,
    ModelShape,
    bits_per_weight,
    bytes_read_per_step,
    count_parameters,
    expected_distinct_experts,
    flops_per_token,
    kv_bytes_per_token,
    kv_cache_bytes,
    kv_dtype_of,
    max_static_batch,
    predicted_memory_bytes,
    roofline_decode_tokens_per_s,
    roofline_step_s,
    speculative_speedup,
    tokens_per_round,
    weight_bytes,
)
from tokbench.record.catalog import find_model, load_models

ROWS = load_models()
TINY = ModelShape(
    name="tiny", layers=2, hidden=8, heads=4, kv_heads=2, head_dim=2, feed_forward=16, vocab=32, max_context_tokens=64
)
TINY_MOE = dataclasses.replace(TINY, experts=ExpertShape(experts=4, experts_per_token=2, feed_forward=3))


def shape(name: str) -> ModelShape:
    return find_model(name, ROWS).shape


def test_the_parameters_of_a_tiny_model_by_hand() -> None:
    counts = count_parameters(TINY)

    assert 32 * 8 == counts.input_embedding == counts.head
    assert 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8) == counts.attention
    assert 2 * 3 * 8 * 16 == counts.feed_forward_dense
    assert 2 * 2 * 8 + 8 == counts.norms
    assert (0, 0) == (counts.router, counts.experts)
    assert sum(counts[1:8]) == counts.total == counts.active
    assert counts.total - 32 * 8 == counts.read_per_token


def test_a_tied_head_counts_once_and_is_read() -> None:
    counts = count_parameters(dataclasses.replace(TINY, is_head_tied=True))

    assert (256, 0) == (counts.input_embedding, counts.head)
    assert count_parameters(TINY).total - 256 == counts.total == counts.read_per_token


def test_biases_norms_and_sinks_by_hand() -> None:
    plain = count_parameters(TINY)
    extras = dataclasses.replace(
        TINY, has_qkv_bias=True, has_o_bias=True, has_mlp_bias=True, has_qk_norm=True, has_sinks=True
    )
    counts = count_parameters(extras)

    assert plain.attention + 2 * ((8 + 4 + 4) + 8 + 4) == counts.attention
    assert plain.feed_forward_dense + 2 * (16 + 16 + 8) == counts.feed_forward_dense
    assert plain.norms + 2 * (2 + 2) == counts.norms


def test_experts_by_hand() -> None:
    biases = {"has_router_bias": True, "has_correction_bias": True, "has_expert_bias": True}
    moe = ExpertShape(4, 2, 3, shared_experts=1, leading_dense_layers=1, **biases)
    counts = count_parameters(dataclasses.replace(TINY, experts=moe))
    one = 3 * 8 * 3 + (3 + 3 + 8)

    assert 4 * (8 + 2) == counts.router
    assert 4 * one == counts.experts
    assert 3 * 8 * 16 + 3 * 8 * 3 == counts.feed_forward_dense
    assert counts.total - 2 * one == counts.active


@pytest.mark.parametrize(("q_lora_rank", "query"), [(5, 8 * 5 + 5 * 4 * 6), (None, 8 * 4 * 6)])
def test_latent_attention_by_hand(q_lora_rank: int | None, query: int) -> None:
    mla = LatentShape(q_lora_rank, kv_lora_rank=6, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=3)
    counts = count_parameters(dataclasses.replace(TINY, mla=mla))
    latent_norms = 6 if q_lora_rank is None else 6 + 5

    assert 2 * (query + 8 * (6 + 2) + 6 * 4 * (4 + 3) + 4 * 3 * 8) == counts.attention
    assert 2 * (16 + latent_norms) + 8 == counts.norms


PARAMETERS_B = [
    ("Llama-3.1-8B", 8.030, None),
    ("Llama-3.1-70B", 70.554, None),
    ("Llama-3.1-405B", 405.853, None),
    ("Qwen2.5-72B", 72.706, None),
    ("Mixtral-8x7B", 46.703, 12.88),
    ("Qwen3-30B-A3B", 30.532, 3.353),
    ("DeepSeek-V3", 671.026, 37.55),
]


@pytest.mark.parametrize(("name", "total_b", "active_b"), PARAMETERS_B)
def test_parameter_counts_of_known_models(name: str, total_b: float, active_b: float | None) -> None:
    counts = count_parameters(shape(name))

    assert pytest.approx(total_b, abs=0.0005) == counts.total / 1e9
    assert pytest.approx(active_b if active_b else counts.total / 1e9, abs=0.005) == counts.active / 1e9


@pytest.mark.parametrize(
    ("name", "total_b", "active_b"), [("gpt-oss-20b", 20.91, 3.61), ("gpt-oss-120b", 116.83, 5.13)]
)
def test_gpt_oss_counts_as_its_model_card_does(name: str, total_b: float, active_b: float) -> None:
    """The card (arXiv 2508.10925, table 1) counts the head, but not the embedding, as active."""
    counts = count_parameters(shape(name))

    assert pytest.approx(total_b, abs=0.005) == counts.total / 1e9
    assert pytest.approx(active_b, abs=0.006) == counts.read_per_token / 1e9


READ_GB = [
    ("Llama-3.1-8B", "bfloat16", 15.01),
    ("Llama-3.1-8B", "int8", 7.51),  # 7.50 and 5 bytes per output
    ("Llama-3.1-8B", "int4", 4.69),
    ("Llama-3.1-70B", "bfloat16", 139.01),
    ("Llama-3.1-405B", "bfloat16", 807.5),
    ("Qwen2.5-72B", "bfloat16", 142.92),
    ("Mixtral-8x7B", "bfloat16", 25.50),
    ("Qwen3-30B-A3B", "bfloat16", 6.08),
    ("DeepSeek-V3", "float8", 36.63),
]


@pytest.mark.parametrize(("name", "dtype", "expected_gb"), READ_GB)
def test_bytes_read_by_a_step_of_one_row(name: str, dtype: str, expected_gb: float) -> None:
    read = bytes_read_per_step(shape(name), dtype, rows=1, context_tokens=0)

    assert pytest.approx(expected_gb, abs=0.0051) == read.weights / 1e9
    assert (0.0, read.weights) == (read.kv, read.total)


RATES = [
    ("Llama-3.1-8B", "bfloat16", (135.8, 223.2, 319.8, 67.2, 353.1)),
    ("Llama-3.1-8B", "int8", (271.7, 446.4, 639.6, 134.3, 706.2)),
    ("Llama-3.1-8B", "int4", (434.7, 714.2, 1023, 214.9, 1130)),
    ("Llama-3.1-70B", "bfloat16", (14.7, 24.1, 34.5, 7.3, 38.1)),
    ("Mixtral-8x7B", "bfloat16", (80.0, 131.4, 188.3, 39.5, 207.9)),
    ("Qwen3-30B-A3B", "bfloat16", (335.2, 550.6, 789.0, 165.7, 871.2)),
]


@pytest.mark.parametrize(("name", "dtype", "expected"), RATES)
def test_roofline_rates_at_nominal_bandwidth(name: str, dtype: str, expected: tuple[float, ...]) -> None:
    bandwidths = (2.039e12, 3.35e12, 4.8e12, 1.008e12, 5.3e12)
    rates = [roofline_decode_tokens_per_s(shape(name), dtype, 1, 0, Ceilings(read, None)) for read in bandwidths]

    assert list(expected) == [pytest.approx(rate, rel=0.002, abs=0.051) for rate in rates]


KV_BYTES = [
    ("Llama-2-7B", 524_288, None),
    ("Llama-3.1-8B", 131_072, 1.074),
    ("Mixtral-8x7B", 131_072, 1.074),
    ("Llama-3.1-70B", 327_680, 2.684),
    ("Qwen2.5-72B", 327_680, 2.684),
    ("Llama-3.1-405B", 516_096, 4.228),
    ("Qwen3-30B-A3B", 98_304, 0.805),
    ("DeepSeek-V3", 70_272, 0.576),
]


@pytest.mark.parametrize(("name", "per_token", "at_8k_gb"), KV_BYTES)
def test_cache_bytes_per_token(name: str, per_token: int, at_8k_gb: float | None) -> None:
    assert per_token == kv_bytes_per_token(shape(name))
    if at_8k_gb is not None:
        assert pytest.approx(at_8k_gb, abs=0.0006) == kv_cache_bytes(shape(name), 8192) / 1e9


def test_cache_dtypes_and_the_expanded_latent() -> None:
    assert 4_997_120 == kv_bytes_per_token(shape("DeepSeek-V3"), expanded=True)
    assert 65_536 == kv_bytes_per_token(shape("Llama-3.1-8B"), "float8")
    assert 131_072 == kv_bytes_per_token(shape("Llama-3.1-8B"), expanded=True)


def test_a_window_layer_holds_no_more_than_its_window() -> None:
    windowed = dataclasses.replace(TINY, window_layers=1, window_tokens=10)

    assert kv_bytes_per_token(TINY) == kv_bytes_per_token(windowed) == 32
    assert 10 * 16 + 40 * 16 == kv_cache_bytes(windowed, 40)
    assert 2.0 * (10 + 40) * 4 * 4 == flops_per_token(windowed, 40) - flops_per_token(windowed, 0)


DISTINCT = [
    (1, 2.0, 8.0, 8.0, 4.0, 6.08),
    (4, 5.5, 29.1, 30.5, 15.3, 15.65),
    (8, 7.2, 51.6, 57.4, 28.7, 25.84),
    (16, 7.9, 82.4, 102.0, 51.0, 39.80),
    (32, 8.0, 111.8, 163.3, 81.7, 53.09),
    (64, 8.0, 125.9, 222.4, 111.2, 59.51),
    (128, 8.0, 128.0, 251.6, 125.8, 60.43),
]


@pytest.mark.parametrize(("rows", "mixtral", "qwen", "deepseek", "gpt_oss", "qwen_gb"), DISTINCT)
def test_distinct_experts(
    rows: int, mixtral: float, qwen: float, deepseek: float, gpt_oss: float, qwen_gb: float
) -> None:
    pairs = ((8, 2), (128, 8), (256, 8), (128, 4))

    assert [mixtral, qwen, deepseek, gpt_oss] == [
        pytest.approx(expected_distinct_experts(experts, per_token, rows), abs=0.051) for experts, per_token in pairs
    ]
    read = bytes_read_per_step(shape("Qwen3-30B-A3B"), "bfloat16", rows, context_tokens=0)
    assert pytest.approx(qwen_gb, abs=0.0051) == read.weights / 1e9


def test_measured_distinct_experts_replace_the_expectation() -> None:
    one, two = (bytes_read_per_step(TINY_MOE, "bfloat16", 8, 5, distinct_experts=n) for n in (1.0, 2.0))

    assert 2 * 2 * 3 * 8 * 3 == two.weights - one.weights
    assert 8 * 5 * 32 == one.kv == one.total - one.weights


SPEEDUPS = [
    (0.6, 0.05, 4, 1.92, 1.92),
    (0.6, 0.10, 3, 1.67, 1.65),
    (0.7, 0.10, 4, 1.98, 1.98),
    (0.8, 0.05, 8, 3.09, 2.80),
    (0.8, 0.10, 6, 2.47, 2.40),
    (0.8, 0.20, 4, 1.87, 1.87),
    (0.9, 0.05, 13, 4.67, 3.41),
]


@pytest.mark.parametrize(("alpha", "cost", "best_gamma", "best", "at_four"), SPEEDUPS)
def test_speculative_speedups(alpha: float, cost: float, best_gamma: int, best: float, at_four: float) -> None:
    speedups = {gamma: speculative_speedup(alpha, gamma, cost) for gamma in range(40)}

    assert best_gamma == max(speedups, key=speedups.__getitem__)
    assert pytest.approx(best, abs=0.0051) == speedups[best_gamma]
    assert pytest.approx(at_four, abs=0.0051) == speedups[4]


VERIFY = [("Mixtral-8x7B", 1.66, 2.81, 1.12), ("Qwen3-30B-A3B", 1.56, 3.03, 1.04), ("DeepSeek-V3", 1.54, 3.06, 1.03)]


@pytest.mark.parametrize(("name", "at_one", "at_four", "speedup"), VERIFY)
def test_experts_make_a_verification_dear(name: str, at_one: float, at_four: float, speedup: float) -> None:
    reads = {rows: bytes_read_per_step(shape(name), "bfloat16", rows, 0).weights for rows in (1, 2, 5)}

    assert pytest.approx(at_one, abs=0.0051) == reads[2] / reads[1]
    assert pytest.approx(at_four, abs=0.0051) == reads[5] / reads[1]
    assert pytest.approx(speedup, abs=0.006) == speculative_speedup(0.8, 4, 0.05, reads[5] / reads[1])


def test_tokens_per_round_at_its_ends() -> None:
    assert [1.0, 1.0, 5.0] == [tokens_per_round(0.0, 4), tokens_per_round(0.9, 0), tokens_per_round(1.0, 4)]
    assert pytest.approx(3.3616) == tokens_per_round(0.8, 4)


def test_flops_of_a_tiny_model_by_hand() -> None:
    assert 2.0 * count_parameters(TINY).read_per_token + 4 * 2 * 4 * 2 * 10 == flops_per_token(TINY, 10)


def test_the_higher_floor_binds() -> None:
    assert 2.0 == roofline_step_s(20.0, 5.0, Ceilings(10.0, 5.0))
    assert 4.0 == roofline_step_s(20.0, 20.0, Ceilings(10.0, 5.0))
    assert 2.0 == roofline_step_s(20.0, 1e30, Ceilings(10.0, None))


def test_large_batches_are_bound_by_compute() -> None:
    ceilings = Ceilings(bytes_read_per_step(TINY, "bfloat16", 64, 10).total, 64 * flops_per_token(TINY, 10) / 4)

    assert pytest.approx(0.25) == roofline_decode_tokens_per_s(TINY, "bfloat16", 64, 10, ceilings)


def test_weight_bytes_by_dtype() -> None:
    total = count_parameters(TINY).total

    assert {"float32": 4 * total, "bfloat16": 2 * total, "float8": total} == {
        dtype: weight_bytes(TINY, dtype) for dtype in ("float32", "bfloat16", "float8")
    }
    assert 4.25 == bits_per_weight("mxfp4") == BITS_PER_WEIGHT["mxfp4"]


def test_mxfp4_holds_for_the_matrices_of_routed_experts_alone() -> None:
    matrices = 24 * 32 * 3 * 2880 * 2880
    expected = matrices * 17 // 32 + (20_914_757_184 - matrices) * 2

    assert 13_761_264_768 == expected == weight_bytes(shape("gpt-oss-20b"), "mxfp4")


def test_predicted_memory_by_hand() -> None:
    weights = weight_bytes(TINY, "bfloat16")
    row = 20 * 32 + 6 * 32 + 10 * (2 * 8 + 3 * 16) * 2

    assert weights + 3 * row == predicted_memory_bytes(TINY, "bfloat16", 3, 20, prefill_tokens=10)
    assert weights + 3 * (row + 1280) == predicted_memory_bytes(TINY, "bfloat16", 3, 20)


def test_the_largest_static_batch_is_the_last_that_fits() -> None:
    memory = predicted_memory_bytes(TINY, "bfloat16", 7, 20)

    assert 7 == max_static_batch(TINY, "bfloat16", 20, memory)
    assert 6 == max_static_batch(TINY, "bfloat16", 20, memory - 1)
    assert 0 == max_static_batch(TINY, "bfloat16", 20, weight_bytes(TINY, "bfloat16"))
    assert 0 == max_static_batch(shape("Llama-3.1-70B"), "bfloat16", 2048, 80 * 10**9)


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="9 experts per token, but there are only 8"):
        ExpertShape(experts=8, experts_per_token=9, feed_forward=4)
    with pytest.raises(ValueError, match="4 query heads do not divide over 3 kv heads"):
        dataclasses.replace(TINY, kv_heads=3)
    with pytest.raises(ValueError, match="layers must be at least 1, not 0"):
        dataclasses.replace(TINY, layers=0)
    with pytest.raises(ValueError, match="2 layers of 2 see None tokens"):
        dataclasses.replace(TINY, window_layers=2)
    with pytest.raises(ValueError, match="expert_layers must be at least 0"):
        dataclasses.replace(TINY, experts=ExpertShape(8, 2, 4, leading_dense_layers=3))


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        bytes_read_per_step(TINY, "bfloat16", 0, 10)
    with pytest.raises(ValueError, match="context_tokens must be at least 0, not -1"):
        kv_cache_bytes(TINY, -1)
    with pytest.raises(ValueError, match="unknown dtype 'fp7'; known: float32"):
        weight_bytes(TINY, "fp7")
    with pytest.raises(ValueError, match="mxfp4 stores routed experts, and tiny has none"):
        weight_bytes(TINY, "mxfp4")
    with pytest.raises(ValueError, match="distinct experts, but a layer has 4"):
        bytes_read_per_step(TINY_MOE, "bfloat16", 1, 0, distinct_experts=5.0)
    with pytest.raises(ValueError, match="distinct experts, but a layer has 0"):
        bytes_read_per_step(TINY, "bfloat16", 1, 0, distinct_experts=1.0)
    with pytest.raises(ValueError, match="only 8 experts"):
        expected_distinct_experts(8, 9, rows=1)
    with pytest.raises(ValueError, match="a ceiling must be above 0"):
        roofline_step_s(1.0, 1.0, Ceilings(0.0, None))
    with pytest.raises(ValueError, match="alpha is a probability"):
        tokens_per_round(1.1, 4)
    with pytest.raises(ValueError, match="not the cost of a step"):
        speculative_speedup(0.8, 4, 0.1, verify_cost_ratio=0.0)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        predicted_memory_bytes(TINY, "bfloat16", 0, 10)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("mxfp4", "bfloat16")],
)
def test_the_cache_has_the_type_that_the_weights_leave_it(dtype: str, expected: str) -> None:
    assert expected == kv_dtype_of(dtype)
    if dtype != "mxfp4":
        step = bytes_read_per_step(TINY, dtype, 3, 10)
        assert 3 * kv_cache_bytes(TINY, 10, expected) == step.kv
