"""What thinking is worth: right answers by hand, and whom nobody may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from quality_builders import Lab, estimate_of, reason_of
from tokbench.derive.evaluate import CellResult
from tokbench.record.spec import ExperimentSpec

ASK = ExperimentSpec(kind="answers", options={"task": "clock"})
RIGHT = {0: (0, 0), 16: (0, 0), 32: (1, 0), 64: (1, 0), 128: (1, 1), 256: (1, 0)}
"""By budget: whether questions a and b were answered right."""


def asked(
    folder: Path,
    right: dict[int, tuple[int, int]] | None = None,
    parameters: int = 2_000_000_000,
    weights: Literal["pretrained", "random"] = "pretrained",
) -> CellResult:
    lab = Lab()
    cell_id = lab.cell(experiment=ASK, parameters=parameters, weights=weights)
    points = [
        (
            {"task": "clock", "sha256": "cd" * 32, "phase": "answer", "budget": budget},
            {"right.a": first, "right.b": second, "thinking.a": budget, "thinking.b": budget / 2},
        )
        for budget, (first, second) in (RIGHT if right is None else right).items()
    ]
    lab.trial(cell_id, [({"task": "clock", "phase": "thinking", "budget": 256}, {}), *points])
    return lab.results(folder)[cell_id]


def test_gain_per_doubling_is_the_slope_over_the_first_eightfold(tmp_path: Path) -> None:
    value = estimate_of(asked(tmp_path), "accuracy_per_doubling")
    # log2 budgets 4 to 7 lie -1.5, -0.5, 0.5, 1.5 from their middle, their squares sum to 5; 0 and 256 are left out.
    a, b = (-0.5 + 0.5 + 1.5) / 5, 1.5 / 5
    assert value.value == pytest.approx((a + b) / 2)
    assert (2, "mean") == (value.n, value.statistic)


def test_what_the_largest_budget_loses(tmp_path: Path) -> None:
    assert 0.5 == estimate_of(asked(tmp_path), "accuracy_below_peak").value  # both right at 128, one at 256


def test_of_equal_budgets_the_largest_is_the_best(tmp_path: Path) -> None:
    value = estimate_of(asked(tmp_path, {0: (1, 0), 8: (0, 0), 64: (0, 1)}), "accuracy_below_peak")
    assert (0.0, 0.0, 0.0) == (value.value, value.low, value.high)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parameters": 135_000_000}, "0.135 billion parameters show the plumbing and the cost"),
        ({"weights": "random"}, "weights that were not trained answer nothing"),
    ],
)
def test_small_and_random_models_decide_nothing(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    cell = asked(tmp_path, **change)  # type: ignore[arg-type]
    for name in ("accuracy_per_doubling", "accuracy_below_peak"):
        assert reason in reason_of(cell, name)


def test_too_few_budgets_have_no_slope_and_no_peak(tmp_path: Path) -> None:
    cell = asked(tmp_path / "four", {0: (0, 0), 16: (0, 0), 64: (1, 1)})
    assert "no budget is eight times" in reason_of(cell, "accuracy_per_doubling")
    cell = asked(tmp_path / "none", {0: (0, 0)})
    assert "no budget is eight times" in reason_of(cell, "accuracy_per_doubling")
    assert "one budget has no peak" == reason_of(cell, "accuracy_below_peak")


def test_a_cell_that_asks_nothing_says_so(tmp_path: Path) -> None:
    lab = Lab()
    cell_id = lab.cell()
    lab.read(cell_id, [3.0, 3.0])
    assert "the cell has no experiment answers" == reason_of(lab.results(tmp_path)[cell_id], "accuracy_below_peak")
