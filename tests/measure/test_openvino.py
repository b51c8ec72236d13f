"""The engine `openvino` over a scripted OpenVINO: its types asked for and read back, its stamps, its refusals."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tokbench.errors import PlugError, TrialError
from tokbench.measure import environments, load
from tokbench.measure.engines import EngineRequest, Request, ReservingEngine, check_plug
from tokbench.measure.engines.openvino import compiled, conversion, engine, export, open_engine
from tokbench.measure.engines.openvino.options import Precision, read_options, read_request
from tokbench.record.observations import RequestTrace
from tokbench.record.spec import ClosedLoad, EngineSpec, ModelSpec

BLOCK = 32


class Status:
    """Like openvino_genai.GenerationStatus, as far as it is used."""

    def __init__(self, name: str) -> None:
        self.name = name


RUNNING, FINISHED, IGNORED = Status("RUNNING"), Status("FINISHED"), Status("IGNORED")


class Handle:
    """One request: its first token comes with the step after it was added, 100, 101, …"""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.made, self.unread = wanted, 0, 0
        self.status = RUNNING

    def step(self) -> None:
        self.made += 1
        self.unread += 1
        self.status = FINISHED if self.made == self.wanted else RUNNING

    def can_read(self) -> bool:
        return self.unread > 0

    def read(self) -> dict[int, Any]:
        first, self.unread = 100 + self.made - self.unread, 0
        return {0: types.SimpleNamespace(generated_ids=list(range(first, 100 + self.made)))}

    def get_status(self) -> Status:
        return self.status

    def cancel(self) -> None:
        self.status = IGNORED


class Pipeline:
    """Answers all its requests side by side; tells its properties on the standard output as the library does."""

    made: ClassVar[list[Pipeline]] = []
    resolves: ClassVar[dict[str, str]] = {}
    """Properties that it takes otherwise than asked for."""

    def __init__(self, models_path: str, scheduler_config: Any, device: str, properties: dict[str, Any]) -> None:
        self.scheduler, self.properties, self.handles = scheduler_config, properties, list[Handle]()
        lines = [f"  {name}: {value}" for name, value in {**properties, **self.resolves}.items()]
        if os.environ.get("OPENVINO_LOG_LEVEL") == "3":
            other = "Model: OV Tokenizer\n  INFERENCE_PRECISION_HINT: bf16\n"
            os.write(1, "\n".join([other, compiled.HEADING, *lines, "EXECUTION_DEVICES:", " CPU: X\n"]).encode())
        Pipeline.made.append(self)

    def add_request(self, number: int, ids: Any, config: Any) -> Handle:
        assert (config.ignore_eos, config.do_sample) == (True, False)
        self.handles.append(Handle(config.max_new_tokens))
        return self.handles[-1]

    def step(self) -> None:
        for handle in self._open():
            handle.step()

    def _open(self) -> list[Handle]:
        return [handle for handle in self.handles if handle.status is RUNNING]

    def has_non_finished_requests(self) -> bool:
        return bool(self._open())

    def get_metrics(self) -> Any:
        return types.SimpleNamespace(kv_cache_size_in_bytes=self.scheduler.num_kv_blocks * BLOCK * 10)

    def generate(self, prompts: list[Any], configs: list[Any]) -> list[Any]:
        return [types.SimpleNamespace(m_generation_ids=[[100, 101, 7][: configs[0].max_new_tokens]])]


@dataclasses.dataclass
class Constant:
    """A constant of a converted model."""

    name: str
    kind: str
    size: int

    def get_type_name(self) -> str:
        return "Constant"

    def get_byte_size(self) -> int:
        return self.size

    def get_element_type(self) -> Any:
        return types.SimpleNamespace(get_type_name=lambda: self.kind)

    def get_friendly_name(self) -> str:
        return self.name


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A scripted OpenVINO, a conversion that writes four files, and a cache of its own."""
    constants = [Constant("model.embed_tokens.weight", "f32", 400), Constant("a", "f32", 600), Constant("b", "i64", 8)]
    core = types.SimpleNamespace(
        read_model=lambda path: types.SimpleNamespace(get_ordered_ops=lambda: constants),
        get_property=lambda device, name: "a CPU",
    )
    genai = types.SimpleNamespace(
        ContinuousBatchingPipeline=Pipeline,
        SchedulerConfig=lambda: types.SimpleNamespace(max_num_batched_tokens=256),
        GenerationConfig=types.SimpleNamespace,
        GenerationStatus=types.SimpleNamespace(RUNNING=RUNNING, FINISHED=FINISHED, IGNORED=IGNORED),
    )
    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=lambda: core, Tensor=lambda array: array))
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    monkeypatch.setattr(conversion, "versions", lambda: {"optimum-intel": "2.2.0"})
    monkeypatch.setattr(engine, "convert_once", functools.partial(conversion.convert_once, convert=write_conversion))
    monkeypatch.setenv("TOKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Pipeline, "made", [])
    monkeypatch.setattr(Pipeline, "resolves", {})


def write_conversion(folder: Path, out: Path, precision: Precision, environ: Any) -> None:
    out.mkdir()
    (out / "config.json").write_text((folder / "config.json").read_text())
    (out / "openvino_model.bin").write_text(precision.weight_format)
    facts = {"parameters": 250, "versions": {"optimum-intel": "2.2.0"}}
    (out / export.EXPORT_FILE).write_text(json.dumps(facts))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 500, "tie_word_embeddings": False}))
    (folder / "model.safetensors").write_text("x" * 100)
    return folder


