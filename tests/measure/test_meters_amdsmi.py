"""amdsmi through a scripted library: identity by PCI address, and a counter that is believed only where it agrees."""

from __future__ import annotations

import pytest

from scripted_meters import ROCM_CARD, AmdCard, ScriptedAmdSmi, ScriptedTime
from tokbench.errors import PlugError
from tokbench.measure.meters import Available, Unavailable
from tokbench.measure.meters.amdsmi import INSTALL, AmdSmiMeter, open_meter
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, PowerReading


def opened(*cards: AmdCard, device: DeviceFacts | None = ROCM_CARD) -> tuple[AmdSmiMeter, ScriptedTime]:
    time = ScriptedTime()
    return open_meter(device, None, ScriptedAmdSmi(time, *cards), time.monotonic_ns, time.sleep), time


@pytest.mark.parametrize("key", ["energy_accumulator", "power"])
def test_a_counter_that_agrees_with_the_power_is_read_in_joules(key: str) -> None:
    meter, time = opened(AmdCard(counter_key=key))
    (item,) = meter.opened()
    assert ("rocm:0", "board", "amdsmi_energy_count", 750.0) == (
        item.domain,
        item.scope,
        item.source,
        item.power_limit_w,
    )
    assert "the counter agreed with the power before the run (ratio 1.00 over 2 s)" == item.note
    (first,) = meter.read_counters()
    time.sleep(5.0)
    counter, power = meter.read()
    assert isinstance(counter, EnergyReading) and isinstance(power, PowerReading)
    assert 2000.0 == pytest.approx(counter.joules - first.joules, rel=1e-6)
    assert (400.0, "instant") == (power.watts, power.kind)


@pytest.mark.parametrize("counts", [0.79, 1.26, 0.1])
def test_a_counter_that_disagrees_with_the_power_is_left_and_said(counts: float) -> None:
    meter, time = opened(AmdCard(counts=counts))
    begun = time.now_ns
    (item,) = meter.opened()
    assert 2_000_000_000 == time.now_ns - begun
    assert "amdsmi_power_instant" == item.source
    assert f"the energy counter counts {counts:.2f} times what the power says over 2 s: power alone" == item.note
    assert [PowerReading] == [type(reading) for reading in meter.read()]
    assert [] == meter.read_counters()


@pytest.mark.parametrize("counts", [0.81, 1.24])
def test_a_counter_within_the_band_is_believed(counts: float) -> None:
    meter, _ = opened(AmdCard(counts=counts))
    assert "amdsmi_energy_count" == meter.opened()[0].source


def test_a_card_without_a_counter_is_polled() -> None:
    meter, _ = opened(AmdCard(counts=None, powers=("average_socket_power",)))
    (item,) = meter.opened()
    assert ("amdsmi_power_average", True) == (item.source, "power alone" in str(item.note))
    assert ["average"] == [r.kind for r in meter.read() if isinstance(r, PowerReading)]


def test_the_odd_half_of_an_mi250_is_missing_with_the_reason_not_zero() -> None:
    meter, _ = opened(AmdCard(counts=0.0, powers=()))
    state = meter.availability()
    assert isinstance(state, Unavailable) and "the odd half of an MI250" in state.reason
    assert ([], [], ()) == (meter.read(), meter.opened(), meter.domains())


def test_the_card_is_found_by_its_pci_address_not_by_its_place() -> None:
    cards = (AmdCard("0000:05:00.0", watts=100.0), AmdCard("0000:c1:00.0", watts=400.0))
    meter, _ = opened(*cards)
    assert [400.0] == [r.watts for r in meter.read() if isinstance(r, PowerReading)]
    absent, _ = opened(cards[0])
    assert isinstance(absent.availability(), Unavailable)


def test_without_an_address_the_uuid_of_hip_finds_it() -> None:
    device = DeviceFacts(kind="rocm", name="MI300X", index=0, uuid="GPU-2222")
    meter, _ = opened(AmdCard(hip_uuid="GPU-1111", watts=100.0), AmdCard(hip_uuid="gpu-2222"), device=device)
    assert [400.0] == [r.watts for r in meter.read() if isinstance(r, PowerReading)]


def test_a_number_alone_finds_no_card() -> None:
    meter, _ = opened(AmdCard(), device=DeviceFacts(kind="rocm", name="MI300X", index=0))
    assert isinstance(meter.availability(), Unavailable)


def test_no_library_and_no_driver_are_reasons() -> None:
    assert (
        Unavailable("amdsmi is not installed, or does not fit the ROCm here", INSTALL)
        == AmdSmiMeter(ROCM_CARD, None, lambda: 0, lambda seconds: None).availability()
    )
    broken = open_meter(ROCM_CARD, None, ScriptedAmdSmi(ScriptedTime(), AmdCard(), starts=False))
    state = broken.availability()
    assert isinstance(state, Unavailable) and "amdsmi does not start: driver not loaded" == state.reason
    assert isinstance(opened(AmdCard(), device=DeviceFacts(kind="cpu", name="CPU"))[0].availability(), Unavailable)


def test_a_counter_that_stops_answering_ends_the_readings() -> None:
    card = AmdCard()
    meter, _ = opened(card)
    assert Available() == meter.availability()
    meter.read()
    card.counts = None
    with pytest.raises(PlugError, match="rocm:0: the energy counter answers no longer"):
        meter.read()


def test_the_library_is_let_go_once() -> None:
    library = ScriptedAmdSmi(ScriptedTime(), AmdCard())
    meter = open_meter(ROCM_CARD, None, library)
    meter.close()
    meter.close()
    assert 1 == library.shut_downs
