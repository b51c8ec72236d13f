"""Every energy metric: a case by hand on a scripted counter, and one where it is undefined with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from energy_builders import (
    IDLE_W,
    LOAD_W,
    Power,
    counter_readings,
    energy_trial,
    only_cell,
    opened,
    period,
    power_readings,
    reason_of,
    value_of,
)
from scripted_facts import CPU, GPU
from tokbench.derive.evaluate import CellResult
from tokbench.record.observations import EnergyReading, TrialFailed, TrialStarted
from tokbench.stats import Estimate

ENERGY_METRICS = (
    "energy_j",
    "idle_power_w",
    "mean_power_w",
    "energy_j_per_output_token",
    "net_energy_j_per_output_token",
    "energy_j_per_prompt_token",
    "output_tokens_per_j",
)


def metered(folder: Path, *, device=GPU, **trial) -> CellResult:  # type: ignore[no-untyped-def]
    """Two rows: a prefill of 100 tokens each in 10 ms, decode steps of 10 ms, the counter moves each 100 ms."""
    script, power = Script(device=device), Power()
    cell_id = script.cell(static_batch=2)
    script.trial(cell_id)
    energy_trial(script, cell_id, power, **{"prefill_s": 0.01, **trial})
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    return only_cell(script, folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("idle_power_w", IDLE_W),
        ("mean_power_w", LOAD_W),
        ("energy_j_per_output_token", LOAD_W * 0.01 / 2),
        ("net_energy_j_per_output_token", (LOAD_W - IDLE_W) * 0.01 / 2),
        ("energy_j_per_prompt_token", LOAD_W * 0.01 / 200),
        ("output_tokens_per_j", 2 / (LOAD_W * 0.01)),
    ],
)
def test_energy_by_hand(tmp_path: Path, name: str, expected: float) -> None:
    assert value_of(metered(tmp_path), name) == pytest.approx(expected, rel=1e-3)


def test_joules_lie_between_the_first_and_the_last_tick_inside_the_window(tmp_path: Path) -> None:
    # A window of 2 s holds 20 ticks 100 ms apart, hence 19 periods of 35 J.
    cell = metered(tmp_path)
    assert value_of(cell, "energy_j") == pytest.approx(19 * 0.1 * LOAD_W, rel=1e-9)


@pytest.mark.parametrize("name", ENERGY_METRICS)
def test_no_meter_gives_the_reason_and_the_remedy(tmp_path: Path, name: str) -> None:
    script = Script()
    script.trial(script.cell())
    script.meter_absent("rapl", "energy_uj may be read by root alone", "sudo chmod o+r …")
    assert "rapl: energy_uj may be read by root alone (sudo chmod o+r …)" == reason_of(
        only_cell(script, tmp_path), name
    )


@pytest.mark.parametrize(
    ("trial", "undefined", "reason"),
    [
        ({"prefill_s": None}, "energy_j_per_prompt_token", "no prefill was held long enough for a meter"),
        ({"idle_s": None}, "idle_power_w", "no idle window was held with the model loaded"),
        ({"idle_s": None}, "net_energy_j_per_output_token", "no idle power: no idle window was held"),
        ({"window_s": 0.1}, "energy_j", "the counter was seen to move once within the window of 100 ms"),
        ({"window_s": 0.1}, "mean_power_w", "it moves every 100 ms"),
        ({"window_s": 0.1}, "energy_j_per_output_token", "seen to move once"),
        ({"window_s": 0.1}, "output_tokens_per_j", "seen to move once"),
        ({"load_w": IDLE_W}, "net_energy_j_per_output_token", "idle power of 70 W cannot be told from 70 W under load"),
    ],
)
def test_energy_undefined(tmp_path: Path, trial: dict[str, object], undefined: str, reason: str) -> None:
    assert reason in reason_of(metered(tmp_path, **trial), undefined)


def test_an_energy_trial_is_no_repetition(tmp_path: Path) -> None:
    speed = metered(tmp_path).metrics["decode_tokens_per_s"]
    assert isinstance(speed, Estimate)
    assert 1 == speed.n


def test_values_are_grouped_by_the_worker_of_their_energy_trial(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    for worker in ("a", "b", "c"):
        script.trial(cell_id, worker=worker)
        script.trial(cell_id, worker=worker)
    for worker, load_w in (("a", 300.0), ("b", 330.0), ("c", 360.0)):
        energy_trial(script, cell_id, power, worker=worker, load_w=load_w)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    cell = only_cell(script, tmp_path)
    assert [[pytest.approx(watts)] for watts in (300, 330, 360)] == [list(b) for b in cell.blocks["mean_power_w"]]
    value = cell.metrics["mean_power_w"]
    assert isinstance(value, Estimate)
    assert (3, 3, "blocks") == (value.n, value.blocks, value.basis)


def test_a_trial_without_the_value_leaves_the_others_with_their_workers(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    for worker in ("a", "b"):
        script.trial(cell_id, worker=worker)
    for worker, idle_s in (("a", None), ("b", 2.0), ("b", 2.0)):
        energy_trial(script, cell_id, power, worker=worker, idle_s=idle_s, window_s=0.05 if worker == "a" else 2.0)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    cell = only_cell(script, tmp_path)
    assert ((2,), 3) == (tuple(map(len, cell.blocks["energy_j"])), len(cell.blocks["idle_power_w"][1]) + 1)


def test_disturbed_repetitions_take_no_energy_with_them(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id, is_steady=False)
    energy_trial(script, cell_id, power)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    cell = only_cell(script, tmp_path)
    assert "decode_tokens_per_s" in cell.undisturbed.metrics
    assert set() == set(ENERGY_METRICS) & set(cell.undisturbed.metrics)


def test_a_failed_energy_trial_says_so(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    script.trial(cell_id)
    script.add(
        opened(),
        TrialStarted(trial_id="e", cell_id=cell_id, repetition=0, block=0, order=9, worker_id="w", at_ns=script.now_ns,
                     purpose="energy"),
        TrialFailed(trial_id="e", cell_id=cell_id, at_ns=script.now_ns, cause="crashed", message="GPU is lost"),
    )  # fmt: skip
    assert "the energy trial failed: GPU is lost" == reason_of(only_cell(script, tmp_path), "energy_j")


def test_power_without_a_counter_is_integrated(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    script.add(opened(meter="hwmon"), *power_readings(power, 0, script.now_ns, meter="hwmon"))
    cell = only_cell(script, tmp_path)
    assert value_of(cell, "energy_j_per_output_token") == pytest.approx(LOAD_W * 0.01, rel=1e-9)
    assert value_of(cell, "idle_power_w") == pytest.approx(IDLE_W, rel=1e-9)


def test_a_package_beside_a_gpu_is_no_energy_of_the_gpu(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    script.add(
        opened("rapl", "package-0", "package"),
        period(meter="rapl", domain="package-0"),
        *counter_readings(power, 0, script.now_ns, meter="rapl", domain="package-0"),
    )
    reason = reason_of(only_cell(script, tmp_path), "energy_j")
    assert "no meter covers the device that did the work; metered: package-0 (rapl, package)" == reason


def test_package_and_dram_add_up_beside_a_cpu(tmp_path: Path) -> None:
    script, power = Script(device=CPU), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    for domain, share, phase_s in (("package-0", 0.8, 0.01), ("dram-0", 0.2, 0.06)):
        scope = "package" if domain == "package-0" else "dram"
        script.add(
            opened("rapl", domain, scope),  # type: ignore[arg-type]
            period(meter="rapl", domain=domain),
            *counter_readings(power, 0, script.now_ns, meter="rapl", domain=domain, share=share, phase_s=phase_s),
        )
    script.events.sort(key=lambda event: event.at_ns if isinstance(event, EnergyReading) else 0)
    cell = only_cell(script, tmp_path)
    assert value_of(cell, "mean_power_w") == pytest.approx(LOAD_W, rel=1e-9)
    assert value_of(cell, "energy_j_per_output_token") == pytest.approx(LOAD_W * 0.01, rel=1e-3)
