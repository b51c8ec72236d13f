"""What only a GPU can show of the transformers engine: captured graphs, device events, memory that comes back.

Nothing here asserts a speed. Run with `pytest -m gpu tests/gpu`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or HIP device"),
]

from tiny_engines import request, run, work  # noqa: E402
from tokbench.measure.ceilings import measure_ceilings  # noqa: E402
from tokbench.measure.engines.transformers import loops  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.nvml import load_nvml  # noqa: E402
from tokbench.measure.probe import probe_devices  # noqa: E402
from tokbench.record.facts import EngineFacts  # noqa: E402

GPU = "cuda:0"
SHAPES = ("tiny-llama", "tiny-qwen3-moe", "tiny-gpt-oss", "tiny-deepseek")
UNTUNED = {"coordinate_descent": False}
"""Compiles faster; one test leaves the tuning on."""
Open = Callable[..., TransformersEngine]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Engines on the GPU, closed after the test."""
    made: list[TransformersEngine] = []

    def get(shape: str, mode: str, dtype: str = "bfloat16", **engine: Any) -> TransformersEngine:
        engine.setdefault("options", UNTUNED if mode == "compiled" else {})
        made.append(TransformersEngine(request(shape, mode, dtype=dtype, device=GPU, **engine)))
        return made[-1]

    yield get
    for engine in made:
        engine.close()
    gc.collect()
    torch.cuda.empty_cache()


def assert_captured(facts: EngineFacts) -> None:
    assert facts.cuda_graphs is True, facts.notes
    assert [note for note in facts.notes if "no device graph" in note] == []


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_captured_and_makes_the_tokens_of_eager_in_float32(opened: Open, shape: str) -> None:
    compiled, eager = opened(shape, "compiled", "float32"), opened(shape, "eager", "float32")
    compiled.prepare(work())
    eager.prepare(work())
    assert_captured(compiled.facts)
    assert run(compiled, 23) == run(eager, 23)
    found = compiled.check_identity(24)
    assert found is not None and found.first_divergence is None, found


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_captured_with_the_experts_kernel_that_is_named(opened: Open, shape: str) -> None:
    engine = opened(shape, "compiled")
    for rows in (1, 16):  # 16 rows route to more experts than there are: grouped_mm
        engine.prepare(work(rows=rows))
        assert_captured(engine.facts)
        found = engine.check_identity(24)
        print(shape, rows, engine.facts.attention_kernel, engine.facts.experts_kernel, engine.facts.notes, found)
        assert found is not None and found.tokens_compared == 24
        if shape == "tiny-qwen3-moe":
            assert engine.facts.experts_kernel == ("batched_mm" if rows == 1 else "grouped_mm")


def test_the_tuned_step_is_captured_too(opened: Open) -> None:
    engine = opened("tiny-qwen3-moe", "compiled", options={"coordinate_descent": True})
    engine.prepare(work(rows=1))
    assert_captured(engine.facts)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_step_waits_for_the_device(opened: Open, shape: str, mode: str) -> None:
    engine = opened(shape, mode)
    engine.prepare(work())
    engine.rewind(0)
    engine.prefill()
    loop = engine._loop
    assert loop is not None
    with torch.inference_mode():
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(8):
                loop.step()
                engine._clock.mark()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_compiled_call_without_a_graph_does_not_wait_either(opened: Open) -> None:
    engine = opened("tiny-llama", "compiled", options={**UNTUNED, "device_graph": False})
    engine.prepare(work())
    assert engine.facts.cuda_graphs is False
    assert any("device_graph is false" in note for note in engine.facts.notes)
    captured = opened("tiny-llama", "compiled")
    captured.prepare(work())
    assert run(engine, 23) == run(captured, 23)


