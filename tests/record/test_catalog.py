"""The data rows, what they are found by, and the shapes that Hugging Face configs stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.arithmetic import count_parameters
from tokbench.errors import DataError, SpecError
from tokbench.record.catalog import (
    DeviceRow,
    ModelRow,
    find_device,
    find_model,
    load_devices,
    load_models,
    shape_from_config,
)

LLAMA: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "vocab_size": 512,
}


def device(name: str, *aliases: str) -> DeviceRow:
    return DeviceRow(name=name, aliases=aliases, vendor="nvidia")


MODELS = [row for row in load_models() if row.kind == "model"]


@pytest.mark.parametrize("row", MODELS, ids=[row.name for row in MODELS])
def test_a_model_row_has_the_parameters_its_publisher_states(row: ModelRow) -> None:
    assert row.published_parameters_b is not None
    assert pytest.approx(row.published_parameters_b, rel=0.005) == count_parameters(row.shape).total / 1e9


def test_no_name_stands_for_two_models() -> None:
    names = [name.lower() for row in load_models() for name in set(map(str.lower, row.names()))]

    assert len(names) == len(set(names))


def test_a_model_is_found_by_name_alias_hub_id_and_mirror_in_any_case() -> None:
    wanted = (
        "Llama-3.1-8B-Instruct",
        "llama3.1-8B",
        "META-LLAMA/Llama-3.1-8B-Instruct",
        "unsloth/llama-3.1-8b-instruct",
    )

    assert ["meta-llama/Llama-3.1-8B-Instruct"] * 4 == [find_model(name).hf_id for name in wanted]


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown model 'Qwen3-30B-A3'.*\n.*Qwen3-30B-A3B"):
        find_model("Qwen3-30B-A3")
    with pytest.raises(SpecError, match=r"use one of: Llama-3\.2-1B-Instruct, "):
        find_model("@@@@")


def test_defaults_are_those_of_transformers() -> None:
    shape = shape_from_config(LLAMA, "plain")

    assert (4, 16, False, False) == (shape.kv_heads, shape.head_dim, shape.is_head_tied, shape.has_qkv_bias)
    assert 8 == shape_from_config(LLAMA | {"model_type": "mistral", "num_attention_heads": 16}, "m").kv_heads
    nothing: dict[str, object] = {"model_type": "mistral", "num_attention_heads": 16, "num_key_value_heads": None}
    assert 16 == shape_from_config(LLAMA | nothing, "m").kv_heads
    assert 128 == shape_from_config(LLAMA | {"model_type": "qwen3", "num_key_value_heads": 2}, "q").head_dim


def test_biases_by_family() -> None:
    families: dict[str, tuple[dict[str, object], tuple[bool, bool, bool]]] = {
        "llama": ({"attention_bias": True, "mlp_bias": True}, (True, True, True)),
        "mistral": ({"attention_bias": True, "num_key_value_heads": 2}, (False, False, False)),
        "qwen2": ({"num_key_value_heads": 2}, (True, False, False)),
        "qwen3": ({"attention_bias": True, "num_key_value_heads": 2}, (True, True, False)),
    }
    for family, (keys, expected) in families.items():
        shape = shape_from_config(LLAMA | {"model_type": family} | keys, family)
        assert expected == (shape.has_qkv_bias, shape.has_o_bias, shape.has_mlp_bias)


WINDOWS = [
    ("llama", {"sliding_window": 32}, (0, None)),
    ("mistral", {}, (6, 4096)),
    ("mistral", {"sliding_window": None}, (0, None)),
    ("qwen2", {"sliding_window": 32}, (0, None)),
    ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 4}, (2, 32)),
    ("qwen3", {"use_sliding_window": True, "layer_types": ["sliding_attention"] + ["full_attention"] * 5}, (1, 4096)),
]


@pytest.mark.parametrize(("family", "keys", "expected"), WINDOWS)
def test_windows_by_family(family: str, keys: dict[str, object], expected: tuple[int, int | None]) -> None:
    shape = shape_from_config(LLAMA | {"model_type": family, "num_key_value_heads": 2} | keys, family)

    assert expected == (shape.window_layers, shape.window_tokens)


def test_gpt_oss_has_sinks_windows_and_biased_experts() -> None:
    shape = find_model("gpt-oss-20b").shape

    assert (True, True, True, 12, 128) == (
        shape.has_sinks,
        shape.has_qkv_bias,
        shape.has_o_bias,
        shape.window_layers,
        shape.window_tokens,
    )
    assert shape.experts is not None
    assert (32, 4, True, True) == (
        shape.experts.experts,
        shape.experts.experts_per_token,
        shape.experts.has_router_bias,
        shape.experts.has_expert_bias,
    )


def test_dense_layers_between_expert_layers_are_counted() -> None:
    moe: dict[str, object] = {
        "model_type": "qwen3_moe",
        "num_key_value_heads": 2,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [1],
    }
    shape = shape_from_config(LLAMA | moe, "moe")

    assert 2 == shape.expert_layers


def test_a_config_that_cannot_be_counted_says_why() -> None:
    with pytest.raises(SpecError, match="'gemma3_text' is not supported: the closed forms do not count its norms"):
        shape_from_config(LLAMA | {"model_type": "gemma3_text"}, "g")
    with pytest.raises(SpecError, match="it wraps a language model"):
        shape_from_config({"model_type": "llava", "text_config": LLAMA}, "v")
    with pytest.raises(SpecError, match=r"config.vocab_size: the config of x lacks vocab_size"):
        shape_from_config({key: value for key, value in LLAMA.items() if key != "vocab_size"}, "x")
    with pytest.raises(SpecError, match="hidden_size must be a whole number, not '64'"):
        shape_from_config(LLAMA | {"hidden_size": "64"}, "x")
    with pytest.raises(SpecError, match="tie_word_embeddings must be true or false"):
        shape_from_config(LLAMA | {"tie_word_embeddings": 1}, "x")
    with pytest.raises(SpecError, match="4 query heads do not divide over 3 kv heads"):
        shape_from_config(LLAMA | {"num_key_value_heads": 3}, "x")


def test_the_longest_alias_in_the_reported_name_wins() -> None:
    rows = (device("A10"), device("A100", "A100-SXM4-80GB"), device("H200", "NVIDIA H200"))
    reported = ("NVIDIA A100-SXM4-80GB", "nvidia a100 sxm4 80gb", "NVIDIA A10", "NVIDIA H200")

    assert ["A100", "A100", "A10", "H200"] == [row.name for name in reported if (row := find_device(name, rows))]


@pytest.mark.parametrize(
    "reported", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "RTX 40900", "gfx942", "Radeon"]
)
def test_another_product_is_not_taken_for_a_known_one(reported: str) -> None:
    rows = (device("NVIDIA GeForce RTX 4090", "RTX 4090"), device("MI300X", "gfx942"), device("MI325X", "gfx942"))

    assert find_device(reported, rows) is None


def test_the_device_rows_load_and_are_found() -> None:
    assert {row.name for row in load_devices()} >= {"NVIDIA H100 SXM", "NVIDIA H200 SXM"}
    found = find_device("NVIDIA H200")
    assert found is not None
    assert (4800, 141) == (found.memory_bandwidth_gbps, found.memory_gb)


BROKEN = [
    ("models:\n- {name: a, kind: test, config: {}, colour: red}", "models.yaml, row a, field colour: "),
    ("models:\n- {name: a, kind: test}", "models.yaml, row a, field config: Field required"),
    ("models:\n- {kind: test, config: {}}", "models.yaml, row 1, field name: Field required"),
    ("models:\n- {name: a, config: {}}", "models.yaml, row a: .* a model needs hf_id"),
    ("models:\n- {name: a, kind: test, config: {model_type: llama}}", "row a, field config.hidden_size: .* lacks"),
    ("models: 3", "models.yaml: must hold one list of rows"),
    ("models: [", "models.yaml: cannot be read"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_wrong_row_names_file_row_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=message):
        load_models(path)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text("- {name: X, vendor: v}\n- {name: x, vendor: v}\n", encoding="utf-8")

    with pytest.raises(DataError, match="row x, field name: the name stands twice"):
        load_devices(path)
