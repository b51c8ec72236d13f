"""Fit by hand: bytes against datasheets, devices needed, bits per weight, the roofline, and what a name means."""

from __future__ import annotations

import math

import pytest

from tokbench.arithmetic import ModelShape
from tokbench.derive.fit import Assessment, Demand, Fit, assess, name_device, parse_dtype, supply_of
from tokbench.errors import SpecError
from tokbench.record.catalog import DeviceRow, PeakTflops, find_model, load_devices

SMALL = ModelShape(
    name="small", layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, feed_forward=16, vocab=10, max_context_tokens=100
)
SMALL_PARAMETERS = 1352
"""2·80 embedding and head + 2·(8·8 + 2·8·4 + 8·8) attention + 2·3·8·16 feed-forward + 5·8 norms."""


def device(memory_bytes: float = 4000.0, bandwidth: float | None = 1000.0, **tflops: float) -> DeviceRow:
    return DeviceRow(
        name="toy",
        vendor="toys",
        memory_gb=memory_bytes / 1e9,
        memory_bandwidth_gbps=None if bandwidth is None else bandwidth / 1e9,
        peak_tflops=PeakTflops(**tflops),
    )


def fit(row: DeviceRow, dtype: str, demand: Demand, count: int = 1) -> Fit:
    (found,) = assess(SMALL, supply_of(row, count), demand, [dtype]).fits
    return found


def real(model: str, name: str, count: int = 1, *dtypes: str) -> Assessment:
    return assess(find_model(model).shape, supply_of(name_device(name), count), Demand(), dtypes)


def test_a_small_model_by_hand() -> None:
    found = fit(device(), "bfloat16", Demand(users=2, context_tokens=10))
    # Cache: 2 users · 10 tokens · 2 layers · 2 · 1 · 4 elements · 2 bytes. Activations of a pass of 10 tokens each:
    # 2 · (6·10 + 10 · 2 · (2·8 + max(2·(2+1)·4, 3·16))).
    assert (2 * SMALL_PARAMETERS, 640, 2680) == (found.weight_bytes, found.kv_bytes, found.activation_bytes)
    assert (6024, -2024.0, False, 2) == (
        found.needed_bytes,
        found.spare_bytes,
        found.is_fitting,
        found.devices_needed,
    )
    assert found.roofline_decode_tokens_per_s is None


def test_what_just_fits_and_one_byte_less() -> None:
    demand = Demand(users=2, context_tokens=10)
    assert fit(device(6024.0), "bfloat16", demand).is_fitting
    assert not fit(device(6023.0), "bfloat16", demand).is_fitting


def test_the_roofline_is_of_all_devices_together() -> None:
    demand = Demand(users=2, context_tokens=10)
    # A step reads the weights without the input embedding, and both caches.
    read_bytes = 2 * (SMALL_PARAMETERS - 80) + 640
    assert fit(device(), "bfloat16", demand, 2).roofline_decode_tokens_per_s == pytest.approx(2000 / read_bytes)
    assert fit(device(bandwidth=None), "bfloat16", demand, 2).roofline_decode_tokens_per_s is None


def test_the_roofline_takes_the_fastest_rate_of_the_width_or_wider() -> None:
    demand = Demand(users=1, context_tokens=10)
    # FLOPs of one token: 2·(1352 - 80) + 4 · 2 layers · 10 tokens · 2 heads · 4.
    flops = 2 * 1272 + 640

    def rate(dtype: str, **tflops: float) -> float | None:
        return fit(device(9000.0, 1e12, **tflops), dtype, demand).roofline_decode_tokens_per_s

    assert rate("bfloat16", bf16=1e-9, fp8=2e-9) == pytest.approx(1000 / flops)
    assert rate("int4", bf16=1e-9, fp8=2e-9) == pytest.approx(2000 / flops)
    assert rate("float32", fp32=5e-10, bf16=1e-9) == pytest.approx(500 / flops)


def test_bits_per_weight_that_would_fit() -> None:
    found = assess(SMALL, supply_of(device(4000.0), 1), Demand(users=2, context_tokens=10))
    assert found.max_bits_per_weight == pytest.approx(8 * (4000 - 640 - 2680) / SMALL_PARAMETERS)
    assert found.max_bits_per_weight_alone == pytest.approx(8 * 4000 / SMALL_PARAMETERS)
    full = assess(SMALL, supply_of(device(3000.0), 1), Demand(users=2, context_tokens=10))
    assert full.max_bits_per_weight is None


