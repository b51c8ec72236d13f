"""Where the costs of a prediction come from: each part alone, other cells, or the rounds that it predicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from speculation_builders import DraftScript
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.speculation.costs import CostSources, cost_sources, find_gap, mean_costs
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import ModelSpec
from tokbench.stats import Estimate

ACCEPTED = (4, 0, 2, 1)
"""Of four drafts each: 5 + 1 + 3 + 2 tokens, the 11 that come after the first of 12, in four rounds of 17 ms."""


def evaluated(script: DraftScript, folder: Path) -> dict[str, CellResult]:
    return {cell.cell_id: cell for cell in evaluate(script.run(folder), "run").cells}


def value(cell: CellResult, metric: str) -> float:
    found = cell.metrics[metric]
    assert isinstance(found, Estimate), found
    return found.value


def pair(script: DraftScript, experiment: str | None = None) -> str:
    """A plain repetition in block 0, and the same cell with drafts."""
    script.plain(script.plan(), block=0)
    return script.plan("prompt_lookup", experiment=experiment)


def test_the_draft_cost_comes_from_the_drafts_own_cell_where_there_is_one(tmp_path: Path) -> None:
    """The draft decodes alone at 2 ms a step, a fifth of the target's 10; in its rounds it took 1 ms."""
    small = ModelSpec(source="hf:meta-llama/Llama-3.2-1B-Instruct", weights="pretrained")
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("draft_model", draft=small)
    alone = script.plan(model=small)
    script.plain(plain, block=0)
    script.plain(alone, step_s=0.002, block=0)
    script.rounds(cell_id, ACCEPTED, block=0)
    cells = evaluated(script, tmp_path)
    assert 0.1 == pytest.approx(value(cells[cell_id], "draft_cost_ratio"))
    assert 2.75 / (4 * 0.2 + 1.2) == pytest.approx(value(cells[cell_id], "predicted_speedup_x"))
    run = script.run(tmp_path)
    assert CostSources("apart", "rounds") == cost_sources(run, run.cells[cell_id])


def test_the_verify_cost_comes_from_the_experiment_where_there_is_one(tmp_path: Path) -> None:
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup")
    probed, larger = script.plan(experiment="verify_cost"), script.plan(experiment="verify_cost", static_batch=2)
    script.plain(plain, block=0)
    script.rounds(cell_id, ACCEPTED, block=0)
    for probe, times in ((probed, {1: 0.010, 5: 0.014, 9: 9.0}), (larger, {1: 0.010, 5: 0.050})):
        trial_id = script.plain(probe, block=0)
        for m, seconds in times.items():
            script.add(
                ExperimentPoint(
                    trial_id=trial_id,
                    window_id=f"{trial_id}/experiment/m{m}",
                    experiment="verify_cost",
                    settings={"m": m},
                    duration_s=3 * seconds,
                    stamped_by="script",
                    values={"passes": 3},
                )
            )
    cells = evaluated(script, tmp_path)
    assert 1.2 == pytest.approx(value(cells[cell_id], "verify_cost_ratio"))
    assert 2.75 / (4 * 0.1 + 1.4) == pytest.approx(value(cells[cell_id], "predicted_speedup_x"))
    run = script.run(tmp_path)
    assert CostSources("rounds", "apart") == cost_sources(run, run.cells[cell_id])


def probe_verifying(script: DraftScript, cell_id: str, passes: int, times: dict[int, float]) -> None:
    """A repetition of the experiment, each window of so many passes; seconds of one pass by m."""
    trial_id = script.plain(cell_id, block=0)
    for m, seconds in times.items():
        script.add(
            ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/m{m}",
                experiment="verify_cost",
                settings={"m": m},
                duration_s=passes * seconds,
                stamped_by="script",
                values={"passes": passes},
            )
        )


def test_a_verify_cost_is_of_one_pass_paired_within_a_repetition(tmp_path: Path) -> None:
    """Two repetitions at different paces, windows of 2 and of 6 passes: v(5) is 1.4 in both."""
    script = DraftScript()
    plain, cell_id, probed = script.plan(), script.plan("prompt_lookup"), script.plan(experiment="verify_cost")
    script.plain(plain, block=0)
    script.rounds(cell_id, ACCEPTED, block=0)
    probe_verifying(script, probed, 2, {1: 0.010, 5: 0.014})
    probe_verifying(script, probed, 6, {1: 0.020, 5: 0.028})
    probe_verifying(script, probed, 6, {1: 0.080})
    assert 2.75 / (4 * 0.1 + 1.4) == pytest.approx(value(evaluated(script, tmp_path)[cell_id], "predicted_speedup_x"))


def test_a_verify_cost_is_that_at_the_same_prompt_length_where_there_is_one(tmp_path: Path) -> None:
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup")
    deeper, alike = script.plan(experiment="verify_cost", prompt_tokens=900), script.plan(experiment="verify_cost")
    script.plain(plain, block=0)
    script.rounds(cell_id, ACCEPTED, block=0)
    probe_verifying(script, deeper, 2, {1: 0.010, 5: 0.050})
    probe_verifying(script, alike, 2, {1: 0.010, 5: 0.014})
    assert 2.75 / (4 * 0.1 + 1.4) == pytest.approx(value(evaluated(script, tmp_path)[cell_id], "predicted_speedup_x"))


