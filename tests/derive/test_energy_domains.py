"""Which domains speak for a cell, which add up, and which never do."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from energy_builders import LOAD_W, Power, counter_readings, energy_trial, opened, period
from scripted_facts import CPU, GPU
from tokbench.derive.energy.domains import find_groups, rank_groups
from tokbench.derive.energy.rows import CellEnergy, find_energy
from tokbench.derive.energy.windows import Span, Without
from tokbench.derive.repetitions import UndefinedError
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterAbsent, MeterOpened
from tokbench.record.run import CellRecord, Run


def cell_of(folder: Path, device: DeviceFacts, *domains: MeterOpened, count: int = 1) -> tuple[Run, CellRecord]:
    script = Script(device=device)
    cell_id = script.cell()
    script.add(*domains)
    run = script.run(folder)
    cell = run.cells[cell_id]
    if count > 1:
        cell.spec = cell.spec.model_copy(update={"device": tuple(f"cuda:{index}" for index in range(count))})
    return run, cell


def speaks(folder: Path, device: DeviceFacts, *domains: MeterOpened, count: int = 1) -> tuple[str, str]:
    run, cell = cell_of(folder, device, *domains, count=count)
    best = rank_groups(run, cell, find_groups(run, cell))[0]
    return best.scope, best.name


PACKAGES = (opened("rapl", "package-0", "package"), opened("rapl", "package-1", "package"))
DRAM = opened("rapl", "dram-0", "dram")
BOARDS = tuple(opened("nvml", f"gpu{index}", "board", device_uuid=f"GPU-{index}") for index in range(2))


def test_beside_a_cpu_packages_and_dram_are_one_part(tmp_path: Path) -> None:
    assert ("node part", "package-0 + package-1 + dram-0") == speaks(tmp_path, CPU, *PACKAGES, DRAM)
    assert ("package", "package-0") == speaks(tmp_path / "one", CPU, PACKAGES[0])


def test_beside_a_gpu_its_own_board_speaks(tmp_path: Path) -> None:
    second = GPU.model_copy(update={"uuid": "GPU-1"})
    assert ("board", "gpu1") == speaks(tmp_path, second, *PACKAGES, DRAM, *BOARDS)


def test_the_boards_of_a_split_model_add_up_only_if_all_are_metered(tmp_path: Path) -> None:
    assert ("boards", "gpu0 + gpu1") == speaks(tmp_path, GPU, *PACKAGES, *BOARDS, count=2)
    run, cell = cell_of(tmp_path / "one", GPU, BOARDS[0], count=2)
    with pytest.raises(UndefinedError, match="no meter covers the 2 devices that held the model; metered: gpu0"):
        rank_groups(run, cell, find_groups(run, cell))


def test_what_is_sensed_goes_before_what_is_estimated(tmp_path: Path) -> None:
    estimated = opened("amdsmi", "gpu", "board", is_estimated=True)
    assert ("board", "gpu0") == speaks(tmp_path, GPU, estimated, BOARDS[0])


def test_dram_alone_speaks_for_nothing(tmp_path: Path) -> None:
    run, cell = cell_of(tmp_path, CPU, DRAM)
    with pytest.raises(UndefinedError, match=r"metered: dram-0 \(rapl, dram\)"):
        rank_groups(run, cell, find_groups(run, cell))


def two_meters(folder: Path, share: float, theirs: str) -> CellEnergy:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    for meter, uuid, part in (("nvml", "GPU-0", 1.0), ("zeus", theirs, share)):
        script.add(opened(meter, device_uuid=uuid), period(meter=meter))
        script.add(*counter_readings(power, 0, script.now_ns, meter=meter, share=part))
    script.events.sort(key=lambda event: event.at_ns if isinstance(event, EnergyReading) else 0)
    run = script.run(folder)
    return find_energy(run, run.cells[cell_id])


def test_another_meter_of_the_same_card_is_a_second_source(tmp_path: Path) -> None:
    energy = two_meters(tmp_path, 0.9, "GPU-0")
    (row,) = energy.headline
    assert isinstance(row.output, Span)
    assert ("nvml", pytest.approx(LOAD_W)) == (row.group.meter, row.output.mean_w)
    assert row.agreement == pytest.approx(1 / 0.9)
    assert energy.has_disagreement
    assert not two_meters(tmp_path / "other", 0.9, "GPU-1").has_disagreement


def test_parts_that_may_hold_each_other_neither_add_up_nor_speak(tmp_path: Path) -> None:
    parts = tuple(
        opened("hwmon", name, "package", source="hwmon_power_part")
        for name in ("Grace Power", "CPU Power", "SysIO Power")
    )
    run, cell = cell_of(tmp_path, CPU, *parts)
    with pytest.raises(UndefinedError, match="no meter covers the device"):
        rank_groups(run, cell, find_groups(run, cell))
    rails = (opened("hwmon", "VDD_GPU_SOC", "module", source="hwmon_ina3221_rail"),)
    run, cell = cell_of(tmp_path / "rails", GPU, *rails)
    with pytest.raises(UndefinedError, match="no meter covers the device"):
        rank_groups(run, cell, find_groups(run, cell))


def test_one_of_two_packages_never_speaks_for_the_machine(tmp_path: Path) -> None:
    run, cell = cell_of(tmp_path, CPU, *PACKAGES)
    assert ["package-0 + package-1"] == [group.name for group in rank_groups(run, cell, find_groups(run, cell))]


def test_a_card_that_is_lost_is_told_from_the_others_of_a_split_model(tmp_path: Path) -> None:
    """Each card has a meter of its own, `nvml of cuda:1`: its reason stands at its own domain, and at no other."""
    script, power = Script(device=GPU), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    script.add(opened("nvml", "cuda:0"), opened("nvml", "cuda:1"), period(domain="cuda:0"), period(domain="cuda:1"))
    lost_ns = power.from_ns[1] + 500_000_000
    readings = [item for name in ("cuda:0", "cuda:1") for item in counter_readings(power, 0, lost_ns, domain=name)]
    script.add(*sorted(readings, key=lambda item: item.at_ns))
    reason = "it could be read no longer: GPU is lost"
    script.add(MeterAbsent(meter="nvml of cuda:1", reason=reason, domains=("cuda:1",)))
    run = script.run(tmp_path)
    said = {
        row.group.name: row.output.reason
        for row in find_energy(run, run.cells[cell_id]).rows
        if isinstance(row.output, Without)
    }
    assert said["cuda:1"].startswith("nvml cuda:1: ") and said["cuda:1"].endswith(f"; {reason}")
    assert "GPU is lost" not in said.get("cuda:0", "")
