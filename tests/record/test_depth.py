"""A config at another number of layers: what of it changes, and that the sizes agree with transformers' own models."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import JsonValue

from tokbench.arithmetic import count_parameters, kv_bytes_per_token
from tokbench.errors import SpecError
from tokbench.record.catalog import find_model, shape_from_config
from tokbench.record.depth import layers_of, name_with_layers, with_layers

SHAPES = ("tiny-llama", "tiny-qwen3-moe", "tiny-deepseek", "tiny-gpt-oss", "depth-floor")


@pytest.mark.parametrize(
    ("layers", "kinds"),
    [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "b"]), (5, ["a", "b", "b", "a", "b"]), (6, ["a", "b", "b"] * 2)],
)
def test_lists_of_one_item_a_layer_are_cut_or_go_on_from_their_beginning(layers: int, kinds: list[JsonValue]) -> None:
    config: dict[str, JsonValue] = {"num_hidden_layers": 3, "layer_types": ["a", "b", "b"], "eos_token_id": [1, 2, 3]}
    expected = {"num_hidden_layers": layers, "layer_types": kinds, "eos_token_id": [1, 2, 3]}
    assert expected == with_layers(config, layers, "x")
    assert (3, ["a", "b", "b"]) == (config["num_hidden_layers"], config["layer_types"])


@pytest.mark.parametrize("own", [None, 0, True, "3"])
def test_a_config_that_does_not_say_its_layers_is_refused(own: JsonValue) -> None:
    config: dict[str, JsonValue] = {"text_config": {"num_hidden_layers": 3}, "num_hidden_layers": own}
    assert layers_of(config) is None
    with pytest.raises(SpecError, match="nested: its config names no num_hidden_layers") as caught:
        with_layers(config, 2, "nested")
    assert "model.layers" == caught.value.key


def test_the_name_is_no_longer_that_of_the_model() -> None:
    assert "Llama-3.1-8B-Instruct, 4 layers" == name_with_layers("Llama-3.1-8B-Instruct", 4)
    assert "x, 1 layer" == name_with_layers("x", 1)


def test_the_shape_for_the_floor_of_a_layer() -> None:
    shape = find_model("depth-floor").shape
    assert (8, 256, 4, 4, 64) == (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim)
    assert (1024, 4096) == (shape.feed_forward, shape.vocab)


@pytest.mark.parametrize("layers", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("name", SHAPES)
def test_the_sizes_are_those_of_the_model_class(name: str, layers: int) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = with_layers(full_config(transformers, name), layers, name)
    shape = shape_from_config(config, name)
    fields: dict[str, Any] = {**config}
    with torch.device("meta"):
        built = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
        model = transformers.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)
    buffers = sum(buffer.numel() for key, buffer in model.named_buffers() if "correction_bias" in key)
    assert layers == len(model.model.layers) == shape.layers
    assert sum(p.numel() for p in model.parameters()) + buffers == count_parameters(shape).total
    assert kv_bytes_per_token(shape) * find_model(name).shape.layers == layers * kv_bytes_per_token(
        find_model(name).shape
    )
    windows = sum(kind == "sliding_attention" for kind in getattr(built, "layer_types", None) or ())
    assert windows == shape.window_layers


def full_config(transformers: Any, name: str) -> dict[str, JsonValue]:
    """A row's config as transformers writes it, its lists of one item a layer included."""
    fields: dict[str, Any] = {**find_model(name).config}
    written = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields).to_dict()
    return {key: value for key, value in written.items() if key not in ("dtype", "transformers_version")}
