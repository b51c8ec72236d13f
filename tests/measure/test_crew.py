"""Workers by group: opened once, replaced when lost, closed where groups do not fit side by side."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripted_facts import CPU, GPU
from scripted_measure import Clock, Fault, ScriptedWorker, config_text, fake_plan
from tokbench.errors import PlugError
from tokbench.measure import crew as crew_module
from tokbench.measure.crew import Crew, GroupLostError
from tokbench.measure.messages import Command, Done, Failed, OpenGroup, Reply
from tokbench.measure.plan import GroupPlan, Plan
from tokbench.measure.progress import Silent
from tokbench.record.observations import FailureCause
from tokbench.record.store import RunWriter

LIMIT_S = 100.0


class Tired(ScriptedWorker):
    """Has used so many CPU seconds."""

    used_s: float | None = 0.0
    has_died = False

    def is_alive(self) -> bool:
        return not self.has_died

    def cpu_s(self) -> float | None:
        return self.used_s


class Hall:
    """A crew with its clock and the workers that it opened."""

    def __init__(self, folder: Path, plan: Plan, fault: Fault) -> None:
        self.clock = Clock()
        self.heard: list[Command] = []
        self.workers: list[Tired] = []
        self.fault = fault
        self.crew = Crew(plan, RunWriter(folder), self.open, Silent())

    def open(self, group: GroupPlan) -> Tired:
        worker = Tired(f"w{len(self.workers)}", self.clock, {"open": 5.0}, self.fault, self.heard)
        self.workers.append(worker)
        return worker


def hall(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    modes: tuple[str, ...] = ("a", "b"),
    fault: Fault = lambda _: None,
    is_interleaved: bool = True,
) -> tuple[Hall, Plan]:
    plan = dataclasses.replace(fake_plan(tmp_path, config_text(modes)), is_interleaved=is_interleaved)
    made = Hall(tmp_path, plan, fault)
    monkeypatch.setattr(crew_module, "time", made.clock)
    return made, plan


def test_a_worker_is_opened_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, plan = hall(tmp_path, monkeypatch)
    first, second = (made.crew.worker(group, LIMIT_S) for group in plan.groups)
    assert first is made.crew.worker(plan.groups[0], LIMIT_S)
    assert first is not second
    assert (["open", "open"], 10.0) == ([command.command for command in made.heard], made.crew.cold_s)
    assert [("open", LIMIT_S)] == made.workers[0].limits_s
    made.crew.close()
    assert all(worker.is_closed for worker in made.workers)


def test_a_worker_that_died_while_it_was_idle_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another group took may have killed it: its next cell was failed for it."""
    made, plan = hall(tmp_path, monkeypatch)
    first, second = (made.crew.worker(group, LIMIT_S) for group in plan.groups)
    made.workers[0].has_died = True
    assert second is made.crew.worker(plan.groups[1], LIMIT_S)
    assert made.workers[0].is_closed is False
    again = made.crew.worker(plan.groups[0], LIMIT_S)
    assert again is made.workers[2] and again is not first
    assert made.workers[0].is_closed
    assert again is made.crew.worker(plan.groups[0], LIMIT_S)


def test_groups_that_do_not_fit_together_are_not_held_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, plan = hall(tmp_path, monkeypatch, is_interleaved=False)
    for group in (plan.groups[0], plan.groups[1], plan.groups[0]):
        made.crew.worker(group, LIMIT_S)
    assert [True, True, False] == [worker.is_closed for worker in made.workers]


def test_cpu_seconds_never_fall_when_a_worker_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, plan = hall(tmp_path, monkeypatch)
    assert made.crew.cpu_s() is None
    made.crew.worker(plan.groups[0], LIMIT_S)
    made.workers[0].used_s = 7.0
    assert 7.0 == made.crew.cpu_s()
    made.workers[0].used_s = 9.0
    made.crew.drop(plan.groups[0])
    made.crew.worker(plan.groups[0], LIMIT_S)
    made.workers[1].used_s = 1.5
    assert 10.5 == made.crew.cpu_s()
    made.workers[1].used_s = None  # it has just died: nothing is known now, and nothing is forgotten
    assert made.crew.cpu_s() is None
    made.crew.drop(plan.groups[0])
    assert 10.5 == made.crew.cpu_s()


def test_a_refusal_ends_a_run_of_one_group_and_only_a_group_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Failed(cause="engine", text="no such kernel", is_refusal=True, fix="use sdpa")
    one, plan = hall(tmp_path / "one", monkeypatch, modes=("a",), fault=lambda _: refusal)
    with pytest.raises(PlugError, match="no such kernel") as refused:
        one.crew.worker(plan.groups[0], LIMIT_S)
    assert "use sdpa" == refused.value.fix
    several, plan = hall(tmp_path / "several", monkeypatch, fault=lambda _: refusal)
    with pytest.raises(GroupLostError, match="no such kernel") as lost:
        several.crew.worker(plan.groups[0], LIMIT_S)
    assert ("w0", "engine") == (lost.value.worker_id, lost.value.failure.cause)
    assert several.workers[0].is_closed


