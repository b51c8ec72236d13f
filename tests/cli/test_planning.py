"""`tokbench plan` says what the blocks are and what they cost beside the repetitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripted_measure import config_text
from tokbench.cli.planning import show_plan

THREE = "{rel_ci: 0.02, min_repetitions: 3, max_repetitions: 9}"


def planned(folder: Path, capsys: pytest.CaptureFixture[str], text: str, *, as_json: bool = False) -> str:
    path = folder / "asked.yaml"
    path.write_text(text, encoding="utf-8")
    show_plan(path, (), quick=False, allow_busy=False, as_json=as_json)
    return capsys.readouterr().out


def test_the_plan_tells_the_blocks_and_what_fresh_workers_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config_text(("a", "b"), stop=THREE)
    said = planned(tmp_path, capsys, text)
    assert "3 blocks at least, each in fresh worker processes: loading 2 x weights each time; a block that" in said
    assert "on top of the budget" not in said
    said = planned(tmp_path, capsys, config_text(("a", "b"), stop=THREE, budget="{total: 60s, cold: 90s}"))
    assert "loading 2 x weights each time (up to 90 s of it in all on top of the budget)" in said
    plain = json.loads(planned(tmp_path, capsys, text, as_json=True))
    assert (3, 6) == (plain["blocks"], plain["loads"])


def test_the_plan_says_that_one_process_tells_no_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = planned(tmp_path, capsys, config_text(("a", "b")))
    assert "later ones in the same worker processes: no spread between processes is told" in said
    assert "fresh" not in said


def test_the_plan_says_what_its_time_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """name: asked
model: {source: "shape:cpu-dense-active", weights: random, dtype: float32}
engine: {kind: transformers, mode: eager}
device: cpu
workload: {kind: synthetic, prompt_tokens: 16, output_tokens: 16}
load: {kind: static_batch, static_batch: 1}
"""
    assert "each without loading and compiling; the budget is" in planned(tmp_path, capsys, text)
    with_both = (
        text + "experiment: [none, {kind: verify_cost}]\nspeculation: [none, {method: prompt_lookup, gamma: 2}]\n"
    )
    said = planned(tmp_path, capsys, with_both + "exclude: [{experiment.kind: verify_cost, speculation.gamma: 2}]\n")
    assert "without loading, compiling, the experiments of 1 cells and what drafts cost or save in 1 cells" in said
