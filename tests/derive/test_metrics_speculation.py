"""Metrics of speculative decoding: by hand, undefined with a reason, and a known acceptance that is found again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from speculation_builders import DraftScript
from tokbench.arithmetic import tokens_per_round
from tokbench.derive.codes import Code
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.repetitions import SharesByPrompt
from tokbench.record.observations import SpeculationRounds, StepTrace
from tokbench.stats import Estimate, estimate_plain

ACCEPTED = (4, 0, 2, 1)
"""Of four drafts each: 5 + 1 + 3 + 2 tokens, the 11 that come after the first of 12."""


def evaluated(script: DraftScript, folder: Path) -> dict[str, CellResult]:
    return {cell.cell_id: cell for cell in evaluate(script.run(folder), "run").cells}


def value(cell: CellResult, metric: str) -> float:
    found = cell.metrics[metric]
    assert isinstance(found, Estimate), found
    return found.value


def reason(cell: CellResult, metric: str) -> str:
    found = cell.metrics[metric]
    assert isinstance(found, Missing), found
    return found.reason


def pair(script: DraftScript, **drafted: object) -> str:
    """A plain repetition in block 0, and the same cell with drafts."""
    script.plain(script.plan(), block=0)
    return script.plan("prompt_lookup", **drafted)  # type: ignore[arg-type]


def test_every_metric_of_one_repetition_by_hand(tmp_path: Path) -> None:
    """Four rounds of 17 ms beside plain steps of 10 ms."""
    script = DraftScript()
    cell_id = pair(script)
    script.rounds(cell_id, ACCEPTED, block=0)
    cell = evaluated(script, tmp_path)[cell_id]
    assert 11 / 0.068 == pytest.approx(value(cell, "decode_tokens_per_s"))
    assert 7 / 16 == value(cell, "acceptance_ratio")
    assert 7 / (7 + 3) == value(cell, "acceptance_alpha")
    assert 11 / 4 == value(cell, "tokens_per_step")
    assert 0.1 == pytest.approx(value(cell, "draft_cost_ratio"))
    assert 1.2 == pytest.approx(value(cell, "verify_cost_ratio"))
    assert 11 / 0.068 / 100 == pytest.approx(value(cell, "speedup_x"))
    assert 2.75 / (4 * 0.1 + 1.2) == pytest.approx(value(cell, "predicted_speedup_x"))
    assert 0.016 / 0.017 == pytest.approx(value(cell, "speedup_over_predicted"))
    assert 12 / (0.5 + 0.068) == pytest.approx(value(cell, "e2e_tokens_per_s"))
    assert not {Code.DRAFT_COUNTS, Code.TOKEN_COUNTS} & set(cell.validity.reasons)
    assert "prompt_lookup" == cell.conditions.speculation


def test_a_plain_cell_drafts_nothing(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = script.plan()
    script.plain(cell_id)
    cell = evaluated(script, tmp_path)[cell_id]
    names = ("acceptance_ratio", "acceptance_alpha", "tokens_per_step", "draft_cost_ratio", "verify_cost_ratio")
    for name in (*names, "speedup_x", "predicted_speedup_x", "speedup_over_predicted"):
        assert "nothing is drafted in this cell" == reason(cell, name)


def test_without_the_same_cell_undrafted_there_is_no_speed_up(tmp_path: Path) -> None:
    script = DraftScript()
    script.plain(script.plan(static_batch=2))
    cell_id = script.plan("prompt_lookup")
    script.rounds(cell_id, ACCEPTED)
    cell = evaluated(script, tmp_path)[cell_id]
    assert "no cell of this run asks the same without drafts" in reason(cell, "speedup_x")
    assert 0.7 == value(cell, "acceptance_alpha")


def test_repetitions_of_different_blocks_are_no_pair(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = pair(script)
    script.rounds(cell_id, ACCEPTED, block=1)
    assert "no block holds a repetition of both cells" == reason(evaluated(script, tmp_path)[cell_id], "speedup_x")


def test_what_drifts_under_both_cancels(tmp_path: Path) -> None:
    """Everything takes twice as long in the second block, and a third has no plain repetition."""
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup")
    for block, slower in ((0, 1.0), (1, 2.0)):
        script.plain(plain, step_s=0.01 * slower, block=block)
        times = {"draft_s": 0.004 * slower, "verify_s": 0.012 * slower, "other_s": 0.001 * slower}
        script.rounds(cell_id, ACCEPTED, times=times, block=block)
    script.rounds(cell_id, ACCEPTED, times={"draft_s": 4.0, "verify_s": 4.0, "other_s": 4.0}, block=2)
    cell = evaluated(script, tmp_path)[cell_id]
    found = cell.metrics["speedup_x"]
    assert isinstance(found, Estimate)
    assert (2, pytest.approx(11 / 6.8), pytest.approx(11 / 6.8)) == (found.n, found.value, found.low)


def test_drafts_that_were_never_made_have_no_acceptance_but_a_speed(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = pair(script)
    script.rounds(cell_id, (0,) * 11, drafted=[(0,) * 11], block=0)
    cell = evaluated(script, tmp_path)[cell_id]
    assert "nothing was ever drafted" == reason(cell, "acceptance_alpha") == reason(cell, "acceptance_ratio")
    assert 1.0 == value(cell, "tokens_per_step")
    assert 10 / 17 == pytest.approx(value(cell, "speedup_x"))


def test_rounds_that_drafted_nothing_are_no_refusals(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = pair(script)
    script.rounds(cell_id, (4, 0, 0, 0, 2), drafted=[(4, 0, 4, 0, 2)], block=0)
    cell = evaluated(script, tmp_path)[cell_id]
    assert 6 / 10 == value(cell, "acceptance_ratio")
    assert 6 / (6 + 1) == value(cell, "acceptance_alpha")


def test_an_engine_that_times_no_part_of_a_round_has_no_costs(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = pair(script)
    trial_id = script.rounds(cell_id, ACCEPTED, block=0)
    script.events = [
        event.model_copy(update={"draft_s": (), "verify_s": ()})
        if isinstance(event, SpeculationRounds) and event.trial_id == trial_id
        else event
        for event in script.events
    ]
    cell = evaluated(script, tmp_path)[cell_id]
    for name in ("draft_cost_ratio", "verify_cost_ratio", "predicted_speedup_x", "speedup_over_predicted"):
        assert "the engine does not time drafting and verifying apart" == reason(cell, name)
    assert 11 / 6.8 == pytest.approx(value(cell, "speedup_x"))


def test_rows_advance_apart_and_each_ends_with_its_own_last_token(tmp_path: Path) -> None:
    """One row is done after 3 rounds, the other after 11; the system's time is that of all rounds."""
    script = DraftScript()
    plain, cell_id = script.plan(static_batch=2), script.plan("prompt_lookup", static_batch=2)
    script.plain(plain, block=0)
    script.rounds(cell_id, (4, 4, 4), (0,) * 11, block=0)
    cell = evaluated(script, tmp_path)[cell_id]
    rates = (11 / (3 * 0.017), 11 / (11 * 0.017))
    assert sum(rates) / 2 == pytest.approx(value(cell, "decode_tokens_per_s"))
    assert 24 / (0.5 + 11 * 0.017) == pytest.approx(value(cell, "output_tokens_per_s"))
    assert (0.5 + 3 * 0.017 + 0.5 + 11 * 0.017) / 2 == pytest.approx(value(cell, "e2e_latency_s"))
    assert sum(rates) / 2 / 100 == pytest.approx(value(cell, "speedup_x"))
    assert (11 / 3 + 1) / 2 / 1.6 == pytest.approx(value(cell, "predicted_speedup_x"))
    assert "the engine does not stamp every token" == reason(cell, "itl_p50_s")


