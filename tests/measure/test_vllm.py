"""The engine `vllm` over a scripted session: exact tokens, one stamp a step, room that grows, refusals with a reason.

Where vLLM is installed in the running interpreter, a last test drives the real one.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokbench.errors import PlugError, TrialError
from tokbench.measure import load
from tokbench.measure.engines import EngineRequest, Request, ReservingEngine
from tokbench.measure.engines.vllm import DESCRIPTION, library, memory, open_engine
from tokbench.measure.engines.vllm.engine import VllmEngine, is_setting
from tokbench.measure.engines.vllm.options import UNPLANNED, Arguments
from tokbench.measure.engines.vllm.session import Delivery, SessionFacts
from tokbench.measure.engines.vllm.weights import model_facts, numbers_in_files
from tokbench.record.catalog import find_model
from tokbench.record.observations import RequestTrace
from tokbench.record.spec import ClosedLoad, EngineSpec, ModelSpec

CONFIG = find_model("tiny-llama").config
WAIT_NS = 1_000_000


class ScriptedSession:
    """Answers like vLLM: the first step of a request works on its prompt in two parts, then one token a step."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.left: dict[str, deque[int]] = {}
        self.aborted: list[str] = []
        self.steps = 0
        self.is_closed = False
        self.model = SimpleNamespace(
            named_parameters=lambda: [("embed_tokens.weight", SimpleNamespace(numel=lambda: 12))]
        )

    @property
    def facts(self) -> SessionFacts:
        return SessionFacts(
            versions={"vllm": "9.9", "python": "3.11"},
            dtype=self.arguments.dtype,
            kv_dtype=self.arguments.dtype,
            attention="CPU_ATTN",
            vocabulary=500,
            threads=1,
            has_graphs=False,
            cache_tokens=1024,
            cache_bytes=4096,
            environment={"VLLM_X": "1"},
            notes=("a note",),
        )

    def add(self, request_id: str, prompt: Sequence[int], output_tokens: int) -> str | None:
        if len(prompt) + output_tokens > self.arguments.max_model_len:
            return "the prompt is too long"
        self.left[request_id] = deque([-1, *range(output_tokens)])
        return None

    def is_busy(self) -> bool:
        return bool(self.left)

    def step(self) -> list[Delivery]:
        self.steps += 1
        found = []
        for name, tokens in list(self.left.items()):
            token = tokens.popleft()
            if token < 0:
                continue
            found.append(Delivery(name, (token,), None if tokens else "length"))
            if not tokens:
                del self.left[name]
        return found

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        del self.left[request_id]

    def close(self) -> None:
        self.is_closed = True


def request(**changes: Any) -> EngineRequest:
    engine = EngineSpec(kind="vllm", **changes.pop("engine", {}))
    model = ModelSpec(source="shape:tiny-llama", weights="random", dtype=changes.pop("dtype", "float32"))
    plain = EngineRequest(
        model=model,
        engine=engine,
        device="cpu",
        model_name="tiny-llama",
        config_json=json.dumps(CONFIG),
        weights_folder=None,
        threads=1,
        seed=1,
    )
    return dataclasses.replace(plain, **changes)


def opened(**changes: Any) -> tuple[VllmEngine, list[ScriptedSession]]:
    sessions: list[ScriptedSession] = []

    def open_session(arguments: Arguments) -> ScriptedSession:
        sessions.append(ScriptedSession(arguments))
        return sessions[-1]

    return VllmEngine(request(**changes), open_session), sessions


def asked(count: int, output_tokens: int = 5) -> list[Request]:
    return [Request(f"r{number}", tuple(range(10)), output_tokens) for number in range(count)]


def test_it_answers_requests_and_makes_room_for_them() -> None:
    engine, _ = opened()
    assert isinstance(engine, ReservingEngine)
    assert DESCRIPTION.modes == DESCRIPTION.request_modes


def test_every_token_is_counted_and_bears_the_stamp_of_its_step() -> None:
    engine, sessions = opened()
    closed = ClosedLoad(kind="closed", concurrency=2, requests=4)
    found = [each for each in load.run_closed(engine, closed, asked(4), "t") if isinstance(each, RequestTrace)]
    assert ["r0", "r1", "r2", "r3"] == sorted(trace.request_id for trace in found)
    for trace in found:
        assert (1, 1, 1, 1, 1) == trace.chunk_tokens
        assert list(trace.chunk_at_ns) == sorted(set(trace.chunk_at_ns))
        assert ("length", None, "engine", "host") == (
            trace.finish_reason,
            trace.error,
            trace.tokens_counted_by,
            trace.stamped_by,
        )
    together = {trace.request_id: trace.chunk_at_ns for trace in found}
    assert together["r0"] == together["r1"]
    assert 12 == sessions[0].steps


