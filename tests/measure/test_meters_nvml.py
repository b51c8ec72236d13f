"""NVML as a meter: the right board whatever the order, what is refused on a slice, which power is read. No GPU."""

from __future__ import annotations

from typing import Any

import pytest

from scripted_meters import CUDA_CARD, Card, ScriptedNvml, ScriptedTime
from tokbench.errors import PlugError
from tokbench.measure.meters import Available, Unavailable
from tokbench.measure.meters.nvml import NvmlMeter, open_meter
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, PowerReading

BOARDS = (
    Card("GPU-a", "00000000:19:00.0", watts=100.0),
    Card("GPU-b", "00000000:3B:00.0", watts=200.0),
    Card("GPU-c", "00000000:5E:00.0", watts=300.0),
)


def opened(device: DeviceFacts | None, *cards: Card, **changes: Any) -> tuple[NvmlMeter, ScriptedTime]:
    time = ScriptedTime()
    return open_meter(device, nvml=ScriptedNvml(time, *cards, **changes), clock=time.monotonic_ns), time


def seen_by_torch(visible: str) -> list[DeviceFacts]:
    """The devices as torch counts them under CUDA_VISIBLE_DEVICES, given as numbers or as UUIDs."""
    by_name = {card.uuid: card for card in BOARDS} | {str(index): card for index, card in enumerate(BOARDS)}
    return [
        DeviceFacts(kind="cuda", name="H100", index=index, uuid=by_name[entry].uuid, pci_bus_id=by_name[entry].bus)
        for index, entry in enumerate(visible.split(","))
    ]


@pytest.mark.parametrize("visible", ["0,1,2", "2,0,1", "1", "GPU-c,GPU-a", "GPU-b", "2,1,0"])
def test_the_board_of_the_run_is_read_whatever_cuda_visible_devices_says(visible: str) -> None:
    for device in seen_by_torch(visible):
        meter, time = opened(device, *BOARDS)
        first = [r for r in meter.read() if isinstance(r, EnergyReading)]
        time.sleep(2.0)
        second = [r for r in meter.read() if isinstance(r, EnergyReading)]
        (board,) = [card for card in BOARDS if card.uuid == device.uuid]
        assert [f"cuda:{device.index}"] == [reading.domain for reading in second]
        assert board.watts * 2.0 == pytest.approx(second[0].joules - first[0].joules)
        assert [device.uuid] == [item.device_uuid for item in meter.opened()]


def test_counter_and_power_of_this_moment_are_two_sources_of_one_domain() -> None:
    meter, _ = opened(CUDA_CARD, Card("GPU-a"))
    counter, power = meter.read()
    assert isinstance(counter, EnergyReading) and isinstance(power, PowerReading)
    assert (5_300.0, 300.0, "instant") == (counter.joules, power.watts, power.kind)
    assert [counter] == meter.read_counters()
    (item,) = meter.opened()
    assert ("board", "nvml_total_energy", 700.0, None) == (item.scope, item.source, item.power_limit_w, item.note)


def test_without_a_uuid_the_pci_address_finds_the_board() -> None:
    meter, _ = opened(CUDA_CARD.model_copy(update={"uuid": None, "pci_bus_id": "00000000:3B:00.0"}), *BOARDS)
    assert ["GPU-b"] == [item.device_uuid for item in meter.opened()]


def test_a_driver_with_the_newer_question_alone_finds_the_board() -> None:
    meter, _ = opened(seen_by_torch("1")[0], *BOARDS, has_newer_uuid_only=True)
    assert ["GPU-b"] == [item.device_uuid for item in meter.opened()]


def test_an_index_is_never_enough() -> None:
    meter, _ = opened(DeviceFacts(kind="cuda", name="H100", index=0), *BOARDS)
    assert Unavailable("cuda:0: torch tells neither UUID nor PCI address") == meter.availability()