def time_alone(script: DraftScript, trial_id: str, passes: int, **seconds: tuple[float, ...]) -> None:
    """Points of `round_parts` in a repetition: seconds of one pass, by part and window."""
    for part, windows in seconds.items():
        for window, pass_s in enumerate(windows):
            script.add(
                ExperimentPoint(
                    trial_id=trial_id,
                    window_id=f"{trial_id}/experiment/{part}/{window}",
                    experiment="round_parts",
                    settings={"part": part, "window": window},
                    duration_s=passes * pass_s,
                    stamped_by="script",
                    values={"passes": passes},
                )
            )


def test_costs_of_each_part_alone_are_preferred_and_paired_within_a_repetition(tmp_path: Path) -> None:
    """Alone a plain step took 20 ms, four drafts 16 and verification 28, the median of three windows: 0.8 and 1.4."""
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup", experiment="round_parts")
    verified = script.plan(experiment="verify_cost")
    script.plain(plain, block=0)
    first, second = (script.rounds(cell_id, ACCEPTED, block=0) for _ in range(2))
    probe_verifying(script, verified, 2, {1: 0.010, 5: 0.090})
    time_alone(script, first, 3, plain=(0.02, 0.9, 0.02), draft=(0.016, 0.016, 9.0), verify=(0.028, 0.028, 0.0))
    time_alone(script, second, 1, plain=(0.01,), draft=(0.002,), verify=(0.01,))
    cells = evaluated(script, tmp_path)
    found = cells[cell_id].metrics["predicted_speedup_x"]
    assert isinstance(found, Estimate)
    assert ((2.75 / 2.2) * (2.75 / 1.2)) ** 0.5 == pytest.approx(found.value)
    assert 1.2 == pytest.approx(value(cells[cell_id], "verify_cost_ratio")), "in the rounds it is still 12 of 10 ms"
    run = script.run(tmp_path)
    assert CostSources("alone", "alone") == cost_sources(run, run.cells[cell_id])
    assert (pytest.approx(0.5), pytest.approx(1.2)) == mean_costs(run, run.cells[cell_id])


def test_costs_alone_serve_the_same_rounds_over_other_prompts_and_no_other_rounds(tmp_path: Path) -> None:
    script = DraftScript()
    probed = script.plan("prompt_lookup", task="edit", experiment="round_parts")
    plain, cell_id = script.plan(task="code"), script.plan("prompt_lookup", task="code")
    wider = script.plan("prompt_lookup", 3, task="code")
    script.plain(plain, block=0)
    trial_id = script.rounds(probed, ACCEPTED, block=0)
    time_alone(script, trial_id, 2, plain=(0.01,), draft=(0.002,), verify=(0.02,))
    script.rounds(cell_id, ACCEPTED, block=0)
    script.rounds(wider, (3, 3, 2), block=0)
    cells, run = evaluated(script, tmp_path), script.run(tmp_path)
    assert 2.75 / (0.2 + 2.0) == pytest.approx(value(cells[cell_id], "predicted_speedup_x"))
    assert CostSources("alone", "alone") == cost_sources(run, run.cells[cell_id])
    assert CostSources("rounds", "rounds") == cost_sources(run, run.cells[wider])


def test_a_part_that_was_not_timed_alone_makes_no_cost(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = pair(script, experiment="round_parts")
    time_alone(script, script.rounds(cell_id, ACCEPTED, block=0), 2, plain=(0.01,), verify=(0.02,))
    run = script.run(tmp_path)
    assert CostSources("rounds", "rounds") == cost_sources(run, run.cells[cell_id])
    assert 2.75 / 1.6 == pytest.approx(value(evaluated(script, tmp_path)[cell_id], "predicted_speedup_x"))


def test_what_a_round_took_beyond_its_prediction_is_told_apart(tmp_path: Path) -> None:
    """A round of 17 ms is 1.7 plain steps, of which 0.3 + 0.8 were predicted: 0.1 more drafting, 0.4 more verifying."""
    script = DraftScript()
    cell_id = pair(script, experiment="round_parts")
    trial_id = script.rounds(cell_id, ACCEPTED, block=0)
    time_alone(script, trial_id, 2, plain=(0.01,), draft=(0.003,), verify=(0.008,))
    run = script.run(tmp_path)
    gap = find_gap(run, run.cells[cell_id])
    assert pytest.approx((0.1, 0.4, 0.1, 0.0), abs=1e-9) == tuple(gap)
    assert ("verify", pytest.approx(1.7 - 1.1)) == (gap.cause, gap.total)
    assert "draft" == gap._replace(draft=-0.9).cause, "a round that is shorter is so by what took less"


def test_rows_that_end_apart_are_a_cause_of_their_own(tmp_path: Path) -> None:
    script = DraftScript()
    plain, cell_id = script.plan(static_batch=2), script.plan("prompt_lookup", static_batch=2)
    script.plain(plain, block=0)
    script.rounds(cell_id, (4, 4, 4), (0,) * 11, block=0)
    run = script.run(tmp_path)
    gap = find_gap(run, run.cells[cell_id])
    rate = (11 / (3 * 0.017) + 11 / (11 * 0.017)) / 2
    assert (0.0, 0.0, pytest.approx(0.1)) == gap[:3]
    assert (11 / 3 + 1) / 2 * 100 / rate - 1.7 == pytest.approx(gap.rows)
