"""The closed forms against the model classes and cache objects of transformers, without any weights.

Every row of data/models.yaml is built on torch's meta device, which holds shapes and no data.
"""

from __future__ import annotations

from typing import Any

import pytest

from tokbench.arithmetic import count_parameters, kv_bytes_per_token, kv_cache_bytes, weight_bytes
from tokbench.record.catalog import ModelRow, load_models, shape_from_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROWS = load_models()


def build_config(row: ModelRow) -> Any:
    rest = {key: value for key, value in row.config.items() if key != "model_type"}
    return transformers.AutoConfig.for_model(row.config["model_type"], **rest)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_weight_bytes_are_those_of_the_model_class(row: ModelRow) -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(build_config(row), dtype=torch.bfloat16)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for name, buffer in model.named_buffers() if "correction_bias" in name)

    assert parameters + buffers == count_parameters(row.shape).total
    assert sum(p.nbytes for p in model.parameters()) == pytest.approx(weight_bytes(row.shape, "bfloat16"), rel=0.005)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_config_that_transformers_5_wrote_has_the_same_shape(row: ModelRow) -> None:
    written = build_config(row).to_dict()

    assert "rope_parameters" in written
    assert row.shape == shape_from_config(written, row.name)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3-moe", "tiny-deepseek", "tiny-gpt-oss"])
def test_cache_bytes_are_those_of_the_cache_object(name: str) -> None:
    row = next(row for row in ROWS if row.name == name)
    rows, tokens = 3, 12
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(build_config(row), dtype=torch.bfloat16).eval()
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.randint(0, row.shape.vocab, (rows, tokens)), past_key_values=cache, use_cache=True)
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))

    assert rows * tokens * kv_bytes_per_token(row.shape) == held
    assert rows * kv_cache_bytes(row.shape, tokens) == held


def test_a_full_window_holds_no_more() -> None:
    """After a step transformers keeps window - 1 tokens, for the next step reads those and its own: the window."""
    row = next(row for row in ROWS if row.name == "tiny-gpt-oss")
    shape, tokens = row.shape, 40
    assert (2, 16) == (shape.window_layers, shape.window_tokens)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(build_config(row), dtype=torch.bfloat16).eval()
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.randint(0, shape.vocab, (1, tokens)), past_key_values=cache, use_cache=True)
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    one_token_of_the_window_layers = shape.window_layers * kv_bytes_per_token(shape) / shape.layers

    assert kv_cache_bytes(shape, tokens) - one_token_of_the_window_layers == held