@pytest.mark.parametrize(
    ("card", "device"),
    [
        (Card("MIG-a"), CUDA_CARD.model_copy(update={"uuid": "MIG-a"})),
        (Card("GPU-a", mig_mode=1), CUDA_CARD),
        (Card("GPU-a"), CUDA_CARD.model_copy(update={"is_mig": True})),
    ],
)
def test_a_mig_slice_is_refused_energy_with_the_reason(card: Card, device: DeviceFacts) -> None:
    meter, _ = opened(device, card)
    state = meter.availability()
    assert isinstance(state, Unavailable) and "the card's counts all its slices" in state.reason
    assert state.remedy == "use a whole card for energy; speed and memory go on"
    assert [] == meter.read()


def test_a_driver_without_power_of_the_moment_gives_its_average_and_says_so() -> None:
    meter, _ = opened(CUDA_CARD, Card("GPU-a", has_instant=False))
    assert ["average"] == [r.kind for r in meter.read() if isinstance(r, PowerReading)]
    assert "power is the driver's own average of about a second" == meter.opened()[0].note


def test_a_card_without_counter_gives_power_and_says_why() -> None:
    meter, _ = opened(CUDA_CARD, Card("GPU-a", has_counter=False))
    assert [PowerReading] == [type(reading) for reading in meter.read()]
    (item,) = meter.opened()
    assert "nvml_power_instant" == item.source
    assert "no energy counter: not supported by this card or driver" == item.note
    assert [] == meter.read_counters()


def test_a_superchip_is_read_at_the_scope_of_its_gpu_and_says_so() -> None:
    meter, _ = opened(CUDA_CARD, Card("GPU-a", watts=300.0, module_watts=450.0))
    assert [300.0] == [r.watts for r in meter.read() if isinstance(r, PowerReading)]
    (item,) = meter.opened()
    assert "board" == item.scope and item.note is not None and "the module's CPU is left out" in item.note


def test_a_card_that_tells_nothing_is_absent_with_the_reason() -> None:
    meter, _ = opened(CUDA_CARD, Card("GPU-a", has_counter=False, has_power=False))
    reason = "cuda:0: neither energy nor power can be read: not supported by this card or driver"
    assert Unavailable(reason) == meter.availability()


def test_a_card_that_falls_off_the_bus_ends_the_readings_and_is_no_zero() -> None:
    board = Card("GPU-a")
    meter, _ = opened(CUDA_CARD, board)
    meter.read()
    board.is_lost = True
    with pytest.raises(PlugError, match="cuda:0: the card has fallen off the bus"):
        meter.read()


def test_power_of_0_watts_is_left_out() -> None:
    board = Card("GPU-a")
    meter, _ = opened(CUDA_CARD, board)
    board.watts = 0.0
    assert [EnergyReading] == [type(reading) for reading in meter.read()]


def test_every_card_is_listed_where_no_device_is_given() -> None:
    meter, _ = opened(None, *BOARDS)
    assert ("GPU-a", "GPU-b", "GPU-c") == meter.domains()
    assert Available() == meter.availability()


@pytest.mark.parametrize("kind", ["cpu", "rocm"])
def test_other_devices_have_no_nvidia_card(kind: str) -> None:
    meter, _ = opened(DeviceFacts.model_validate({"kind": kind, "name": "other"}), *BOARDS)
    assert Unavailable(f"the device is no NVIDIA card ({kind})") == meter.availability()


def test_nothing_is_ever_set() -> None:
    time = ScriptedTime()
    library = ScriptedNvml(time, Card("GPU-a"))
    meter = open_meter(CUDA_CARD, nvml=library, clock=time.monotonic_ns)
    meter.read(), meter.opened(), meter.close()
    assert [] == [name for name in library.asked if "Set" in name or "Reset" in name]


def test_a_counter_of_zero_is_no_counter_and_leaves_power() -> None:
    meter, _ = opened(CUDA_CARD, Card("GPU-a", start_mj=-300_000))  # the scripted clock starts at a second
    (power,) = meter.read()
    (item,) = meter.opened()
    assert isinstance(power, PowerReading) and 300.0 == power.watts
    assert "no energy counter: it reads 0" == item.note
