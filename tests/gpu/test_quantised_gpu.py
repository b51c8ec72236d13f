"""Weight-only types on a GPU: the bytes are on the device, and a compiled step is captured."""

from __future__ import annotations

import gc
import importlib.metadata

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or HIP device"),
    pytest.mark.skipif(
        not any(found.name == "torchao" for found in importlib.metadata.distributions()), reason="needs tokbench[quant]"
    ),
]

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402

GPU = "cuda:0"
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "head_dim": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Every linear layer has sides that are multiples of 128: squares and groups fit."""


def open_or_skip(dtype: str, mode: str) -> TransformersEngine:
    """An engine; skipped where the card is too old for the type, which is a refusal with words."""
    options = {"coordinate_descent": True} if mode == "compiled" else {}
    asked = request("tiny-llama", mode, dtype=dtype, device=GPU, overrides=WIDE, options=options)
    try:
        return TransformersEngine(asked)
    except PlugError as refused:
        if "compute capability" in str(refused):
            pytest.skip(str(refused))
        raise


@pytest.mark.parametrize("dtype", ["int8", "fp8", "int4"])
def test_a_quantised_step_is_captured_and_repeats_itself(dtype: str) -> None:
    engine = open_or_skip(dtype, "compiled")
    try:
        for rows in (1, 4):
            engine.prepare(work(rows=rows, prompt_tokens=16))
            print(dtype, rows, engine.facts.notes)
            assert engine.facts.cuda_graphs is True, engine.facts.notes
            assert run(engine, 23) == run(engine, 23)
    finally:
        engine.close()
        gc.collect()


@pytest.mark.parametrize("dtype", ["int8", "fp8", "fp8_tensor", "fp8_block", "int4", "int4_g128"])
def test_weights_of_every_type_lie_on_the_device_and_give_finite_logits(dtype: str) -> None:
    engine = open_or_skip(dtype, "eager")
    try:
        assert {"cuda"} == {parameter.device.type for parameter in engine.model.parameters()}
        with torch.inference_mode():
            logits = engine.model(input_ids=torch.arange(32, device=GPU)[None], use_cache=False).logits
        assert bool(torch.isfinite(logits).all())
        assert float(logits.float().std()) > 0
    finally:
        engine.close()
        gc.collect()
