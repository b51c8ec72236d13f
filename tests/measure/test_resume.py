"""A run that was interrupted goes on: what is missing is measured, and nothing else."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest

from builders import Script
from scripted_facts import GPU, ceilings
from scripted_measure import CRASH, PLACE, Stage, config_text, events_of, failing, fake_plan, rows, stage, without_room
from tokbench.cli.running import refuse_other_device
from tokbench.errors import RecordError
from tokbench.measure.messages import Command, Failed, RunTrial
from tokbench.measure.plan import Plan
from tokbench.measure.progress import Silent
from tokbench.measure.runner import Outcome, Runner
from tokbench.record.observations import CellPlanned, CellSkipped, TrialStarted
from tokbench.record.run import Run
from tokbench.record.store import RunWriter


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan, after: int) -> Stage:
    """A run that Ctrl-C ends in the middle of a trial."""
    made = stage(folder, monkeypatch, {"trial": 10.0})

    def fault(command: Command) -> None:
        if isinstance(command, RunTrial) and len(made.trials()) > after:
            raise KeyboardInterrupt

    made.fault = fault
    with pytest.raises(KeyboardInterrupt):
        made.run(plan)
    assert all(worker.is_closed for worker in made.workers)
    return made


def resume(folder: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan, earlier: Run) -> Stage:
    made = stage(folder, monkeypatch, {"trial": 10.0})
    assert "complete" == made.run(plan, earlier).reason
    return made


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_resume_measures_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    plan = fake_plan(tmp_path / "asked", config_text(("a", "b")))
    first = interrupted(tmp_path / "run", monkeypatch, plan, after)
    before = first.read()
    done = {trial.started.trial_id for cell in before.cells.values() for trial in cell.good_trials()}
    assert after == len(done)
    second = resume(tmp_path / "run", monkeypatch, plan, before)
    run = second.read()
    assert {3} == {len(cell.good_trials()) for cell in run.cells.values()}
    assert 12 - after == len(second.trials())
    started = [event for event in events_of(first.folder, TrialStarted) if isinstance(event, TrialStarted)]
    ids = [event.trial_id for event in started]
    assert (len(ids), list(range(len(ids)))) == (len(set(ids)), [event.order for event in started])
    assert done < {trial.started.trial_id for cell in run.cells.values() for trial in cell.good_trials()}
    assert 4 == len(events_of(first.folder, CellPlanned))
    earlier_blocks, later_blocks = started[: after + 1], started[after + 1 :]
    assert max(e.block for e in earlier_blocks) < min(e.block for e in later_blocks)
    assert all(a.block <= b.block for a, b in pairwise(started))


def test_resume_of_a_complete_run_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked")
    made = stage(tmp_path / "run", monkeypatch)
    made.run(plan)
    again = resume(tmp_path / "run", monkeypatch, plan, made.read())
    assert ([], []) == (again.workers, again.heard)


def test_resume_goes_on_with_what_the_budget_left_out_and_not_with_what_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config_text(load="{static_batch: [1, 2, 4]}", budget="{total: 15}")
    plan = fake_plan(tmp_path / "asked", text)
    oom = Failed(cause="oom", text="no memory")
    made = stage(tmp_path / "run", monkeypatch, {"prepare": 0.0, "trial": 20.0}, failing(1, "prepare", oom))
    assert Outcome("budget", 1, 1) == made.run(plan)
    longer = dataclasses.replace(
        plan, config=fake_plan(tmp_path / "longer", config_text(load="{static_batch: [1, 2, 4]}")).config
    )
    again = resume(tmp_path / "run", monkeypatch, longer, made.read())
    size = rows(plan)
    assert {2, 4} == {size[cell_id] for cell_id in again.visits()}
    assert [0, 3, 3] == [len(cell.good_trials()) for cell in again.read().cells.values()]


def test_resume_tells_once_that_a_cell_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = without_room(fake_plan(tmp_path / "asked"), 2)
    made = stage(tmp_path / "run", monkeypatch)
    made.run(plan)
    resume(tmp_path / "run", monkeypatch, plan, made.read())
    assert 1 == len(events_of(made.folder, CellSkipped))


def test_resume_keeps_a_measured_cell_that_is_now_predicted_not_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked")
    made = stage(tmp_path / "run", monkeypatch)
    made.run(plan)
    resume(tmp_path / "run", monkeypatch, without_room(plan, 2), made.read())
    assert [] == events_of(made.folder, CellSkipped)


def test_resume_counts_the_failures_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked", config_text(load="{static_batch: 1}"))
    crash_and_stop: list[Failed] = [CRASH]

    def fault(command: Command) -> Failed | None:
        if isinstance(command, RunTrial):
            if not crash_and_stop:
                raise KeyboardInterrupt
            return crash_and_stop.pop()
        return None

    made = stage(tmp_path / "run", monkeypatch, fault=fault)
    with pytest.raises(KeyboardInterrupt):
        made.run(plan)
    again = stage(tmp_path / "run", monkeypatch, fault=failing(1, "trial", *[CRASH] * 9))
    assert Outcome("complete", 1, 1) == again.run(plan, made.read())  # one more, and that is the second


def test_ceilings_of_an_earlier_part_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked")
    made = stage(tmp_path / "run", monkeypatch)
    made.run(plan)
    earlier = made.read()
    earlier.ceilings.append(ceilings())
    writer = RunWriter(made.folder)
    resumed = Runner(plan, writer, made.open_worker, Silent(), lambda: None)
    resumed.run(earlier)
    writer.close()
    assert {"bfloat16"} == resumed.crew.measured_ceilings


def test_a_record_goes_on_on_the_device_that_it_was_begun_on(tmp_path: Path) -> None:
    run = Script(GPU).run(tmp_path)
    refuse_other_device(run, dataclasses.replace(PLACE, device=GPU))
    with pytest.raises(RecordError, match="was made on NVIDIA H100 80GB HBM3, here is scripted device"):
        refuse_other_device(run, PLACE)
