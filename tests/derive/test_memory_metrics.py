"""Peak memory: what it is read from, and what is left of a cell that memory did not suffice for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from builders import Script
from scripted_facts import CPU
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.metrics import catalog
from tokbench.derive.report.write import write_report
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import MemoryReading
from tokbench.stats import Estimate


def only_cell(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(script.run(folder), "run").cells
    return cell


def value_of(cell: CellResult, name: str) -> float:
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value.value


def test_peak_memory_of_a_process_where_no_allocator_tells(tmp_path: Path) -> None:
    device = DeviceFacts(kind="cpu", name=CPU.name)
    script = Script(device=device)
    cell_id = script.cell()
    script.trial(cell_id, peak_bytes=3_000_000_000)
    events = [
        event.model_copy(update={"source": "rss_peak"}) if event.event == "memory_reading" else event
        for event in script.events
    ]
    script.events[:] = events
    assert value_of(only_cell(script, tmp_path), "peak_memory_bytes") == 3e9


def test_peak_memory_of_a_process_is_that_of_its_trials(tmp_path: Path) -> None:
    """What the process held before the cell's own trials, while it loaded weights, is not the cell's."""
    script = Script(device=DeviceFacts(kind="cpu", name=CPU.name))
    cell_id = script.cell()
    earlier = MemoryReading(trial_id=None, cell_id=cell_id, at_ns=1, source="rss_peak", value_bytes=9_000_000_000)
    script.add(earlier)
    for value in (3_000_000_000, 4_000_000_000):
        trial_id = script.trial(cell_id, peak_bytes=None)
        script.add(earlier.model_copy(update={"trial_id": trial_id, "value_bytes": value}))
    assert value_of(only_cell(script, tmp_path), "peak_memory_bytes") == 4e9
    assert "whole worker process" in catalog()["peak_memory_bytes"].formula


@pytest.mark.parametrize("is_in_a_trial", [True, False])
@pytest.mark.parametrize("source", ["allocator_peak", "rss_peak"])
def test_a_cell_that_did_not_fit_tells_how_far_it_came(
    tmp_path: Path, source: Literal["allocator_peak", "rss_peak"], is_in_a_trial: bool
) -> None:
    script = Script()
    cell_id = script.cell()
    script.fail(cell_id, "oom", "out of memory")
    trial_id = "t0" if is_in_a_trial else None
    at_ns = script.now_ns
    script.add(MemoryReading(trial_id=trial_id, cell_id=cell_id, at_ns=at_ns, source=source, value_bytes=11_000))
    cell = only_cell(script, tmp_path)
    assert ("oom", 11_000) == (cell.status, value_of(cell, "peak_memory_bytes"))
    assert Missing("out of memory") == cell.metrics["steady_memory_bytes"]


def test_the_report_and_the_summary_show_the_peak_of_a_cell_that_did_not_fit(tmp_path: Path) -> None:
    script = Script()
    small, large = script.cell(), script.cell(static_batch=64)
    for _ in range(3):
        script.trial(small)
    script.fail(large, "oom", "CUDA out of memory")
    peak = MemoryReading(trial_id="t3", cell_id=large, at_ns=1, source="allocator_peak", value_bytes=76_500_000_000)
    script.add(peak)
    script.end()
    paths = write_report([evaluate(script.run(tmp_path / "run"), "run")], (), tmp_path / "report", vendors=())
    _, cell = json.loads((paths.markdown.parent / "summary.json").read_text(encoding="utf-8"))["cells"]
    assert ("oom", 76_500_000_000) == (cell["status"], cell["metrics"]["peak_memory_bytes"]["value"])
    report = paths.markdown.read_text(encoding="utf-8").splitlines()
    row = next(line for line in report if line.startswith("|") and line.endswith(f"| {large} |"))
    assert "76.5 GB" in row and "out of memory" in row
