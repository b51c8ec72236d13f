"""Blocks in fresh workers, their order and their sentinels, on a clock that only the workers' commands move."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from scripted_measure import CRASH, Stage, config_text, events_of, fake_plan, rows, stage
from tokbench.measure.blocks import Costs, choose_sentinel, costs
from tokbench.measure.crew import Crew
from tokbench.measure.engines import CellWork, Prepared, fake
from tokbench.measure.ledger import Ledger
from tokbench.measure.messages import Command, Failed, RunTrial
from tokbench.measure.order import Draw, Turn, random_pass
from tokbench.measure.plan import Plan
from tokbench.measure.progress import Silent
from tokbench.measure.runner import Outcome
from tokbench.record.observations import BlockStarted, TrialStarted
from tokbench.record.run import Run
from tokbench.record.store import RunWriter

STOP = "{rel_ci: 0.02, min_repetitions: 3, max_repetitions: 5, sentinel: false}"
WATCHED = "{rel_ci: 0.02, min_repetitions: 3, max_repetitions: 3}"
EIGHT = "{static_batch: [1, 2, 3, 4, 5, 6, 7, 8]}"


def blocks(made: Stage) -> list[BlockStarted]:
    return [event for event in events_of(made.folder, BlockStarted) if isinstance(event, BlockStarted)]


def started(made: Stage) -> list[TrialStarted]:
    return [event for event in events_of(made.folder, TrialStarted) if isinstance(event, TrialStarted)]


def workers(run: Run) -> list[list[str]]:
    """Of every cell, the workers of its repetitions in order."""
    return [[trial.started.worker_id for trial in cell.good_trials()] for cell in run.cells.values()]


def test_every_cell_is_measured_in_three_fresh_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(tmp_path / "run", monkeypatch)
    assert Outcome("complete", 0, 0) == made.run(fake_plan(tmp_path / "asked", config_text(stop=STOP)))
    assert [["w0", "w0", "w1", "w1", "w2"]] * 2 == workers(made.read())  # a share of the five for each
    assert [(0, True, None), (1, True, None), (2, True, None)] == [
        (block.block, block.is_fresh, block.reason) for block in blocks(made)
    ]
    assert blocks(made) == made.read().blocks
    assert all({f"w{trial.block}"} == {trial.worker_id} for trial in started(made))
    assert all(worker.is_closed for worker in made.workers)


def test_refinement_goes_on_in_fresh_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config_text(
        load="{static_batch: 1}",
        options="{step_s: 0.01, jitter: 0.3}",
        stop="{rel_ci: 1.0e-9, min_repetitions: 3, max_repetitions: 10, blocks: 2}",
    )
    made = stage(tmp_path / "run", monkeypatch)
    made.run(fake_plan(tmp_path / "asked", text))
    assert [10] == [len(cell) for cell in workers(made.read())]
    assert 4 == len(made.workers) == len(blocks(made))


def test_one_process_is_enough_where_the_config_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(tmp_path / "run", monkeypatch, {"trial": 5.0})
    made.run(fake_plan(tmp_path / "asked"))
    assert 1 == len(made.workers)
    first, *later = blocks(made)
    assert (True, None) == (first.is_fresh, first.reason)
    assert {(False, "stop.blocks is 1: one worker process is enough")} == {(b.is_fresh, b.reason) for b in later}


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (
            "{total: 150s}",
            "budget: loading and compiling again would take 100 s and the visits 20 s; "
            "30 s are left, and 0 s for loading and compiling alone",
        ),
        ("{total: 150s, cold: 300s}", None),
    ],
)
def test_a_budget_that_is_too_small_keeps_the_workers_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str, reason: str | None
) -> None:
    made = stage(tmp_path / "run", monkeypatch, {"open": 100.0, "trial": 10.0})
    made.run(fake_plan(tmp_path / "asked", config_text(stop=STOP, budget=budget)))
    assert (reason is None, reason) == (blocks(made)[1].is_fresh, blocks(made)[1].reason)
    assert (1 if reason else 3) == len(made.workers)
    first_cell = workers(made.read())[0]
    assert ["w0"] * 2 == first_cell if reason else ["w0", "w1", "w2"] == first_cell[:3]  # time left is spent on more


def turns_of(plan: Plan) -> list[Turn]:
    return [Turn(group, cell) for group in plan.groups for cell in group.cells]


def test_fresh_workers_cost_loading_and_compiling_as_the_last_time(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, config_text(("a", "b")))
    ledger = Ledger([cell.cell.cell_id for cell in plan.cells()], plan.config.run.stop)
    writer = RunWriter(tmp_path)
    crew = Crew(plan, writer, Stage(tmp_path).open_worker, Silent())
    writer.close()
    crew.open_s = {plan.groups[0].group: 5.0, plan.groups[1].group: 7.0}
    for account in ledger.accounts.values():
        account.visit_s, account.cold_s = 10.0, 30.0
    assert Costs(40.0, 132.0) == costs(turns_of(plan), crew, ledger)
    assert Costs(20.0, 67.0) == costs(turns_of(plan)[2:], crew, ledger)  # one group alone


def compile_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every preparation say that it compiled for 30 s; the clock is moved by the command `prepare`."""
    prepare = fake.FakeStepEngine.prepare

    def prepare_slowly(engine: fake.FakeStepEngine, work: CellWork) -> Prepared:
        prepare(engine, work)
        return Prepared(1, 1, 30.0)

    monkeypatch.setattr(fake.FakeStepEngine, "prepare", prepare_slowly)


