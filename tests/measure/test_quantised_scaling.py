"""How finely weights are scaled: one scale per matrix, per 128 x 128 weights, per output, per 32 or 128 inputs."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench import arithmetic  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines import EngineRequest  # noqa: E402
from tokbench.measure.engines.transformers import loading  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import shape_from_config  # noqa: E402

pytestmark = pytest.mark.skipif(
    not any(found.name == "torchao" for found in importlib.metadata.distributions()), reason="needs tokbench[quant]"
)
WIDE = {
    **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32},
}
SCALED = ("fp8_tensor", "fp8_block", "int4_g128")


def asked(dtype: str) -> EngineRequest:
    return request(dtype=dtype, overrides=WIDE)


def worst_error(dtype: str) -> float:
    """Mean squared error of all linear layers against the weights in full."""
    full = loading.load_model(asked("float32")).state_dict()
    model: Any = loading.load_model(asked(dtype))
    errors = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found = module(torch.eye(module.in_features)).T
            errors.append((found - full[f"{name}.weight"]).square().mean().item())
    return sum(errors) / len(errors)


@pytest.mark.parametrize("dtype", SCALED)
def test_the_bytes_loaded_are_those_of_the_closed_form(dtype: str) -> None:
    wanted = asked(dtype)
    facts = loading.model_facts(wanted, loading.load_model(wanted))
    assert wanted.config_json is not None
    shape = shape_from_config(json.loads(wanted.config_json), wanted.model_name)

    assert arithmetic.weight_bytes(shape, arithmetic.Precision(dtype, "float32")) == facts.weight_bytes
    assert dtype == facts.dtype


def test_bytes_by_hand() -> None:
    wanted = request(dtype="fp8_block", overrides=WIDE)
    assert wanted.config_json is not None
    shape = shape_from_config(json.loads(wanted.config_json), "wide")
    matrices = 4 * 128 * 128 + 3 * 128 * 256 + 512 * 128
    others = 4 * (512 * 128 + 3 * 128)  # the embedding and three norms in float32
    blocks = 4 * 1 + 3 * 2 + 4
    for dtype, scales in (("fp8_block", 4 * blocks), ("fp8_tensor", 4 * 8), ("int4_g128", 2 * 4 * blocks * 128)):
        bits = 4 if dtype == "int4_g128" else 8
        found = arithmetic.weight_bytes(shape, arithmetic.Precision(dtype, "float32"))
        assert matrices * bits // 8 + scales + others == found, dtype


def test_finer_scales_lose_less() -> None:
    assert worst_error("int4") < worst_error("int4_g128")
    assert 0 < worst_error("fp8_block") <= 1.05 * worst_error("fp8_tensor")
    assert worst_error("fp8_tensor") < worst_error("int4_g128")


@pytest.mark.parametrize("dtype", SCALED)
def test_a_note_says_what_shares_a_scale_and_both_modes_agree(dtype: str) -> None:
    shared = {"fp8_tensor": "a scale per matrix", "fp8_block": "a scale per 128 x 128 weights"}
    engine = TransformersEngine(asked(dtype))
    assert shared.get(dtype, "a scale and a zero point per 128 inputs of an output") in (engine.model_facts.note or "")
    engine.prepare(work(output_tokens=6))
    compiled = TransformersEngine(request(mode="compiled", dtype=dtype, overrides=WIDE))
    compiled.prepare(work(output_tokens=6))
    assert run(engine, 5) == run(compiled, 5)


@pytest.mark.parametrize(
    ("dtype", "message", "fix"),
    [
        ("fp8_block", "fp8_block weights need outputs and inputs that are multiples of 128", "model.dtype=fp8"),
        ("int4_g128", "int4_g128 weights need inputs a multiple of 128", "model.dtype=int4, whose groups"),
    ],
)
def test_a_layer_that_cannot_be_cut_so_is_refused_by_name(dtype: str, message: str, fix: str) -> None:
    with pytest.raises(PlugError, match=message) as caught:
        loading.load_model(request(dtype=dtype))  # 64 inputs
    assert "q_proj is 64 x 64" in caught.value.message
    assert fix in (caught.value.fix or "")
