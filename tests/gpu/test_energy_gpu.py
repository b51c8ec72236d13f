"""The card's own counter and power while it works: they move, often enough, and agree roughly."""

from __future__ import annotations

import time

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or HIP device"),
]

from tokbench.measure.meters import Available  # noqa: E402
from tokbench.measure.meters.nvml import NvmlMeter, open_meter  # noqa: E402
from tokbench.measure.probe import probe_devices  # noqa: E402
from tokbench.record.observations import EnergyReading, PowerReading  # noqa: E402

WORK_S = 2.0


@pytest.fixture
def meter() -> NvmlMeter:
    """The first card's; skipped with the reason where NVML tells nothing."""
    cards = [device for device in probe_devices() if device.kind == "cuda"]
    if not cards:
        pytest.skip("no NVIDIA card")
    found = open_meter(cards[0])
    available = found.availability()
    if not isinstance(available, Available):
        pytest.skip(available.reason)
    return found


def multiply(seconds: float) -> None:
    """Keep the card busy."""
    side = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda:0")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(8):
            side @ side
        torch.cuda.synchronize()


def joules(meter: NvmlMeter) -> EnergyReading:
    found = [reading for reading in meter.read() if isinstance(reading, EnergyReading)]
    if not found:
        pytest.skip("this card has no energy counter")
    return found[0]


def test_the_counter_rises_with_work_by_about_its_power(meter: NvmlMeter) -> None:
    multiply(0.5)  # clocks and the driver's average settle
    before = joules(meter)
    powers = []
    for _ in range(int(WORK_S / 0.25)):
        multiply(0.25)
        powers += [reading.watts for reading in meter.read() if isinstance(reading, PowerReading)]
    after = joules(meter)
    mean_power_w = (after.joules - before.joules) / ((after.at_ns - before.at_ns) * 1e-9)
    print(meter.opened(), mean_power_w, powers)
    assert mean_power_w > 100
    if powers:
        assert mean_power_w == pytest.approx(sum(powers) / len(powers), rel=0.25)


def test_the_counter_moves_often_enough_for_a_window_of_two_seconds(meter: NvmlMeter) -> None:
    moves, last, until = 0, joules(meter).joules, time.monotonic() + WORK_S
    while time.monotonic() < until:
        now = joules(meter).joules
        moves += now != last
        last = now
        time.sleep(0.002)
    print(f"{moves} movements in {WORK_S} s")
    assert moves >= 10


def test_a_reading_says_how_long_it_took(meter: NvmlMeter) -> None:
    took = [joules(meter).read_s for _ in range(20)]
    print(took)
    assert all(seconds is not None and 0 < seconds < 0.1 for seconds in took)
