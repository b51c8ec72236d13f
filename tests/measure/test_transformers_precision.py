"""Weight-only int8, int4 and fp8 on tiny models: what is stored, what is computed, what is refused."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_engines  # noqa: E402
from tiny_engines import request, run, work  # noqa: E402
from tokbench import arithmetic  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines import EngineRequest  # noqa: E402
from tokbench.measure.engines.transformers import loading, quantised  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import shape_from_config  # noqa: E402

DTYPES = ("int8", "int4", "fp8")
TIED = {"tie_word_embeddings": True}
needs_torchao = pytest.mark.skipif(
    not any(found.name == "torchao" for found in importlib.metadata.distributions()), reason="needs tokbench[quant]"
)


def shape_of(asked: EngineRequest) -> arithmetic.ModelShape:
    assert asked.config_json is not None
    return shape_from_config(json.loads(asked.config_json), asked.model_name)


def linears(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))


def refusal(asked: EngineRequest) -> PlugError:
    with pytest.raises(PlugError) as caught:
        loading.load_model(asked)
    return caught.value


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    """Let torchao be installed, and any GPU have this compute capability."""
    true = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.18.0" if name == "torchao" else true(name))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


@needs_torchao
@pytest.mark.parametrize("overrides", [{}, TIED, {"attention_bias": True, "mlp_bias": True}])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bytes_loaded_are_those_of_the_closed_form(dtype: str, overrides: dict[str, object]) -> None:
    asked = request(dtype=dtype, overrides=overrides)
    facts = loading.model_facts(asked, loading.load_model(asked))
    shape, precision = shape_of(asked), arithmetic.Precision(dtype, "float32")

    assert arithmetic.weight_bytes(shape, precision) == facts.weight_bytes
    assert arithmetic.lookup_bytes(shape, precision) == facts.lookup_bytes
    assert 0 == facts.expert_bytes
    assert arithmetic.count_parameters(shape).total == facts.parameters
    assert dtype == facts.dtype


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bytes_are_those_of_the_closed_form_beside_bfloat16_too(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "activation_type", lambda asked: torch.bfloat16)
    asked = request(dtype=dtype)
    facts = loading.model_facts(asked, loading.load_model(asked))

    assert arithmetic.weight_bytes(shape_of(asked), arithmetic.Precision(dtype, "bfloat16")) == facts.weight_bytes
    assert arithmetic.lookup_bytes(shape_of(asked), dtype) == facts.lookup_bytes


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_layers_are_quantised_and_nothing_else(dtype: str) -> None:
    model = loading.load_model(request(dtype=dtype))
    quantised_names = {name for name, weight in model.named_parameters() if hasattr(weight, "__tensor_flatten__")}

    assert {f"{name}.weight" for name, _ in linears(model)} == quantised_names
    assert "lm_head.weight" in quantised_names
    rest = {weight.dtype for name, weight in model.named_parameters() if name not in quantised_names}
    assert {torch.float32} == rest


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_weights_are_the_quantised_ones_of_the_same_seed(dtype: str) -> None:
    full = loading.load_model(request(dtype="float32")).state_dict()
    model = loading.load_model(request(dtype=dtype))
    levels = {"int8": 127, "int4": 7, "fp8": 16}[dtype]

    for name, module in linears(model):
        original = full[f"{name}.weight"]
        units = torch.eye(module.in_features)
        bias = 0 if module.bias is None else module.bias
        error = (module(units) - bias - original.T).abs().max()
        assert 0 < error <= original.abs().max() / levels
    torch.testing.assert_close(model.model.embed_tokens.weight.data, full["model.embed_tokens.weight"])


@needs_torchao
def test_no_layer_stands_in_full_beside_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    place, in_full = quantised.place_weights, []

    def watched(model: Any, asked: EngineRequest, fill: quantised.Fill) -> None:
        def count(name: str, tensor: Any) -> None:
            weights = [module.weight for _, module in linears(model)]
            plain = [w for w in weights if not hasattr(w, "__tensor_flatten__") and w.device.type != "meta"]
            in_full.append(len(plain))
            fill(name, tensor)

        place(model, asked, count)

    monkeypatch.setattr(quantised, "place_weights", watched)
    loading.load_model(request(dtype="int8"))
    assert {0} == set(in_full)
    assert 21 == len(in_full)  # an embedding, 2 layers of 9 weights, a norm, a head


@needs_torchao
@pytest.mark.parametrize("overrides", [{}, TIED], ids=["untied", "tied"])
def test_stored_weights_are_read_and_then_quantised(tmp_path: Path, overrides: dict[str, object]) -> None:
    stored = loading.load_model(request(dtype="bfloat16", overrides=overrides))
    stored.save_pretrained(tmp_path)
    asked = request(dtype="int8", overrides=overrides, folder=tmp_path)
    model = loading.load_model(asked)

    assert arithmetic.weight_bytes(shape_of(asked), arithmetic.Precision("int8", "float32")) == (
        loading.model_facts(asked, model).weight_bytes
    )
    assert ("float32", bool(overrides)) == (
        str(model.dtype)[6:],
        model.lm_head.weight is model.model.embed_tokens.weight,
    )
    for name, module in linears(model):
        original = stored.get_submodule(name).weight.float()
        found = module(torch.eye(module.in_features)).T
        assert (found - original).abs().max() <= original.abs().max() / 127


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_both_modes_make_the_tokens_of_generate(dtype: str, mode: str) -> None:
    engine = TransformersEngine(request(mode=mode, dtype=dtype))
    engine.prepare(work())
    made = run(engine, 20)
    found = engine.check_identity(20)

    assert found is not None and found.first_divergence is None
    assert [21, 21] == [len(row) for row in made]
    assert ("float32", "float32") == (engine.facts.dtype, engine.facts.kv_dtype)
    engine.close()


@needs_torchao
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_step_is_one_graph_through_aot_autograd(dtype: str) -> None:
    expected = TransformersEngine(request(dtype=dtype))
    expected.prepare(work())
    engine = TransformersEngine(request(mode="compiled", dtype=dtype, options={"compile_backend": "aot_eager"}))
    before = engine.graphs_compiled or 0
    engine.prepare(work())

    assert run(expected, 20) == run(engine, 20)
    assert before + 1 == engine.graphs_compiled


@needs_torchao
def test_the_note_says_what_is_quantised_and_how() -> None:
    asked = request(dtype="int4", overrides=TIED)
    note = loading.model_facts(asked, loading.load_model(asked)).note
    version = importlib.metadata.version("torchao")

    assert note == (
        "linear layers quantised to int4 while loading (weights alone), a scale and a zero point per 32 inputs of an "
        f"output, by torchao {version}; embedding and tied head, norms and activations in float32"
    )


@needs_torchao
def test_layers_that_int4_cannot_group_are_refused_by_name() -> None:
    error = refusal(request(dtype="int4", overrides={"intermediate_size": 80}))
    assert "inputs a multiple of 32 and outputs of 16: model.layers.0.mlp.down_proj is 64 x 80" in error.message
    assert "outputs of 16: lm_head is 500 x 64" in refusal(request(dtype="int4", overrides={"vocab_size": 500})).message


@needs_torchao
def test_torchao_leaves_the_settings_of_the_compiler_alone() -> None:
    import torch._inductor.config as inductor

    before = inductor.coordinate_descent_tuning, inductor.force_fuse_int_mm_with_mul
    loading.load_model(request(dtype="int8"))
    assert before == (inductor.coordinate_descent_tuning, inductor.force_fuse_int_mm_with_mul) == (False, False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_torchao_the_extra_is_named(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = importlib.metadata.version

    def version(name: str) -> str:
        if name == "torchao":
            raise importlib.metadata.PackageNotFoundError(name)
        return true(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    error = refusal(request(dtype=dtype))
    assert f"weights in {dtype} need the package `torchao`" in error.message
    assert "pip install 'tokbench[quant]'" == error.fix


@pytest.mark.parametrize("name", ["tiny-qwen3-moe", "tiny-deepseek", "tiny-gpt-oss"])
def test_routed_experts_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert f"the routed experts of {name} cannot be had in int8" in refusal(request(name, dtype="int8")).message


def test_weights_that_are_stored_quantised_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    stored = {"quantization_config": {"quant_method": "gptq"}}
    error = refusal(request(dtype="int8", overrides=stored, folder=tmp_path))
    assert "stored quantised already" in error.message


def test_a_card_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (8, 6))
    error = refusal(request(dtype="fp8", device="cuda:0"))
    assert "fp8 weights need compute capability 8.9; cuda:0 has 8.6" == error.message
    quantised.check_request(request(dtype="int4", device="cuda:0"))
    pretend(monkeypatch, (7, 5))
    assert "int4 weights need compute capability 8.0" in refusal(request(dtype="int4", device="cuda:0")).message
    quantised.check_request(request(dtype="int8", device="cuda:0"))


def test_int4_is_refused_where_it_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert "not on mps" in refusal(request(dtype="int4", device="mps")).message


def test_an_accelerator_computes_in_bfloat16_and_a_cpu_in_float32() -> None:
    assert torch.bfloat16 == quantised.activation_type(request(dtype="int4", device="cuda:0"))
    assert torch.float32 == quantised.activation_type(request(dtype="int4"))


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3-moe", "tiny-deepseek", "tiny-gpt-oss"])
def test_lookups_and_experts_are_told_apart_in_plain_weights(name: str) -> None:
    asked = tiny_engines.request(name, dtype="float32")
    facts = loading.model_facts(asked, loading.load_model(asked))
    shape = shape_of(asked)

    assert arithmetic.weight_bytes(shape, "float32") == facts.weight_bytes
    assert arithmetic.lookup_bytes(shape, "float32") == facts.lookup_bytes
    assert arithmetic.expert_bytes(shape, "float32") == facts.expert_bytes
