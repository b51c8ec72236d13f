"""Engines of other frameworks: the NumPy arithmetic is transformers', the engine around it keeps its positions."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokbench.errors import PlugError, TrialError
from tokbench.measure.array_engine import ArrayEngine, Kept
from tokbench.measure.engines import EngineRequest, load_plug
from tokbench.measure.environments import find_environment
from tokbench.measure.llama_arrays import (
    LlamaArrays,
    draw_arrays,
    load_arrays,
    next_logits,
    read_arrays,
    read_shape,
    reference_tokens,
)
from tokbench.record.catalog import find_model
from tokbench.record.facts import EngineFacts
from tokbench.record.spec import EngineSpec, ModelSpec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402

CONFIG = find_model("tiny-llama").config


def asked(kind: str = "jax", **model: Any) -> EngineRequest:
    spec = ModelSpec(**{"source": "shape:tiny-llama", "weights": "random", "dtype": "float32", **model})
    return dataclasses.replace(request(), model=spec, engine=EngineSpec(kind=kind, mode="compiled"))


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_reference_makes_the_tokens_of_transformers(tmp_path: Path, is_tied: bool) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tokbench.measure.engines.transformers.engine import TransformersEngine

    config = {
        **CONFIG,
        "tie_word_embeddings": is_tied,
        "num_key_value_heads": 2,
        "rope_theta": 5000.0,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**config)).save_pretrained(tmp_path)
    engine = TransformersEngine(request(folder=tmp_path, overrides=config))
    engine.prepare(work())
    arrays = read_arrays(read_shape(config, "jax"), tmp_path)
    theirs = run(engine, 23)[0]
    assert len(set(theirs)) > 5
    assert list(theirs) == reference_tokens(arrays, work().prompts[0], 24)
    assert engine.model_facts.parameters == arrays.count()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"model_type": "qwen3"}, "model_type 'qwen3'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_what_the_arithmetic_has_not_is_refused(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(PlugError, match=names):
        read_shape({**CONFIG, **changes}, "jax")


def test_another_type_and_missing_weights_are_refused() -> None:
    with pytest.raises(PlugError, match="float32 alone"):
        load_arrays(asked(dtype="bfloat16"))
    with pytest.raises(PlugError, match="need a folder"):
        load_arrays(asked(weights="pretrained"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_read_in_the_type_that_their_file_has(tmp_path: Path, dtype: str) -> None:
    """NumPy has no bfloat16, which most published weights are stored in: it ended in a TypeError."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = {**CONFIG, "tie_word_embeddings": False}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    arrays = read_arrays(read_shape(config, "jax"), tmp_path)
    assert np.array_equal(model.lm_head.weight.detach().float().numpy(), arrays.head)
    assert np.array_equal(model.model.layers[1].mlp.down_proj.weight.detach().float().numpy(), arrays.layers[1]["down"])
    assert {np.dtype(np.float32)} == {array.dtype for layer in arrays.layers for array in layer.values()}


def test_a_type_that_numpy_cannot_widen_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"model.norm.weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, str(tmp_path / "m.safetensors"))
    with pytest.raises(PlugError, match=r"model\.norm\.weight is stored as F8_E4M3"):
        read_arrays(read_shape(CONFIG, "jax"), tmp_path)


class InNumpy:
    """A computation without a cache of its own: it keeps the ids of each row, as far as they are in the cache."""

    graphs_compiled = None

    def __init__(self, arrays: LlamaArrays) -> None:
        self._arrays = arrays

    def open_cache(self, rows: int, tokens: int) -> Kept:
        return Kept(np.zeros((rows, tokens), np.float32), np.zeros((rows, tokens), np.float32))

    def prefill(self, ids: Any, kept: Kept) -> tuple[Any, Kept]:
        kept.keys[:, : ids.shape[1]] = ids
        return self._next(kept, ids.shape[1]), kept

    def step(self, token: Any, position: int, kept: Kept) -> tuple[Any, Kept]:
        kept.keys[:, position] = token
        return self._next(kept, position + 1), kept

    def _next(self, kept: Kept, held: int) -> Any:
        rows: Sequence[Any] = kept.keys[:, :held].astype(int).tolist()
        return np.array([reference_tokens(self._arrays, row, 1)[0] for row in rows])

    def wait(self, token: Any) -> None:
        pass

    def to_host(self, array: Any) -> Any:
        return array


