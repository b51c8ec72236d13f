"""Apple's energy model and the cross-check by zeus, each through a scripted library."""

from __future__ import annotations

import pytest

from scripted_meters import CUDA_CARD, Card, ScriptedApple, ScriptedNvml, ScriptedTime, ScriptedZeus, ZeusBaseError
from tokbench.errors import PlugError
from tokbench.measure.meters import Unavailable, apple, zeus
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading

BOARDS = (Card("GPU-b", "00000000:3B:00.0"), Card("GPU-a"))
"""NVML's order: the run's card is its number 1."""


def test_apples_numbers_are_marked_as_estimated() -> None:
    time = ScriptedTime()
    meter = apple.open_meter(None, None, ScriptedApple(time), "darwin", time.monotonic_ns)
    assert [("cpu", "package", True), ("gpu", "package", True), ("dram", "dram", True)] == [
        (item.domain, item.scope, item.is_estimated) for item in meter.opened()
    ]
    time.sleep(1.0)
    found = {reading.domain: reading.joules for reading in meter.read() if isinstance(reading, EnergyReading)}
    assert {"cpu": 40.0, "gpu": 60.0, "dram": 10.0} == found


def test_elsewhere_and_without_the_library_apple_says_so() -> None:
    assert Unavailable("this is not macOS") == apple.open_meter(None, platform="linux").availability()
    absent = apple.AppleMeter(None, "darwin", lambda: 0)
    assert Unavailable("zeus-apple-silicon is not installed", "pip install zeus-apple-silicon") == absent.availability()
    silent = ScriptedApple(ScriptedTime(), cpu_total=None, gpu=None, dram=None)
    state = apple.open_meter(None, None, silent, "darwin").availability()
    assert isinstance(state, Unavailable) and "macOS tells no energy of any part" == state.reason


def cross_check(
    device: DeviceFacts | None = CUDA_CARD, visible: str | None = None
) -> tuple[zeus.ZeusMeter, ScriptedZeus, ScriptedTime]:
    time = ScriptedTime()
    monitor = ScriptedZeus(time, {0: 100.0, 1: 300.0})
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    library = zeus.ZeusLibrary(monitor, ZeusBaseError)
    meter = zeus.ZeusMeter(device, library, ScriptedNvml(time, *BOARDS), environ, time.monotonic_ns)
    return meter, monitor, time


def joules(meter: zeus.ZeusMeter) -> list[float]:
    return [reading.joules for reading in meter.read() if isinstance(reading, EnergyReading)]


@pytest.mark.parametrize(("visible", "position"), [(None, 1), ("0,1", 1), ("1,0", 0), ("1", 0)])
def test_zeus_is_pointed_at_the_runs_own_card(visible: str | None, position: int) -> None:
    meter, monitor, _ = cross_check(visible=visible)
    assert [position] == monitor.indices
    assert ["GPU-a"] == [item.device_uuid for item in meter.opened()]


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("GPU-a", "zeus reads CUDA_VISIBLE_DEVICES as numbers, and it holds UUIDs"),
        ("0", "zeus would count another card: its order is NVML's, not CUDA's"),
    ],
)
def test_zeus_is_refused_where_it_would_count_another_card(visible: str, reason: str) -> None:
    meter, _, _ = cross_check(visible=visible)
    state = meter.availability()
    assert isinstance(state, Unavailable) and reason == state.reason
    assert ([], [], ()) == (meter.read(), meter.opened(), meter.domains())


def test_the_windows_of_zeus_add_up_to_one_counter() -> None:
    meter, _, time = cross_check()
    assert [] == joules(meter), "no window has ended: nothing, not 0 J"
    for _ in range(30):
        time.sleep(0.1)
        meter.read()
    assert 900.0 == pytest.approx(joules(meter)[0])
    time.sleep(0.5)
    assert 900.0 == pytest.approx(joules(meter)[0]), "it moves once a second"


def test_windows_of_0_joules_are_no_reading() -> None:
    meter, monitor, time = cross_check()
    monitor.watts = {0: 0.0, 1: 0.0}
    time.sleep(2.0)
    assert [] == joules(meter)


def test_zeus_that_gives_up_ends_the_readings() -> None:
    meter, monitor, time = cross_check()
    monitor.fault = "lost"
    time.sleep(2.0)
    with pytest.raises(PlugError, match="zeus: lost"):
        meter.read()


def test_without_zeus_or_a_card_it_says_so() -> None:
    absent = zeus.ZeusMeter(CUDA_CARD, None, None, {}, lambda: 0)
    assert Unavailable("zeus is not installed", "pip install zeus") == absent.availability()
    assert isinstance(cross_check(DeviceFacts(kind="cpu", name="CPU"))[0].availability(), Unavailable)
    assert ["GPU-b"] == [item.device_uuid for item in cross_check(None)[0].opened()]


def test_macos_that_tells_nothing_any_longer_ends_the_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    time = ScriptedTime()
    library = ScriptedApple(time)
    meter = apple.open_meter(None, None, library, "darwin", time.monotonic_ns)

    def fail() -> None:
        raise RuntimeError("IOReport subscription lost")

    monkeypatch.setattr(library, "get_cumulative_energy", fail)
    with pytest.raises(PlugError, match="macOS tells no energy any longer: IOReport subscription lost"):
        meter.read()
    opened = apple.open_meter(None, None, library, "darwin", time.monotonic_ns)
    assert Unavailable("macOS tells no energy: IOReport subscription lost", "it needs Apple silicon") == (
        opened.availability()
    )
