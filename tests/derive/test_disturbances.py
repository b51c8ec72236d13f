"""What disturbed a repetition, repetition by repetition; and every figure with and without those."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from report_builders import FIGURES, VENDORS
from scripted_facts import CPU, GPU, HOST
from tokbench.derive.codes import Code
from tokbench.derive.disturbances import Timeline, find_disturbances
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.report.write import write_report
from tokbench.record.observations import FactsRead
from tokbench.stats import Estimate

SPEED = "decode_tokens_per_s"


def disturbances_of(script: Script, folder: Path) -> list[tuple[Code, ...]]:
    run = script.run(folder)
    (cell,) = run.cells.values()
    return list(find_disturbances(run, cell).values())


def only_cell(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(script.run(folder), "run").cells
    return cell


def text_of(script: Script, folder: Path) -> str:
    results = evaluate(script.run(folder / "run"), "run")
    paths = write_report([results], FIGURES, folder / "out", vendors=VENDORS, with_figures=False)
    return paths.markdown.read_text(encoding="utf-8")


def throttled_once(reason: str = "sw_thermal_slowdown") -> Script:
    """Three repetitions; the device slowed itself down in the second, which took twice as long."""
    script = Script()
    cell_id = script.cell()
    for index, step_s in enumerate((0.01, 0.02, 0.01)):
        script.load_sample(0.0)
        script.wait(1.0)
        script.trial(cell_id, step_s=step_s, worker=f"worker-{index}")
        script.load_sample(0.0, throttle=(reason,) if index == 1 else ())
        script.wait(1.0)
    return script


def test_heat_is_told_of_the_repetition_that_it_touched(tmp_path: Path) -> None:
    assert [(), (Code.THROTTLED,), ()] == disturbances_of(throttled_once(), tmp_path)


def test_the_headline_holds_all_repetitions_and_beside_it_stands_the_rest(tmp_path: Path) -> None:
    cell = only_cell(throttled_once(), tmp_path)
    every, rest = cell.metrics[SPEED], cell.undisturbed.metrics[SPEED]
    assert isinstance(every, Estimate) and isinstance(rest, Estimate)
    assert (3, pytest.approx(100 / 2 ** (1 / 3))) == (every.n, every.value)
    assert (2, pytest.approx(100.0)) == (rest.n, rest.value)
    assert (1, (Code.THROTTLED,)) == (cell.undisturbed.left_out, cell.undisturbed.why)
    assert {"peak_memory_bytes", "weight_bytes"}.isdisjoint(cell.undisturbed.metrics)


def test_both_stand_in_the_report(tmp_path: Path) -> None:
    text = text_of(throttled_once(), tmp_path)
    row = next(line for line in text.splitlines() if "| 1 of 3 | THROTTLED |" in line)
    assert "79.4 (" in row and "100 (100 – 100), n 2" in row


def test_the_power_limit_is_no_disturbance_and_the_speed_is_called_sustained(tmp_path: Path) -> None:
    assert [(), (), ()] == disturbances_of(throttled_once("sw_power_cap"), tmp_path / "a")
    text = text_of(throttled_once("sw_power_cap"), tmp_path / "b")
    assert "At the power limit, so a sustained speed: " in text
    assert "| valid, sustained (" in text
    assert "No repetition was seen to be disturbed." in text


def test_where_every_repetition_was_disturbed_nothing_is_left(tmp_path: Path) -> None:
    script = Script(device=GPU.model_copy(update={"foreign_processes": 1}))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id)
    cell = only_cell(script, tmp_path)
    assert Missing("something disturbed every repetition") == cell.undisturbed.metrics[SPEED]
    assert (3, (Code.FOREIGN_LOAD,)) == (cell.undisturbed.left_out, cell.undisturbed.why)


def test_a_repetition_without_a_warmup_rests_on_the_one_before_it_in_its_visit(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for worker, is_steady in (("a", True), ("b", False), ("b", None), ("c", None)):
        script.trial(cell_id, worker=worker, is_steady=is_steady)
    script.events = [
        event.model_copy(update={"block": 0}) if event.event == "trial_started" else event for event in script.events
    ]
    assert [(), (Code.UNSTEADY,), (Code.UNSTEADY,), ()] == disturbances_of(script, tmp_path)


def test_foreign_load_of_the_cpu_is_told_of_the_repetition_that_it_touched(tmp_path: Path) -> None:
    # 4 usable cores; 9 foreign CPU seconds in the second repetition's 2 s and the second before it: a share of 0.75.
    script = Script(device=CPU)
    script.add(FactsRead(at_ns=script.now_ns, host=HOST.model_copy(update={"logical_cores": 4})))
    cell_id = script.cell()
    used = 0.0
    for foreign_s in (0.0, 9.0, 0.0):
        script.load_sample(used)
        script.wait(1.0)
        script.trial(cell_id, step_s=0.25, prefill_s=1.0)
        used += foreign_s
        script.load_sample(used)
        script.wait(1.0)
    assert [(), (Code.CONTENDED_CPU,), ()] == disturbances_of(script, tmp_path)


@pytest.mark.parametrize(("apart_s", "is_told"), [(0.1, False), (0.2, True)])
def test_a_short_repetition_is_judged_by_the_samples_around_it(tmp_path: Path, apart_s: float, is_told: bool) -> None:
    script = Script(device=CPU)
    script.add(FactsRead(at_ns=script.now_ns, host=HOST.model_copy(update={"logical_cores": 4})))
    cell_id = script.cell()
    script.load_sample(0.0)
    begun = script.now_ns
    script.trial(cell_id, step_s=0.001, prefill_s=0.01)
    script.now_ns = begun + round(apart_s * 1e9)
    script.load_sample(4 * apart_s)
    assert [(Code.CONTENDED_CPU,) * is_told] == disturbances_of(script, tmp_path)


def clocked(*clocks: int, throttle: tuple[str, ...] = ()) -> Script:
    """One repetition per clock, sampled within its decode window."""
    script = Script()
    cell_id = script.cell()
    for mhz in clocks:
        script.trial(cell_id)
        opened = max(i for i, event in enumerate(script.events) if event.event == "window_opened")
        moment, script.now_ns = script.now_ns, script.events[opened].at_ns + 1
        script.load_sample(0.0, sm_clock_mhz=mhz, throttle=throttle if mhz != clocks[0] else ())
        script.now_ns = moment
    return script


@pytest.mark.parametrize(("last", "is_moved"), [(1980, False), (1925, False), (1915, True), (2045, True)])
def test_a_clock_away_from_the_median_is_told_of_its_repetition(tmp_path: Path, last: int, is_moved: bool) -> None:
    script = clocked(1980, 1980, last)
    assert [(), (), (Code.CLOCKS_MOVED,) * is_moved] == disturbances_of(script, tmp_path / "trials")
    assert is_moved == (Code.CLOCKS_MOVED in only_cell(script, tmp_path / "cell").validity.reasons)


def test_clocks_at_the_power_limit_and_two_samples_tell_nothing(tmp_path: Path) -> None:
    capped = clocked(1980, 1500, 1980, 1500, throttle=("sw_power_cap",))
    assert [()] * 4 == disturbances_of(capped, tmp_path / "capped")
    assert [()] * 2 == disturbances_of(clocked(1980, 1500), tmp_path / "two")


def test_a_clock_between_windows_is_no_matter(tmp_path: Path) -> None:
    script = clocked(1980, 1980, 1980)
    script.wait(1.0)
    script.load_sample(0.0, sm_clock_mhz=345)
    assert [()] * 3 == disturbances_of(script, tmp_path)


def rebooted(first_throttle: tuple[str, ...], second_throttle: tuple[str, ...]) -> Script:
    """A repetition, a reboot, and one at the same stamps: the clock has begun anew."""
    script = Script()
    cell_id = script.cell()
    begun = script.now_ns
    for boot, throttle in enumerate((first_throttle, second_throttle)):
        script.now_ns = begun + boot * 1_000_000
        script.load_sample(100.0 * boot)
        script.trial(cell_id, worker=f"worker-{boot}")
        script.load_sample(100.0 * boot, throttle=throttle)
        script.wait(1.0)
        script.load_sample(100.0 * boot)
    return script


def test_samples_of_another_boot_say_nothing_of_a_repetition(tmp_path: Path) -> None:
    """After a reboot the same stamps come again: what throttled the first repetition did not throttle the second."""
    hot = ("hw_thermal_slowdown",)
    assert [(Code.THROTTLED,), ()] == disturbances_of(rebooted(hot, ()), tmp_path / "first")
    assert [(), (Code.THROTTLED,)] == disturbances_of(rebooted((), hot), tmp_path / "second")


def test_samples_stand_in_order_and_by_boot(tmp_path: Path) -> None:
    run = rebooted((), ()).run(tmp_path)
    assert [0, 1] == [trial.boot for cell in run.cells.values() for trial in cell.trials]
    timeline = Timeline(run)
    for boot in (0, 1):
        inside = timeline.inside(boot, 0, 2**62)
        assert [100.0 * boot] * 3 == [sample.machine_cpu_s for sample in inside]
        assert sorted(sample.at_ns for sample in inside) == [sample.at_ns for sample in inside]
    around = timeline.around(run.cells[next(iter(run.cells))].trials)
    assert [0.0, 100.0] == [before.machine_cpu_s for before, _ in around]
    assert [0.0, 100.0] == [after.machine_cpu_s for _, after in around]