def test_many_users_share_one_forward_pass() -> None:
    assert (2048, 100, 512, 1) == (
        Demand(1, 4096).pass_tokens,
        Demand(1, 100).pass_tokens,
        Demand(4, 4096).pass_tokens,
        Demand(5000, 4096).pass_tokens,
    )


def test_deepseek_v3_on_two_rtx_4090() -> None:
    # shared/data/experiments.md, HC6: 48 GB over 671 thousand million weights are 0.57 bit each.
    found = real("DeepSeek-V3", "RTX 4090", 2)
    assert ["bfloat16", "int8", "int4", "ternary", "mxfp4"] == [item.dtype for item in found.fits]
    assert not any(item.is_fitting for item in found.fits)
    assert found.max_bits_per_weight_alone == pytest.approx(0.572, abs=0.0005)
    assert found.max_bits_per_weight is not None and found.max_bits_per_weight < found.max_bits_per_weight_alone
    assert [56, 29, 18, 6, 16] == [item.devices_needed for item in found.fits]


def test_llama_405b_on_h100() -> None:
    found = real("Llama-3.1-405B-Instruct", "H100 SXM")
    assert [("bfloat16", 11), ("int8", 6), ("int4", 4), ("ternary", 2)] == [
        (item.dtype, item.devices_needed) for item in found.fits
    ]
    assert not any(item.is_fitting for item in found.fits)


@pytest.mark.parametrize("count", [10, 11])
def test_the_devices_needed_are_enough_and_no_fewer(count: int) -> None:
    (found,) = real("Llama-3.1-405B-Instruct", "H100 SXM", count, "bf16").fits
    assert (count == 11, 11) == (found.is_fitting, found.devices_needed)
    assert (found.roofline_decode_tokens_per_s is not None) == found.is_fitting


def test_the_405b_roofline_on_eleven_h100() -> None:
    (found,) = real("Llama-3.1-405B-Instruct", "H100 SXM", 11, "bf16").fits
    # 11 · 3,350 GB/s over 811.7 GB without the input embedding of 4.2 GB, and 2.1 GB of cache.
    assert found.roofline_decode_tokens_per_s == pytest.approx(11 * 3.35e12 / (811.707e9 - 4.203e9 + 2.114e9), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("rtx-4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("H100 SXM", "NVIDIA H100 SXM"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM"),
        ("B200", "NVIDIA B200"),
        ("gb200", "NVIDIA GB200"),
        ("mi300x", "AMD Instinct MI300X"),
        ("WSE-3", "Cerebras WSE-3 / CS-3"),
    ],
)
def test_a_part_of_a_name_means_the_one_device_that_has_it(name: str, row: str) -> None:
    assert row == name_device(name).name


@pytest.mark.parametrize("name", ["RTX 4090 Laptop GPU", "H100 NVL", "A100 40GB", "", "Maja"])
def test_another_product_is_not_taken_for_a_row(name: str) -> None:
    with pytest.raises(SpecError, match="unknown device"):
        name_device(name)


def test_every_device_with_a_memory_is_found_by_its_own_name() -> None:
    rows = [row for row in load_devices() if row.memory_gb is not None]
    assert rows == [name_device(row.name) for row in rows]
    assert all(math.isfinite(supply_of(row, 1).memory_bytes) for row in rows)


def test_dtypes_have_a_short_spelling() -> None:
    assert ("bfloat16", "fp8", "int4") == (parse_dtype("BF16"), parse_dtype("float8"), parse_dtype("int4_g32"))
    assert ["bfloat16"] == [item.dtype for item in real("Qwen3-8B", "H100 SXM", 1, "bf16", "bfloat16").fits]


def test_ternary_weights_take_their_information_and_one_scale_a_matrix() -> None:
    found = fit(device(), "1.58bit", Demand(users=1, context_tokens=1))
    # 2 layers of q 64, k 32, v 32, o 64 and three of 128; the head 80. Embedding 80 and norms 40 in 16 bits.
    matrices = 2 * (64 + 32 + 32 + 64 + 3 * 128) + 80
    assert math.ceil(matrices * math.log2(3) / 8 + 2 * (2 * 7 + 1) + 2 * (80 + 40)) == found.weight_bytes
    assert "ternary" == found.dtype