def test_one_token_a_round_in_every_row_is_still_no_stamp_per_token_elsewhere(tmp_path: Path) -> None:
    """tokens_per_row is 1 all along, since one row or the other gets no more than that."""
    script = DraftScript()
    cell_id = script.plan("prompt_lookup", static_batch=2, output_tokens=13)
    script.rounds(cell_id, (1, 0) * 4, (0, 1) * 4)
    cell = evaluated(script, tmp_path)[cell_id]
    trace = next(e for e in script.events if isinstance(e, StepTrace) and e.tokens_by_row)
    assert (1,) * 8 == trace.tokens_per_row
    assert "the engine does not stamp every token" == reason(cell, "itl_p50_s")


def test_acceptance_counts_prompts_and_not_repetitions(tmp_path: Path) -> None:
    """A prompt that comes round again says nothing new."""
    script = DraftScript()
    cell_id = script.plan("prompt_lookup", task="edit")
    script.rounds(cell_id, ACCEPTED, prompts=["edit-1"])
    script.rounds(cell_id, (4, 4, 0), prompts=["edit-2"])
    script.rounds(cell_id, ACCEPTED, prompts=["edit-1"])
    found = evaluated(script, tmp_path)[cell_id].metrics["acceptance_alpha"]
    assert isinstance(found, Estimate)
    assert (2, "mean", pytest.approx((7 / 10 + 8 / 9) / 2)) == (found.n, found.statistic, found.value)
    assert found.low is not None and found.high is not None and found.low < 0.7 < 8 / 9 < found.high