def test_a_capture_that_the_device_refuses_is_noted_and_the_cell_still_runs(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = loops._Loop._keep

    def waiting(loop: loops._Loop, token: torch.Tensor) -> None:
        int(token.sum())
        honest(loop, token)

    engine = opened("tiny-llama", "compiled", "float32")
    with monkeypatch.context() as patch:
        patch.setattr(loops._Loop, "_keep", waiting)
        engine.prepare(work())
        assert engine.facts.cuda_graphs is False
        print(engine.facts.notes)
        assert any(note.startswith("no device graph: ") for note in engine.facts.notes)
        tokens = run(engine, 23)
    eager = opened("tiny-llama", "eager", "float32")
    eager.prepare(work())
    assert tokens == run(eager, 23)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_events_are_mapped_onto_the_host_clock(opened: Open, mode: str) -> None:
    engine = opened("tiny-llama", mode)
    engine.prepare(work(output_tokens=200))
    engine.rewind(0)
    opened_at = engine.sync()
    first = engine.prefill()
    steps = list(engine.decode(199))
    closed_at = engine.sync()
    stamps = [first.at_ns, *(step.at_ns for step in steps)]
    assert sorted(stamps) == stamps
    assert opened_at <= stamps[0] and stamps[-1] <= closed_at + 1_000_000
    assert engine.clock_error_s is not None and engine.clock_error_s < 1e-3
    assert engine.facts.stamped_by == "device_event"
    opening, closing = engine.anchors()
    assert opening.before_at_ns <= opening.after_at_ns <= closing.before_at_ns <= closing.after_at_ns <= closed_at
    assert engine.launched_at_ns is not None and opening.after_at_ns <= engine.launched_at_ns <= closing.before_at_ns


def test_the_peak_is_that_of_the_repetition(opened: Open) -> None:
    engine = opened("tiny-llama", "compiled")
    engine.prepare(work())
    torch.empty(1 << 30, dtype=torch.uint8, device=GPU)
    run(engine, 23)
    peaks = {reading.source: reading.value_bytes for reading in engine.memory()}
    assert peaks["allocator_peak"] < 1 << 30


def test_two_cells_of_one_shape_share_a_graph_and_the_first_is_freed(opened: Open) -> None:
    engine = opened("tiny-llama", "compiled")
    engine.prepare(work(rows=64, output_tokens=4000))
    graphs, held = engine.graphs_compiled, torch.cuda.memory_allocated()
    tokens = run(engine, 23)
    engine.prepare(work(rows=64, output_tokens=4000, seed=9))
    assert graphs == engine.graphs_compiled
    assert run(engine, 23) != tokens
    assert torch.cuda.memory_allocated() == pytest.approx(held, rel=0.1)
    engine.prepare(work(rows=1))
    assert torch.cuda.memory_allocated() < held / 2
    engine.close()
    gc.collect()
    assert torch.cuda.memory_allocated() < 64 << 20


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_exhausted_memory_has_its_type_and_everything_comes_back(opened: Open, mode: str) -> None:
    engine = opened("tiny-llama", mode)
    engine.prepare(work())
    before = torch.cuda.memory_allocated()
    with pytest.raises(torch.OutOfMemoryError):
        engine.prepare(work(rows=4096, prompt_tokens=64, output_tokens=1 << 24))
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + (1 << 20)
    engine.prepare(work())
    assert len(run(engine, 23)[0]) == 24


def test_weights_that_do_not_fit_are_out_of_memory() -> None:
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(int(free * 0.98), dtype=torch.uint8, device=GPU)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            TransformersEngine(request("Llama-3.1-8B-Instruct", dtype="bfloat16", device=GPU))
    finally:
        del ballast
    gc.collect()
    torch.cuda.empty_cache()


def test_random_weights_are_drawn_where_they_lie(opened: Open) -> None:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    engine = opened("Llama-3.2-1B-Instruct", "eager")
    weight_bytes = engine.model_facts.weight_bytes
    assert weight_bytes is not None
    held = torch.cuda.memory_allocated() - before
    assert held == pytest.approx(weight_bytes, rel=0.01)
    head = 2 * 128256 * 2048  # a tied head is made before it is tied
    assert torch.cuda.max_memory_allocated() - before < weight_bytes * 1.01 + head


def test_the_device_of_torch_is_the_card_that_the_driver_knows() -> None:
    gpus = [device for device in probe_devices() if device.kind in ("cuda", "rocm")]
    assert len(gpus) == torch.cuda.device_count()
    assert gpus[0].name == torch.cuda.get_device_name(0)
    binding = load_nvml()
    if binding is None or gpus[0].kind != "cuda":
        pytest.skip("no NVML")
    assert gpus[0].uuid is not None and gpus[0].uuid.removeprefix("GPU-") == str(
        torch.cuda.get_device_properties(0).uuid
    )
    assert gpus[0].driver_version is not None


def test_ceilings_are_timed_by_the_device_and_leave_no_memory() -> None:
    ceilings = measure_ceilings(GPU, "bfloat16", 2.0)
    print(ceilings)
    assert ceilings.read_bytes_per_s is not None and ceilings.read_bytes_per_s > 0
    assert "device events" in ceilings.method
    assert ceilings.repetitions is not None and ceilings.repetitions >= 5
    gc.collect()
    assert torch.cuda.memory_allocated() < 64 << 20


def test_the_kernels_of_a_captured_step_are_counted(opened: Open) -> None:
    counts = []
    for layers in (1, 2):
        engine = opened("tiny-llama", "compiled", overrides={"num_hidden_layers": layers})
        prepared = engine.prepare(work(rows=1))
        assert prepared.kernels_counted_by == "kernel nodes of the captured graph"
        assert prepared.kernels_per_step is not None
        counts.append(prepared.kernels_per_step)
    assert 3 <= counts[1] - counts[0] <= 40  # kernels of one layer


def test_attention_is_chosen_by_timing_and_named_ones_are_kept(opened: Open) -> None:
    free = opened("tiny-llama", "compiled", "float32")
    free.prepare(work())
    assert any("timed alone: sdpa_gqa" in note for note in free.facts.notes), free.facts.notes
    assert free.facts.attention_kernel in ("sdpa_gqa", "split_gqa")
    named = opened("tiny-llama", "compiled", "float32", attention="split_gqa")
    named.prepare(work())
    assert (True, "split_gqa") == (named.facts.cuda_graphs, named.facts.attention_kernel)
    assert [note for note in named.facts.notes if "timed alone" in note] == []
    assert run(free, 23) == run(named, 23)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{"compile_prefill": "always"}, {"compile_prefill": "never"}, {"prefill_chunk": 5}])
def test_every_way_to_prefill_makes_the_tokens_of_generate(opened: Open, shape: str, options: dict[str, Any]) -> None:
    if shape == "tiny-gpt-oss" and "prefill_chunk" in options:
        pytest.skip("a sliding window cannot be filled in chunks")
    engine = opened(shape, "compiled", "float32", options={**UNTUNED, **options})
    engine.prepare(work())
    assert_captured(engine.facts)
    graphs = engine.graphs_compiled
    run(engine, 3)
    assert graphs == engine.graphs_compiled  # a second prefill in the warm-up or in a window is no new graph
    found = engine.check_identity(24)
    assert found is not None and found.first_divergence is None, found


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_the_same_prompts_twice_give_the_same_tokens(opened: Open, mode: str) -> None:
    engine = opened("tiny-llama", mode)
    engine.prepare(work())
    found = engine.check_repeat(16)
    print(mode, found)
    assert found[0].against == "itself" and found[0].tokens_equal
