"""Ceilings on small buffers of the CPU: the passes that really ran, on the device that was asked for."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tokbench.measure import ceilings  # noqa: E402


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "CPU_BUFFER_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "MIN_CPU_BUFFER_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "CPU_MATRIX", 32)


@pytest.mark.parametrize(("budget_s", "passes"), [(0.0, ceilings.MIN_PASSES), (60.0, ceilings.MAX_PASSES)])
def test_the_passes_that_ran_are_told(budget_s: float, passes: int) -> None:
    assert passes == ceilings.measure_ceilings("cpu", "float32", budget_s).repetitions


def test_the_fewest_passes_of_both_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_time_product", lambda *_: ceilings._Timed(1.0, 7))
    assert 7 == ceilings.measure_ceilings("cpu", "float32", 60.0).repetitions


def test_the_gpu_that_was_asked_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(ceilings, "_time_reading", lambda *_: (1, ceilings._Timed(1.0, 5)))
    monkeypatch.setattr(ceilings, "_time_product", lambda *_: ceilings._Timed(1.0, 5))
    ceilings.measure_ceilings("cuda:1", "bfloat16", 1.0)
    assert [torch.device("cuda:1")] == chosen
