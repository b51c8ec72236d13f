"""The order of a run, its budget and its end, on a clock that only the workers' commands move."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from scripted_measure import (
    CRASH,
    config_text,
    endless,
    events_of,
    failing,
    fake_plan,
    rows,
    rows_of,
    stage,
    without_room,
)
from tokbench.derive.evaluate import status_of
from tokbench.derive.stopping import find_stop
from tokbench.errors import PlugError
from tokbench.measure.messages import Command, Failed, OpenGroup, RunTrial, WarmUp
from tokbench.measure.plan import Plan
from tokbench.measure.runner import Outcome
from tokbench.record.observations import CellSkipped, RunEnded


def group_of(plan: Plan) -> dict[str, str]:
    return {cell.cell.cell_id: group.group for group in plan.groups for cell in group.cells}


def test_a_run_ends_when_every_cell_meets_the_stop_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked")
    made = stage(tmp_path / "run", monkeypatch)
    assert Outcome("complete", 0, 0) == made.run(plan)
    run = made.read()
    assert {3} == {len(cell.good_trials()) for cell in run.cells.values()}
    assert run.ended is not None and run.ended.reason == "complete"
    assert all(worker.is_closed for worker in made.workers)
    assert made.blocks >= 1  # the report was written


def test_the_coarse_pass_visits_every_cell_before_any_refinement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked", config_text(("a", "b"), "{static_batch: [4, 1, 2]}"))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 5.0})  # too long to be repeated in one visit
    assert "complete" == made.run(plan).reason
    visits = made.visits()
    assert {cell.cell.cell_id for cell in plan.cells()} == set(visits[:6])
    size = rows(plan)
    assert [1, 1, 2, 2, 4, 4] == [size[cell_id] for cell_id in visits[:6]]  # one stream of every group, then pairs
    assert {3} == set(Counter(visits).values())


def test_blocks_alternate_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked", endless("75", modes=("a", "b")))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0})
    made.run(plan)
    a, b = (group.group for group in plan.groups)
    where = group_of(plan)
    assert [a, b, b, a, a, b, b] == [where[cell_id] for cell_id in made.visits()]
    assert 2 == len(made.workers)  # both stay open


def test_groups_that_do_not_fit_together_reload_once_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = endless("45", modes=("a", "b"))
    plan = dataclasses.replace(fake_plan(tmp_path / "asked", text), is_interleaved=False)
    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0})
    made.run(plan)
    opened = [command.group for command in made.heard if isinstance(command, OpenGroup)]
    a, b = (group.group for group in plan.groups)
    assert [a, b, a] == opened  # block 1 begins with the group that block 0 ended with
    assert {"not_interleaved"} == {cell.planned.labels["order"] for cell in made.read().cells.values()}


def test_the_order_is_random_and_the_seed_alone_decides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def order(name: str, seed: int) -> list[int]:
        load = "{static_batch: [1, 2, 3, 4, 5, 6, 7, 8]}"
        plan = fake_plan(tmp_path / name, endless("79", load, seed=seed))
        made = stage(tmp_path / name / "run", monkeypatch, {"trial": 2.0})
        made.run(plan)
        size = rows(plan)
        return [size[cell_id] for cell_id in made.visits()]

    first, again, other = order("first", 1), order("again", 1), order("other", 2)
    assert first == again
    assert first != other
    assert list(range(1, 9)) == first[:8] == other[:8] == sorted(first[8:16])
    assert sorted(first[8:16]) != first[8:16] != first[16:24]


def test_the_budget_ends_a_run_and_no_visit_begins_that_would_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked", endless("50", "{static_batch: [1, 2]}"))
    made = stage(tmp_path / "run", monkeypatch, {"prepare": 1.0, "warm_up": 1.0, "trial": 10.0})
    assert Outcome("budget", 0, 0) == made.run(plan)
    assert 48.0 == made.clock.now_s  # four visits of 12 s; a fifth would end at 60 s
    ended = events_of(made.folder, RunEnded)
    assert [RunEnded(reason="budget", at_ns=48_000_000_000)] == ended


def test_cells_without_a_turn_say_that_the_budget_was_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config_text(load="{static_batch: [1, 2, 4]}", budget="{total: 25}")
    plan = fake_plan(tmp_path / "asked", text)
    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0})  # a third visit would end at 30 s
    assert Outcome("budget", 0, 0) == made.run(plan)  # told in the record, and no failure
    (skipped,) = events_of(made.folder, CellSkipped)
    assert isinstance(skipped, CellSkipped) and (4, "skipped") == (rows(plan)[skipped.cell_id], skipped.cause)


def test_loading_counts_beyond_budget_cold_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs_s = {"open": 30.0, "trial": 10.0}
    for name, cold, ends_at_s in (("in", "0", 50.0), ("beside", "30s", 80.0), ("half", "10s", 60.0)):
        text = endless(f"55, cold: {cold}")
        made = stage(tmp_path / name / "run", monkeypatch, costs_s)
        assert "budget" == made.run(fake_plan(tmp_path / name, text)).reason
        assert (name, ends_at_s) == (name, made.clock.now_s)


def test_no_command_may_take_much_longer_than_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = endless("200, trial: 150s, open: 3600s")
    made = stage(tmp_path / "run", monkeypatch, {"open": 10.0, "trial": 30.0})
    made.run(fake_plan(tmp_path / "asked", text))
    limits_s = [limit for worker in made.workers for limit in worker.limits_s]
    assert ("open", 300.0) == limits_s[0]
    trials_s = [limit for name, limit in limits_s if name == "trial"]
    assert [150.0, 150.0, 130.0, 100.0, 70.0, 60.0] == trials_s  # what the budget leaves, and at least a minute


def test_a_complete_run_is_complete_even_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config_text(
        load="{static_batch: 1}", stop="{min_repetitions: 1, max_repetitions: 1, blocks: 1}", budget="{total: 5}"
    )
    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0})
    assert Outcome("complete", 0, 0) == made.run(fake_plan(tmp_path / "asked", text))


@pytest.mark.parametrize("at", ["prepare", "warm_up", "trial"])
def test_a_failure_costs_one_trial_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    plan = fake_plan(tmp_path / "asked")
    made = stage(tmp_path / "run", monkeypatch, fault=failing(2, at, CRASH))
    assert Outcome("complete", 1, 0) == made.run(plan)
    cells = {rows_of(cell.spec.load): cell for cell in made.read().cells.values()}
    assert (3, 3) == (len(cells[1].good_trials()), len(cells[2].good_trials()))
    failed = [trial for trial in cells[2].trials if trial.failed is not None]
    assert [("crashed", "Fatal Python error")] == [(t.failed.cause, t.failed.traceback) for t in failed if t.failed]
    assert cells[2].skipped is None
    assert (2, True) == (len(made.workers), made.workers[0].is_closed)  # a fresh worker
    assert made.workers[0].worker_id == failed[0].started.worker_id != cells[2].good_trials()[0].started.worker_id


@pytest.mark.parametrize("at", ["prepare", "warm_up", "trial"])
def test_a_cell_that_fails_twice_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    made = stage(tmp_path / "run", monkeypatch, fault=failing(2, at, *[CRASH] * 9))
    assert Outcome("complete", 2, 1) == made.run(fake_plan(tmp_path / "asked"))
    cells = {rows_of(cell.spec.load): cell for cell in made.read().cells.values()}
    assert (3, 0) == (len(cells[1].good_trials()), len(cells[2].good_trials()))
    assert cells[2].skipped is not None and "crashed" == cells[2].skipped.cause


def test_a_cell_that_failed_after_good_repetitions_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked", endless("600", "{static_batch: [1, 2]}"))
    turns = Counter[str]()

    def fault(command: Command) -> Failed | None:
        turns[command.command] += 1
        return CRASH if isinstance(command, RunTrial) and turns["trial"] > 4 else None

    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0}, fault)
    assert Outcome("complete", 4, 0) == made.run(plan)  # two failures each, no cell without a result
    assert [] == events_of(made.folder, CellSkipped)
    assert [2, 2] == [len(cell.good_trials()) for cell in made.read().cells.values()]


def test_memory_that_ran_out_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(tmp_path / "run", monkeypatch, fault=failing(2, "prepare", Failed(cause="oom", text="no memory")))
    assert Outcome("complete", 1, 1) == made.run(fake_plan(tmp_path / "asked"))
    cells = {rows_of(cell.spec.load): cell for cell in made.read().cells.values()}
    assert cells[2].skipped is not None and ("oom", "no memory") == (cells[2].skipped.cause, cells[2].skipped.reason)


def test_cells_that_are_predicted_not_to_fit_are_rows_and_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = without_room(fake_plan(tmp_path / "asked"), 2)
    made = stage(tmp_path / "run", monkeypatch)
    assert Outcome("complete", 0, 1) == made.run(plan)
    cells = {rows_of(cell.spec.load): cell for cell in made.read().cells.values()}
    assert cells[2].skipped is not None
    assert ("oom", "predicted not to fit: needs 9 GB") == (cells[2].skipped.cause, cells[2].skipped.reason)
    assert [] == cells[2].trials


def test_a_group_that_cannot_be_opened_is_skipped_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked", config_text(("a", "b")))
    made = stage(tmp_path / "run", monkeypatch, fault=failing(0, "open", CRASH))
    assert Outcome("complete", 1, 2) == made.run(plan)
    run, lost = made.read(), plan.groups[0]
    for cell in run.cells.values():
        is_lost = cell.planned.group == lost.group
        assert (0 if is_lost else 3) == len(cell.good_trials())
        assert is_lost == (cell.skipped is not None and cell.skipped.cause == "crashed")
    tried = [trial for cell in run.cells.values() for trial in cell.trials if trial.failed is not None]
    assert ["Fatal Python error"] == [trial.failed.traceback for trial in tried if trial.failed]
    assert 2 == len(made.workers)  # the lost group was tried once


def test_a_group_that_is_lost_on_reopening_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter[str]()

    def fault(command: Command) -> Failed | None:
        seen[command.command] += 1
        if isinstance(command, RunTrial) and seen["trial"] == 4:
            return CRASH
        return CRASH if isinstance(command, OpenGroup) and seen["open"] == 2 else None

    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0}, fault)
    outcome = made.run(fake_plan(tmp_path / "asked", endless("600", "{static_batch: [1, 2]}")))
    assert Outcome("complete", 2, 0) == outcome
    assert 3 == sum(len(cell.good_trials()) for cell in made.read().cells.values())
    cells = made.read().cells.values()
    assert {"ok"} == {status_of(cell)[0] for cell in cells}  # what was measured stays …
    assert ["crashed"] * 2 == [event.cause for event in events_of(made.folder, CellSkipped)]  # … and why no more came
    assert {"failures"} == {find_stop(made.read(), cell, ()).by for cell in cells}


def test_a_refusal_of_the_only_group_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked", config_text(options="{stride: 3}"))
    made = stage(tmp_path / "run", monkeypatch)
    with pytest.raises(PlugError, match=r"engine\.options\.stride"):
        made.run(plan)
    assert all(worker.is_closed for worker in made.workers)
    assert 2 == len(made.read().cells)  # planned, and nothing more


def test_a_refused_cell_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Failed(cause="engine", text="serves static batches alone", is_refusal=True)
    made = stage(tmp_path / "run", monkeypatch, fault=failing(2, "prepare", *[refusal] * 9))
    assert Outcome("complete", 1, 1) == made.run(fake_plan(tmp_path / "asked"))


def test_a_visit_warms_up_once_and_every_trial_says_whether_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage(tmp_path / "run", monkeypatch)
    made.run(fake_plan(tmp_path / "asked", config_text(load="{static_batch: 1}")))
    asked = [command for command in made.heard if isinstance(command, WarmUp | RunTrial)]
    assert ["warm_up", "trial", "trial", "trial"] == [command.command for command in asked]
    (cell,) = made.read().cells.values()
    assert [True, None, None] == [t.finished.is_steady for t in cell.trials if t.finished is not None]
    assert [True, False, False] == [t.output is not None for t in cell.trials]  # tokens are kept once
