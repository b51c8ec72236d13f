"""The transformers engine on tiny random models on the CPU: the same tokens as `generate`, and honest facts."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import QUICK, request, run, work  # noqa: E402
from tokbench import arithmetic  # noqa: E402
from tokbench.errors import PlugError, TrialError  # noqa: E402
from tokbench.measure.engines.transformers import engine as engine_module  # noqa: E402
from tokbench.measure.engines.transformers import kernels, loading, loops, profiling  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import find_model, shape_from_config  # noqa: E402

SHAPES = ("tiny-llama", "tiny-qwen3-moe", "tiny-gpt-oss", "tiny-deepseek")
MODES = ("eager", "compiled")
EVERY = [(shape, mode) for shape in SHAPES for mode in MODES]
Open = Callable[[str, str], TransformersEngine]


@pytest.fixture(scope="module")
def engines() -> Iterator[Open]:
    """Engines by shape and mode, opened once, prepared for `work()`."""
    kept: dict[tuple[str, str], TransformersEngine] = {}

    def get(shape: str, mode: str) -> TransformersEngine:
        if (shape, mode) not in kept:
            kept[shape, mode] = TransformersEngine(request(shape, mode))
            kept[shape, mode].prepare(work())
        return kept[shape, mode]

    yield get
    for engine in kept.values():
        engine.close()


@pytest.mark.parametrize(("shape", "mode"), EVERY)
def test_tokens_are_those_of_generate(engines: Open, shape: str, mode: str) -> None:
    found = engines(shape, mode).check_identity(24)
    assert found is not None
    assert (24, None, None) == (found.tokens_compared, found.first_divergence, found.top2_gap)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_modes_make_the_same_tokens_in_every_row(engines: Open, shape: str) -> None:
    eager, compiled = (run(engines(shape, mode), 23) for mode in MODES)
    assert eager == compiled
    assert len(set(eager[0])) > 5  # a loop that repeats one token would agree with anything
    assert eager[0] != eager[1]


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_longer_than_the_window_makes_the_same_tokens(mode: str) -> None:
    engine = TransformersEngine(request("tiny-gpt-oss", mode))
    engine.prepare(work(prompt_tokens=40, output_tokens=40))
    found = engine.check_identity(40)
    assert found is not None and found.first_divergence is None


@pytest.mark.parametrize("mode", MODES)
def test_check_identity_finds_a_broken_loop(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request("tiny-llama", mode))
    engine.prepare(work(rows=1))
    honest = type(engine._loop).step

    def one_token_off(loop: loops._Loop) -> None:
        honest(loop)
        loop._buffers.token.add_(1).remainder_(512)
        loop._buffers.history[:, loop._made - 1 : loop._made] = loop._buffers.token

    monkeypatch.setattr(type(engine._loop), "step", one_token_off)
    found = engine.check_identity(8)
    assert found is not None
    assert found.first_divergence == 1
    assert found.top2_gap is not None and found.top2_gap > 0


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_reports_where_it_parts_and_by_how_little(mode: str) -> None:
    engine = TransformersEngine(request("tiny-llama", mode, dtype="bfloat16"))
    engine.prepare(work())
    found = engine.check_identity(24)
    assert found is not None and found.tokens_compared == 24
    assert (found.first_divergence is None) == (found.top2_gap is None)
    assert engine.facts.dtype == "bfloat16"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_what_an_earlier_prompt_left_in_the_cache_is_not_seen(engines: Open, shape: str, mode: str) -> None:
    engine = engines(shape, mode)
    first = run(engine, 23)
    kept = engine._ids
    assert kept is not None
    engine._ids = (kept + 17) % 512
    other = run(engine, 23)
    engine._ids = kept
    assert first == run(engine, 23)
    assert first != other


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "tiny-gpt-oss"])
@pytest.mark.parametrize("mode", MODES)
def test_rewinding_goes_on_identically(engines: Open, shape: str, mode: str) -> None:
    engine = engines(shape, mode)
    whole = run(engine, 20)
    engine.rewind(12 + 5)
    assert tuple(row[:6] for row in whole) == engine.output_tokens()
    list(engine.decode(7))
    list(engine.decode(8))
    assert whole == engine.output_tokens()


@pytest.mark.parametrize("mode", MODES)
def test_a_window_that_was_overwritten_cannot_be_rewound_into(engines: Open, mode: str) -> None:
    engine = engines("tiny-gpt-oss", mode)
    within = run(engine, 3)
    engine.rewind(13)
    list(engine.decode(2))
    assert within == engine.output_tokens()
    list(engine.decode(8))
    with pytest.raises(TrialError, match="sliding window"):
        engine.rewind(13)
    assert run(engine, 3) == within


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("position", [5, 99])
def test_rewinding_into_the_prompt_or_ahead_is_refused(engines: Open, mode: str, position: int) -> None:
    engine = engines("tiny-llama", mode)
    run(engine, 3)
    with pytest.raises(TrialError, match=f"cannot rewind to {position}"):
        engine.rewind(position)
    assert [4, 4] == [len(row) for row in engine.output_tokens()]


@pytest.mark.parametrize("mode", MODES)
def test_a_prefill_on_a_full_cache_and_steps_beyond_the_cell_are_refused(engines: Open, mode: str) -> None:
    engine = engines("tiny-llama", mode)
    engine.rewind(0)
    with pytest.raises(TrialError, match="after a prefill"):
        engine.decode(1)
    engine.prefill()
    with pytest.raises(TrialError, match="rewind to 0"):
        engine.prefill()
    engine = engines("tiny-llama", mode)
    engine.prepare(work())
    engine.rewind(0)
    engine.prefill()
    with pytest.raises(TrialError, match="23 are left"):
        engine.decode(24)


@pytest.mark.parametrize("mode", MODES)
def test_the_smallest_cell(mode: str) -> None:
    engine = TransformersEngine(request("tiny-llama", mode))
    engine.prepare(work(rows=3, prompt_tokens=1, output_tokens=2))
    tokens = run(engine, 1)
    assert [2, 2, 2] == [len(row) for row in tokens]
    found = engine.check_identity(32)
    assert found is not None and (2, None) == (found.tokens_compared, found.first_divergence)


@pytest.mark.parametrize("mode", MODES)
def test_steps_are_stamped_in_order_after_the_prefill(engines: Open, mode: str) -> None:
    engine = engines("tiny-llama", mode)
    engine.rewind(0)
    opened = engine.sync()
    first = engine.prefill()
    steps = list(engine.decode(5))
    stamps = [opened, first.at_ns, *(step.at_ns for step in steps), engine.sync()]
    assert sorted(set(stamps)) == stamps
    assert [1] * 5 == [step.tokens_per_row for step in steps]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_graph_is_compiled_inside_a_window_or_for_a_shape_that_came_before(engines: Open, shape: str) -> None:
    engine = engines(shape, "compiled")
    before = engine.graphs_compiled
    assert before is not None and before > 0
    run(engine, 23)
    engine.prepare(work(seed=8))
    run(engine, 23)
    assert before == engine.graphs_compiled
    engine.prepare(work(rows=5))
    assert engine.graphs_compiled == before + 1
    engine.prepare(work())


@pytest.mark.parametrize("mode", MODES)
def test_the_cell_before_is_freed(mode: str) -> None:
    engine = TransformersEngine(request("tiny-qwen3-moe", mode))
    engine.prepare(work())
    engine.prefill()
    assert engine._loop is not None
    held = [weakref.ref(layer.keys) for layer in engine._loop._cache.layers]
    engine.prepare(work(rows=1))
    assert [None] * len(held) == [reference() for reference in held]
    engine.close()
    engine.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_of_weights_and_cache_are_those_of_arithmetic(engines: Open, shape: str) -> None:
    engine = engines(shape, "eager")
    closed = shape_from_config(find_model(shape).config, shape)
    assert engine.model_facts.parameters == arithmetic.count_parameters(closed).total
    assert engine.model_facts.weight_bytes == pytest.approx(arithmetic.weight_bytes(closed, "float32"), rel=0.005)
    for mode, prompt in (("eager", 12), ("eager", 40), ("compiled", 12)):
        sized = engines(shape, mode)
        prepared = sized.prepare(work(prompt_tokens=prompt))
        assert prepared.cache_rows is not None
        expected = 2 * arithmetic.kv_cache_bytes(closed, prepared.cache_rows, "float32")
        if (shape, mode, prompt) == ("tiny-gpt-oss", "eager", 40):
            expected -= 2 * 2 * 2 * 2 * 16 * 4  # transformers keeps window - 1 tokens: two layers, two rows, K and V
        assert prepared.kv_bytes_allocated == expected
        sized.prepare(work())


def test_tied_weights_are_counted_once() -> None:
    tied = TransformersEngine(request("tiny-llama", overrides={"tie_word_embeddings": True}))
    untied = TransformersEngine(request("tiny-llama", overrides={"tie_word_embeddings": False}))
    assert tied.model_facts.parameters is not None and untied.model_facts.parameters is not None
    assert untied.model_facts.parameters - tied.model_facts.parameters == 512 * 64
    tied.prepare(work())
    found = tied.check_identity(16)
    assert found is not None and found.first_divergence is None


@pytest.mark.parametrize("shape", SHAPES)
def test_random_weights_are_normal_and_buffers_are_those_of_a_loaded_model(shape: str, tmp_path: Path) -> None:
    drawn = TransformersEngine(request(shape, dtype="bfloat16"))._model
    drawn.save_pretrained(tmp_path)
    loaded = TransformersEngine(request(shape, dtype="bfloat16", folder=tmp_path))._model
    buffers = dict(loaded.named_buffers())
    assert set(buffers) == {name for name, _ in drawn.named_buffers()}
    for name, buffer in drawn.named_buffers():
        assert buffer.dtype == buffers[name].dtype, name
        assert torch.equal(buffer, buffers[name]), name
    for name, parameter in drawn.named_parameters():
        if "norm" in name:
            assert bool((parameter == 1).all()), name
        elif parameter.numel() > 4000:
            assert float(parameter.float().std()) == pytest.approx(0.02, rel=0.1), name
            assert parameter.dtype == torch.bfloat16


def test_the_same_seed_draws_the_same_weights() -> None:
    first, second = (TransformersEngine(request())._model.lm_head.weight for _ in range(2))
    other = TransformersEngine(dataclasses.replace(request(), seed=4))._model.lm_head.weight
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mode", MODES)
def test_memory_readings_are_positive(engines: Open, mode: str) -> None:
    readings = engines("tiny-llama", mode).memory()
    assert ["rss_peak", "rss_steady"] == [reading.source for reading in readings]
    assert all(reading.value_bytes > 50 << 20 for reading in readings)


def test_facts_name_the_kernels_that_run(engines: Open) -> None:
    assert ("sdpa", None) == _kernels(engines("tiny-llama", "eager"))
    assert ("inline_gqa", None) == _kernels(engines("tiny-llama", "compiled"))
    assert ("sdpa", "grouped_mm") == _kernels(engines("tiny-qwen3-moe", "eager"))
    assert ("sdpa", "grouped_mm") == _kernels(engines("tiny-deepseek", "compiled"))
    assert ("eager", "grouped_mm") == _kernels(engines("tiny-gpt-oss", "compiled"))
    facts = engines("tiny-llama", "compiled").facts
    assert (False, "host", 1) == (facts.cuda_graphs, facts.stamped_by, facts.threads)
    assert ("prefill: not compiled", "compile backend eager: no code was generated") == facts.notes
    assert () == engines("tiny-llama", "eager").facts.notes


def _kernels(engine: TransformersEngine) -> tuple[str | None, str | None]:
    return engine.facts.attention_kernel, engine.facts.experts_kernel


@pytest.mark.parametrize("mode", MODES)
def test_batched_experts_decode_and_the_library_prefills(mode: str, engines: Open) -> None:
    engine = TransformersEngine(request("tiny-qwen3-moe", mode, experts="batched_mm"))
    engine.prepare(work())
    assert engine.facts.experts_kernel == "batched_mm"
    assert "experts kernel of the prefill: grouped_mm" in engine.facts.notes
    assert run(engine, 23) == run(engines("tiny-qwen3-moe", mode), 23)
    found = engine.check_identity(24)
    assert found is not None and found.first_divergence is None
    assert engine._model.config._experts_implementation == "batched_mm"


def test_an_attention_kernel_that_was_asked_for_is_kept(engines: Open) -> None:
    engine = TransformersEngine(request("tiny-llama", "compiled", attention="sdpa"))
    engine.prepare(work())
    assert engine.facts.attention_kernel == "sdpa"
    assert run(engine, 23) == run(engines("tiny-llama", "compiled"), 23)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"options": {"compile_backnd": "eager"}}, "compile_backend"),
        ({"options": {"compile_backend": "xla"}}, "inductor"),
        ({"options": {"device_graph": 1}}, "bool"),
        ({"attention": "flash_attention_9"}, "sdpa"),
        ({"attention": "flash_attention_2"}, "sdpa"),
        ({"dtype": "mxfp4"}, "bfloat16"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(asked: dict[str, object], named: str) -> None:
    with pytest.raises(PlugError) as refused:
        TransformersEngine(request("tiny-llama", "compiled", **asked))  # type: ignore[arg-type]
    assert named in str(refused.value)


@pytest.mark.parametrize(("mode", "experts"), [("compiled", "eager"), ("eager", "no_such_kernel")])
def test_experts_kernels_that_cannot_run_are_refused(mode: str, experts: str) -> None:
    with pytest.raises(PlugError, match="experts"):
        TransformersEngine(request("tiny-qwen3-moe", mode, experts=experts)).prepare(work())


@pytest.mark.parametrize(
    ("device", "mode", "named"), [("cpu", "eager", "GPUs"), ("cuda:0", "eager", "kernels"), ("mps", "eager", "GPUs")]
)
def test_native_mxfp4_says_what_it_needs(device: str, mode: str, named: str, tmp_path: Path) -> None:
    asked = request("tiny-gpt-oss", mode, dtype="mxfp4", device=device, folder=tmp_path)
    with pytest.raises(PlugError, match=named):
        loading.load_model(asked)


def test_out_of_memory_in_a_prefill_has_its_type_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request())
    engine.prepare(work())

    def too_much(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    engine.rewind(0)
    with monkeypatch.context() as patch:
        patch.setattr(loops, "greedy_step", too_much)
        with pytest.raises(torch.OutOfMemoryError, match="can't allocate"):
            engine.prefill()
        assert engine._loop is None
        with pytest.raises(torch.OutOfMemoryError):
            engine.prepare(work())
    assert engine._loop is None
    engine.prepare(work())
    assert [24, 24] == [len(row) for row in run(engine, 23)]


def test_a_real_allocation_that_fails_is_out_of_memory() -> None:
    engine = TransformersEngine(request("tiny-llama", "compiled"))
    with pytest.raises(torch.OutOfMemoryError):
        engine.prepare(work(rows=1, output_tokens=1 << 42))


def test_the_kernel_of_the_decode_follows_device_batch_and_dtype() -> None:
    class Model:
        def __init__(self, device: str, dtype: torch.dtype) -> None:
            self.device, self.dtype = torch.device(device), dtype
            self.config = type("Config", (), {"num_local_experts": 8, "num_experts_per_tok": 2})()

        def get_correct_experts_implementation(self, asked: str | None) -> str:
            return asked or "grouped_mm"

    def kernel(device: str, dtype: torch.dtype, mode: str, rows: int) -> tuple[str | None, str | None]:
        return tuple(kernels.choose_experts(Model(device, dtype), request("tiny-qwen3-moe", mode), rows))

    assert kernel("cpu", torch.float32, "compiled", 1) == ("grouped_mm", "grouped_mm")
    assert kernel("cuda", torch.bfloat16, "compiled", 4) == ("grouped_mm", "batched_mm")
    assert kernel("cuda", torch.bfloat16, "compiled", 5) == ("grouped_mm", "grouped_mm")
    assert kernel("cuda", torch.float16, "compiled", 64) == ("grouped_mm", "batched_mm")
    assert kernel("cuda", torch.float16, "eager", 64) == ("grouped_mm", "grouped_mm")


def test_a_config_of_the_hub_is_read_without_its_quantisation() -> None:
    asked = request()
    fields = json.loads(asked.config_json or "") | {"quantization_config": {"quant_method": "mxfp4"}}
    engine = TransformersEngine(dataclasses.replace(asked, config_json=json.dumps(fields)))
    assert engine.model_facts.parameters is not None


@pytest.mark.parametrize("name", ["sdpa_gqa", "split_gqa", "inline_gqa"])
def test_every_attention_kernel_makes_the_same_tokens(engines: Open, name: str) -> None:
    engine = TransformersEngine(request("tiny-llama", "compiled", attention=name))
    engine.prepare(work())
    assert engine.facts.attention_kernel == name
    assert run(engine, 23) == run(engines("tiny-llama", "eager"), 23)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_prefill_in_chunks_makes_the_same_tokens(engines: Open, shape: str, mode: str) -> None:
    engine = TransformersEngine(request(shape, mode, options={**QUICK, "prefill_chunk": 5}))
    if shape == "tiny-gpt-oss" and mode == "compiled":
        with pytest.raises(PlugError, match="sliding window cannot be filled in chunks"):
            engine.prepare(work())
        return
    engine.prepare(work())
    assert "prefill: in chunks of 5 tokens per row" in engine.facts.notes
    assert run(engine, 23) == run(engines(shape, mode), 23)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_compiled_prefill_is_one_more_graph_and_makes_the_same_tokens(engines: Open, shape: str) -> None:
    made = []
    for wanted in ("never", "always"):  # the step itself is compiled by the first
        engine = TransformersEngine(request(shape, "compiled", options={**QUICK, "compile_prefill": wanted}))
        engine.prepare(work(prompt_tokens=13))
        made.append(engine.graphs_compiled or 0)
    assert made[1] == made[0] + 1
    assert "prefill: compiled" in engine.facts.notes
    run(engine, 3)
    assert engine.graphs_compiled == made[1]  # the first pass, which makes the cache, was no graph of its own
    found = engine.check_identity(24)
    assert found is not None and found.first_divergence is None


def test_what_a_compiled_prefill_costs_is_part_of_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    honest = loops.CompiledLoop.prefill

    def lasting(loop: loops.CompiledLoop, ids: torch.Tensor) -> None:
        now_s[0] += 5.0
        honest(loop, ids)

    monkeypatch.setattr(loops.CompiledLoop, "prefill", lasting)
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    found = []
    for wanted in ("always", "never"):
        engine = TransformersEngine(request("tiny-llama", "compiled", options={**QUICK, "compile_prefill": wanted}))
        found.append(engine.prepare(work()).compile_s)
    assert [5.0, 0.0] == found


def test_generated_code_streams_the_weights_and_is_launched_directly(engines: Open) -> None:
    options = {"compile_backend": "inductor"}
    engine = TransformersEngine(request("tiny-llama", "compiled", options=options, overrides={"num_hidden_layers": 1}))
    kept = engine.prepare(work(rows=1))
    assert isinstance(engine._loop, loops.CompiledLoop)
    assert engine._loop._direct is not None
    linears = sum(type(module).__name__ == "StreamedLinear" for module in engine._model.modules())
    assert f"{linears} linear layers are loops over their weights for up to 16 rows, no BLAS" in engine.facts.notes
    assert 8 == linears
    found = engine.check_identity(24)
    assert found is not None and found.first_divergence is None
    assert kept.kernels_per_step is not None and 1 <= kept.kernels_per_step < 30
    for rows in (3, 9, 17):  # seventeen go to the library's product, through the same modules
        engine.prepare(work(rows=rows))
        found = engine.check_identity(24)
        assert found is not None and found.first_divergence is None


def test_eager_counts_its_operators() -> None:
    counts = []
    for layers in (1, 2, 3):
        engine = TransformersEngine(request(overrides={"num_hidden_layers": layers}))
        prepared = engine.prepare(work())
        assert prepared.kernels_counted_by == "operators and generated kernels, views left out"
        counts.append(prepared.kernels_per_step or 0)
    assert counts[2] - counts[1] == counts[1] - counts[0] > 10  # so many a layer
    assert counts[0] < 120


def test_generated_kernels_of_a_cpu_and_of_a_gpu_are_counted_and_views_are_not() -> None:
    def event(name: str, *children: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, cpu_children=list(children))

    events = [
        event("graph_0_cpp_fused_add_0"),
        event("triton_red_fused_mm_1"),
        event("aten::linear", product := event("aten::mm", view := event("aten::view"))),
        product,
        view,
        event("cudaLaunchKernel"),
    ]
    assert 3 == sum(profiling._counts(found) for found in profiling._leaves(events))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_prompts_twice_are_the_same_bits(engines: Open, mode: str) -> None:
    found = engines("tiny-llama", mode).check_repeat(16)
    assert [repeat.against for repeat in found] == (["itself", "alone"] if mode == "eager" else ["itself"])
    assert all(repeat.tokens_equal and repeat.steps == 16 for repeat in found)
    assert (True, 0.0) == (found[0].states_equal, found[0].max_abs_difference)


def test_a_pass_that_differs_in_one_bit_is_found(engines: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines("tiny-llama", "eager")
    honest = loops._Loop.states
    monkeypatch.setattr(loops._Loop, "states", lambda loop: [state + torch.rand(()) for state in honest(loop)])
    (found, _) = engine.check_repeat(4)
    assert (True, False) == (found.tokens_equal, found.states_equal)
    assert found.max_abs_difference > 0
