"""The engine `llama_cpp`: its file's header, what goes to llama.cpp and what comes back; the library itself last."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

pytest.importorskip("gguf")

from tiny_gguf import CONTEXT, HIDDEN, KV_WIDTH, LAYERS, VOCABULARY, WIDTH, asked, write_gguf
from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import Chunk, Request, load_plug
from tokbench.measure.engines.llama_cpp import engine as plug_engine
from tokbench.measure.engines.llama_cpp import gguf_file, server
from tokbench.measure.engines.llama_cpp.engine import LlamaCppEngine
from tokbench.measure.engines.llama_cpp.gguf_file import Tensor, say_precision
from tokbench.measure.engines.llama_cpp.options import LlamaCppOptions
from tokbench.record.spec import ModelSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gguf")
    write_gguf(made / "tiny.F16.gguf")
    return made


def message(prompt_n: int, predicted_n: int, reason: str | None = None, cache_n: int = 0) -> dict[str, Any]:
    timings = {"prompt_n": prompt_n, "cache_n": cache_n, "predicted_n": predicted_n}
    return {
        "choices": [{"text": "x", "finish_reason": reason}],
        "timings": {**timings, "prompt_ms": 20.0, "predicted_ms": 10.0 * (predicted_n - 1)},
    }


def plain_script(body: dict[str, Any]) -> list[dict[str, Any]]:
    """A message for each token and one for the end, as llama.cpp sends them."""
    prompt, tokens = len(body["prompt"]), body["max_tokens"]
    return [*(message(prompt, n) for n in range(1, tokens + 1)), message(prompt, tokens, "length")]


class ScriptedServer:
    """Stands for xllamacpp.Server: answers each request with a prepared list of messages."""

    started: ClassVar[list[Any]] = []
    bodies: ClassVar[list[dict[str, Any]]] = []
    script: ClassVar[Callable[[dict[str, Any]], list[dict[str, Any]]]] = staticmethod(plain_script)

    def __init__(self, params: Any) -> None:
        if params.n_parallel > 64:
            os.write(2, b"0.0 I srv fine\n0.1 E srv load_model: no room for the cache\n")
            raise RuntimeError("Failed to init server, please check the input params.")
        self.started.append(params)

    def handle_completions(self, body: str, callback: Callable[[str], bool]) -> None:
        wanted = json.loads(body)
        self.bodies.append(wanted)
        for message in type(self).script(wanted):
            if callback(json.dumps(message)):
                return


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    def params() -> SimpleNamespace:
        return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    flash = SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_ENABLED=1, LLAMA_FLASH_ATTN_TYPE_DISABLED=0)
    made = SimpleNamespace(
        CommonParams=params,
        Server=ScriptedServer,
        llama_flash_attn_type=flash,
        llama_split_mode=SimpleNamespace(LLAMA_SPLIT_MODE_NONE=0),
        get_system_info=lambda: "CPU : AVX2 = 1 | REPACK = 1 | ",
        get_device_info=lambda: [{"type": SimpleNamespace(name="GGML_BACKEND_DEVICE_TYPE_CPU"), "description": "CPU"}],
    )
    monkeypatch.setitem(sys.modules, "xllamacpp", made)
    monkeypatch.setattr(plug_engine.importlib.metadata, "version", lambda name: "1.0")
    monkeypatch.setattr(ScriptedServer, "started", [])
    monkeypatch.setattr(ScriptedServer, "bodies", [])
    monkeypatch.setattr(ScriptedServer, "script", staticmethod(plain_script))
    return made


@pytest.fixture
def engine(folder: Path, library: SimpleNamespace) -> Iterator[LlamaCppEngine]:
    opened = LlamaCppEngine(asked(folder))
    yield opened
    opened.close()


def hear_all(engine: Any, requests: int) -> list[Chunk]:
    chunks: list[Chunk] = []
    while sum(chunk.finish_reason is not None or chunk.error is not None for chunk in chunks) < requests:
        heard = engine.poll(engine.now() + 60_000_000_000)
        assert heard, "nothing came within a minute"
        chunks += heard
    return chunks


def test_a_header_says_what_the_weights_are(folder: Path) -> None:
    file = gguf_file.read_gguf(folder / "tiny.F16.gguf")
    linear = LAYERS * (2 * HIDDEN * HIDDEN + 2 * KV_WIDTH * HIDDEN + 3 * WIDTH * HIDDEN)
    norms = (2 * LAYERS + 1) * HIDDEN
    assert file.precision == "F16 linear + F32 embedding"
    assert file.parameters == linear + norms + VOCABULARY * HIDDEN
    assert file.weight_bytes == 2 * linear + 4 * norms + 4 * VOCABULARY * HIDDEN
    assert (file.lookup_bytes, file.expert_bytes, file.vocabulary) == (0, 0, VOCABULARY)
    assert (file.architecture, file.context_tokens) == ("llama", CONTEXT)
    assert file.kv_bytes_per_token == 2 * 2 * LAYERS * KV_WIDTH


def test_an_untied_embedding_and_experts_are_counted_apart(tmp_path: Path) -> None:
    tensors = [
        Tensor("token_embd.weight", "Q8_0", 100, 106, 2),
        Tensor("output.weight", "Q6_K", 100, 82, 2),
        Tensor("blk.0.ffn_down_exps.weight", "Q4_K", 800, 450, 3),
        Tensor("blk.0.attn_q.weight", "Q6_K", 50, 41, 2),
        Tensor("blk.0.attn_norm.weight", "F32", 10, 40, 1),
    ]
    fields = {"general.architecture": "x", "x.attention.sliding_window": 4, "x.block_count": 1}
    file = gguf_file.summarise(tmp_path, tensors, fields, 100)
    assert file.precision == "Q4_K/Q6_K linear + Q8_0/Q6_K embedding"
    assert (file.lookup_bytes, file.expert_bytes, file.kv_bytes_per_token) == (106, 450, None)
    assert say_precision(tensors[3:]) == "Q6_K"


@pytest.mark.parametrize("content", [b"hello", b""])
def test_a_file_that_is_no_gguf_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(PlugError, match="broken.gguf is no whole GGUF file"):
        gguf_file.check_source(asked(tmp_path))


def test_a_file_that_was_cut_off_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "tiny.F16.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PlugError, match="cut.gguf is no whole GGUF file"):
        gguf_file.check_source(asked(tmp_path))


def test_a_request_that_the_library_throws_out_ends_with_its_reason(
    library: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it would wait for ever if its end were not told."""
    made = server.LlamaServer(library, Path("x.gguf"), "cpu", 1)
    made.start(server.Size(1, 256), LlamaCppOptions())

    def throw(body: dict[str, Any]) -> list[dict[str, Any]]:
        raise RuntimeError("the slot is gone")

    monkeypatch.setattr(ScriptedServer, "script", staticmethod(throw))
    made.ask("a", server.asking((1, 2), 3))
    heard = [made.hear(30.0), made.hear(30.0)]
    assert [{"error": {"message": "the slot is gone"}}, None] == [
        None if arrival is None or arrival.text is None else json.loads(arrival.text) for arrival in heard
    ]
    assert all(arrival is not None and arrival.request_id == "a" for arrival in heard)
    assert not made._asking


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "bfloat16"}, "in the types that it is stored in, not in bfloat16"),
        ({"weights": "random"}, "not random ones"),
        ({"source": "hf:a/b"}, "hf:a/b brings no GGUF file"),
        ({"source": "what"}, "'what' is no source of a model"),
    ],
)
def test_a_model_that_llama_cpp_cannot_run_is_refused(folder: Path, changes: dict[str, str], said: str) -> None:
    request = asked(folder)
    wrong = dataclasses.replace(request, model=ModelSpec(**{**request.model.model_dump(), **changes}))
    with pytest.raises(PlugError, match=said) as refused:
        gguf_file.check_source(wrong)
    assert refused.value.fix


