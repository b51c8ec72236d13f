"""What thinking costs: seconds, joules and cache per answer, the exponent, right answers, lengths over speeds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from quality_builders import Lab
from report_builders import FIGURES, VENDORS, figure, rich_script
from tokbench.arithmetic import kv_cache_bytes
from tokbench.derive.evaluate import Missing, Results, evaluate
from tokbench.derive.reasoning import thinking
from tokbench.derive.reasoning.lengths import list_speeds, reading_tokens_per_s
from tokbench.derive.reasoning.thinking import Thinking, find_thinking
from tokbench.derive.report.write import Extras, write_report
from tokbench.record.catalog import find_model
from tokbench.record.run import read_run
from tokbench.record.spec import ExperimentSpec
from tokbench.stats import Estimate

ANSWER, STEP_S, PREFILL_S = 10, 0.02, 0.1
BUDGETS = (0, 10, 90)


def question(extra_s: float = 0.0) -> Lab:
    """Answers of ten tokens behind 0, 10 and 90 of thinking; each step beyond the tenth takes `extra_s` more."""
    lab = Lab()
    for budget in BUDGETS:
        labels = {"claim": "hidden-tokens", "thinking_tokens": str(budget)}
        cell_id = lab.cell(experiment="none", labels=labels, output_tokens=ANSWER + budget)
        steps = [STEP_S + (extra_s if index >= ANSWER else 0) for index in range(ANSWER + budget - 1)]
        for _ in range(3):
            lab.trial(cell_id, [], steps_s=steps)
    return lab


def results_of(lab: Lab, folder: Path) -> Results:
    lab.script.write(folder)
    return evaluate(read_run(folder), "lab")


def thinking_of(lab: Lab, folder: Path) -> Thinking:
    (found,) = find_thinking(results_of(lab, folder))
    return found


def report(results: Results, folder: Path, language: str = "en") -> str:
    paths = write_report(
        [results], FIGURES, folder, vendors=VENDORS, with_figures=False, extras=Extras(language=language)
    )
    return paths.markdown.read_text(encoding="utf-8")


def test_an_answer_costs_its_hidden_tokens(tmp_path: Path) -> None:
    found = thinking_of(question(), tmp_path)
    assert list(BUDGETS) == [thought.thinking_tokens for thought in found.thoughts]
    assert [ANSWER] * 3 == [thought.answer_tokens for thought in found.thoughts]
    for thought in found.thoughts:
        seconds = PREFILL_S + STEP_S * (ANSWER + thought.thinking_tokens - 1)
        assert isinstance(thought.seconds, Estimate)
        assert thought.seconds.value == pytest.approx(seconds)
        if thought.thinking_tokens:
            assert thought.predicted_s == pytest.approx(seconds)  # every token takes as long as those of budget 0
    assert found.thoughts[0].predicted_s is None


def test_the_exponent_is_the_slope_of_the_logarithms(tmp_path: Path) -> None:
    found = thinking_of(question(), tmp_path)
    x = [math.log(ANSWER + budget) for budget in BUDGETS]
    y = [math.log(PREFILL_S + STEP_S * (ANSWER + budget - 1)) for budget in BUDGETS]
    middle = [sum(values) / 3 for values in (x, y)]
    slope = sum((a - middle[0]) * (b - middle[1]) for a, b in zip(x, y, strict=True))
    spread = sum((a - middle[0]) ** 2 for a in x)
    exponent = slope / spread
    assert found.exponent == pytest.approx(exponent)
    left = sum((b - middle[1] - exponent * (a - middle[0])) ** 2 for a, b in zip(x, y, strict=True))
    half = 12.7062 * math.sqrt(left / spread)  # t(0.975, 1), three points
    assert found.exponent_interval == pytest.approx((exponent - half, exponent + half), rel=1e-4)


def test_slower_steps_of_a_longer_context_stand_beside_the_prediction(tmp_path: Path) -> None:
    last = thinking_of(question(extra_s=0.02), tmp_path).thoughts[-1]
    assert isinstance(last.seconds, Estimate) and last.predicted_s is not None
    assert last.seconds.value - last.predicted_s == pytest.approx(0.02 * 89)


def test_what_is_not_metered_or_priced_is_missing_and_the_cache_follows_the_closed_form(tmp_path: Path) -> None:
    last = thinking_of(question(), tmp_path).thoughts[-1]
    assert isinstance(last.joules, Missing) and isinstance(last.usd, Missing) and isinstance(last.kv_bytes, Missing)
    shape = find_model("Llama-3.1-8B-Instruct").shape
    assert kv_cache_bytes(shape, 8 + 100 - 1) == last.predicted_kv_bytes == 131_072 * 107


def test_a_label_that_is_no_budget_is_none(tmp_path: Path) -> None:
    lab = Lab()
    for said, output in (("swept", 4), ("4", 4), ("-1", 5)):
        lab.trial(lab.cell(labels={"thinking_tokens": said}, output_tokens=output), [], steps_s=[0.02] * (output - 1))
    assert () == find_thinking(results_of(lab, tmp_path))


def test_the_section_says_growth_and_lengths(tmp_path: Path) -> None:
    text = report(results_of(question(), tmp_path / "run"), tmp_path / "report")
    assert "## What thinking costs\n" in text and "### How long an answer takes\n" in text
    assert "with 90 thinking tokens instead of 0 an answer of 10 tokens takes 7.43x as long" in text
    assert "grow with the 0.878 power of the output tokens (0.487 – 1.27, 95 % interval of a line" in text
    assert "10 tokens/s is 1.89x that and 30 is 5.67x" in text
    assert "an answer of 900 tokens takes 30 s at 30.0 tokens/s and 3 s at 300. Of 3 published speeds" in text
    assert "fast enough to read along | 30.0 | 3.33 s | 10.0 s | 33.3 s | 100 s | 333 s | 1,000 s" in text
    assert "Right answers over" not in text


def test_a_budget_without_a_prediction_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said of every budget that the others were predicted from it."""
    results = results_of(question(), tmp_path / "run")
    assert "lacks a time" not in report(results, tmp_path / "whole")
    monkeypatch.setattr(thinking, "_predicted_s", lambda cell, least: None)
    text = report(results, tmp_path / "without")
    assert "this budget or the least one lacks a time" in text and "the others are predicted from it" in text


