"""Cells of requests: gaps between tokens where each has a stamp, and a report that speaks of requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.report.write import write_report
from tokbench.stats import Estimate

ONE_BY_ONE = [(0.0, (0.2, 0.3, 0.5), (1, 1, 1)), (0.0, (0.2, 0.6, 0.7), (1, 1, 1))]


def only_cell(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(script.run(folder), "run").cells
    return cell


@pytest.mark.parametrize(("name", "expected"), [("itl_p50_s", 0.15), ("itl_p99_s", 0.2 + 0.2 * 0.97)])
def test_gaps_between_tokens_that_came_one_by_one(tmp_path: Path, name: str, expected: float) -> None:
    script = Script()
    script.requests(script.cell(concurrency=2, output_tokens=3), ONE_BY_ONE)
    value = only_cell(script, tmp_path).metrics[name]  # gaps: 0.1, 0.2, 0.4, 0.1
    assert isinstance(value, Estimate)
    assert value.value == pytest.approx(expected, rel=1e-6)


def test_gaps_are_undefined_where_a_chunk_held_several(tmp_path: Path) -> None:
    script = Script()
    script.requests(script.cell(concurrency=2, output_tokens=3), [ONE_BY_ONE[0], (0.0, (0.2, 0.6), (1, 2))])
    value = only_cell(script, tmp_path).metrics["itl_p50_s"]
    assert isinstance(value, Missing) and "several tokens" in value.reason


def report_of(script: Script, folder: Path) -> str:
    results = [evaluate(script.run(folder), "run")]
    paths = write_report(results, (), folder / "out", vendors=(), with_figures=False)
    return paths.markdown.read_text(encoding="utf-8")


def test_a_report_of_requests_speaks_of_requests(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(concurrency=2, output_tokens=3)
    script.identity(cell_id)
    script.requests(cell_id, ONE_BY_ONE)
    text = report_of(script, tmp_path)
    assert "generation, requests answered side by side." in text
    assert "A closed load sends a request only when another one has ended" in text
    assert "A static batch sends equal prompts" not in text


def test_a_report_of_static_batches_does_not(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(output_tokens=5)
    script.identity(cell_id)
    script.trial(cell_id)
    text = report_of(script, tmp_path)
    assert "generation, first row of the batch." in text
    assert "A static batch sends equal prompts" in text
    assert "A closed load" not in text