def request_for(folder: Path | None, dtype: Any = "float32", device: str = "cpu", **engine_keys: Any) -> EngineRequest:
    return EngineRequest(
        model=ModelSpec(source="path:DIR", dtype=dtype),
        engine=EngineSpec(kind="openvino", **engine_keys),
        device=device,
        model_name="tiny",
        config_json=None,
        weights_folder=folder,
        threads=2,
        seed=1,
    )


def test_each_token_is_a_chunk_with_a_stamp_of_its_own(library: None, weights: Path) -> None:
    opened = open_engine(request_for(weights))
    opened.reserve(2, 4, 3)
    requests = [Request(f"r{number}", (1, 2, 3, 4), 3) for number in range(3)]
    events = list(load.run_closed(opened, ClosedLoad(kind="closed", concurrency=2, requests=3), requests, "t"))
    traces = [event for event in events if isinstance(event, RequestTrace)]
    assert [("r0", (1, 1, 1)), ("r1", (1, 1, 1)), ("r2", (1, 1, 1))] == [(t.request_id, t.chunk_tokens) for t in traces]
    for trace in traces:
        assert ("length", None, "host", "engine") == (
            trace.finish_reason, trace.error, trace.stamped_by, trace.tokens_counted_by,
        )  # fmt: skip
        assert trace.sent_at_ns <= trace.chunk_at_ns[0] < trace.chunk_at_ns[1] < trace.chunk_at_ns[2]
    opened.close()


def test_types_are_asked_for_and_recorded_as_they_were_resolved(library: None, weights: Path) -> None:
    opened = open_engine(request_for(weights, options={"kv_dtype": "int8"}))
    asked = Pipeline.made[0].properties
    assert ("f32", "u8", 0, 2) == (
        asked["INFERENCE_PRECISION_HINT"], asked["KV_CACHE_PRECISION"],
        asked["DYNAMIC_QUANTIZATION_GROUP_SIZE"], asked["INFERENCE_NUM_THREADS"],
    )  # fmt: skip
    facts = opened.facts
    assert ("float32", "int8", 2, "host") == (facts.dtype, facts.kv_dtype, facts.threads, facts.stamped_by)
    assert not Pipeline.made[0].scheduler.enable_prefix_caching
    found = opened.model_facts
    assert (1000, 400, 0, 250) == (found.weight_bytes, found.lookup_bytes, found.expert_bytes, found.parameters)


def test_bytes_of_weights_that_openvino_makes_anew_are_missing(library: None, weights: Path) -> None:
    found = open_engine(request_for(weights, "bfloat16")).model_facts
    assert (None, None) == (found.weight_bytes, found.lookup_bytes)
    assert "bfloat16 weights" in (found.note or "")


def test_a_type_that_was_resolved_otherwise_is_refused(library: None, weights: Path) -> None:
    Pipeline.resolves = {"INFERENCE_PRECISION_HINT": "bf16"}
    with pytest.raises(PlugError, match="INFERENCE_PRECISION_HINT=bf16, asked for was f16"):
        open_engine(request_for(weights, "float16"))


