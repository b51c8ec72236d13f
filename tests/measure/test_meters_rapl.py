"""RAPL on a scripted powercap tree: which zones count, wraps, mirrors, permissions. No hardware."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted_meters import Powercap, ScriptedTime, Zone, rapl_at
from tokbench.errors import PlugError
from tokbench.measure.meters import Available, Unavailable
from tokbench.measure.meters.rapl import EXPOSES, HIDDEN_REMEDY, RaplMeter, open_meter
from tokbench.record.observations import EnergyReading

AMD_RANGE_UJ = 65_532_610_987
"""2^32 counts of 15.3 microjoules: 234 s at 280 W."""


def opened(root: Path, **zones: Zone) -> tuple[RaplMeter, ScriptedTime]:
    """A meter on a tree of zones; `_` stands for `-` and `__` for `:` in a name."""
    time = ScriptedTime()
    Powercap(root, time, {name.replace("__", ":").replace("_", "-"): zone for name, zone in zones.items()})
    return open_meter(None, rapl_at(root), time.monotonic_ns, time.sleep), time


def counters(meter: RaplMeter) -> dict[str, float]:
    return {reading.domain: reading.joules for reading in meter.read() if isinstance(reading, EnergyReading)}


def test_packages_and_their_memory_count_and_nothing_else(tmp_path: Path) -> None:
    meter, time = opened(
        tmp_path,
        intel_rapl__0=Zone("package-0", 100.0),
        intel_rapl__0__0=Zone("core", 60.0),
        intel_rapl__0__1=Zone("dram", 15.0),
        intel_rapl__0__2=Zone("uncore", 5.0),
        intel_rapl__1=Zone("psys", 160.0),
        intel_rapl_mmio__0=Zone("package-0", 100.0),
    )
    assert Available() == meter.availability()
    assert ("package-0", "package-0/dram") == meter.domains()
    assert ["package", "dram"] == [item.scope for item in meter.opened()]
    assert {"rapl_energy_uj"} == {item.source for item in meter.opened()}
    before = counters(meter)
    time.sleep(3.0)
    after = counters(meter)
    assert {"package-0": 300.0, "package-0/dram": 45.0} == pytest.approx({k: after[k] - before[k] for k in after})


def test_a_single_package_is_opened_without_waiting(tmp_path: Path) -> None:
    meter, time = opened(tmp_path, intel_rapl__0=Zone("package-0"), intel_rapl__0__0=Zone("dram", 9.0))
    begun = time.now_ns
    meter.opened()
    assert begun == time.now_ns


def test_each_zone_wraps_at_its_own_range(tmp_path: Path) -> None:
    meter, time = opened(
        tmp_path,
        intel_rapl__0=Zone("package-0", 280.0, start_uj=AMD_RANGE_UJ - 600_000_000, range_uj=AMD_RANGE_UJ),
        intel_rapl__0__0=Zone("dram", 10.0),
    )
    first = counters(meter)
    time.sleep(5.0)
    readings = [reading for reading in meter.read() if isinstance(reading, EnergyReading)]
    package, dram = readings
    assert package.joules < first["package-0"]
    assert package.range_j is not None and dram.range_j is not None
    assert 280.0 * 5 == pytest.approx(package.joules - first["package-0"] + package.range_j, abs=1e-5)
    assert 262_143.328850 == pytest.approx(dram.range_j)


def test_a_zone_that_mirrors_another_counts_once_and_is_named(tmp_path: Path) -> None:
    meter, time = opened(
        tmp_path,
        intel_rapl__0=Zone("package-0", 120.0),
        intel_rapl__1=Zone("package-0", 120.0),
        intel_rapl__2=Zone("package-1", 119.0),
    )
    begun = time.now_ns
    assert ("package-0 of intel-rapl:0", "package-1") == meter.domains()
    assert 2_000_000_000 == time.now_ns - begun
    note = meter.opened()[0].note
    assert "intel-rapl:1 shows the same counter as intel-rapl:0 and is left out" == note
    assert {"package-0 of intel-rapl:0", "package-1"} == set(counters(meter))
    assert 2_000_000_000 == time.now_ns - begun, "watched once"


def test_a_mirror_that_wraps_while_it_is_watched_is_still_one(tmp_path: Path) -> None:
    wraps = Zone("package-0", 200.0, start_uj=999_800_000, range_uj=1_000_000_000)
    meter, _ = opened(tmp_path, intel_rapl__0=wraps, intel_rapl__1=Zone("package-1", 200.0, start_uj=7))
    assert ("package-0",) == meter.domains()


@pytest.mark.parametrize("other_watts", [100.2, 99.0, 50.0])
def test_two_sockets_with_like_power_are_two(tmp_path: Path, other_watts: float) -> None:
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0"), intel_rapl__1=Zone("package-1", other_watts))
    assert ("package-0", "package-1") == meter.domains()


def test_counters_that_stand_still_are_no_mirrors(tmp_path: Path) -> None:
    still = {"intel_rapl__0": Zone("package-0", 0.0, 5), "intel_rapl__1": Zone("package-1", 0.0, 5)}
    meter, _ = opened(tmp_path, **still)
    assert ("package-0", "package-1") == meter.domains()


def deny(monkeypatch: pytest.MonkeyPatch, *zones: str) -> None:
    """Tests may run as root, who may read everything: the refusal is scripted."""
    plain = Path.read_text

    def read_text(path: Path, *args: str, **kwargs: str) -> str:
        if path.name == "energy_uj" and (not zones or path.parent.name in zones):
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_counters_that_may_not_be_read_name_the_command_and_what_it_exposes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(monkeypatch)
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0"), intel_rapl__0__0=Zone("dram"))
    state = meter.availability()
    assert isinstance(state, Unavailable)
    assert "permission denied (2 of 2 RAPL counters: intel-rapl:0, intel-rapl:0:0)" == state.reason
    assert f"sudo chmod o+r {tmp_path}/intel-rapl:*/energy_uj — {EXPOSES}" == state.remedy
    assert ([], []) == (meter.opened(), meter.read())


def test_some_counters_that_may_not_be_read_are_said_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(monkeypatch, "intel-rapl:0:1")
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0"), intel_rapl__0__1=Zone("dram"))
    assert Available() == meter.availability()
    (item,) = meter.opened()
    assert ("package-0", "permission denied for intel-rapl:0:1: not counted") == (item.domain, item.note)


def test_one_of_two_packages_is_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, "intel-rapl:1")
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0"), intel_rapl__1=Zone("package-1"))
    state = meter.availability()
    assert isinstance(state, Unavailable) and "intel-rapl:1" in state.reason


def test_no_zone_is_a_reason_with_a_remedy(tmp_path: Path) -> None:
    meter = open_meter(None, rapl_at(tmp_path / "masked"))
    assert Unavailable(f"no RAPL package under {tmp_path / 'masked'}", HIDDEN_REMEDY) == meter.availability()


def test_counters_of_zero_are_no_measurement(tmp_path: Path) -> None:
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0", 0.0))
    assert Unavailable("every RAPL counter reads 0: nothing counts behind it", HIDDEN_REMEDY) == meter.availability()


def test_a_zone_without_a_range_says_none(tmp_path: Path) -> None:
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0"))
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    assert [None] == [reading.range_j for reading in meter.read() if isinstance(reading, EnergyReading)]


def test_a_tree_that_goes_or_holds_no_number_ends_the_readings(tmp_path: Path) -> None:
    meter, _ = opened(tmp_path, intel_rapl__0=Zone("package-0"))
    meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("-\n", encoding="ascii")
    with pytest.raises(PlugError, match="no number, but '-'"):
        meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(FileNotFoundError):
        meter.read()
