"""Peaks that start anew, identity checks that memory does not suffice for, and a GPU that is not the first one."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines import MemoryNow  # noqa: E402
from tokbench.measure.engines.transformers import checks, memory  # noqa: E402
from tokbench.measure.engines.transformers import engine as engine_module  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402

CPU = torch.device("cpu")


def test_the_resident_peak_is_the_one_that_can_be_reset(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").touch()
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n")
    memory.reset_peaks(CPU, tmp_path)
    assert "5" == (tmp_path / "clear_refs").read_text()
    now = [MemoryNow("rss_peak", 2048 * 1024), MemoryNow("rss_steady", 1024 * 1024)]
    assert now == memory.read_memory(CPU, tmp_path)


def test_where_the_system_has_no_such_files_the_lifetime_peak_stands(tmp_path: Path) -> None:
    memory.reset_peaks(CPU, tmp_path / "none")
    found = memory.read_memory(CPU, tmp_path / "none")
    assert ["rss_peak"] == [reading.source for reading in found]  # what is in use now, nobody tells
    assert found[0].value_bytes > 10 << 20


def test_on_a_gpu_the_allocator_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    memory.reset_peaks(torch.device("cuda:1"))
    assert [torch.device("cuda:1")] == asked


def test_emptying_the_cache_and_preparing_reset_the_peaks_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = TransformersEngine(request())
    resets: list[torch.device] = []
    monkeypatch.setattr(memory, "reset_peaks", resets.append)
    engine.prepare(work())
    assert [CPU] == resets
    run(engine, 5)
    assert [CPU] * 2 == resets
    engine.rewind(13)
    assert [CPU] * 2 == resets


def test_peaks_start_anew_once_the_cell_before_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request())
    engine.prepare(work())
    held: list[bool] = []
    monkeypatch.setattr(memory, "reset_peaks", lambda _: held.append(engine._loop is not None))
    engine.prepare(work())
    assert [False] == held


def test_work_goes_to_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def stop(_: object) -> None:
        raise PlugError("far enough")

    monkeypatch.setattr(engine_module, "load_model", stop)
    for device in ("cpu", "cuda", "cuda:1"):
        with pytest.raises(PlugError, match="far enough"):
            TransformersEngine(request(device=device))
    assert [torch.device("cuda:1")] == chosen


def test_events_are_reserved_for_every_step_before_the_first_window(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request())
    reserved: list[int] = []
    monkeypatch.setattr(engine._clock, "reserve", reserved.append)
    engine.prepare(work(output_tokens=9))
    assert [9] == reserved


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_an_identity_check_that_does_not_fit_loses_no_cell(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request("tiny-qwen3-moe", mode, experts="batched_mm"))
    engine.prepare(work())
    whole = run(engine, 23)

    def too_much(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine._model, "generate", too_much)
        assert engine.check_identity(8) is None
    assert "batched_mm" == engine._model.config._experts_implementation
    assert whole == run(engine, 23)
    assert engine.check_identity(8) is not None


def test_any_other_fault_of_the_check_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request())
    engine.prepare(work())

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(engine._model, "generate", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        engine.check_identity(8)
    assert engine._loop is None


def test_large_logits_are_not_kept_and_the_tokens_are_compared_still(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(request())
    engine.prepare(work(rows=2))
    asked: list[bool] = []
    honest = engine._model.generate

    def one_token_off(ids: torch.Tensor, **options: object) -> object:
        asked.append(bool(options["output_logits"]))
        reference = honest(ids, **options)
        reference.sequences[0, -1] = (reference.sequences[0, -1] + 1) % 512
        return reference

    monkeypatch.setattr(engine._model, "generate", one_token_off)
    for limit, has_gap in ((2 * 512 * 4 * 8 + 1, True), (2 * 512 * 4 * 8, False)):
        monkeypatch.setattr(checks, "MAX_LOGITS_BYTES", limit)
        found = engine.check_identity(8)
        assert found is not None
        assert (7, has_gap) == (found.first_divergence, found.top2_gap is not None)
    assert [True, False] == asked


def test_advice_on_attention_is_given_only_where_it_was_asked_for() -> None:
    with pytest.raises(PlugError) as told:
        TransformersEngine(request(attention="flash_attention_9"))
    assert told.value.fix is not None and "with attention 'flash_attention_9'" in told.value.message
    with pytest.raises(PlugError) as plain:
        TransformersEngine(request(overrides={"model_type": "vit"}))
    assert plain.value.fix is None and "ViTConfig" in plain.value.message
