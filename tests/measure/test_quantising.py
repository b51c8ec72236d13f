"""What a plan says of quantised weights before any device is touched."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from scripted_facts import CPU, HOST
from tokbench.arithmetic import Precision, bytes_read_per_step, predicted_memory_bytes
from tokbench.errors import PlugError
from tokbench.measure import plan as plan_module
from tokbench.measure.engines import load_plug
from tokbench.measure.models import ResolvedModel, parse_source, resolve_model
from tokbench.measure.plan import Place, Plan, bind
from tokbench.measure.quantising import check_quantising
from tokbench.record.catalog import find_model
from tokbench.record.spec import ModelSpec
from tokbench.record.sweep import read_config

CONFIG = """
name: quantised
model: {{source: "shape:{shape}", weights: random, dtype: {dtype}}}
engine: {{kind: transformers, mode: eager}}
device: cpu
workload: {{kind: synthetic, prompt_tokens: 16, output_tokens: 8}}
load: {{kind: static_batch, static_batch: 2}}
"""


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch and torchao are installed is not the question here."""
    monkeypatch.setattr(plan_module, "check_plug", lambda spec: load_plug(spec.kind).DESCRIPTION)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.18.0")


def resolve(spec: ModelSpec) -> ResolvedModel:
    return resolve_model(
        parse_source(spec.source),
        spec.weights,
        spec.dtype,
        cache=Path("nowhere"),
        environ={},
        report=lambda text: None,
        download=False,
    )


def planned(folder: Path, shape: str = "tiny-llama", dtype: str = "int8") -> Plan:
    path = folder / "asked.yaml"
    path.write_text(CONFIG.format(shape=shape, dtype=dtype), encoding="utf-8")
    return bind(read_config(path), Place(HOST, CPU, "asked for", "cpu", 1 << 34), resolve)


@pytest.mark.parametrize("dtype", ["int8", "int4", "fp8"])
def test_a_cpu_is_planned_with_float32_beside_the_quantised_weights(tmp_path: Path, dtype: str) -> None:
    (cell,) = planned(tmp_path, dtype=dtype).cells()
    shape, precision = find_model("tiny-llama").shape, Precision(dtype, "float32")

    assert predicted_memory_bytes(shape, precision, 2, 24, 16) == cell.predicted_memory_bytes
    assert bytes_read_per_step(shape, precision, 2, 20).total == cell.step_bytes


def test_routed_experts_are_refused_by_the_plan(tmp_path: Path) -> None:
    with pytest.raises(PlugError, match="the routed experts of tiny-qwen3-moe cannot be had in int8"):
        planned(tmp_path, "tiny-qwen3-moe")
    assert planned(tmp_path, "tiny-qwen3-moe", "bfloat16").cells()


def test_a_missing_torchao_is_told_by_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(PlugError, match="need the package `torchao`") as caught:
        planned(tmp_path)
    assert "pip install 'tokbench[quant]'" == caught.value.fix


def test_quantised_weights_are_not_split_over_devices() -> None:
    spec = ModelSpec(source="shape:tiny-llama", weights="random", dtype="fp8")
    with pytest.raises(PlugError, match="cannot be split over 2 devices"):
        check_quantising(spec, "tiny-llama", {}, 2)
    check_quantising(spec, "tiny-llama", {}, 1)
    check_quantising(spec.model_copy(update={"dtype": "bfloat16"}), "tiny-llama", {"num_experts": 8}, 2)
