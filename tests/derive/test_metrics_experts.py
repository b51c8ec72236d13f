"""Metrics of mixtures of experts: each by hand, and each where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_builders import MoeScript
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.stats import Estimate

EVEN = {"routing": "uniform"}


def cells_of(script: MoeScript, folder: Path) -> dict[str, CellResult]:
    return {cell.cell_id: cell for cell in evaluate(script.run(folder), "run").cells}


def value(cell: CellResult, name: str) -> float:
    found = cell.metrics[name]
    assert isinstance(found, Estimate), found
    return found.value


def reason(cell: CellResult, name: str) -> str:
    found = cell.metrics[name]
    assert isinstance(found, Missing), found
    return found.reason


def test_distinct_experts_is_the_mean_over_layers_and_steps(tmp_path: Path) -> None:
    script = MoeScript()
    cell_id = script.shaped("cpu-moe", rows=4, touches=[(10, 12), (14, 16)])
    cell = cells_of(script, tmp_path)[cell_id]

    assert 13.0 == value(cell, "distinct_experts")
    assert "exact" == cell.metrics["distinct_experts"].statistic  # type: ignore[union-attr]


def test_distinct_experts_is_missing_where_nobody_looked_and_in_a_dense_model(tmp_path: Path) -> None:
    script = MoeScript()
    unseen, dense = script.shaped("cpu-moe"), script.shaped("cpu-dense-active")
    cells = cells_of(script, tmp_path)

    assert "was looked at" in reason(cells[unseen], "distinct_experts")
    assert "no routed experts" in reason(cells[dense], "distinct_experts")


def test_predicted_distinct_experts_is_the_closed_form(tmp_path: Path) -> None:
    script = MoeScript()
    mixture, dense = script.shaped("cpu-moe", rows=2), script.shaped("cpu-dense-total", rows=2)
    cells = cells_of(script, tmp_path)

    assert 32 * (1 - (28 / 32) ** 2) == value(cells[mixture], "predicted_distinct_experts")
    assert "no routed experts" in reason(cells[dense], "predicted_distinct_experts")


def test_copied_expert_bytes_is_the_mean_over_steps_of_the_sum_over_layers(tmp_path: Path) -> None:
    script = MoeScript()
    half = script.shaped(
        "cpu-moe", options={"resident_experts": 0.5}, touches=[(4, 4), (4, 4)], copied=[(100, 0), (300, 200)]
    )
    whole = script.shaped("cpu-moe", touches=[(4, 4), (4, 4)])
    untold = script.shaped("cpu-moe", options={"resident_experts": 0.25}, touches=[(4, 4), (4, 4)])
    cells = cells_of(script, tmp_path)

    assert 300.0 == value(cells[half], "copied_expert_bytes")
    assert "all experts lie on the device" in reason(cells[whole], "copied_expert_bytes")
    assert "does not tell" in reason(cells[untold], "copied_expert_bytes")


def test_offload_kept_ratio_is_beside_the_same_cell_with_all_resident(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-moe", options=EVEN, step_s=(0.010, 0.010))
    script.shaped("cpu-moe", step_s=(0.001,))  # routed otherwise: not what it is set beside
    script.shaped("cpu-moe", rows=2, options=EVEN, step_s=(0.001,))
    half = script.shaped("cpu-moe", options={**EVEN, "resident_experts": 0.5}, step_s=(0.040, 0.040))
    cell = cells_of(script, tmp_path)[half]

    assert pytest.approx(0.25) == value(cell, "offload_kept_ratio")


def test_a_share_of_one_said_aloud_is_all_resident(tmp_path: Path) -> None:
    script = MoeScript()
    whole = script.shaped("cpu-moe", options={"resident_experts": 1.0}, step_s=(0.010,))
    half = script.shaped("cpu-moe", options={"resident_experts": 0.5}, step_s=(0.020,))
    cells = cells_of(script, tmp_path)

    assert pytest.approx(0.5) == value(cells[half], "offload_kept_ratio")
    assert "all experts lie on the device" in reason(cells[whole], "offload_kept_ratio")


def test_offload_kept_ratio_needs_the_other_cell(tmp_path: Path) -> None:
    script = MoeScript()
    half = script.shaped("cpu-moe", options={"resident_experts": 0.5})

    assert "was not measured" in reason(cells_of(script, tmp_path)[half], "offload_kept_ratio")