def test_why_a_model_cannot_be_loaded_is_said(library: None, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Exception from utils.cpp:500:\nCould not find a model in the directory\n")

    monkeypatch.setattr(sys.modules["openvino_genai"], "ContinuousBatchingPipeline", fail)
    with pytest.raises(PlugError, match="cannot load .*: Could not find a model in the directory"):
        open_engine(request_for(weights))


def test_a_library_that_does_not_tell_how_it_compiled_is_no_guess() -> None:
    with pytest.raises(TrialError, match="did not say"):
        compiled.read_properties("Model: OV Tokenizer\n  INFERENCE_PRECISION_HINT: bf16\n")


def test_room_is_made_anew_only_where_it_is_too_small(library: None, weights: Path) -> None:
    opened = open_engine(request_for(weights))
    assert isinstance(opened, ReservingEngine)
    held = engine.OpenVinoEngine._blocks_for(*engine.UNPLANNED)
    assert opened.reserve(1, 40, 10).kv_bytes_allocated == held * BLOCK * 10
    assert opened.reserve(100, 40, 30).kv_bytes_allocated == 300 * BLOCK * 10
    assert [held, 300] == [pipeline.scheduler.num_kv_blocks for pipeline in Pipeline.made]


def test_a_request_too_long_for_the_cache_and_one_given_up(library: None, weights: Path) -> None:
    opened = open_engine(request_for(weights))
    opened.submit(Request("long", tuple(range(400)), 10_000))
    (refused,) = opened.poll(opened.now())
    assert ("long", 0) == (refused.request_id, refused.tokens)
    assert "do not fit the cache" in (refused.error or "")
    opened.submit(Request("r", (1,), 5))
    opened.poll(opened.now())
    Pipeline.made[0].handles[0].status = IGNORED
    opened.submit(Request("other", (1,), 5))
    chunks = {chunk.request_id: chunk for chunk in opened.poll(opened.now())}
    assert "IGNORED" in (chunks["r"].error or "")
    assert chunks["other"].error is None


def test_nothing_is_heard_of_a_cancelled_request(library: None, weights: Path) -> None:
    opened = open_engine(request_for(weights))
    opened.submit(Request("r", (1,), 5))
    opened.cancel("r")
    assert opened.poll(opened.now()) == []
    assert Pipeline.made[0].handles[0].status is IGNORED


def test_identity_names_the_first_token_that_differs(library: None, weights: Path) -> None:
    found = open_engine(request_for(weights, "int8")).check_identity([(1, 2), (3, 4)], 3)
    assert found is not None
    assert (3, 2) == (found.tokens_compared, found.first_divergence)


def test_float32_is_compared_with_transformers(library: None, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(engine, "compare_with_transformers", lambda *given: heard.append(given))
    open_engine(request_for(weights)).check_identity([(1, 2), (3, 4)], 3)
    assert heard == [(weights, [(1, 2), (3, 4)], [[100, 101, 102], [100, 101, 102]])]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"dtype": "fp8"}, "has no fp8"),
        ({"device": "cuda:0"}, "does not run on cuda:0"),
        ({"folder": None}, "weights that lie on this disk"),
        ({"attention": "sdpa"}, "engine.attention"),
        ({"options": {"kv_dtype": "int4"}}, "no cache in 'int4'"),
    ],
)
def test_what_it_does_not_have_is_refused(weights: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(PlugError, match=said):
        read_request(request_for(**{"folder": weights, **asked}))


def test_options_are_checked() -> None:
    with pytest.raises(PlugError, match="no option 'kv_type'") as refused:
        read_options({"kv_type": "int8"})
    assert "kv_dtype" in (refused.value.fix or "")
    with pytest.raises(PlugError, match="max_batch_tokens"):
        read_options({"max_batch_tokens": "many"})


def test_a_missing_library_names_the_extra_and_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "installed_version", lambda name: None)
    monkeypatch.setenv("TOKBENCH_PEERS", str(tmp_path))
    with pytest.raises(PlugError, match="needs openvino-genai, optimum-intel") as refused:
        check_plug(EngineSpec(kind="openvino"))
    assert "tokbench[openvino]" in (refused.value.fix or "")
    assert "scripts/peers openvino" in (refused.value.fix or "")