@pytest.fixture
def engine() -> ArrayEngine:
    arrays = draw_arrays(read_shape(CONFIG, "jax"), 3)
    facts = EngineFacts(kind="jax", mode="compiled", versions={}, dtype="float32")
    found = ArrayEngine(asked(), arrays, InNumpy(arrays), facts)
    found.prepare(work(output_tokens=8))
    return found


def test_positions_are_kept_through_prefill_decode_and_rewinding(engine: ArrayEngine) -> None:
    whole = run(engine, 7)
    assert list(whole[0]) == reference_tokens(engine._arrays, work().prompts[0], 8)
    engine.rewind(14)
    assert whole[0][:3] == engine.output_tokens()[0]
    assert [1] * 5 == [step.tokens_per_row for step in engine.decode(5)]
    assert whole == engine.output_tokens()
    found = engine.check_identity(8)
    assert found is not None and (8, None) == (found.tokens_compared, found.first_divergence)
    assert engine.check_repeat(4)[0].states_equal is True


def test_a_wrong_token_is_found_out(engine: ArrayEngine) -> None:
    other = draw_arrays(engine._arrays.shape, 4)
    engine._arrays = other
    found = engine.check_identity(8)
    assert found is not None and found.first_divergence is not None
    ids = [*work().prompts[0], *run(engine, 7)[0][: found.first_divergence]]
    second, best = np.sort(next_logits(other, ids, 1)[0])[-2:]
    assert pytest.approx(float(best - second), abs=1e-5) == found.top2_gap


def test_what_cannot_be_done_is_refused(engine: ArrayEngine) -> None:
    with pytest.raises(TrialError, match="cannot decode"):
        engine.decode(1)
    engine.prefill()
    with pytest.raises(TrialError, match="rewind to 0"):
        engine.prefill()
    with pytest.raises(TrialError, match="cannot decode 9 steps"):
        engine.decode(9)
    with pytest.raises(TrialError, match="cannot rewind to 5"):
        engine.rewind(5)
    with pytest.raises(TrialError, match="as many of the same length"):
        engine.stage(((1, 2),))


SCRIPT = """
import json, sys
from tokbench.measure.engines import CellWork, EngineRequest, load_plug
from tokbench.record.spec import EngineSpec, ModelSpec
kind, config, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
plug = load_plug(kind)
model = ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32")
spec = EngineSpec(kind=kind, mode=plug.DESCRIPTION.modes[0])
engine = plug.open_engine(EngineRequest(model, spec, "cpu", "tiny", config, None, 1, 3))
engine.prepare(CellWork(tuple(map(tuple, prompts)), 24))
engine.rewind(0); engine.prefill(); list(engine.decode(23))
tokens = engine.output_tokens()
found = engine.check_identity(24)
print(json.dumps([tokens, found.first_divergence, engine.check_repeat(8)[0].states_equal]))
"""


@pytest.mark.parametrize("kind", ["jax", "mlx", "tinygrad"])
def test_a_framework_in_its_own_environment_makes_the_tokens_of_the_reference(kind: str) -> None:
    """Chained to transformers by the test of the reference above."""
    environment = find_environment(EngineSpec(kind=kind), load_plug(kind).DESCRIPTION.packages)
    if environment.missing:
        pytest.skip(f"scripts/peers {kind} was not run")
    prompts = json.dumps(work().prompts)
    command = [str(environment.python), "-c", SCRIPT, kind, json.dumps(CONFIG), prompts]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    tokens, divergence, is_same = json.loads(told.stdout.splitlines()[-1])
    arrays = draw_arrays(read_shape(CONFIG, kind), 3)
    assert [reference_tokens(arrays, prompt, 24) for prompt in work().prompts] == tokens
    assert (None, True) == (divergence, is_same)