def test_the_folder_must_hold_one_gguf(tmp_path: Path) -> None:
    with pytest.raises(PlugError, match="brings no GGUF file"):
        gguf_file.find_gguf(asked(tmp_path))
    for name in "ab":
        (tmp_path / f"{name}.gguf").touch()
    with pytest.raises(PlugError, match="holds 2 GGUF files"):
        gguf_file.find_gguf(asked(tmp_path))


def test_prompts_go_in_as_ids_and_nothing_is_kept_of_earlier_ones(engine: LlamaCppEngine) -> None:
    engine.submit(Request("a", (5, 6, 7), 4))
    hear_all(engine, 1)
    body = ScriptedServer.bodies[-1]
    assert body["prompt"] == [5, 6, 7] and body["max_tokens"] == 4
    assert body["cache_prompt"] is False and body["ignore_eos"] is True and body["temperature"] == 0
    params = ScriptedServer.started[-1]
    assert params.n_gpu_layers == 0 and params.cpuparams.n_threads == params.cpuparams_batch.n_threads == 1
    assert params.fit_params is False and params.cache_ram_mib == 0 and params.api_keys[0]


def test_every_token_has_a_stamp_and_the_last_one_ends_the_request(engine: LlamaCppEngine) -> None:
    before = engine.now()
    engine.submit(Request("a", (1, 2), 3))
    chunks = hear_all(engine, 1)
    assert [(chunk.tokens, chunk.finish_reason) for chunk in chunks] == [(1, None), (1, None), (1, "length")]
    stamps = [chunk.at_ns for chunk in chunks]
    assert before <= stamps[0] and stamps == sorted(stamps) and stamps[-1] <= engine.now()
    assert engine.server_timings[-1] == ("a", 0.02, 0.02, 3)


