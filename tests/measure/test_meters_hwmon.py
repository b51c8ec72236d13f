"""hwmon on a scripted tree: cards by PCI address, Jetson rails, packages, the machine's meter, unknown chips."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted_meters import ROCM_CARD, ScriptedTime, hwmon_tree
from tokbench.measure.meters import Unavailable
from tokbench.measure.meters.hwmon import HwmonMeter, open_meter
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec, SysfsSpec

CPU = DeviceFacts(kind="cpu", name="CPU")
RAILS = {"in1_label": "VDD_CPU", "in1_input": "5000", "curr1_input": "1000"}


def opened(root: Path, device: DeviceFacts | None, **chips: dict[str, str]) -> HwmonMeter:
    spec = EnergySpec(hwmon=SysfsSpec(root=str(hwmon_tree(root, chips))))
    return open_meter(device, spec, ScriptedTime().monotonic_ns)


def only(meter: HwmonMeter) -> MeterOpened:
    (item,) = meter.opened()
    return item


@pytest.mark.parametrize(("file", "kind"), [("power1_average", "average"), ("power1_input", "instant")])
def test_the_runs_own_amd_card_is_read_by_its_pci_address(tmp_path: Path, file: str, kind: str) -> None:
    meter = opened(
        tmp_path,
        ROCM_CARD,
        hwmon0={"name": "amdgpu", file: "50000000", "device": "0000:05:00.0"},
        hwmon1={"name": "amdgpu", file: "310000000", "power1_cap": "750000000", "device": "0000:c1:00.0"},
    )
    (reading,) = meter.read()
    assert isinstance(reading, PowerReading)
    assert ("rocm:0", 310.0, kind) == (reading.domain, reading.watts, reading.kind)
    item = only(meter)
    assert ("board", "hwmon_amdgpu_power", 750.0) == (item.scope, item.source, item.power_limit_w)


def test_an_intel_card_counts_the_card_and_not_the_package_inside_it(tmp_path: Path) -> None:
    files = {"energy1_input": "9000000", "energy1_label": "card", "energy2_input": "4000000", "energy2_label": "pkg"}
    meter = opened(tmp_path, None, hwmon0={"name": "xe", "device": "0000:03:00.0"} | files)
    assert [9.0] == [reading.joules for reading in meter.read() if isinstance(reading, EnergyReading)]
    assert ("0000:03:00.0", "board", "hwmon_xe_energy") == (only(meter).domain, only(meter).scope, only(meter).source)


def test_the_rail_of_the_whole_module_stands_for_all(tmp_path: Path) -> None:
    whole = {"in2_label": "VDD_IN", "in2_input": "19000", "curr2_input": "2000"}
    meter = opened(tmp_path, CPU, hwmon0={"name": "ina3221"} | RAILS | whole)
    assert [("VDD_IN", 38.0)] == [(r.domain, r.watts) for r in meter.read() if isinstance(r, PowerReading)]
    assert ("module", "hwmon_ina3221", None) == (only(meter).scope, only(meter).source, only(meter).note)


def test_rails_without_a_whole_one_say_that_they_are_parts(tmp_path: Path) -> None:
    meter = opened(tmp_path, CPU, hwmon0={"name": "ina3221"} | RAILS)
    assert [("VDD_CPU", 5.0)] == [(r.domain, r.watts) for r in meter.read() if isinstance(r, PowerReading)]
    assert "one rail of the module, not the whole of it" == only(meter).note


def test_sockets_of_amd_energy_count_and_cores_inside_them_do_not(tmp_path: Path) -> None:
    files = {"energy1_input": "1000000", "energy1_label": "Ecore000"}
    files |= {"energy2_input": "7000000", "energy2_label": "Esocket0"}
    meter = opened(tmp_path, CPU, hwmon0={"name": "amd_energy"} | files)
    assert [("Esocket0", 7.0)] == [(r.domain, r.joules) for r in meter.read() if isinstance(r, EnergyReading)]
    assert "package" == only(meter).scope


def test_the_machines_own_meter_is_of_the_node(tmp_path: Path) -> None:
    meter = opened(tmp_path, CPU, hwmon0={"name": "power_meter", "power1_average": "480000000"})
    item = only(meter)
    assert ("power_meter of hwmon0", "node", "hwmon_power_meter") == (item.domain, item.scope, item.source)


def test_meters_of_parts_are_named_as_the_firmware_does_and_not_to_be_added_up(tmp_path: Path) -> None:
    meter = opened(
        tmp_path,
        CPU,
        hwmon0={"name": "power_meter", "power1_average": "500000000", "power1_oem_info": "Module Power Socket 0"},
        hwmon1={"name": "power_meter", "power1_average": "90000000", "power1_oem_info": "Grace Power Socket 0"},
    )
    assert [("Module Power Socket 0", "module"), ("Grace Power Socket 0", "package")] == [
        (item.domain, item.scope) for item in meter.opened()
    ]
    assert all("must not be added up" in str(item.note) for item in meter.opened())


def test_a_card_of_another_run_and_an_unknown_chip_are_not_read(tmp_path: Path) -> None:
    meter = opened(
        tmp_path,
        CPU,
        hwmon0={"name": "amdgpu", "power1_average": "50000000", "device": "0000:05:00.0"},
        hwmon1={"name": "mystery", "power1_input": "1"},
    )
    reason = f"no power sensor under {tmp_path / 'class'} that tokbench knows; unknown ones: mystery"
    assert Unavailable(reason) == meter.availability()
    assert ([], [], ()) == (meter.read(), meter.opened(), meter.domains())


def test_a_sensor_that_reads_0_is_not_read_at_all(tmp_path: Path) -> None:
    meter = opened(tmp_path, CPU, hwmon0={"name": "power_meter", "power1_average": "0"})
    assert isinstance(meter.availability(), Unavailable)


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `energy1_input` may be read."""
    plain = Path.read_text

    def read_text(path: Path, *args: str, **kwargs: str) -> str:
        if path.name == "energy1_input":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.mark.usefixtures("denied")
def test_a_sensor_that_may_not_be_read_is_said_beside_one_that_may(tmp_path: Path) -> None:
    files = {"energy1_input": "1", "energy1_label": "Esocket0"}
    machine = {"name": "power_meter", "power1_average": "480000000"}
    item = only(opened(tmp_path, CPU, hwmon0={"name": "amd_energy"} | files, hwmon1=machine))
    assert ("node", "permission denied for Esocket0: not read") == (item.scope, item.note)


@pytest.mark.usefixtures("denied")
def test_a_sensor_that_may_not_be_read_says_what_opens_it(tmp_path: Path) -> None:
    files = {"energy1_input": "1", "energy1_label": "Esocket0"}
    meter = opened(tmp_path, CPU, hwmon0={"name": "amd_energy"} | files)
    state = meter.availability()
    assert isinstance(state, Unavailable) and "permission denied for Esocket0" == state.reason
    assert state.remedy is not None and "any local user can then read it" in state.remedy
