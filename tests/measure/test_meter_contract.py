"""What every meter plug must do, by name: a new file under meters/ is found here without a change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from scripted_facts import CPU, GPU
from tokbench.errors import PlugError
from tokbench.measure import meters
from tokbench.measure.meters import Available, Meter, Unavailable
from tokbench.measure.meters.fake import open_meter
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, PowerReading

KINDS = meters.names()
SCOPES = {"board", "package", "dram", "node", "wall", "script"}
DEVICES: tuple[DeviceFacts | None, ...] = (None, CPU, GPU)


@pytest.fixture(params=[(kind, device) for kind in KINDS for device in DEVICES], ids=str)
def meter(request: pytest.FixtureRequest) -> Iterator[Meter]:
    """Every meter, opened for a device that may or may not be here: what it lacks is told, not raised."""
    kind, device = request.param
    opened = meters.load_plug(kind).open_meter(device)
    yield opened
    opened.close()
    opened.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_complete(kind: str) -> None:
    description = meters.load_plug(kind).DESCRIPTION
    assert (kind, True) == (description.kind, description.scope in SCOPES)
    assert description.what.strip()


def test_a_meter_says_whether_it_can_be_read_and_why_not(meter: Meter) -> None:
    state = meter.availability()
    assert isinstance(state, Available | Unavailable)
    if isinstance(state, Unavailable):
        assert state.reason.strip() and (state.remedy is None or state.remedy.strip())


def test_readings_are_of_known_domains_stamped_now_and_never_zero_power(meter: Meter) -> None:
    if isinstance(meter.availability(), Unavailable):
        pytest.skip("it cannot be read here")
    before = time.monotonic_ns()
    readings = meter.read()
    after = time.monotonic_ns()
    assert readings
    for reading in readings:
        assert reading.meter in KINDS
        assert reading.domain in meter.domains()
        assert before <= reading.at_ns <= after
        assert isinstance(reading, EnergyReading) or reading.watts > 0


def test_counters_and_stamps_never_go_back(meter: Meter) -> None:
    if isinstance(meter.availability(), Unavailable):
        pytest.skip("it cannot be read here")
    rounds = [meter.read() for _ in range(4)]
    for domain in meter.domains():
        for kind in (EnergyReading, PowerReading):
            series = [r for found in rounds for r in found if isinstance(r, kind) and r.domain == domain]
            assert all(a.at_ns <= b.at_ns for a, b in pairwise(series))
            counters = [r.joules for r in series if isinstance(r, EnergyReading)]
            assert counters == sorted(counters)


def test_an_unknown_meter_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlugError, match="there is no meter 'fakes'") as refused:
        meters.load_plug("fakes")
    assert "did you mean `fake`?" in str(refused.value.fix)


def test_the_fake_counts_a_hundred_watts_on_the_clock_it_is_given() -> None:
    now = iter([1_000_000_000, 1_000_000_000, 3_500_000_000])
    scripted = open_meter(None, clock=lambda: next(now))
    first, second = scripted.read(), scripted.read()
    assert [0.0, 250.0] == [r.joules for r in (*first, *second) if isinstance(r, EnergyReading)]
    assert [100.0, 100.0] == [r.watts for r in (*first, *second) if isinstance(r, PowerReading)]