def test_tokens_that_are_no_character_yet_come_with_the_next(engine: LlamaCppEngine) -> None:
    script = [message(1, 1), message(1, 4), message(1, 6, "length")]
    ScriptedServer.script = staticmethod(lambda body: script)
    engine.submit(Request("a", (1,), 6))
    assert [(c.tokens, c.finish_reason) for c in hear_all(engine, 1)] == [(1, None), (3, None), (2, "length")]


def test_a_prompt_that_was_not_worked_on_whole_is_an_error(engine: LlamaCppEngine) -> None:
    ScriptedServer.script = staticmethod(lambda body: [message(1, 1, cache_n=2)])
    engine.submit(Request("a", (1, 2, 3), 2))
    with pytest.raises(TrialError, match="took 2 from a cache, 3 were asked for"):
        hear_all(engine, 1)


def test_a_refusal_and_an_answer_without_an_end_are_told_as_errors(engine: LlamaCppEngine) -> None:
    refusal = {"error": {"code": 400, "message": "exceeds the available context size"}}
    ScriptedServer.script = staticmethod(lambda body: [refusal])
    engine.submit(Request("a", (1,), 2))
    assert hear_all(engine, 1)[0].error == "exceeds the available context size"
    ScriptedServer.script = staticmethod(lambda body: [message(1, 1)])
    engine.submit(Request("b", (1,), 2))
    assert hear_all(engine, 1)[-1].error == "llama.cpp ended the answer without a reason"


def test_room_is_made_for_every_request_and_only_when_it_changes(engine: LlamaCppEngine) -> None:
    prepared = engine.reserve(4, 128, 64)
    params = ScriptedServer.started[-1]
    assert (params.n_parallel, params.n_ctx) == (4, 4 * 256)
    assert prepared.kv_bytes_allocated == 4 * 256 * 2 * 2 * LAYERS * KV_WIDTH
    started = len(ScriptedServer.started)
    engine.reserve(4, 200, 50)
    assert len(ScriptedServer.started) == started
    assert "4 slots of 256 tokens" in engine.facts.notes
    with pytest.raises(TrialError, match=f"600 tokens are more than the model's context of {CONTEXT}"):
        engine.reserve(1, 500, 100)