def test_a_synthetic_prompt_is_one_prompt_and_has_no_interval(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = script.plan("prompt_lookup")
    for _ in range(3):
        script.rounds(cell_id, ACCEPTED)
    found = evaluated(script, tmp_path)[cell_id].metrics["acceptance_alpha"]
    assert isinstance(found, Estimate) and (1, None, None) == (found.n, found.low, found.high)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.3, 2), (0.6, 4), (0.85, 5), (0.95, 8)])
def test_a_known_acceptance_is_found_again_within_its_interval(tmp_path: Path, alpha: float, gamma: int) -> None:
    """60 repetitions of drawn acceptance: censored at gamma, and cut at the row's end."""
    dice = random.Random(20261122)
    script = DraftScript()
    cell_id = script.plan("replay", gamma, output_tokens=201)
    for _ in range(60):
        accepted, left = [], 200
        while left > 0:
            accepted.append(next((n for n in range(gamma) if dice.random() >= alpha), gamma))
            left -= accepted[-1] + 1
        script.rounds(cell_id, accepted)
    cell = evaluated(script, tmp_path)[cell_id]
    found, tokens = cell.metrics["acceptance_alpha"], cell.metrics["tokens_per_step"]
    assert isinstance(found, Estimate) and found.low is not None and found.high is not None
    assert found.low <= alpha <= found.high
    assert found.high - found.low < 0.05
    assert tokens_per_round(alpha, gamma) == pytest.approx(tokens.value, rel=0.05)  # type: ignore[union-attr]
    assert abs(value(cell, "acceptance_ratio") - alpha) > 0.02, "accepted over drafted is another quantity"


def test_bytes_of_a_step_say_nothing_of_drafted_tokens(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = pair(script)
    script.rounds(cell_id, ACCEPTED, block=0)
    cell = evaluated(script, tmp_path)[cell_id]
    for name in ("bandwidth_used_ratio", "nominal_bandwidth_used_ratio", "roofline_decode_tokens_per_s"):
        assert "with drafts the bytes of a token are not those of a step" in reason(cell, name)


def test_conditions_tell_replay_and_a_lossy_rule(tmp_path: Path) -> None:
    script = DraftScript()
    replayed = script.plan("replay", weights="random")
    lossy = script.plan("early_exit", accept="top3")
    for cell_id in (replayed, lossy):
        script.rounds(cell_id, ACCEPTED)
    cells = evaluated(script, tmp_path)
    assert ("replay", "replay") == (cells[replayed].conditions.weights, cells[replayed].conditions.speculation)
    assert ("pretrained", "early_exit, top3") == (cells[lossy].conditions.weights, cells[lossy].conditions.speculation)


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    values = SharesByPrompt((0.0, 0.9))
    found = estimate_plain(values, "", values.limits)
    assert (found.low, found.value, found.high) == (0.0, 0.45, 1.0)
    free = estimate_plain(values, "")
    assert free.low is not None and free.high is not None and free.low < 0 and free.high > 1
