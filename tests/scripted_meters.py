"""Scripted libraries and kernel files behind the real plugs of meters: what they show is known exactly. No hardware.

`SCRIPTED` opens every plug by name on a clock that moves only when it is told to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokbench.measure.meters import Meter, amdsmi, apple, fake, hwmon, nvml, rapl, zeus
from tokbench.record.facts import DeviceFacts
from tokbench.record.spec import EnergySpec, SysfsSpec

CUDA_CARD = DeviceFacts(kind="cuda", name="H100", index=0, uuid="GPU-a", pci_bus_id="00000000:19:00.0")
ROCM_CARD = DeviceFacts(kind="rocm", name="MI300X", index=0, pci_bus_id="0000:C1:00.0")


class ScriptedTime:
    """A clock that moves only when it is told to; whoever sleeps moves it, and the files behind it follow."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.followers: list[Callable[[], None]] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    @property
    def seconds(self) -> float:
        return self.now_ns * 1e-9

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        for follow in self.followers:
            follow()


class NVMLError(Exception):
    """As in pynvml: made from a return code, too."""


class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_NotFound(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_GpuIsLost(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818
    pass


@dataclasses.dataclass(slots=True)
class Card:
    """One board of the scripted driver."""

    uuid: str
    bus: str = "00000000:19:00.0"
    watts: float = 300.0
    start_mj: int = 5_000_000
    has_counter: bool = True
    has_power: bool = True
    has_instant: bool = True
    module_watts: float | None = None
    mig_mode: int = 0
    is_lost: bool = False


class ScriptedNvml:
    """pynvml with these boards, in NVML's own order; the handle is the board."""

    NVMLError = NVMLError
    NVML_SUCCESS, NVML_ERROR_NOT_SUPPORTED, NVML_UUID_TYPE_ASCII = 0, 3, 1
    NVML_FI_DEV_POWER_INSTANT, NVML_POWER_SCOPE_GPU, NVML_POWER_SCOPE_MODULE = 186, 0, 1
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, nvmlMemory_v2 = 1, 2, 0, 2  # noqa: N815

    def __init__(self, time: ScriptedTime, *cards: Card, has_newer_uuid_only: bool = False) -> None:
        self.time, self.cards, self.has_newer_uuid_only = time, cards, has_newer_uuid_only
        self.asked: list[str] = []

    def nvmlInit(self) -> None:  # noqa: N802
        """Started."""

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.1"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 13000

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        if self.has_newer_uuid_only:
            raise NVMLError_FunctionNotFound
        return self._card(lambda card: card.uuid == uuid)

    def nvmlDeviceGetHandleByUUIDV(self, uuid: str, kind: int) -> Card:  # noqa: N802
        assert kind == self.NVML_UUID_TYPE_ASCII
        return self._card(lambda card: card.uuid == uuid)

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> Card:  # noqa: N802
        return self._card(lambda card: card.bus == bus)

    def _card(self, is_it: Callable[[Card], bool]) -> Card:
        for card in self.cards:
            if is_it(card):
                return card
        raise NVMLError_NotFound

    def nvmlDeviceGetIndex(self, card: Card) -> int:  # noqa: N802
        return self.cards.index(card)

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        return "H100"

    def nvmlDeviceIsMigDeviceHandle(self, card: Card) -> bool:  # noqa: N802
        return card.uuid.startswith("MIG-")

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:  # noqa: N802
        return [card.mig_mode, card.mig_mode]

    def nvmlDeviceGetEnforcedPowerLimit(self, card: Card) -> int:  # noqa: N802
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Card) -> int:  # noqa: N802
        if card.is_lost:
            raise NVMLError_GpuIsLost
        if not card.has_counter:
            raise NVMLError_NotSupported
        return card.start_mj + round(card.watts * self.time.seconds * 1000)

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:  # noqa: N802
        if not card.has_power:
            raise NVMLError_NotSupported
        return round(card.watts * 1000)

    def nvmlDeviceGetFieldValues(self, card: Card, fields: list[tuple[int, int]]) -> list[Any]:  # noqa: N802
        ((field, scope),) = fields
        watts = {0: card.watts if card.has_instant and card.has_power else None, 1: card.module_watts}[scope]
        assert field == self.NVML_FI_DEV_POWER_INSTANT
        if watts is None:
            return [SimpleNamespace(nvmlReturn=self.NVML_ERROR_NOT_SUPPORTED, value=SimpleNamespace(uiVal=0))]
        return [SimpleNamespace(nvmlReturn=self.NVML_SUCCESS, value=SimpleNamespace(uiVal=round(watts * 1000)))]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        self.asked.append(name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise NVMLError_NotSupported(name)

        return refuse


class AmdSmiLibraryException(Exception):  # noqa: N818
    """As in amdsmi."""


@dataclasses.dataclass(slots=True)
class AmdCard:
    """One card of the scripted amdsmi; its counter counts `counts` times what is drawn."""

    bus: str = "0000:c1:00.0"
    hip_uuid: str = "GPU-0000"
    watts: float = 400.0
    counts: float | None = 1.0
    powers: tuple[str, ...] = ("current_socket_power",)
    counter_key: str = "energy_accumulator"


class ScriptedAmdSmi:
    """amdsmi with these cards."""

    AmdSmiLibraryException = AmdSmiLibraryException

    def __init__(self, time: ScriptedTime, *cards: AmdCard, starts: bool = True) -> None:
        self.time, self.cards, self.starts = time, cards, starts
        self.shut_downs = 0

    def amdsmi_init(self) -> None:
        if not self.starts:
            raise AmdSmiLibraryException("driver not loaded")

    def amdsmi_shut_down(self) -> None:
        self.shut_downs += 1

    def amdsmi_get_processor_handles(self) -> list[AmdCard]:
        return list(self.cards)

    def amdsmi_get_gpu_device_bdf(self, card: AmdCard) -> str:
        return card.bus

    def amdsmi_get_gpu_enumeration_info(self, card: AmdCard) -> dict[str, Any]:
        return {"hip_id": self.cards.index(card), "hip_uuid": card.hip_uuid}

    def amdsmi_get_energy_count(self, card: AmdCard) -> dict[str, Any]:
        if card.counts is None:
            raise AmdSmiLibraryException("not supported")
        ticks = round(card.watts * card.counts * self.time.seconds * 1e6 / 15.3)
        return {card.counter_key: ticks, "counter_resolution": 15.3, "timestamp": 0}

    def amdsmi_get_power_info(self, card: AmdCard) -> dict[str, Any]:
        told: dict[str, Any] = dict.fromkeys(("current_socket_power", "average_socket_power", "socket_power"), "N/A")
        return told | dict.fromkeys(card.powers, round(card.watts))

    def amdsmi_get_power_cap_info(self, card: AmdCard) -> dict[str, Any]:
        return {"power_cap": 750_000_000}


@dataclasses.dataclass(slots=True)
class Zone:
    """One zone of a scripted powercap tree."""

    label: str
    watts: float = 100.0
    start_uj: int = 0
    range_uj: int = 262_143_328_850


class Powercap:
    """A powercap tree whose counters follow the clock, each wrapped at its own range."""

    def __init__(self, root: Path, time: ScriptedTime, zones: dict[str, Zone]) -> None:
        self.root, self.time, self.zones = root, time, zones
        for name, zone in zones.items():
            (root / name).mkdir(parents=True)
            (root / name / "name").write_text(f"{zone.label}\n", encoding="ascii")
            (root / name / "max_energy_range_uj").write_text(f"{zone.range_uj}\n", encoding="ascii")
        time.followers.append(self.write)
        self.write()

    def write(self) -> None:
        for name, zone in self.zones.items():
            count = (zone.start_uj + round(zone.watts * self.time.seconds * 1e6)) % (zone.range_uj + 1)
            (self.root / name / "energy_uj").write_text(f"{count}\n", encoding="ascii")


def hwmon_tree(root: Path, chips: dict[str, dict[str, str]]) -> Path:
    """A hwmon tree: chip folder to file to text; the key `device` names the PCI address behind the chip."""
    for chip, files in chips.items():
        folder = root / "class" / chip
        folder.mkdir(parents=True)
        for name, text in files.items():
            if name == "device":
                (root / "devices" / text).mkdir(parents=True, exist_ok=True)
                (folder / "device").symlink_to(root / "devices" / text)
            else:
                (folder / name).write_text(f"{text}\n", encoding="utf-8")
    return root / "class"


class ScriptedApple:
    """zeus_apple_silicon on a chip without a neural engine's counter."""

    def __init__(self, time: ScriptedTime, **parts: float | None) -> None:
        self.time = time
        self.watts: dict[str, float | None] = {"cpu_total": 20.0, "gpu": 30.0, "dram": 5.0, "ane": None} | parts

    def AppleEnergyMonitor(self) -> ScriptedApple:  # noqa: N802
        return self

    def get_cumulative_energy(self) -> SimpleNamespace:
        millijoules = {
            f"{name}_mj": None if watts is None else round(watts * self.time.seconds * 1000)
            for name, watts in self.watts.items()
        }
        return SimpleNamespace(**millijoules)


class ZeusBaseError(Exception):
    """As in zeus."""


class ScriptedZeus:
    """ZeusMonitor over boards in NVML's order, cut down by CUDA_VISIBLE_DEVICES as zeus reads it."""

    def __init__(self, time: ScriptedTime, watts: dict[int, float]) -> None:
        self.time, self.watts = time, watts
        self.begun: dict[str, float] = {}
        self.indices: list[int] = []
        self.fault: str | None = None

    def __call__(self, gpu_indices: list[int], cpu_indices: list[int]) -> ScriptedZeus:
        assert [] == cpu_indices
        self.indices = gpu_indices
        return self

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        assert not sync_execution
        self.begun[key] = self.time.seconds

    def end_window(self, key: str, sync_execution: bool = True) -> SimpleNamespace:
        assert not sync_execution
        if self.fault is not None:
            raise ZeusBaseError(self.fault)
        seconds = self.time.seconds - self.begun.pop(key)
        return SimpleNamespace(gpu_energy={index: self.watts[index] * seconds for index in self.indices})


def _nvml(folder: Path, time: ScriptedTime) -> Meter:
    return nvml.open_meter(CUDA_CARD, nvml=ScriptedNvml(time, Card("GPU-a")), clock=time.monotonic_ns)


def _rapl(folder: Path, time: ScriptedTime) -> Meter:
    zones = {
        "intel-rapl:0": Zone("package-0"),
        "intel-rapl:0:0": Zone("dram", 10.0),
        "intel-rapl:1": Zone("package-1", 80.0, range_uj=1_000_000_000),
    }
    Powercap(folder, time, zones)
    return rapl.open_meter(None, rapl_at(folder), time.monotonic_ns, time.sleep)


def _hwmon(folder: Path, time: ScriptedTime) -> Meter:
    chips = {
        "hwmon0": {"name": "amdgpu", "power1_average": "310000000", "device": "0000:c1:00.0"},
        "hwmon1": {"name": "amd_energy", "energy1_input": "5000000", "energy1_label": "Esocket0"},
    }
    spec = EnergySpec(hwmon=SysfsSpec(root=str(hwmon_tree(folder, chips))))
    return hwmon.open_meter(ROCM_CARD, spec, time.monotonic_ns)


def _amdsmi(folder: Path, time: ScriptedTime) -> Meter:
    return amdsmi.open_meter(ROCM_CARD, None, ScriptedAmdSmi(time, AmdCard()), time.monotonic_ns, time.sleep)


def _zeus(folder: Path, time: ScriptedTime) -> Meter:
    library = zeus.ZeusLibrary(ScriptedZeus(time, {0: 300.0}), ZeusBaseError)
    return zeus.ZeusMeter(CUDA_CARD, library, ScriptedNvml(time, Card("GPU-a")), {}, time.monotonic_ns)


def rapl_at(root: Path) -> EnergySpec:
    """The config that names a powercap tree."""
    return EnergySpec(rapl=SysfsSpec(root=str(root)))


SCRIPTED: dict[str, Callable[[Path, ScriptedTime], Meter]] = {
    "amdsmi": _amdsmi,
    "apple": lambda folder, time: apple.open_meter(None, None, ScriptedApple(time), "darwin", time.monotonic_ns),
    "fake": lambda folder, time: fake.open_meter(None, None, time.monotonic_ns),
    "hwmon": _hwmon,
    "nvml": _nvml,
    "rapl": _rapl,
    "zeus": _zeus,
}
"""Every plug on a scripted source, with a folder for files."""
