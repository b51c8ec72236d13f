"""When a cell has an energy trial, what it asks of the worker and the sampler, and what becomes of one that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripted_measure import CRASH, Stage, config_text, endless, fake_plan, stage
from tokbench.cli import app
from tokbench.measure.energy_trial import Lengths, window_lengths
from tokbench.measure.messages import Command, Done, Failed, RunEnergy
from tokbench.measure.runner import Outcome
from tokbench.record.run import Trial, read_run
from tokbench.record.spec import EnergySpec

ONE = config_text(load="{static_batch: 2}")
REQUESTS = config_text(load="{kind: closed, concurrency: 2, requests: 4}").replace(
    "kind: fake,", "kind: fake, mode: requests,"
)


class Meters:
    """A sampler whose counters move every 100 ms; it notes what it is told."""

    def __init__(self, *, are_there: bool = True) -> None:
        self.are_there = are_there
        self.told: list[str] = []

    def has_meters(self) -> bool:
        return self.are_there

    def period_s(self) -> float | None:
        return 0.1

    def begin_energy(self) -> None:
        self.told.append("begin")

    def end_energy(self) -> None:
        self.told.append("end")


def energy_trials(made: Stage) -> list[Trial]:
    (cell,) = made.read().cells.values()
    return cell.energy_trials


def asked(made: Stage) -> list[RunEnergy]:
    return [command for command in made.heard if isinstance(command, RunEnergy)]


@pytest.mark.parametrize(
    ("spec", "period_s", "is_gpu", "expected"),
    [
        ("auto", 0.02, False, Lengths(2.04, 2.04)),
        ("auto", 0.02, True, Lengths(5.0, 2.04)),
        ("auto", 0.1, True, Lengths(5.0, 4.2)),
        ("auto", 0.2, True, Lengths(8.4, 8.4)),
        ("auto", None, False, Lengths(4.2, 4.2)),  # not known yet: as the slowest of a GPU
        (EnergySpec(meters=("fake",)), 0.02, False, Lengths(2.04, 2.04)),
        (EnergySpec(window=0.5), 0.1, True, Lengths(0.5, 0.5)),
    ],
)
def test_windows_hold_forty_periods_of_the_slowest_counter(
    spec: EnergySpec, period_s: float | None, is_gpu: bool, expected: Lengths
) -> None:
    lengths = window_lengths(spec, period_s, is_gpu=is_gpu)
    assert tuple(pytest.approx(value) for value in expected) == lengths


def test_each_visit_ends_with_an_energy_trial_that_is_no_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked", ONE)
    made, meters = stage(tmp_path / "run", monkeypatch, {"trial": 2.0}), Meters()
    assert Outcome("complete", 0, 0) == made.run(plan, energy=meters)
    (cell,) = made.read().cells.values()
    visits = len(made.visits())
    assert (3, visits) == (len(cell.good_trials()), len(cell.energy_trials))
    assert {"energy"} == {trial.started.purpose for trial in cell.energy_trials}
    assert [*range(visits)] == [trial.started.repetition for trial in cell.energy_trials]
    assert all(trial.finished is not None for trial in cell.energy_trials)
    assert [["idle", "energy_prefill", "energy_decode"]] * visits == [
        [window.kind for window in trial.windows.values()] for trial in cell.energy_trials
    ]
    assert [pytest.approx(4.2)] * 2 * visits == [
        seconds for each in asked(made) for seconds in (each.idle_s, each.window_s)
    ]
    assert ["begin", "end"] * visits == meters.told
    kinds = [command.command for command in made.heard if command.command in ("prepare", "trial", "energy")]
    assert "energy" == kinds[-1] and "prepare" != kinds[kinds.index("energy") - 1]


@pytest.mark.parametrize("meters", [None, Meters(are_there=False)])
def test_without_meters_there_is_no_energy_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meters: Meters | None
) -> None:
    plan = fake_plan(tmp_path / "asked", ONE)
    made = stage(tmp_path / "run", monkeypatch)
    made.run(plan, energy=meters)
    assert ([], []) == (energy_trials(made), asked(made))


def test_a_failure_costs_the_energy_trial_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(command: Command) -> Done | Failed | None:
        return CRASH if isinstance(command, RunEnergy) else None

    plan = fake_plan(tmp_path / "asked", ONE)
    made, meters = stage(tmp_path / "run", monkeypatch, {"trial": 5.0}, fault), Meters()
    assert Outcome("complete", 1, 0) == made.run(plan, energy=meters)
    (cell,) = made.read().cells.values()
    assert (3, None) == (len(cell.good_trials()), cell.skipped)
    (trial,) = cell.energy_trials  # one is enough: it would fail again
    assert trial.failed is not None
    assert ("crashed", "the worker died: SIGSEGV") == (trial.failed.cause, trial.failed.message)
    assert ["begin", "end"] == meters.told
    assert made.workers[0].is_closed and 1 < len(made.workers)


def test_an_energy_trial_that_the_budget_has_no_time_for_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked", endless("20", load="{static_batch: 2}"))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 4.0, "energy": 12.6})
    assert Outcome("budget", 0, 0) == made.run(plan, energy=Meters())
    left_out = [trial.failed for trial in energy_trials(made) if trial.failed is not None]
    assert left_out
    assert {"skipped"} == {failure.cause for failure in left_out}
    assert left_out[0].message.startswith("it needs ") and "of the budget are left" in left_out[0].message


def test_trials_of_requests_are_watched_closely_themselves_and_have_an_idle_window_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(tmp_path / "asked", REQUESTS)
    made, meters = stage(tmp_path / "run", monkeypatch), Meters()
    made.run(plan, energy=meters)
    repetitions, beside = made.trials(), asked(made)
    assert repetitions and beside
    assert ["begin", "end"] * (len(repetitions) + len(beside)) == meters.told
    assert {("idle",)} == {tuple(window.kind for window in trial.windows.values()) for trial in energy_trials(made)}


def test_a_resumed_run_goes_on_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked", endless("60", load="{static_batch: 2}"))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 4.0, "energy": 12.6})
    made.run(plan, energy=Meters())
    before = len(energy_trials(made))
    made.names_from = len(made.workers)
    made.run(plan, made.read(), Meters())
    (cell,) = made.read().cells.values()
    assert before < len(cell.energy_trials)
    assert [*range(len(cell.energy_trials))] == [trial.started.repetition for trial in cell.energy_trials]
    orders = [trial.started.order for trial in cell.all_trials()]
    assert len(orders) == len(set(orders))


def test_a_failure_is_remembered_by_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fail again, and cost a worker each time; the record says why there is no energy."""
    plan = fake_plan(tmp_path / "asked", endless("60", load="{static_batch: 2}"))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 4.0, "energy": 12.6}, _failing_energy)
    made.run(plan, energy=Meters())
    assert ["crashed"] == _causes(made)
    made.fault, made.names_from = lambda _: None, len(made.workers)
    before = len(asked(made))
    made.run(plan, made.read(), Meters())
    assert (before, ["crashed"]) == (len(asked(made)), _causes(made))
    assert energy_trials(made)[0].failed is not None