def test_the_section_speaks_chinese(tmp_path: Path) -> None:
    text = report(results_of(question(), tmp_path / "run"), tmp_path / "report", "zh")
    assert "## 思考的代价" in text and "30 秒变 3 秒" in text and "What thinking" not in text


def test_right_answers_are_shown_and_a_small_model_decides_nothing(tmp_path: Path) -> None:
    for parameters, reading in ((135_000_000, "plumbing and cost only"), (2_000_000_000, "no gain told from none")):
        lab = Lab()
        spec = ExperimentSpec(kind="answers", options={"task": "clock"})
        cell_id = lab.cell(experiment=spec, parameters=parameters)
        points = [
            (
                {"task": "clock", "phase": "answer", "budget": budget},
                {"right.a": first, "right.b": 1, "thinking.a": budget, "thinking.b": budget},
            )
            for budget, first in ((0, 0), (8, 0), (64, 1))
        ]
        lab.trial(cell_id, points, steps_s=[0.02] * 3)
        text = report(results_of(lab, tmp_path / reading / "run"), tmp_path / reading / "report")
        row = next(line for line in text.splitlines() if "| clock |" in line)
        assert "| 1 of 2 | 1 of 2 | 2 of 2 |" in row and reading in row


def test_a_run_that_does_not_think_has_no_such_section(tmp_path: Path) -> None:
    rich_script().write(tmp_path / "run")
    text = report(evaluate(read_run(tmp_path / "run"), "rich"), tmp_path / "report")
    assert "What thinking costs" not in text and "How long an answer takes" not in text


def test_speeds_are_thresholds_ours_and_both_ends_of_a_vendor(tmp_path: Path) -> None:
    cells = results_of(question(), tmp_path).cells
    figures = (*FIGURES, figure(value=900.0, published="2025-01"))
    speeds = list_speeds(cells, figures, ("cerebras", "nobody"))
    assert [10.0, 30.0, 50.0, 900.0, 2200.0] == [pytest.approx(speed.tokens_per_s) for speed in speeds]
    assert reading_tokens_per_s() == 5.29