@pytest.mark.parametrize(("cold", "measured"), [("0", 1), ("60s", 2)])
def test_a_first_visit_may_compile_as_long_as_the_budget_gives_time_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: str, measured: int
) -> None:
    total = {"0": 60, "60s": 30}[cold]
    compile_slowly(monkeypatch)
    made = stage(tmp_path / "run", monkeypatch, {"prepare": 30.0, "trial": 10.0})
    made.run(fake_plan(tmp_path / "asked", config_text(budget=f"{{total: {total}, cold: {cold}}}")))
    assert measured == sum(bool(cell.good_trials()) for cell in made.read().cells.values())


def test_a_visit_that_would_compile_again_is_not_begun_without_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash the worker is new: what it had compiled is gone with it."""
    plan = fake_plan(tmp_path / "asked", config_text(load="{static_batch: 1}", budget="{total: 100}"))
    compile_slowly(monkeypatch)
    made = stage(tmp_path / "run", monkeypatch, {"prepare": 30.0, "trial": 10.0})
    made.fault = lambda command: CRASH if isinstance(command, RunTrial) and len(made.trials()) == 2 else None
    assert Outcome("budget", 1, 0) == made.run(plan)
    assert 80.0 == made.clock.now_s  # a visit takes 10 s and there are 20, but compiling would take 30 more


def order_of(made: Stage, plan: Plan) -> list[list[tuple[int, str]]]:
    """Block by block, the static batch and the group of every visit."""
    size, group = rows(plan), {turn.cell_id: turn.group.group for turn in turns_of(plan)}
    seen = [(trial.block, trial.cell_id) for trial in started(made)]
    visits = [pair for pair, _ in groupby(seen)]
    return [[(size[cell], group[cell]) for b, cell in visits if b == block.block] for block in blocks(made)]


def test_pairs_are_adjacent_and_alternate_abba_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = "{rel_ci: 1.0e-9, min_repetitions: 3, max_repetitions: 5, blocks: 5, sentinel: false}"
    plan = fake_plan(tmp_path / "asked", config_text(("a", "b"), "{static_batch: [1, 2, 3, 4]}", stop=stop))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 5.0})
    made.run(plan)
    a, b = (group.group for group in plan.groups)
    coarse, *later = order_of(made, plan)
    assert [(1, a), (1, b), (2, a), (2, b), (3, a), (3, b), (4, a), (4, b)] == coarse
    for block, is_reversed in zip(later, [True, False, True, False], strict=True):
        pairs = [block[0:2], block[2:4], block[4:6], block[6:8]]
        assert all(first[0] == second[0] for first, second in pairs)
        assert {(b, a) if is_reversed else (a, b)} == {(first[1], second[1]) for first, second in pairs}
        assert {1, 2, 3, 4} == {first[0] for first, _ in pairs}
    assert 1 < len({tuple(size for size, _ in block) for block in later})  # drawn anew for each block
    planned = [[rows(plan)[cell_id] for cell_id in block.order] for block in blocks(made)]
    assert [[size for size, _ in block] for block in (coarse, *later)] == planned
    assert {plan.config.run.seed} == {block.seed for block in blocks(made)}


def test_groups_that_do_not_fit_together_come_one_after_the_other(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, config_text(("a", "b"), EIGHT))
    apart = dataclasses.replace(plan, is_interleaved=False)
    for number in range(4):
        turns = random_pass(apart, apart.cells(), Draw(1, number))
        a, b = apart.groups if number % 2 == 0 else reversed(apart.groups)
        assert [a.group, b.group] == [group for group, _ in groupby(turn.group.group for turn in turns)]
        assert sorted(turn.cell_id for turn in turns) == sorted(cell.cell.cell_id for cell in plan.cells())


def test_the_seed_and_the_block_decide_the_order(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, config_text(("a",), EIGHT))

    def drawn(seed: int, block: int) -> tuple[str, ...]:
        return tuple(turn.cell_id for turn in random_pass(plan, plan.cells(), Draw(seed, block)))

    assert drawn(1, 1) == drawn(1, 1)
    assert 4 == len({drawn(1, 1), drawn(1, 2), drawn(2, 1), tuple(turn.cell_id for turn in turns_of(plan))})


def watched(folder: Path, monkeypatch: pytest.MonkeyPatch, stop: str = WATCHED, load: str = EIGHT) -> Stage:
    made = stage(folder / "run", monkeypatch, {"warm_up": 1.0, "trial": 5.0})
    made.run(fake_plan(folder / "asked", config_text(load=load, stop=stop)))
    return made


def test_the_cheapest_cell_opens_and_closes_each_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = "{static_batch: [2, 1, 3, 4, 5, 6, 7, 8, 9, 10]}"
    made = watched(tmp_path, monkeypatch, load=load)
    size = rows(fake_plan(tmp_path / "asked", config_text(load=load, stop=WATCHED)))
    (cheapest,) = [cell_id for cell_id, static_batch in size.items() if static_batch == 1]
    assert [cheapest] * 3 == [block.sentinel for block in blocks(made)]
    for block in blocks(made):
        purposes = [(trial.cell_id, trial.purpose) for trial in started(made) if trial.block == block.block]
        assert [(cheapest, "sentinel")] * 2 == [purposes[0], purposes[-1]]
        assert {"measure"} == {purpose for _, purpose in purposes[1:-1]}
    watching = made.read().cells[cheapest].sentinels()
    assert [0, 0, 1, 1, 2, 2] == [trial.started.block for trial in watching]
    assert all(trial.of_kind("warmup") and trial.of_kind("decode") for trial in watching)  # steady before it counts


def test_sentinels_are_no_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = watched(tmp_path / "with", monkeypatch)
    without = watched(tmp_path / "without", monkeypatch, WATCHED.replace("}", ", sentinel: false}"))
    assert [3] * 8 == [len(trials) for trials in workers(with_it.read())]
    assert [3] * 8 == [len(trials) for trials in workers(without.read())]
    for cell in with_it.read().cells.values():
        assert [0, 1, 2] == [trial.started.repetition for trial in cell.trials]
    assert {None} == {block.sentinel for block in blocks(without)}
    sentinels = [trial for cell in with_it.read().cells.values() for trial in cell.sentinel_trials]
    assert 2 == len(sentinels)  # in the first block: it takes more than a tenth of eight even ones, as is known then
    assert all(trial.output is None for trial in sentinels)
    assert [None, None] == [block.sentinel for block in blocks(with_it)[1:]]


def chosen(plan: Plan, turns: Sequence[Turn] | None = None, visit_s: float | None = None) -> Turn | None:
    ledger = Ledger([cell.cell.cell_id for cell in plan.cells()], plan.config.run.stop)
    for account in ledger.accounts.values():
        account.visit_s, account.once_s = visit_s, visit_s
    return choose_sentinel(plan, turns if turns is not None else turns_of(plan), ledger)


def test_a_block_of_few_cells_has_no_sentinel(tmp_path: Path) -> None:
    def plan_of(count: int) -> Plan:
        load = f"{{static_batch: {list(range(1, count + 1))}}}"
        return fake_plan(tmp_path, config_text(("a", "b"), load, stop=WATCHED))

    assert [False, True, True] == [chosen(plan_of(count)) is not None for count in (2, 3, 4)]  # 4, 6 and 8 cells
    assert [False, True] == [chosen(plan_of(count), visit_s=1.0) is not None for count in (4, 5)]  # a tenth at most
    one = fake_plan(tmp_path, config_text(load="{static_batch: 1}", stop=WATCHED))
    assert chosen(one) is None


def test_a_sentinel_needs_no_worker_of_its_own(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, config_text(("a", "b"), EIGHT, stop=WATCHED))
    assert chosen(dataclasses.replace(plan, is_interleaved=False)) is None
    of_second = [turn for turn in turns_of(plan) if turn.group is plan.groups[1]]
    sentinel = chosen(plan, of_second)
    assert sentinel is not None and sentinel.group is plan.groups[1]


def test_a_sentinel_that_fails_counts_against_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(command: Command) -> Failed | None:
        return CRASH if isinstance(command, RunTrial) and len(made.trials()) == 1 else None

    made = stage(tmp_path / "run", monkeypatch, {"trial": 5.0}, fault)
    assert Outcome("complete", 1, 0) == made.run(
        fake_plan(tmp_path / "asked", config_text(load=EIGHT, stop=WATCHED, budget="{total: 6000}"))
    )
    run = made.read()
    assert [3] * 8 == [len(trials) for trials in workers(run)]
    (lost,) = [trial for cell in run.cells.values() for trial in cell.sentinel_trials]  # none after it
    assert lost.failed is not None and "crashed" == lost.failed.cause
    assert all(trial.failed is None for cell in run.cells.values() for trial in cell.trials)


@pytest.mark.parametrize("after", [1, 3, 5, 7, 9])
def test_resume_goes_on_with_the_processes_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    plan = fake_plan(tmp_path / "asked", config_text(stop=STOP))
    first = stage(tmp_path / "run", monkeypatch)

    def interrupt(command: Command) -> None:
        if isinstance(command, RunTrial) and len(first.trials()) > after:
            raise KeyboardInterrupt

    first.fault = interrupt
    with pytest.raises(KeyboardInterrupt):
        first.run(plan)
    before = workers(first.read())
    second = stage(tmp_path / "run", monkeypatch)
    second.names_from = len(first.workers)
    assert "complete" == second.run(plan, first.read()).reason
    run = second.read()
    for earlier, now in zip(before, workers(run), strict=True):
        assert earlier == now[: len(earlier)]  # nothing is measured again
        assert 3 == len(set(now))
    numbers = [block.block for block in run.blocks]
    assert numbers == sorted(set(numbers))
    assert all(a.order + 1 == b.order for a, b in pairwise(started(second)))
