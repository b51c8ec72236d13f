"""What every meter plug must do, by name: a new file under meters/ is found here without a change.

Each plug is opened twice: on the machine that runs the tests, whatever it has, and on a scripted source.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from scripted_facts import CPU, GPU
from scripted_meters import SCRIPTED, ScriptedTime
from tokbench.errors import PlugError
from tokbench.measure import meters
from tokbench.measure.meters import Available, Meter, Unavailable
from tokbench.measure.meters.fake import open_meter
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, PowerReading

KINDS = meters.names()
SCOPES = {"board", "module", "package", "dram", "node", "wall", "script"}
DEVICES: tuple[DeviceFacts | None, ...] = (None, CPU, GPU)


@pytest.fixture(params=[(kind, device) for kind in KINDS for device in DEVICES], ids=str)
def meter(request: pytest.FixtureRequest) -> Iterator[Meter]:
    """Every meter, opened for a device that may or may not be here: what it lacks is told, not raised."""
    kind, device = request.param
    opened = meters.load_plug(kind).open_meter(device)
    yield opened
    opened.close()
    opened.close()


@pytest.fixture
def scripted_time() -> ScriptedTime:
    return ScriptedTime()


@pytest.fixture(params=KINDS)
def scripted(request: pytest.FixtureRequest, tmp_path: Path, scripted_time: ScriptedTime) -> Iterator[Meter]:
    """Every meter on a source that answers."""
    opened = SCRIPTED[request.param](tmp_path, scripted_time)
    assert Available() == opened.availability()
    yield opened
    opened.close()
    opened.close()


def test_every_plug_has_a_scripted_source() -> None:
    assert KINDS == sorted(SCRIPTED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_complete(kind: str) -> None:
    description = meters.load_plug(kind).DESCRIPTION
    assert (kind, True) == (description.kind, description.scope in SCOPES)
    assert description.what.strip()
    assert {"cuda", "rocm", "cpu", "mps"} >= set(description.auto_for)


def test_a_meter_says_whether_it_can_be_read_and_why_not(meter: Meter) -> None:
    state = meter.availability()
    assert isinstance(state, Available | Unavailable)
    if isinstance(state, Unavailable):
        assert state.reason.strip() and (state.remedy is None or state.remedy.strip())
        assert ([], ()) == (meter.opened(), meter.domains())


def test_readings_of_this_machine_are_stamped_now_and_never_zero_power(meter: Meter) -> None:
    if isinstance(meter.availability(), Unavailable):
        pytest.skip("it cannot be read here")
    domains = meter.domains()
    before = time.monotonic_ns()
    readings = meter.read()
    after = time.monotonic_ns()
    for reading in readings:
        assert reading.domain in domains
        assert before <= reading.at_ns <= after
        assert isinstance(reading, EnergyReading) or reading.watts > 0


def test_what_is_opened_says_scope_and_source_of_every_domain(scripted: Meter) -> None:
    opened = scripted.opened()
    assert opened and scripted.domains() == tuple(item.domain for item in opened)
    assert len(set(scripted.domains())) == len(opened)
    for item in opened:
        assert item.meter in KINDS and item.scope in SCOPES and item.source.strip()
        assert item.note is None or item.note.strip()


def test_counters_are_finite_and_never_go_back_but_at_their_range(scripted: Meter, scripted_time: ScriptedTime) -> None:
    series: dict[str, list[EnergyReading]] = {}
    scripted.opened()
    for _ in range(40):
        scripted_time.sleep(1.0)
        for reading in scripted.read():
            assert reading.meter in KINDS and reading.domain in scripted.domains()
            assert scripted_time.now_ns == reading.at_ns
            if isinstance(reading, PowerReading):
                assert math.isfinite(reading.watts) and reading.watts > 0
            else:
                series.setdefault(reading.domain, []).append(reading)
    for readings in series.values():
        for earlier, later in pairwise(readings):
            assert math.isfinite(later.joules) and earlier.at_ns < later.at_ns
            wrapped = later.joules + (later.range_j or 0.0) if later.joules < earlier.joules else later.joules
            assert wrapped >= earlier.joules
            assert later.range_j is None or later.joules <= later.range_j
            assert later.read_s is None or later.read_s >= 0
            assert later.joules == earlier.joules or later.read_s is not None


def test_a_closed_meter_can_be_closed_again(scripted: Meter) -> None:
    scripted.close()
    scripted.close()


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