def test_a_poll_ends_at_its_deadline_where_nothing_is_in_flight() -> None:
    engine, sessions = opened()
    deadline = engine.now() + WAIT_NS
    assert [] == engine.poll(deadline)
    assert engine.now() >= deadline
    assert 0 == sessions[0].steps


def test_a_refused_request_is_told_with_the_reason() -> None:
    engine, _ = opened()
    engine.submit(Request("long", tuple(range(UNPLANNED.request_tokens)), 1))
    chunk = engine.poll(engine.now() + WAIT_NS)[0]
    assert ("long", 0, None, "the prompt is too long") == (
        chunk.request_id,
        chunk.tokens,
        chunk.finish_reason,
        chunk.error,
    )


def test_nothing_is_heard_of_a_request_that_was_given_up() -> None:
    engine, sessions = opened()
    for each in asked(2):
        engine.submit(each)
    engine.cancel("r0")
    assert ["r0"] == sessions[0].aborted
    chunks = [chunk for _ in range(6) for chunk in engine.poll(engine.now() + WAIT_NS)]
    assert {"r1"} == {chunk.request_id for chunk in chunks}


def test_the_engine_is_opened_anew_only_where_a_cell_needs_more_room() -> None:
    engine, sessions = opened()
    assert (None, 4096, None) == engine.reserve(8, 400, 112)[:3]
    assert 1 == len(sessions)
    grown = engine.reserve(16, 100, 20)
    assert grown.compile_s is not None
    assert sessions[0].is_closed
    assert (16, 512) == (sessions[1].arguments.max_num_seqs, sessions[1].arguments.max_model_len)
    assert engine.reserve(4, 300, 20).compile_s is None


def test_the_cache_on_a_cpu_holds_every_request_in_whole_pages() -> None:
    engine, sessions = opened()
    engine.reserve(16, 300, 100)
    text = CONFIG
    per_token = 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * 4
    width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    assert (16 * 4 + 1) * 128 * per_token * width == sessions[-1].arguments.kv_cache_bytes


def test_a_request_longer_than_the_model_is_a_failure_that_says_so() -> None:
    engine, _ = opened()
    with pytest.raises(TrialError, match=f"the model takes {CONFIG['max_position_embeddings']} at most"):
        engine.reserve(1, CONFIG["max_position_embeddings"], 1)


def test_an_option_bounds_the_room() -> None:
    engine, sessions = opened(engine={"options": {"max_num_seqs": 2, "max_model_len": 64}})
    assert (2, 64) == (sessions[0].arguments.max_num_seqs, sessions[0].arguments.max_model_len)
    engine.reserve(8, 30, 30)
    assert 1 == len(sessions)
    with pytest.raises(TrialError, match="max_model_len allows 64"):
        engine.reserve(1, 60, 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": {"options": {"max_seqs": 2}}}, "max_seqs"),
        ({"engine": {"options": {"max_num_seqs": 0}}}, "max_num_seqs"),
        ({"dtype": "int4"}, "model.dtype: int4"),
        ({"devices": ("cpu", "cpu")}, "splits a model over GPUs alone"),
    ],
)
def test_what_it_does_not_know_is_refused_before_vllm_is_opened(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlugError, match=said):
        opened(**changes)


def test_the_facts_are_those_of_the_worker() -> None:
    engine, _ = opened(engine={"mode": "eager"})
    facts = engine.facts
    assert ("vllm", "eager", "float32", "CPU_ATTN", "host") == (
        facts.kind,
        facts.mode,
        facts.dtype,
        facts.attention_kernel,
        facts.stamped_by,
    )
    assert {"vllm": "9.9", "python": "3.11"} == facts.versions
    assert "1" == facts.environment["VLLM_X"]
    assert "share a stamp" in facts.notes[0]


def test_random_weights_are_drawn_by_vllm_from_the_config_alone() -> None:
    engine, sessions = opened()
    folder = Path(sessions[0].arguments.model)
    assert "dummy" == sessions[0].arguments.load_format
    assert CONFIG == json.loads((folder / "config.json").read_text())
    assert 12 == engine.model_facts.parameters
    assert "drawn by vLLM" in str(engine.model_facts.note)
    assert engine.check_identity([(1, 2, 3)], 4) is None
    engine.close()
    engine.close()
    assert not folder.exists()


def test_a_split_model_names_its_devices_and_its_memory_is_not_seen() -> None:
    engine, sessions = opened(device="cuda:1", devices=("cuda:1", "cuda:3"))
    keywords = library.engine_args(sessions[0].arguments)
    assert [1, 3] == keywords["device_ids"]
    assert 2 == keywords["tensor_parallel_size"]
    assert "kv_cache_memory_bytes" not in keywords
    assert [] == engine.memory()


def test_resident_memory_is_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nGroups:\n")
    found = memory.read_memory("cpu", tmp_path)
    assert [("rss_peak", 300 * 1024), ("rss_steady", 200 * 1024)] == found
    memory.reset_peaks("cpu", tmp_path)
    assert "5" == (tmp_path / "clear_refs").read_text()
    assert [] == memory.read_memory("cpu", tmp_path / "no_such_system")


