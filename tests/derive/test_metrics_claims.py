"""Metrics that claims ask for: one case by hand, and where each is undefined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from builders import Script
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.record.observations import ExperimentPoint, RepeatabilityChecked, TrialFinished
from tokbench.record.run import read_run
from tokbench.stats import Estimate

WINDOWS = (("free", 0.11), ("delayed", 0.135), ("delayed", 0.135), ("free", 0.11), ("exchanges alone", 0.01))
"""0.1 s of work beside 0.01 s of the loopback, and 0.025 s of delay: 0.1 / 0.125 is kept."""


def results_of(script: Script, folder: Path) -> tuple[CellResult, ...]:
    script.write(folder)
    return evaluate(read_run(folder), "run").cells


def value_of(cell: CellResult, name: str) -> float:
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value.value


def reason_of(cell: CellResult, name: str) -> str:
    value = cell.metrics[name]
    assert isinstance(value, Missing), value
    return value.reason


def linked(folder: Path, windows: Sequence[tuple[str, float]], cut: str = "tensor") -> CellResult:
    script = Script()
    cell_id = script.cell()
    for _ in range(3):
        trial_id = script.trial(cell_id)
        finished = script.events.pop()
        assert isinstance(finished, TrialFinished)
        for index, (link, seconds) in enumerate(windows):
            point = ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/{index}",
                experiment="link",
                settings={"cut": cut, "link": link, "window": index},
                duration_s=seconds,
                stamped_by="script",
            )
            script.add(point)
        script.add(finished)
    (cell,) = results_of(script, folder)
    return cell


@pytest.mark.parametrize(
    ("cut", "kept", "other"),
    [
        ("tensor", "tensor_link_kept_ratio", "pipeline_link_kept_ratio"),
        ("pipeline", "pipeline_link_kept_ratio", "tensor_link_kept_ratio"),
    ],
)
def test_a_link_costs_what_it_adds_to_the_work_between_exchanges(
    tmp_path: Path, cut: str, kept: str, other: str
) -> None:
    cell = linked(tmp_path, WINDOWS, cut)
    assert pytest.approx(0.8) == value_of(cell, kept)
    assert "no experiment of a link" in reason_of(cell, other)


def test_a_link_has_no_cost_without_its_free_windows(tmp_path: Path) -> None:
    assert "no experiment of a link" in reason_of(linked(tmp_path, WINDOWS[1:3]), "tensor_link_kept_ratio")


def test_a_step_that_is_nothing_but_exchange_tells_no_cost(tmp_path: Path) -> None:
    cell = linked(tmp_path, [("free", 0.01), ("delayed", 0.02), ("exchanges alone", 0.01)])
    assert "took as long as the steps" in reason_of(cell, "tensor_link_kept_ratio")


def test_delayed_steps_that_are_nothing_but_exchange_tell_none_either(tmp_path: Path) -> None:
    """The report ended with a ZeroDivisionError."""
    cell = linked(tmp_path, [("free", 0.02), ("delayed", 0.01), ("exchanges alone", 0.01)])
    assert "took as long as the steps" in reason_of(cell, "tensor_link_kept_ratio")


def frameworks(folder: Path, **steps: float) -> dict[str, CellResult]:
    """One cell for each framework, with its step time; `other` runs on another platform."""
    script = Script()
    for name, step_s in steps.items():
        labels = {"framework": name, "platform": "cuda" if name == "other" else "cpu"}
        cell_id = script.cell(mode=name, labels=labels)
        for _ in range(3):
            script.trial(cell_id, step_s=step_s)
    return {cell.labels["framework"]: cell for cell in results_of(script, folder)}


def test_a_framework_is_set_beside_the_fastest_on_its_platform(tmp_path: Path) -> None:
    found = frameworks(tmp_path, torch=0.02, jax=0.05, other=0.001)
    assert pytest.approx(1.0) == value_of(found["torch"], "best_framework_ratio")
    assert pytest.approx(0.4) == value_of(found["jax"], "best_framework_ratio")
    assert "no second framework" in reason_of(found["other"], "best_framework_ratio")


def test_the_fastest_of_two_cells_of_one_framework_counts(tmp_path: Path) -> None:
    """Torch eager after torch compiled, both labelled torch: the slower stood for both, and a share was 2.5."""
    script = Script()
    for name, mode, step_s in (("torch", "compiled", 0.02), ("torch", "eager", 0.05), ("jax", "jax", 0.1)):
        cell_id = script.cell(mode=mode, labels={"framework": name, "platform": "cpu"})
        for _ in range(3):
            script.trial(cell_id, step_s=step_s)
    shares = [value_of(cell, "best_framework_ratio") for cell in results_of(script, tmp_path)]
    assert pytest.approx([1.0, 0.4, 0.2]) == shares


def test_a_cell_without_a_framework_has_no_share(tmp_path: Path) -> None:
    assert "names no framework" in reason_of(linked(tmp_path, ()), "best_framework_ratio")


def repeated(folder: Path, *states: bool | None) -> CellResult:
    script = Script()
    cell_id = script.cell()
    for equal in states:
        check = RepeatabilityChecked(
            cell_id=cell_id, against="itself", steps=4, tokens_equal=True, states_equal=equal, max_abs_difference=None
        )
        script.add(check, check.model_copy(update={"against": "alone", "states_equal": False}))
    script.trial(cell_id)
    (cell,) = results_of(script, folder)
    return cell


def test_repeats_count_where_every_bit_is_the_same(tmp_path: Path) -> None:
    value = repeated(tmp_path, True, False, None).metrics["identical_repeats_ratio"]
    assert isinstance(value, Estimate)
    assert (0.5, "exact") == (value.value, value.statistic)


def test_what_was_not_repeated_or_not_shown_has_no_share(tmp_path: Path) -> None:
    assert "worked through twice" in reason_of(repeated(tmp_path, None), "identical_repeats_ratio")
