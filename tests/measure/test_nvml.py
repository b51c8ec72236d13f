"""NVML through a fake module: identity by UUID, refused questions, foreign processes, samples. No GPU."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tokbench.measure.cards import enrich
from tokbench.measure.nvml import (
    CardName,
    DriverFacts,
    GpuSample,
    NvmlReader,
    clock_event_names,
    read_driver,
    start_nvml,
)
from tokbench.record.facts import DeviceFacts

OWN_PID = 4242
GIB = 2**30


class FakeNvmlError(Exception):
    pass


class NVMLError_NotSupported(FakeNvmlError):  # noqa: N801, N818
    pass


class NVMLError_NoPermission(FakeNvmlError):  # noqa: N801, N818
    pass


class NVMLError_NotFound(FakeNvmlError):  # noqa: N801, N818
    pass


class NVMLError_LibraryNotFound(FakeNvmlError):  # noqa: N801, N818
    pass


class NVMLError_FunctionNotFound(FakeNvmlError):  # noqa: N801, N818
    pass


def card(uuid: str, **changes: Any) -> dict[str, Any]:
    """Answers of one idle H100 by the tail of the question's name; an exception class is raised."""
    answers: dict[str, Any] = {
        "UUID": uuid,
        "Name": "NVIDIA H100",
        "MigMode": [0, 0],
        "EnforcedPowerLimit": 700_000,
        "PersistenceMode": 1,
        "EccMode": [1, 1],
        "PciInfo": SimpleNamespace(busId="00000000:19:00.0"),
        "MaxClockInfo": {1: 1980, 2: 2619},
        "ClockInfo": {1: 345, 2: 2619},
        "TemperatureV": 31,
        "CurrentClocksEventReasons": 0x1,
        "PowerUsage": 71_250,
        "ComputeRunningProcesses_v3": [],
        "UtilizationRates": SimpleNamespace(gpu=0),
        "MemoryInfo": SimpleNamespace(total=80 * GIB, free=79 * GIB, used=GIB // 2),
        "TotalEnergyConsumption": 123_456,
    }
    return answers | changes


class FakeNvml:
    """A driver with the given cards, in NVML's own order; the handle is the card's answers."""

    NVMLError = FakeNvmlError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, nvmlMemory_v2 = 1, 2, 0, 0x02000028  # noqa: N815

    def __init__(self, *cards: dict[str, Any], start: type[Exception] | None = None, cuda: int = 12040) -> None:
        self.cards, self.start, self.cuda = cards, start, cuda
        self.asked: list[str] = []

    def nvmlInit(self) -> None:  # noqa: N802
        if self.start is not None:
            raise self.start("refused")

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "550.54.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> dict[str, Any]:  # noqa: N802
        for answers in self.cards:
            if answers["UUID"] == uuid:
                return answers
        raise NVMLError_NotFound("no such card")

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> dict[str, Any]:  # noqa: N802
        return next(answers for answers in self.cards if answers["PciInfo"].busId == address)

    def nvmlDeviceIsMigDeviceHandle(self, handle: dict[str, Any]) -> bool:  # noqa: N802
        return str(handle["UUID"]).startswith("MIG-")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self.asked.append(name)
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        key = name.removeprefix("nvmlDeviceGet")

        def answer(handle: dict[str, Any], *args: Any, **_: Any) -> Any:
            value = handle.get(key, NVMLError_NotSupported)
            if isinstance(value, type):
                raise value(key)
            return value[args[0]] if isinstance(value, dict) else value

        return answer


def gpu(uuid: str | None, index: int = 0, **changes: Any) -> DeviceFacts:
    facts: dict[str, Any] = {"memory_bytes": 80 * GIB, "free_memory_bytes": 78 * GIB, "name": "NVIDIA H100"}
    return DeviceFacts(kind="cuda", index=index, uuid=uuid, **(facts | changes))


def one(device: DeviceFacts, nvml: FakeNvml | None, *, in_container: bool = False) -> DeviceFacts:
    return enrich([device], nvml, {OWN_PID}, hides_host_processes=in_container)[0]


def test_settings_are_read_from_the_card() -> None:
    assert one(gpu("GPU-a"), FakeNvml(card("GPU-a"))) == DeviceFacts(
        kind="cuda",
        name="NVIDIA H100",
        index=0,
        uuid="GPU-a",
        pci_bus_id="00000000:19:00.0",
        memory_bytes=80 * GIB,
        free_memory_bytes=79 * GIB,
        is_mig=False,
        driver_version="550.54.15",
        power_limit_w=700.0,
        persistence_mode=True,
        ecc_enabled=True,
        max_sm_clock_mhz=1980,
        max_memory_clock_mhz=2619,
        foreign_processes=0,
        foreign_note=None,
    )


def test_cards_are_joined_by_uuid_when_cuda_visible_devices_turns_the_order() -> None:
    nvml = FakeNvml(card("GPU-a", EnforcedPowerLimit=300_000), card("GPU-b", EnforcedPowerLimit=450_000))
    turned = enrich([gpu("GPU-b", 0), gpu("GPU-a", 1)], nvml, set(), hides_host_processes=False)
    assert [(facts.uuid, facts.power_limit_w) for facts in turned] == [("GPU-b", 450.0), ("GPU-a", 300.0)]


def test_a_torch_without_uuid_is_joined_by_its_pci_address() -> None:
    found = one(gpu(None, pci_bus_id="00000000:19:00.0"), FakeNvml(card("GPU-a")))
    assert (found.uuid, found.power_limit_w) == ("GPU-a", 700.0)


def test_a_card_that_nvml_does_not_know_is_unknown_not_idle() -> None:
    found = one(gpu("GPU-x"), FakeNvml(card("GPU-a")))
    assert (found.foreign_processes, found.foreign_note) == (None, "unknown: no such card")


def test_a_mig_slice_has_no_power_limit_and_keeps_torchs_memory() -> None:
    refused = dict.fromkeys(
        ("EnforcedPowerLimit", "PersistenceMode", "EccMode", "MaxClockInfo"), NVMLError_NotSupported
    )
    slice_ = card("MIG-a", UtilizationRates=NVMLError_NotSupported, **refused)
    found = one(gpu("GPU-a", memory_bytes=10 * GIB, free_memory_bytes=9 * GIB), FakeNvml(slice_))
    assert (
        found.is_mig,
        found.uuid,
        found.power_limit_w,
        found.ecc_enabled,
        found.max_sm_clock_mhz,
        found.free_memory_bytes,
        found.foreign_processes,
    ) == (True, "MIG-a", None, None, None, 9 * GIB, 0)


def test_a_whole_card_in_mig_mode_is_marked_and_its_power_left_out() -> None:
    found = one(gpu("GPU-a"), FakeNvml(card("GPU-a", MigMode=[1, 1])))
    assert (found.is_mig, found.power_limit_w) == (True, None)


def test_a_card_that_cannot_be_cut_is_not_mig() -> None:
    assert one(gpu("GPU-a"), FakeNvml(card("GPU-a", MigMode=NVMLError_NotSupported))).is_mig is False


def test_only_processes_that_are_not_ours_are_foreign() -> None:
    running = [SimpleNamespace(pid=OWN_PID), SimpleNamespace(pid=77), SimpleNamespace(pid=78)]
    found = one(gpu("GPU-a"), FakeNvml(card("GPU-a", ComputeRunningProcesses_v3=running)))
    assert (found.foreign_processes, found.foreign_note) == (2, None)


def test_processes_of_the_host_are_unknown_in_a_container_not_none() -> None:
    found = one(gpu("GPU-a"), FakeNvml(card("GPU-a")), in_container=True)
    assert (found.foreign_processes, found.foreign_note) == (None, "unknown: container")


def test_a_container_that_lists_processes_counts_them() -> None:
    running = [SimpleNamespace(pid=77)]
    nvml = FakeNvml(card("GPU-a", ComputeRunningProcesses_v3=running))
    assert one(gpu("GPU-a"), nvml, in_container=True).foreign_processes == 1


@pytest.mark.parametrize(
    ("in_container", "processes", "note"),
    [
        (False, 0, "looks busy: 63 % utilised, 8.59 GB in use, and no process is visible"),
        (True, None, "looks busy: 63 % utilised, 8.59 GB in use, and no process is visible; unknown: container"),
    ],
)
def test_a_card_at_work_without_a_visible_process_looks_busy(
    in_container: bool, processes: int | None, note: str
) -> None:
    memory = SimpleNamespace(total=80 * GIB, free=72 * GIB, used=8 * GIB)
    nvml = FakeNvml(card("GPU-a", UtilizationRates=SimpleNamespace(gpu=63), MemoryInfo=memory))
    found = one(gpu("GPU-a"), nvml, in_container=in_container)
    assert (processes, note) == (found.foreign_processes, found.foreign_note)


def test_permission_denied_is_said_and_nothing_crashes() -> None:
    found = one(gpu("GPU-a"), FakeNvml(card("GPU-a", ComputeRunningProcesses_v3=NVMLError_NoPermission)))
    assert (found.foreign_processes, found.foreign_note) == (None, "unknown: permission denied")


def test_a_card_that_answers_nothing_leaves_every_field_none() -> None:
    found = one(gpu("GPU-a"), FakeNvml({"UUID": "GPU-a"}))
    expected = gpu("GPU-a").model_copy(
        update={
            "driver_version": "550.54.15",
            "is_mig": False,
            "foreign_note": "unknown: not supported by this card or driver",
        }
    )
    assert expected == found


def test_without_nvml_the_devices_stay_as_torch_told_them() -> None:
    assert one(gpu("GPU-a"), None) == gpu("GPU-a")
    assert one(gpu("GPU-a"), FakeNvml(start=NVMLError_LibraryNotFound)) == gpu("GPU-a")


def test_rocm_and_cpu_are_not_asked_of_nvml() -> None:
    amd = DeviceFacts(kind="rocm", name="MI300X", index=0, uuid="GPU-a")
    assert one(amd, FakeNvml(card("GPU-a"))) == amd


def test_driver_facts() -> None:
    expected = DriverFacts("550.54.15", "12.4", (CardName("GPU-a", "NVIDIA H100"),), None)
    assert expected == read_driver(FakeNvml(card("GPU-a")))


@pytest.mark.parametrize(
    ("nvml", "fault"),
    [
        (None, "nvidia-ml-py is not installed"),
        (FakeNvml(start=NVMLError_LibraryNotFound), "no NVIDIA driver library (libnvidia-ml.so.1)"),
        (FakeNvml(start=FakeNvmlError), "NVML: FakeNvmlError: refused"),
    ],
)
def test_no_nvml_is_a_reason_not_a_crash(nvml: FakeNvml | None, fault: str) -> None:
    assert fault == start_nvml(nvml)
    assert DriverFacts(fault=fault) == read_driver(nvml)


def test_a_sample_holds_the_state_of_now() -> None:
    reader = NvmlReader("GPU-a", FakeNvml(card("GPU-a", CurrentClocksEventReasons=0x4 | 0x40)))
    expected = GpuSample(345, 2619, 31.0, ("sw_power_cap", "hw_thermal_slowdown"), 71.25)
    assert expected == reader.sample()


def test_older_drivers_are_asked_by_the_older_names() -> None:
    old = card(
        "GPU-a",
        TemperatureV=NVMLError_FunctionNotFound,
        Temperature=40,
        CurrentClocksEventReasons=NVMLError_FunctionNotFound,
        CurrentClocksThrottleReasons=0,
    )
    sample = NvmlReader("GPU-a", FakeNvml(old)).sample()
    assert (sample.temperature_c, sample.throttle_reasons) == (40.0, ())


def test_an_absent_card_samples_to_none_and_says_why() -> None:
    reader = NvmlReader("GPU-x", FakeNvml(card("GPU-a")))
    assert (GpuSample(None, None, None, None, None), "no such card") == (reader.sample(), reader.fault)


def test_an_unsupported_question_is_none_in_a_sample() -> None:
    reader = NvmlReader("GPU-a", FakeNvml(card("GPU-a", PowerUsage=NVMLError_NotSupported)))
    assert GpuSample(345, 2619, 31.0, ("gpu_idle",), None) == reader.sample()


def test_a_clock_event_without_a_name_keeps_its_bit() -> None:
    assert clock_event_names(0x1001) == ("gpu_idle", "bit_0x1000")


def test_nothing_is_ever_set() -> None:
    nvml = FakeNvml(card("GPU-a"))
    one(gpu("GPU-a"), nvml)
    NvmlReader("GPU-a", nvml).sample()
    assert [name for name in nvml.asked if not name.startswith("nvmlDeviceGet")] == []
