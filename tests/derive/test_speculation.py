"""Speculation beyond its metrics: counts that must add up, run lengths, loops, crossings, published speed-ups."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from energy_builders import LOAD_W, Power, counter_readings, energy_trial, opened, period
from speculation_builders import DraftScript
from tokbench.arithmetic import tokens_per_round
from tokbench.derive.bounds import find_bounds
from tokbench.derive.codes import Code
from tokbench.derive.decision.sweeps import Barred, why_barred
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.pairs import paired_ratio
from tokbench.derive.published import load_published
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.speculation.found import Crossing, find_speculation
from tokbench.derive.speculation.implied import find_implied, load_speedups
from tokbench.derive.speculation.listing import list_tables
from tokbench.derive.speculation.loops import LEAST_DISTINCT, LoopCount, distinct_share, find_loops
from tokbench.derive.speculation.rounds import acceptance_at_position
from tokbench.derive.speculation.runs import find_run_lengths
from tokbench.derive.standing import best_cell
from tokbench.derive.summary import summarise_results
from tokbench.record.observations import Event, SpeculationRounds, StepTrace
from tokbench.stats import Estimate

ACCEPTED = (4, 0, 2, 1)
Edit = Callable[[SpeculationRounds], SpeculationRounds | None]


def cells_of(script: DraftScript, folder: Path) -> dict[str, CellResult]:
    return {cell.cell_id: cell for cell in evaluate(script.run(folder), "run").cells}


def judged(folder: Path, edit: Edit | None = None, static_batch: int = 1) -> tuple[Code, ...]:
    """The reason codes of a cell whose rounds were edited."""
    script = DraftScript()
    cell_id = script.plan("prompt_lookup", static_batch=static_batch)
    for _ in range(3):
        script.rounds(cell_id, *[ACCEPTED] * static_batch)
    events: list[Event] = []
    for event in script.events:
        edited = edit(event) if edit is not None and isinstance(event, SpeculationRounds) else event
        events += [] if edited is None else [edited]
    script.events = events
    return cells_of(script, folder)[cell_id].validity.reasons


def changed(**fields: tuple[int, ...]) -> Edit:
    return lambda event: event.model_copy(update=fields)


def test_counts_that_add_up_raise_no_doubt(tmp_path: Path) -> None:
    assert not {Code.DRAFT_COUNTS, Code.TOKEN_COUNTS} & set(judged(tmp_path, static_batch=2))


@pytest.mark.parametrize(
    "edit",
    [
        lambda event: None,
        lambda event: event if event.row else None,
        changed(accepted=(4, 0, 2, 5)),
        changed(accepted=(3, 1, 2, 1)),
        changed(emitted=(5, 1, 3, 1)),
        changed(emitted=(5, 1, 2, 3)),
        changed(emitted=(5, 3, 3, 0)),
        changed(drafted=(4, 4, 4)),
        changed(position=(100, 105, 107, 109)),
        changed(drafted=(), accepted=(), emitted=(), position=(), draft_s=(), verify_s=(), other_s=()),
    ],
    ids=[
        "no rounds at all",
        "a row without",
        "more accepted than drafted",
        "another number emitted than accepted and one",
        "fewer tokens than asked",
        "a round cut before the last",
        "an empty last round",
        "lengths that differ",
        "a cache that did not grow by what was emitted",
        "rounds without a round",
    ],
)
def test_counts_that_contradict_one_another_make_a_cell_invalid(tmp_path: Path, edit: Edit) -> None:
    """Each of two rows, so that one alone can be wrong."""
    assert Code.DRAFT_COUNTS in judged(tmp_path, edit, static_batch=2)


def test_a_row_that_is_short_is_seen_beside_one_that_is_not(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = script.plan("prompt_lookup", static_batch=2)
    script.rounds(cell_id, ACCEPTED, (4, 0, 2))
    assert Code.TOKEN_COUNTS in cells_of(script, tmp_path)[cell_id].validity.reasons


def lengths_script(draw: Callable[[random.Random], list[int]], gamma: int = 4) -> tuple[DraftScript, str]:
    """A cell of 40 repetitions whose accepted drafts are drawn."""
    dice, script = random.Random(5), DraftScript()
    cell_id = script.plan("replay", gamma, output_tokens=201)
    for _ in range(40):
        accepted: list[int] = []
        while sum(accepted) + len(accepted) < 200:
            accepted += draw(dice)
        script.rounds(cell_id, accepted[: _whole(accepted)])
    return script, cell_id


def _whole(accepted: list[int]) -> int:
    """Rounds until 200 tokens."""
    tokens = 0
    for number, count in enumerate(accepted, 1):
        tokens += count + 1
        if tokens >= 200:
            return number
    return len(accepted)


def test_independent_drafts_have_geometric_run_lengths(tmp_path: Path) -> None:
    script, cell_id = lengths_script(lambda dice: [next((n for n in range(4) if dice.random() >= 0.6), 4)])
    found = find_run_lengths(script.run(tmp_path).cells[cell_id])
    assert found.p_value is not None and found.p_value > 0.01
    assert abs(found.bias) < 0.02 and 0.57 < found.alpha < 0.63
    assert sum(found.seen) == pytest.approx(sum(found.expected))


def test_all_or_nothing_is_told_from_independent_drafts(tmp_path: Path) -> None:
    """Half of the rounds take all drafts and half none: the closed form with their alpha promises too little."""
    script, cell_id = lengths_script(lambda dice: [4 if dice.random() < 0.5 else 0])
    found = find_run_lengths(script.run(tmp_path).cells[cell_id])
    assert found.p_value is not None and found.p_value < 1e-6
    assert (0, 0, 0) == found.seen[1:4]
    assert found.measured_tokens == pytest.approx(1 + 4 * found.seen[4] / sum(found.seen))
    assert found.bias == pytest.approx(tokens_per_round(found.alpha, 4) / found.measured_tokens - 1)
    assert abs(found.bias) > 0.05


def test_rounds_that_drafted_fewer_are_no_run_lengths(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = script.plan("prompt_lookup")
    script.rounds(cell_id, (4, 0, 2, 1), drafted=[(4, 4, 2, 3)])
    found = find_run_lengths(script.run(tmp_path).cells[cell_id])
    assert ((1, 0, 0, 0, 1), 4 / 5, None) == (found.seen, found.alpha, found.p_value)


@pytest.mark.parametrize("drafted", [0, 3])
def test_rounds_that_all_drafted_fewer_than_asked_have_no_run_lengths(tmp_path: Path, drafted: int) -> None:
    """Four were asked for: three drafts, found every time, are no full round of a shorter kind."""
    script = DraftScript()
    cell_id = script.plan("prompt_lookup")
    script.rounds(cell_id, (0,) * 11, drafted=[(drafted,) * 11])
    with pytest.raises(UndefinedError, match="no round drafted as many tokens as asked"):
        find_run_lengths(script.run(tmp_path).cells[cell_id])


def test_acceptance_by_position_counts_rounds_that_got_so_far(tmp_path: Path) -> None:
    """Accepted 4, 0, 2, 1 of four; of the last one only two were drafted."""
    script = DraftScript()
    cell_id = script.plan("prompt_lookup")
    script.rounds(cell_id, ACCEPTED, drafted=[(4, 4, 4, 2)])
    found = acceptance_at_position(script.run(tmp_path).cells[cell_id])
    assert [(4, 3), (3, 2), (2, 1), (1, 1)] == found


def test_a_prompt_that_comes_round_again_counts_once(tmp_path: Path) -> None:
    """Greedy: ten repetitions of one prompt are ten times the same rounds, and no surer a test."""
    script = DraftScript()
    cell_id = script.plan("prompt_lookup", task="edit")
    for _ in range(10):
        script.rounds(cell_id, ACCEPTED, prompts=["edit-1"])
    script.rounds(cell_id, (4, 4, 0), prompts=["edit-2"])
    cell = script.run(tmp_path).cells[cell_id]
    assert [(7, 5), (5, 4), (4, 3), (3, 3)] == acceptance_at_position(cell)
    assert (2, 1, 1, 0, 3) == find_run_lengths(cell).seen


def test_prompts_are_not_taken_for_repetitions_of_blocks(tmp_path: Path) -> None:
    """Two prompts and two repetitions: as many values as trials, and none of them belongs to a block."""
    script = DraftScript()
    first, second = script.plan("prompt_lookup", static_batch=2), script.plan("early_exit", static_batch=2)
    for block in (0, 1):
        script.rounds(first, ACCEPTED, (4, 4, 0), block=block)
        script.rounds(second, ACCEPTED, (4, 4, 0), block=block)
    cells = cells_of(script, tmp_path)
    assert 2 == len(cells[first].repetitions["acceptance_alpha"]) == len(cells[first].record.good_trials())
    assert isinstance(paired_ratio(cells[first], cells[second], "acceptance_alpha"), Missing)
    assert isinstance(paired_ratio(cells[first], cells[second], "decode_tokens_per_s"), Estimate)


def test_a_loop_is_few_distinct_four_grams(tmp_path: Path) -> None:
    looping, plain = [1, 2, 3, 4, 5, 6] * 8, list(range(48))
    assert 6 / 45 == distinct_share(looping)
    assert 1.0 == distinct_share(plain)
    assert distinct_share(plain[:15]) is None
    said_twice = [*range(24), *range(12), *range(50, 62)]
    assert (share := distinct_share(said_twice)) is not None and share > LEAST_DISTINCT
    script = DraftScript()
    cell_id = script.plan("prompt_lookup")
    script.rounds(cell_id, ACCEPTED, output=[looping, plain])
    script.rounds(cell_id, ACCEPTED, output=[looping, plain[:4]])
    assert LoopCount(1, 2, 2) == find_loops(script.run(tmp_path).cells[cell_id])


def test_the_speed_up_crosses_one_between_two_batches(tmp_path: Path) -> None:
    """2.2x at one row, 0.55x at sixteen: level lines between them cross 1 at 16^(ln 2.2 / ln 4)."""
    script = DraftScript()
    for batch, round_s in ((1, 0.05), (16, 0.2)):
        plain = script.plan(static_batch=batch, output_tokens=12)
        drafted = script.plan("prompt_lookup", static_batch=batch, output_tokens=12)
        script.plain(plain, block=0)
        times = {"draft_s": 0.0, "verify_s": round_s, "other_s": 0.0}
        script.rounds(drafted, *[(10,)] * batch, drafted=[(10,)] * batch, times=times, block=0)
    found = find_speculation([evaluate(script.run(tmp_path), "run")], ())
    (curve,) = found.curves
    assert [2.2, 0.55] == [pytest.approx(cell.value("speedup_x").value) for cell in curve.cells]
    assert Crossing(1, 16, pytest.approx(16 ** math.log(2.2, 4))) == curve.crossing


def test_joules_are_those_of_emitted_tokens_of_all_rows(tmp_path: Path) -> None:
    """Two rows, passes of 17 ms that give 5 and 1 tokens, beside steps of 10 ms that give each row one."""
    script, power = DraftScript(), Power()
    plain, cell_id = script.plan(static_batch=2), script.plan("prompt_lookup", static_batch=2)
    script.plain(plain, block=0)
    script.rounds(cell_id, ACCEPTED, ACCEPTED, block=0)
    energy_trial(script, plain, power, step_s=0.010)
    begun = len(script.events)
    energy_trial(script, cell_id, power, step_s=0.017)
    script.events[begun:] = [
        event.model_copy(update={"tokens_by_row": ((5, 1),) * len(event.step_at_ns)})
        if isinstance(event, StepTrace)
        else event
        for event in script.events[begun:]
    ]
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    (found,) = find_speculation([evaluate(script.run(tmp_path), "run")], ()).cells
    assert isinstance(found.joules_x, Estimate)
    assert (17 / 6) / (10 / 2) == pytest.approx(found.joules_x.value, rel=0.01)
    joules = found.cell.metrics["energy_j_per_output_token"]
    assert isinstance(joules, Estimate) and LOAD_W * 0.017 / 6 == pytest.approx(joules.value, rel=0.01)


def test_published_speed_ups_need_these_acceptances() -> None:
    """Groq's 6.66x and NVIDIA's 3.55x by hand; each row names a source that is there."""
    implied = {item.row.id: item for item in find_implied(load_published())}
    assert [row.id for row in load_speedups()] == list(implied), "a row names a figure that is not there"
    groq = implied["groq-llama31-70b-specdec"]
    assert 6.66 == pytest.approx(groq.speedup)
    assert [(6, 0.98), (8, 0.92), (12, 0.88)] == [(gamma, round(alpha or 0, 2)) for gamma, alpha in groq.alphas]
    nvidia = implied["nvidia-llama33-70b-draft1b"]
    assert 3.55 == pytest.approx(nvidia.speedup, abs=0.005)
    assert 0.85 == pytest.approx(dict(nvidia.alphas)[5], abs=0.005)
    deepseek = implied["deepseek-v3-mtp"]
    assert 1.8 * 1.04 - 1 == pytest.approx(dict(deepseek.alphas)[1])
    assert all(item.source_url.startswith("https://") for item in implied.values())


def test_speed_ups_on_figures_that_are_not_given_are_left_out() -> None:
    assert {"deepseek-v3-mtp", "sglang-mtp-b1", "sglang-mtp-b32"} == {item.row.id for item in find_implied(())}


def test_a_faster_cell_of_a_lossy_rule_or_of_replay_is_not_the_best(tmp_path: Path) -> None:
    script = DraftScript()
    plain, lossy = script.plan(), script.plan("early_exit", accept="top3")
    replay, honest = script.plan("replay", weights="random"), script.plan("prompt_lookup")
    fast = {"draft_s": 0.0001, "verify_s": 0.0001, "other_s": 0.0001}
    for index in range(3):
        script.plain(plain, worker=f"w{index}")
        script.rounds(honest, ACCEPTED, worker=f"w{index}")
        for cell_id in (lossy, replay):
            script.rounds(cell_id, ACCEPTED, times=fast, worker=f"w{index}")
    best = best_cell(list(cells_of(script, tmp_path).values()), "decode_tokens_per_s")
    assert best is not None and honest == best.cell_id


def test_a_lossy_rule_and_replay_feed_no_decision(tmp_path: Path) -> None:
    script = DraftScript()
    kinds = {
        script.plan("early_exit", accept="top3"): Barred.LOSSY,
        script.plan("replay"): Barred.REPLAY,
        script.plan("prompt_lookup"): None,
    }
    for cell_id in kinds:
        script.rounds(cell_id, ACCEPTED)
    assert kinds == {cell_id: why_barred(cell) for cell_id, cell in cells_of(script, tmp_path).items()}


def test_the_summary_holds_what_has_an_index(tmp_path: Path) -> None:
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup")
    script.plain(plain)
    script.rounds(cell_id, ACCEPTED)
    results = evaluate(script.run(tmp_path), "run")
    summary = summarise_results([results], (), [find_bounds(results)])
    tables = {cell["cell_id"]: cell["tables"] for cell in summary["cells"]}
    assert {"position": 1, "reached": 4, "accepted": 3} == tables[cell_id]["acceptance_at_position"][0]
    assert [1, 1, 1, 0, 1] == tables[cell_id]["run_lengths"]["seen"]
    assert "acceptance_at_position" not in tables[plain]


def test_positions_are_listed_where_no_round_drafted_all_that_was_asked(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = script.plan("prompt_lookup")
    script.rounds(cell_id, (2,) * 3 + (1,), drafted=[(2,) * 4])
    tables = list_tables(script.run(tmp_path).cells[cell_id])
    assert [4, 4] == [row["reached"] for row in tables["acceptance_at_position"]]  # type: ignore[attr-defined]
    assert "run_lengths" not in tables


def test_a_step_of_drafts_is_no_step_of_a_roofline(tmp_path: Path) -> None:
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup")
    script.plain(plain)
    script.rounds(cell_id, ACCEPTED)
    found = find_bounds(evaluate(script.run(tmp_path), "run"))
    assert [plain] == [bound.cell.cell_id for bound in found.cells]
    assert any(isinstance(event, StepTrace) and event.tokens_by_row for event in script.events)
