"""Our joules beside published ones: a ratio where the scopes are one or a sourced band leads across, else a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from builders import Script
from energy_builders import Power, counter_readings, energy_trial, opened, period
from report_builders import figure
from scripted_facts import GPU, LLAMA_8B
from tokbench.derive.energy_scope import Beside, NotComparable
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published_joules import set_joules_beside
from tokbench.derive.report.write import write_report
from tokbench.stats import Estimate


def joules_of(
    scope: Literal["board", "wall"] | None, joules: float = 7.0, model: str = LLAMA_8B, **more: str
) -> PublishedFigure:
    row = figure(model=model).model_dump()
    changed = {"metric": "energy_j_per_output_token", "unit": "J/token", "value": joules, "energy_scope": scope}
    name = f"row-{scope or 'unsaid'}-{joules:g}"
    return PublishedFigure.model_validate({**row, "id": name, "concurrency": None, **changed, **more})


def metered(folder: Path, device: str, *weights: Literal["pretrained", "random"]) -> Results:
    script, power = Script(device=GPU.model_copy(update={"name": device})), Power()
    for kind in weights or ("pretrained",):
        cell_id = script.cell(weights=kind, static_batch=2 if kind == "random" else 1)
        script.trial(cell_id)
        energy_trial(script, cell_id, power)  # 350 W, 100 tokens/s a row: 3.5 J a token of one row
    script.add(opened(power_limit_w=400.0), period(), *counter_readings(power, 0, script.now_ns, poll_s=0.001))
    return evaluate(script.run(folder / "run"), "run")


def test_boards_are_divided_by_boards(tmp_path: Path) -> None:
    (row,) = set_joules_beside([metered(tmp_path, "NVIDIA H200")], [joules_of("board")])
    assert isinstance(row.outcome, Beside)
    assert row.outcome.low == row.outcome.high == pytest.approx(2.0, rel=1e-3)


def test_a_board_is_never_set_bare_against_the_wall(tmp_path: Path) -> None:
    (known,) = set_joules_beside([metered(tmp_path / "a", "NVIDIA H100 80GB HBM3")], [joules_of("wall")])
    assert isinstance(known.outcome, Beside)
    assert known.outcome.high < 2.0  # ours are raised by the band before they are divided by
    assert known.outcome.low < known.outcome.high
    (unknown,) = set_joules_beside([metered(tmp_path / "b", "Some Board")], [joules_of("wall")])
    assert isinstance(unknown.outcome, NotComparable)
    assert "Some Board" in unknown.outcome.reason


@pytest.mark.parametrize("row", [joules_of(None), joules_of("board", model="other/Model-3B")])
def test_neither_an_unsaid_scope_nor_another_model_gives_a_ratio(tmp_path: Path, row: PublishedFigure) -> None:
    found = set_joules_beside([metered(tmp_path, "NVIDIA H200")], [row])
    assert all(isinstance(one.outcome, NotComparable) for one in found)
    assert len(found) == (1 if row.model == LLAMA_8B else 0)


def test_random_weights_do_not_stand_for_a_model_that_was_metered(tmp_path: Path) -> None:
    """Two rows of random weights take half the joules per token of one row of real ones, and are passed over."""
    results = metered(tmp_path / "both", "NVIDIA H200", "pretrained", "random")
    real, random = (cell.metrics["energy_j_per_output_token"] for cell in results.cells)
    assert isinstance(real, Estimate) and isinstance(random, Estimate) and random.value < real.value
    (row,) = set_joules_beside([results], [joules_of("board")])
    assert "pretrained" == row.cell.conditions.weights
    (alone,) = set_joules_beside([metered(tmp_path / "alone", "NVIDIA H200", "random")], [joules_of("board")])
    assert "random" == alone.cell.conditions.weights


def test_a_repost_and_a_replaced_reading_are_left_out(tmp_path: Path) -> None:
    rows = [joules_of("board", repeats="first"), joules_of("board", 8.0, superseded_by="later")]
    assert set_joules_beside([metered(tmp_path, "NVIDIA H200")], rows) == ()


def test_the_report_tells_ratio_scopes_and_differences(tmp_path: Path) -> None:
    results = metered(tmp_path, "NVIDIA H200")
    rows = (joules_of("board"), joules_of("wall", 9.0))
    text = write_report([results], rows, tmp_path / "out", vendors=(), with_figures=False).markdown.read_text("utf-8")
    section = text.partition("### Joules per token beside published ones")[2].partition("\n## ")[0]
    for told in (
        "2.00x",
        "both of the board",
        "7.00 J/token",
        "9.00 J/token",
        "hardware",
        "https://example.org/cerebras",
    ):
        assert told in section
    bare = dataclasses.replace(results)
    alone = write_report([bare], (), tmp_path / "none", vendors=(), with_figures=False).markdown.read_text("utf-8")
    assert "Nobody is known to have published joules per token" in alone