def test_a_child_that_cannot_be_started_loses_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, plan = hall(tmp_path, monkeypatch)

    def no_memory(group: GroupPlan) -> Tired:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(made.crew, "_open_worker", no_memory)
    with pytest.raises(GroupLostError, match="no worker can be started: Cannot allocate memory"):
        made.crew.worker(plan.groups[0], LIMIT_S)


def real_engine(plan: Plan) -> GroupPlan:
    group = plan.groups[0]
    engine = group.spec.engine.model_copy(update={"kind": "transformers"})
    return dataclasses.replace(group, spec=group.spec.model_copy(update={"engine": engine}))


def test_a_worker_that_dies_over_the_ceilings_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(command: Command) -> Failed | None:
        if command.command == "ceilings":
            return Failed(cause="killed", text="killed")
        return Failed(cause="engine", text="enough seen") if command.command == "open" else None

    made, plan = hall(tmp_path, monkeypatch, fault=fault)
    with pytest.raises(GroupLostError, match="enough seen"):
        made.crew.worker(real_engine(plan), LIMIT_S)
    assert ["ceilings", "open"] == [command.command for command in made.heard]
    assert 2 == len(made.workers)
    assert all(worker.is_closed for worker in made.workers)


def test_ceilings_are_measured_once_a_dtype_and_a_refusal_costs_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(command: Command) -> Done | Failed | None:
        return Failed(cause="engine", text="no torch here") if command.command == "ceilings" else Done()

    made, plan = hall(tmp_path, monkeypatch, fault=fault)
    group = real_engine(plan)
    for _ in range(2):
        made.crew.worker(group, LIMIT_S)
        made.crew.drop(group)
    assert ["ceilings", "open", "open"] == [command.command for command in made.heard]
    assert {"float32"} == made.crew.measured_ceilings


def test_a_group_that_is_refused_when_it_is_opened_again_is_lost_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only group of a run ended it when it could never be opened; now it has numbers that must be kept."""
    answers: list[Done | Failed] = [
        Done(),
        Failed(cause="engine", text="no room", is_refusal=True, fix="a smaller one"),
    ]
    made, plan = hall(tmp_path, monkeypatch, modes=("a",), fault=lambda _: answers.pop(0))
    made.crew.worker(plan.groups[0], LIMIT_S)
    made.crew.drop(plan.groups[0])
    with pytest.raises(GroupLostError, match="no room") as lost:
        made.crew.worker(plan.groups[0], LIMIT_S)
    assert ("w1", True) == (lost.value.worker_id, lost.value.failure.is_refusal)
    assert all(worker.is_closed for worker in made.workers) and not made.crew.has_workers()


class Meeting(Tired):
    """Answers to `open` once as many workers as the barrier asks for are being opened."""

    barrier = threading.Barrier(1)

    def ask(self, command: Command, limit_s: float) -> Iterator[Reply]:
        if command.command == "open":
            self.barrier.wait(timeout=20.0)
        yield from super().ask(command, limit_s)


def loading_hall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault = lambda _: Done(), dtypes: tuple[str, ...] = ()
) -> tuple[Hall, list[GroupPlan]]:
    """Three groups of an engine that has something to load, on two cores of a CPU."""
    made, plan = hall(tmp_path, monkeypatch, modes=("a", "b", "c"), fault=fault)
    groups = []
    for group, dtype in zip(plan.groups, dtypes or ("float32",) * 3, strict=True):
        engine = group.spec.engine.model_copy(update={"kind": "transformers"})
        model = group.spec.model.model_copy(update={"dtype": dtype})
        groups.append(dataclasses.replace(group, spec=group.spec.model_copy(update={"engine": engine, "model": model})))
    host = plan.host.model_copy(update={"usable_cores": 2})
    plan = dataclasses.replace(plan, groups=tuple(groups), host=host, device=CPU)
    made.crew = Crew(plan, made.crew._writer, made.open, Silent())
    made.crew.expect(groups)
    return made, groups


def opened(made: Hall) -> list[str]:
    return [command.group for command in made.heard if isinstance(command, OpenGroup)]


def test_the_next_group_loads_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, groups = loading_hall(tmp_path, monkeypatch)
    monkeypatch.setattr(Meeting, "barrier", threading.Barrier(2))
    monkeypatch.setattr(
        made.crew, "_open_worker", lambda group: Meeting(group.group, made.clock, {}, made.fault, made.heard)
    )
    first = made.crew.worker(groups[0], LIMIT_S)
    assert {groups[0].group, groups[1].group} == set(opened(made))
    assert groups[0].group == first.worker_id
    assert groups[1].group == made.crew.worker(groups[1], LIMIT_S).worker_id
    assert 2 == len(opened(made))


def test_two_side_by_side_cost_their_time_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted clock moves 5 s for each: ten in all, five a group, and none for the group that was ahead."""
    made, groups = loading_hall(tmp_path, monkeypatch)
    made.crew.worker(groups[0], LIMIT_S)
    made.crew.worker(groups[1], LIMIT_S)
    assert 10.0 == made.crew.cold_s
    assert [5.0, 5.0] == [made.crew.open_s[group.group] for group in groups[:2]]