def test_what_llama_cpp_says_of_a_failure_is_told(engine: LlamaCppEngine) -> None:
    with pytest.raises(PlugError, match="65 slots of 256 tokens: srv load_model: no room for the cache"):
        engine.reserve(65, 10, 10)


def test_a_gpu_is_refused_by_a_build_without_one(folder: Path, library: SimpleNamespace) -> None:
    with pytest.raises(PlugError, match="device cuda:0: the installed build of llama.cpp has no GPU backend"):
        LlamaCppEngine(dataclasses.replace(asked(folder), device="cuda:0"))
    card = {"type": SimpleNamespace(name="GGML_BACKEND_DEVICE_TYPE_GPU"), "description": "a card"}
    library.get_device_info = lambda: [card, card]
    assert server.check_device(library, "cuda:1") == 1
    with pytest.raises(PlugError, match="sees 2 of them"):
        server.check_device(library, "cuda:2")
    opened = LlamaCppEngine(dataclasses.replace(asked(folder), device="cuda:1"))
    params = ScriptedServer.started[-1]
    assert (params.n_gpu_layers, params.main_gpu) == (server.ALL_LAYERS, 1)
    opened.close()


def test_unknown_options_are_refused_and_attention_is_set(folder: Path, library: SimpleNamespace) -> None:
    with pytest.raises(PlugError, match="no option 'ubatch_token'") as refused:
        LlamaCppEngine(asked(folder, ubatch_token=1))
    assert "did you mean `ubatch_tokens`?" in str(refused.value.fix)
    with pytest.raises(PlugError, match="batch_tokens: 0 is no count"):
        LlamaCppEngine(asked(folder, batch_tokens=0))
    request = asked(folder)
    plain = request.engine.model_copy(update={"attention": "plain"})
    opened = LlamaCppEngine(dataclasses.replace(request, engine=plain))
    assert ScriptedServer.started[-1].flash_attn_type == 0
    assert opened.facts.attention_kernel == "ggml_plain"
    opened.close()


def test_tokens_side_by_side_are_set_beside_those_alone(engine: LlamaCppEngine) -> None:
    def script(body: dict[str, Any]) -> list[dict[str, Any]]:
        alone = len([b for b in ScriptedServer.bodies if b.get("logprobs")]) > 2
        ids = [7, 8, 9] if alone and body["prompt"] == [2] else [7, 8, 5]
        tops = [{"logprob": -0.5}, {"logprob": -0.75}]
        return [{"choices": [{"logprobs": {"content": [{"id": i, "top_logprobs": tops} for i in ids]}}]}]

    ScriptedServer.script = staticmethod(script)
    found = engine.check_identity([(1,), (2,)], 3)
    assert found == ("llama.cpp, greedy, each prompt alone", 3, 2, 0.25)
    assert engine.check_identity([(1,)], 3) == ("llama.cpp, greedy, each prompt alone", 3, None, None)


def test_the_real_library_runs_a_tiny_model(folder: Path) -> None:
    pytest.importorskip("xllamacpp")
    opened: Any = load_plug("llama_cpp").open_engine(asked(folder))
    try:
        opened.reserve(2, 16, 8)
        for name in "ab":
            opened.submit(Request(name, tuple(range(10, 26)), 8))
        chunks = hear_all(opened, 2)
        assert {name: sum(c.tokens for c in chunks if c.request_id == name) for name in "ab"} == {"a": 8, "b": 8}
        assert not any(chunk.error for chunk in chunks)
        found = opened.check_identity([tuple(range(20, 30))], 4)
        assert (found.tokens_compared, found.first_divergence) == (4, None)
        opened.submit(Request("long", tuple(range(10, 20)), 200))
        assert opened.poll(opened.now() + 60_000_000_000)
        opened.cancel("long")
    finally:
        opened.close()