def test_a_model_that_takes_little_is_opened_for_that(tmp_path: Path) -> None:
    _, sessions = opened(config_json=json.dumps({**CONFIG, "max_position_embeddings": 64}))
    assert 64 == sessions[0].arguments.max_model_len


def test_vllm_is_asked_for_what_the_config_says() -> None:
    _, sessions = opened(engine={"mode": "eager", "experts": "triton"}, dtype="bfloat16")
    keywords = library.engine_args(sessions[0].arguments)
    assert ("bfloat16", True, False, "triton", True) == (
        keywords["dtype"],
        keywords["enforce_eager"],
        keywords["enable_prefix_caching"],
        keywords["moe_backend"],
        keywords["skip_tokenizer_init"],
    )


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("Available memory on node 0 (1/2 GiB) is less than requested memory", TrialError, "oom"),
        ("To serve one request 4 GiB KV cache is needed, larger than the available KV cache memory", TrialError, "oom"),
        ("Model architectures ['Odd'] are not supported for now", PlugError, None),
    ],
)
def test_a_refusal_of_vllm_is_handed_on_in_its_words(text: str, kind: type[Exception], cause: str | None) -> None:
    found = library._refused(ValueError(text))
    assert isinstance(found, kind)
    assert text in found.message
    assert cause == getattr(found, "cause", None)


def write_checkpoint(folder: Path, **shapes: list[int]) -> None:
    header = json.dumps({name.replace("__", "."): {"dtype": "F32", "shape": shape} for name, shape in shapes.items()})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())


def test_parameters_are_counted_in_the_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path,
        model__embed_tokens__weight=[10, 4],
        model__layers__0__mlp__experts__0__weight=[4, 3],
        lm_head__weight=[10, 4],
    )
    assert 92 == sum(numbers_in_files(tmp_path).values())
    untied = model_facts(request(weights_folder=tmp_path, config_json="{}"), "bfloat16", None)
    assert (92, 184, 80, 24) == (untied.parameters, untied.weight_bytes, untied.lookup_bytes, untied.expert_bytes)
    tied = request(weights_folder=tmp_path, config_json='{"tie_word_embeddings": true}')
    found = model_facts(tied, "float32", None)
    assert (52, 208, 0, 48) == (found.parameters, found.weight_bytes, found.lookup_bytes, found.expert_bytes)


def test_drawn_weights_that_were_packed_away_are_not_counted() -> None:
    empty = SimpleNamespace(named_parameters=lambda: [("a.weight", SimpleNamespace(numel=lambda: 0))])
    for module in (empty, None):
        facts = model_facts(request(), "float32", module)
        assert (None, None) == (facts.parameters, facts.weight_bytes)


def test_a_step_of_vllm_becomes_deliveries() -> None:
    def output(name: str, tokens: list[int], reason: str | None) -> Any:
        return SimpleNamespace(request_id=name, outputs=[SimpleNamespace(token_ids=tokens, finish_reason=reason)])

    engine = SimpleNamespace(step=lambda: [output("a", [5], None), output("b", [6, 7], "length")])
    session = library.VllmSession(engine, [])
    assert [Delivery("a", (5,), None), Delivery("b", (6, 7), "length")] == session.step()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed in this interpreter")
def test_the_real_vllm_makes_as_many_tokens_as_were_asked_for() -> None:
    wide = json.dumps({**CONFIG, "head_dim": 64})  # vLLM's attention on a CPU has no heads of 16
    engine: Any = open_engine(request(engine={"mode": "eager"}, config_json=wide))
    closed = ClosedLoad(kind="closed", concurrency=2, requests=3)
    for room in (2, 12):  # the second does not fit: vLLM is opened anew
        engine.reserve(room, 10, 5)
        found = [each for each in load.run_closed(engine, closed, asked(3), "t") if isinstance(each, RequestTrace)]
        assert [5, 5, 5] == [sum(trace.chunk_tokens) for trace in found]
    assert engine.facts.versions["vllm"]
    assert {"rss_peak", "rss_steady"} == {reading.source for reading in engine.memory()}
    engine.close()


@pytest.mark.parametrize(
    ("name", "value", "is_told"),
    [
        ("VLLM_CPU_KVCACHE_SPACE", "4", True),
        ("VLLM_ATTENTION_BACKEND", "TORCH_SDPA", True),
        ("VLLM_API_KEY", "sk-secret", False),
        ("VLLM_CACHE_ROOT", "somewhere", False),
        ("VLLM_CONFIG", "/home/me/config", False),
        ("HF_TOKEN", "hf_secret", False),
    ],
)
def test_the_record_holds_no_secret_and_no_place_of_the_environment(name: str, value: str, is_told: bool) -> None:
    assert is_told == is_setting(name, value)