def test_a_group_that_fails_ahead_of_its_turn_fails_again_in_it_and_is_not_tried_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Failed(cause="engine", text="no such kernel")
    lost: set[str] = set()
    made, groups = loading_hall(
        tmp_path,
        monkeypatch,
        lambda command: refusal if isinstance(command, OpenGroup) and command.group in lost else Done(),
    )
    lost.add(groups[1].group)
    made.crew.worker(groups[0], LIMIT_S)
    with pytest.raises(GroupLostError, match="no such kernel"):
        made.crew.worker(groups[1], LIMIT_S)
    made.crew.worker(groups[2], LIMIT_S)
    assert 2 == opened(made).count(groups[1].group)
    assert 1 == opened(made).count(groups[2].group)


def test_a_group_of_another_type_waits_for_its_ceilings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, groups = loading_hall(tmp_path, monkeypatch, dtypes=("float32", "bfloat16", "float32"))
    made.crew.worker(groups[0], LIMIT_S)
    assert {groups[0].group, groups[2].group} == set(opened(made))
    made.crew.worker(groups[1], LIMIT_S)
    assert ["ceilings", "ceilings"] == [c.command for c in made.heard if c.command == "ceilings"]


@pytest.mark.parametrize("change", ["one core", "an accelerator", "apart"])
def test_nothing_loads_beside_where_it_would_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    made, groups = loading_hall(tmp_path, monkeypatch)
    plan = made.crew._plan
    changed = {
        "one core": {"host": plan.host.model_copy(update={"usable_cores": 1})},
        "an accelerator": {"device": GPU},
        "apart": {"is_interleaved": False},
    }[change]
    monkeypatch.setattr(made.crew, "_plan", dataclasses.replace(plan, **changed))
    made.crew.worker(groups[0], LIMIT_S)
    assert [groups[0].group] == opened(made)


def test_an_interruption_while_two_load_leaves_no_worker_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: Command) -> Done:
        if isinstance(command, OpenGroup):
            raise KeyboardInterrupt
        return Done()

    made, groups = loading_hall(tmp_path, monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.crew.worker(groups[0], LIMIT_S)
    assert [True, True] == [worker.is_closed for worker in made.workers]
    assert not made.crew.has_workers()


@pytest.mark.parametrize("cause", ["oom", "killed", "timeout"])
def test_a_group_that_two_loads_crowded_out_is_loaded_once_more_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: FailureCause
) -> None:
    """Two loads at a time hold what neither needs later: the first one was lost to the whole run for it."""
    answers: list[Done | Failed] = [Failed(cause=cause, text="no room for two")]

    def crowded(command: Command) -> Done | Failed:
        is_first = isinstance(command, OpenGroup) and command.group == groups[0].group
        return answers.pop() if is_first and answers else Done()

    made, groups = loading_hall(tmp_path, monkeypatch, crowded)
    found = made.crew.worker(groups[0], LIMIT_S)
    assert made.workers[-1] is found
    assert [True, True, False] == [worker.is_closed for worker in made.workers]
    assert 15.0 == made.crew.open_s[groups[0].group]
    for group in groups[1:]:
        made.crew.worker(group, LIMIT_S)
    assert [group.group for group in (groups[0], groups[1], groups[2])] == opened(made)[-3:]


def test_a_group_that_fails_alone_too_is_lost_and_others_go_on_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(command: Command) -> Done | Failed:
        is_first = isinstance(command, OpenGroup) and command.group == groups[0].group
        return Failed(cause="oom", text="too large") if is_first else Done()

    made, groups = loading_hall(tmp_path, monkeypatch, too_large)
    with pytest.raises(GroupLostError, match="too large") as lost:
        made.crew.worker(groups[0], LIMIT_S)
    assert made.workers[-1].worker_id == lost.value.worker_id
    assert not made.crew.has_workers()
    made.crew.worker(groups[1], LIMIT_S)
    assert {groups[1].group, groups[2].group} == set(opened(made)[-2:])


def test_a_group_that_had_its_turn_is_not_loaded_again_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group whose cells had all run out of memory was loaded once more beside each group to come."""
    made, groups = loading_hall(tmp_path, monkeypatch)
    made.crew.worker(groups[0], LIMIT_S)
    made.crew.worker(groups[1], LIMIT_S)
    for group in groups[:2]:
        made.crew.drop(group)
    made.crew.worker(groups[2], LIMIT_S)
    assert 1 == opened(made).count(groups[0].group)
    assert 1 == opened(made).count(groups[1].group)


def test_the_time_of_a_load_whose_companion_failed_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Failed(cause="engine", text="no such kernel")

    def fault(command: Command) -> Done | Failed:
        return refusal if isinstance(command, OpenGroup) and command.group == groups[1].group else Done()

    made, groups = loading_hall(tmp_path, monkeypatch, fault)
    made.crew.worker(groups[0], LIMIT_S)
    assert {groups[0].group: 10.0} == made.crew.open_s