def test_what_was_left_out_for_lack_of_time_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(tmp_path / "asked", endless("20", load="{static_batch: 2}"))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 4.0, "energy": 12.6})
    made.run(plan, energy=Meters())
    assert {"skipped"} == {cause for cause in _causes(made) if cause is not None}
    made.names_from = len(made.workers)
    longer = fake_plan(tmp_path / "longer", endless("60", load="{static_batch: 2}"))
    before = len(asked(made))
    made.run(longer, made.read(), Meters())
    assert len(asked(made)) > before


def _failing_energy(command: Command) -> Done | Failed | None:
    return CRASH if isinstance(command, RunEnergy) else None


def _causes(made: Stage) -> list[str | None]:
    return [None if trial.failed is None else trial.failed.cause for trial in energy_trials(made)]


@pytest.mark.parametrize(("trial_s", "is_left_out"), [("12", True), ("600", False)])
def test_an_energy_trial_longer_than_a_trial_may_be_is_left_out_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial_s: str, is_left_out: bool
) -> None:
    """4.2 s of idle, 2 windows of 4.2 s and what a pass of 2 s outlasts each by: 16.6 s."""
    plan = fake_plan(tmp_path / "asked", config_text(load="{static_batch: 2}", budget=f"{{trial: {trial_s}}}"))
    made = stage(tmp_path / "run", monkeypatch, {"trial": 2.0})
    made.run(plan, energy=Meters())
    said = [trial.failed.message for trial in energy_trials(made) if trial.failed is not None]
    assert is_left_out == bool(said)
    assert all(f"a trial may take {trial_s} s (budget.trial)" in message for message in said)
    assert is_left_out == (not asked(made))


def test_requests_have_an_idle_window_alone_and_need_no_more_time() -> None:
    lengths = Lengths(5.0, 4.0)
    assert (13.0 + 600, 5.0) == (lengths.total_s(300.0, has_work=True), lengths.total_s(300.0, has_work=False))


def test_a_run_of_the_command_line_records_energy_trials_and_what_the_meter_showed_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path(__file__).resolve().parents[2] / "configs" / "fake-energy.yaml"
    shorter = ("energy.window=2", "stop.min_repetitions=1", "stop.max_repetitions=1", "stop.blocks=1")
    typed = ["tokbench", "run", str(config), "--out", str(tmp_path / "run"), "--no-report"]
    monkeypatch.setattr(sys, "argv", [*typed, *(part for item in shorter for part in ("--set", item))])
    assert 0 == app.main()
    run = read_run(tmp_path / "run")
    (cell,) = run.cells.values()
    (trial,) = cell.energy_trials
    assert trial.finished is not None
    assert ["idle", "energy_prefill", "energy_decode"] == [window.kind for window in trial.windows.values()]
    assert ["script"] == [item.domain for item in run.meters]
    for window in trial.windows.values():
        assert window.closed is not None
        assert any(window.opened.at_ns < each.at_ns < window.closed.at_ns for each in run.energy)
