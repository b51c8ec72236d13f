"""What the NVIDIA driver says of a card, asked through NVML and found by its UUID, never by an index.

It reads settings and never changes one. A question that the card, the driver or the permissions refuse is None:
no fault of NVML ends a run.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

T = TypeVar("T")

_CLOCK_EVENT_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
"""Source: nvml.h, nvmlClocksEventReason* and nvmlClocksThrottleReason*, as in nvidia-ml-py 13.615.71."""

NOT_SUPPORTED = "not supported by this card or driver"
_REASONS = {
    "LibraryNotFound": "no NVIDIA driver library (libnvidia-ml.so.1)",
    "DriverNotLoaded": "the NVIDIA kernel driver is not loaded",
    "LibRmVersionMismatch": "driver library and kernel module differ in version: reboot, or reload the module",
    "NoPermission": "permission denied",
    "NotSupported": NOT_SUPPORTED,
    "FunctionNotFound": "the driver is too old for this question",
    "GpuIsLost": "the card has fallen off the bus",
    "NotFound": "no such card",
}


class NvmlModule(Protocol):
    """The part of pynvml that stands for the whole: its error class and its start; the rest is asked by lambda."""

    @property
    def NVMLError(self) -> type[Exception]: ...  # noqa: N802

    def nvmlInit(self) -> None: ...  # noqa: N802

    def __getattr__(self, name: str) -> Any: ...


class Answer(NamedTuple, Generic[T]):
    """What NVML said to one question: a value, or why there is none."""

    value: T | None
    fault: str | None


class CardName(NamedTuple):
    """One card as the driver knows it, whatever torch may see."""

    uuid: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class DriverFacts:
    """The NVIDIA driver of this machine; `fault` says why nothing could be asked."""

    driver_version: str | None = None
    cuda_version: str | None = None
    """The newest CUDA that this driver runs, `12.4`."""
    cards: tuple[CardName, ...] = ()
    fault: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class GpuSample:
    """A card's state at one instant; each None where the card does not tell."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: float | None
    throttle_reasons: tuple[str, ...] | None
    """Why the clocks are not higher, empty when nothing holds them."""
    power_w: float | None


def load_nvml() -> NvmlModule | None:
    """The binding, None where it is not installed."""
    try:
        return cast(NvmlModule, importlib.import_module("pynvml"))
    except ImportError:
        return None


def ask(nvml: NvmlModule, question: Callable[[], T]) -> Answer[T]:
    """Put one question; an NVML error becomes its name in words."""
    try:
        return Answer(question(), None)
    except nvml.NVMLError as error:
        name = type(error).__name__.removeprefix("NVMLError_")
        return Answer(None, _REASONS.get(name, f"NVML: {name}: {error}"))
    except AttributeError as error:
        # The abandoned `pynvml` package lacks the newer functions.
        return Answer(None, f"the NVML binding is too old: {error}")


def start_nvml(nvml: NvmlModule | None) -> str | None:
    """Start NVML; returns why it cannot be used, None when it can. NVML counts starts, so each caller may."""
    if nvml is None:
        return "nvidia-ml-py is not installed"
    return ask(nvml, nvml.nvmlInit).fault


def read_driver(nvml: NvmlModule | None) -> DriverFacts:
    """The driver's version, the newest CUDA it runs, and every card it drives."""
    fault = start_nvml(nvml)
    if nvml is None or fault is not None:
        return DriverFacts(fault=fault)
    cards = []
    for index in range(ask(nvml, lambda: int(nvml.nvmlDeviceGetCount())).value or 0):
        card = ask(nvml, functools.partial(_card_name, nvml, index)).value
        if card is not None:
            cards.append(card)
    cuda = ask(nvml, lambda: int(nvml.nvmlSystemGetCudaDriverVersion_v2())).value
    return DriverFacts(
        driver_version=ask(nvml, lambda: str(nvml.nvmlSystemGetDriverVersion())).value,
        cuda_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        cards=tuple(cards),
    )


def find_handle(nvml: NvmlModule, uuid: str) -> Answer[Any]:
    """The handle of a card or MIG slice; CUDA may print either prefix before a slice's UUID."""
    bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
    answer: Answer[Any] = Answer(None, None)
    for candidate in dict.fromkeys((uuid, f"GPU-{bare}", f"MIG-{bare}")):
        found = ask(nvml, functools.partial(_handle_by_uuid, nvml, candidate))
        if found.value is not None:
            return found
        answer = answer if answer.fault else found
    return answer


def read_clocks(nvml: NvmlModule, handle: Any) -> GpuSample:
    """Clocks, temperature, clock-event reasons and power of a card, now."""
    temperature = _first(
        nvml,
        lambda: nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU),
        lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    )
    reasons = _first(
        nvml,
        lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
        lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
    )
    return GpuSample(
        sm_clock_mhz=ask(nvml, lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))).value,
        memory_clock_mhz=ask(nvml, lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))).value,
        temperature_c=None if temperature is None else float(temperature),
        throttle_reasons=None if reasons is None else clock_event_names(reasons),
        power_w=watts(ask(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)).value),
    )


def clock_event_names(bits: int) -> tuple[str, ...]:
    """The names of the set bits; a bit that has no name here keeps its number."""
    set_bits = [1 << position for position in range(bits.bit_length()) if bits >> position & 1]
    return tuple(_CLOCK_EVENT_REASONS.get(bit, f"bit_{bit:#x}") for bit in set_bits)


class NvmlReader:
    """One card, found once by its UUID and sampled many times; holds no thread and changes nothing."""

    def __init__(self, uuid: str, nvml: NvmlModule | None = None) -> None:
        self._nvml = load_nvml() if nvml is None else nvml
        self._handle: Any = None
        self.fault = start_nvml(self._nvml)
        if self._nvml is not None and self.fault is None:
            self._handle, self.fault = find_handle(self._nvml, uuid)

    def sample(self) -> GpuSample:
        """The card's state now; all None where NVML or the card cannot be had (`fault` says why)."""
        if self._nvml is None or self._handle is None:
            return GpuSample(None, None, None, None, None)
        return read_clocks(self._nvml, self._handle)


def _first(nvml: NvmlModule, *questions: Callable[[], Any]) -> int | None:
    for question in questions:
        value = ask(nvml, question).value
        if value is not None:
            return int(value)
    return None


def _card_name(nvml: NvmlModule, index: int) -> CardName:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return CardName(str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle)))


def _handle_by_uuid(nvml: NvmlModule, uuid: str) -> Any:
    """By the older function, which the newer one is to replace: neither is in every binding and driver."""
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError as error:
        if not type(error).__name__.endswith("FunctionNotFound"):
            raise
    return nvml.nvmlDeviceGetHandleByUUIDV(uuid, nvml.NVML_UUID_TYPE_ASCII)


def watts(milliwatts: int | None) -> float | None:
    """NVML counts in milliwatts; everything here in watts."""
    return None if milliwatts is None else milliwatts / 1000
