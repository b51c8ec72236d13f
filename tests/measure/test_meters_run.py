"""Which meters a run opens, what `tokbench meters` and `tokbench doctor` say of them, and RAPL through a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from scripted_meters import CUDA_CARD, Card, Powercap, ScriptedNvml, ScriptedTime, Zone, hwmon_tree, rapl_at
from tokbench.cli.app import app
from tokbench.cli.metering import Meters, open_meters, wanted
from tokbench.errors import PlugError
from tokbench.measure.doctor_energy import energy_findings
from tokbench.measure.findings import Finding, Surroundings
from tokbench.measure.meters import nvml, rapl, zeus
from tokbench.measure.nvml import DriverFacts
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import MeterAbsent
from tokbench.record.run import read_run
from tokbench.record.spec import EnergySpec, SysfsSpec

ROOT = Path(__file__).parents[2]
CPU = DeviceFacts(kind="cpu", name="CPU")
OTHER_CARD = CUDA_CARD.model_copy(update={"uuid": "GPU-b", "index": 1, "pci_bus_id": "00000000:3B:00.0"})
CONFIG = """\
name: metered
model: {source: "shape:tiny-llama", weights: random, dtype: float32}
engine: {kind: fake, options: {step_s: 0.01}}
workload: {kind: synthetic, prompt_tokens: 16, output_tokens: 16}
load: {kind: static_batch, static_batch: 1}
stop: {min_repetitions: 2, max_repetitions: 2, blocks: 1, warmup_cap: 1s}
budget: {total: 60s}
"""


def plan(energy: Any, device: DeviceFacts = CPU, *further: DeviceFacts) -> Any:
    """As much of a plan as opening meters looks at."""
    return SimpleNamespace(config=SimpleNamespace(run=SimpleNamespace(energy=energy)), device=device, further=further)


def sysfs(folder: Path, *meters: str) -> EnergySpec:
    """A config whose kernel files stand in a folder."""
    roots = {name: SysfsSpec(root=str(folder / name)) for name in ("rapl", "hwmon")}
    return EnergySpec(meters=meters or None, **roots)


@pytest.fixture
def two_boards(monkeypatch: pytest.MonkeyPatch) -> ScriptedNvml:
    library = ScriptedNvml(ScriptedTime(), Card("GPU-a"), Card("GPU-b", "00000000:3B:00.0"))
    monkeypatch.setattr(nvml, "load_nvml", lambda: library)
    monkeypatch.setattr(zeus, "load_zeus", lambda: None)
    return library


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cuda", ["hwmon", "nvml", "rapl"]),
        ("rocm", ["amdsmi", "hwmon", "rapl"]),
        ("cpu", ["hwmon", "rapl"]),
        ("mps", ["apple"]),
        ("fake", []),
    ],
)
def test_auto_opens_what_goes_with_the_device(kind: str, expected: list[str]) -> None:
    assert expected == wanted(EnergySpec(), DeviceFacts.model_validate({"kind": kind, "name": "device"}))


def test_meters_without_a_source_are_absent_with_reason_and_remedy(tmp_path: Path) -> None:
    found = open_meters(plan(sysfs(tmp_path)))
    assert ({}, []) == (found.opened, found.domains)
    assert [("hwmon", None), ("rapl", rapl.HIDDEN_REMEDY)] == [(item.meter, item.remedy) for item in found.absent]
    assert all(str(tmp_path) in item.reason for item in found.absent)


def test_a_readable_meter_says_its_domains_and_the_others_their_reason(tmp_path: Path) -> None:
    Powercap(tmp_path / "rapl", ScriptedTime(), {"intel-rapl:0": Zone("package-0")})
    found = open_meters(plan(sysfs(tmp_path)))
    assert ["rapl"] == list(found.opened)
    assert [("rapl", "package-0", "package")] == [(item.meter, item.domain, item.scope) for item in found.domains]
    assert ["hwmon"] == [item.meter for item in found.absent]


def test_a_named_meter_that_cannot_be_read_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(PlugError, match="energy.meters: rapl cannot be read: no RAPL package under") as refused:
        open_meters(plan(sysfs(tmp_path, "fake", "rapl")))
    assert rapl.HIDDEN_REMEDY == refused.value.fix


def test_a_library_that_throws_its_own_error_while_a_meter_opens_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Powercap(tmp_path / "rapl", ScriptedTime(), {"intel-rapl:0": Zone("package-0")})

    def fail(_: object) -> None:
        raise RuntimeError("a library's own words")

    monkeypatch.setattr(rapl.RaplMeter, "opened", fail)
    (absent,) = [one for one in open_meters(plan(sysfs(tmp_path))).absent if one.meter == "rapl"]
    assert absent.reason == "it could be opened, but not read: a library's own words"


def test_energy_off_opens_nothing() -> None:
    assert Meters({}, [], [MeterAbsent(meter="all", reason="the config says energy: off")]) == open_meters(plan("off"))


def test_a_scripted_device_is_told_that_no_meter_goes_with_it() -> None:
    found = open_meters(plan("auto", DeviceFacts(kind="fake", name="scripted device")))
    assert ["no meter goes with a device of the kind fake"] == [item.reason for item in found.absent]


def test_each_card_of_a_split_model_has_its_own_counter(two_boards: ScriptedNvml) -> None:
    found = open_meters(plan(EnergySpec(meters=("nvml",)), CUDA_CARD, OTHER_CARD))
    assert ["nvml", "nvml of cuda:1"] == list(found.opened)
    assert [("cuda:0", "GPU-a"), ("cuda:1", "GPU-b")] == [(item.domain, item.device_uuid) for item in found.domains]


def test_the_list_of_meters_says_scope_source_and_reason(two_boards: ScriptedNvml) -> None:
    rows = json.loads(CliRunner().invoke(app, ["meters", "--json"]).stdout)
    assert {"amdsmi", "apple", "fake", "hwmon", "nvml", "rapl", "zeus"} == {row["kind"] for row in rows}
    boards = [row for row in rows if row["kind"] == "nvml"]
    assert [
        ("GPU-a", "board", "nvml_total_energy", "can be read; power limit 700 W"),
        ("GPU-b", "board", "nvml_total_energy", "can be read; power limit 700 W"),
    ] == [(row["domain"], row["scope"], row["source"], row["state"]) for row in boards]
    (absent,) = [row for row in rows if row["kind"] == "zeus"]
    assert ("–", "board", "–") == (absent["domain"], absent["scope"], absent["source"])
    assert "zeus is not installed; pip install zeus" == absent["state"]


def findings(root: Path, library: ScriptedNvml | None = None, *uuids: str) -> list[Finding]:
    here = Surroundings(
        root=root,
        environ={},
        runner=lambda command, limit_s: subprocess.CompletedProcess(command, 3, "", ""),
        nvml=library,
        version_of=lambda name: None,
        extra_of=lambda name: None,
        which=lambda program: None,
        free_disk_bytes=lambda path: None,
    )
    return energy_findings(here, uuids, DriverFacts())


def test_the_doctor_says_scope_and_source_of_each_domain(tmp_path: Path) -> None:
    powercap = tmp_path / "sys/class/powercap"
    Powercap(powercap, ScriptedTime(), {"intel-rapl:0": Zone("package-0"), "intel-rapl:0:0": Zone("dram", 9.0)})
    hwmon_tree(tmp_path / "tree", {"hwmon0": {"name": "power_meter", "power1_average": "480000000"}})
    (tmp_path / "sys/class/hwmon").symlink_to(tmp_path / "tree/class")
    found = findings(tmp_path, ScriptedNvml(ScriptedTime(), Card("GPU-a")), "GPU-a")
    assert [
        ("ok", "nvml GPU-a: board, nvml_total_energy; power limit 700 W"),
        ("ok", "rapl package-0: package, rapl_energy_uj"),
        ("ok", "rapl package-0/dram: dram, rapl_energy_uj"),
        ("warning", "hwmon power_meter of hwmon0: node, hwmon_power_meter"),
    ] == [(row.status, row.what) for row in found]


def test_the_doctor_says_why_a_slice_and_a_machine_without_sources_have_none(tmp_path: Path) -> None:
    (row,) = findings(tmp_path, ScriptedNvml(ScriptedTime(), Card("MIG-a")), "MIG-a")
    assert ("missing", True) == (row.status, "the card's counts all its slices" in row.what)
    (row,) = findings(tmp_path)
    assert ("missing", True) == (row.status, row.what.startswith("no energy counter"))
    assert row.remedy is not None


@pytest.fixture
def running_tree(tmp_path: Path) -> Iterator[Path]:
    """A powercap tree that a thread keeps counting at 50 W, wrapping every 20 J, written as the kernel shows it."""
    time = ScriptedTime()
    tree = Powercap(tmp_path / "powercap", time, {"intel-rapl:0": Zone("package-0", 50.0, range_uj=20_000_000)})
    counter = tree.root / "intel-rapl:0" / "energy_uj"
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(0.01):
            time.now_ns += 10_000_000
            zone = tree.zones["intel-rapl:0"]
            fresh = counter.with_name("fresh")
            joules = round(zone.watts * time.seconds * 1e6) % (zone.range_uj + 1)
            fresh.write_text(f"{joules}\n", encoding="ascii")
            fresh.replace(counter)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    yield tree.root
    stop.set()
    thread.join(5)


def tokbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "tokbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_a_run_reads_the_tree_that_its_config_names(tmp_path: Path, running_tree: Path) -> None:
    energy = f"energy: {{meters: [rapl], rapl: {{root: {running_tree}}}}}\n"
    (tmp_path / "c.yaml").write_text(CONFIG + energy, encoding="utf-8")
    done = tokbench(tmp_path, "run", "c.yaml", "--out", "RUN", "--no-report")
    assert 0 == done.returncode, done.stderr
    run = read_run(tmp_path / "RUN")
    assert [("rapl", "package-0", "package", "rapl_energy_uj")] == [
        (item.meter, item.domain, item.scope, item.source) for item in run.meters
    ]
    readings = [reading for reading in run.energy if reading.meter == "rapl"]
    assert {20.0} == {reading.range_j for reading in readings}
    assert len({reading.joules for reading in readings}) > 3
    assert all(a.at_ns <= b.at_ns for a, b in pairwise(readings))


def test_a_run_with_a_tree_that_is_not_there_says_so_and_makes_no_record(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    settings = ("--set", "energy.meters=[rapl]", "--set", f"energy.rapl.root={tmp_path / 'none'}")
    done = tokbench(tmp_path, "run", "c.yaml", "--out", "RUN", *settings)
    assert (3, True) == (done.returncode, "rapl cannot be read: no RAPL package under" in done.stderr)
    assert not (tmp_path / "RUN").exists()


def test_the_config_names_roots_and_a_window(tmp_path: Path) -> None:
    assert str(tmp_path) == rapl_at(tmp_path).rapl.root
    assert 4.0 == EnergySpec.model_validate({"window": "4s"}).window
    with pytest.raises(ValueError, match="at least 1 item"):
        EnergySpec.model_validate({"meters": []})
