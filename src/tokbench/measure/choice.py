"""Which device a run uses, and one plain sentence why. Looks only at facts that were read before.

It never falls back silently: a GPU that the machine has and torch cannot use is an error, not a CPU run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.cards import BUSY_NOTE
from tokbench.measure.device import TorchBuild
from tokbench.measure.nvml import DriverFacts
from tokbench.record.facts import DeviceFacts
from tokbench.units import BYTES, format_value

IDLE_FREE_RATIO = 0.9
"""A card with less free memory than this holds someone's work."""

_REQUEST = re.compile(r"(auto|cpu|mps|cuda|rocm)(?::(\d+))?")
_WHEEL_GUIDE = "pytorch.org/get-started/locally"
"""Where the index of every wheel is told."""
_WHEELS = {12: "cu126", 13: "cu130"}
"""One index of torch wheels per CUDA major; a driver runs every minor of its major, and all majors before it.
Source: docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility; pytorch/pytorch RELEASE.md for 2.11 to
2.14 (pull requests 175253, 187075, 194367); read 2026-11-21."""
ROCM_WHEEL_FIX = f"install the ROCm build of torch (rocm7.2): {_WHEEL_GUIDE} tells the pip command"


class DeviceChoice(NamedTuple):
    """The device, and why it is this one."""

    device: DeviceFacts
    why: str


def choose_device(
    request: str,
    devices: Sequence[DeviceFacts],
    allow_busy: bool,
    build: TorchBuild | None = None,
    driver: DriverFacts | None = None,
) -> DeviceChoice:
    """Choose among what torch sees; `build` and `driver` tell why a GPU that exists is not among it.

    Raises:
        PlugError: the request is unknown, names a device that is not here, or all that fit are busy.
    """
    match = _REQUEST.fullmatch(request)
    if match is None or (match[2] is not None and match[1] in ("auto", "cpu")):
        raise PlugError(f"unknown device {request!r}", fix="use auto, cuda, cuda:N, rocm, rocm:N, mps or cpu")
    kind, number = match[1], match[2]
    gpus = [device for device in devices if device.kind in ("cuda", "rocm")]
    if kind in ("cpu", "mps"):
        return DeviceChoice(_only(kind, devices), f"{kind}: asked for")
    if kind == "auto" and not gpus:
        return _without_gpu(devices, build, driver)
    _check_vendor(kind, gpus, devices, build, driver)
    if number is not None:
        return _check_idle(request, _numbered(request, int(number), gpus, devices), allow_busy)
    return _freest(request, gpus, allow_busy)


def choose_devices(
    requests: Sequence[str],
    devices: Sequence[DeviceFacts],
    allow_busy: bool,
    build: TorchBuild | None = None,
    driver: DriverFacts | None = None,
) -> tuple[DeviceChoice, ...]:
    """Choose every device of a model that is split, in the order of its ranks.

    Raises:
        PlugError: as `choose_device`; there are fewer devices than were named.
    """
    return tuple(choose_device(request, devices, allow_busy, build, driver) for request in requests)


def torch_device(device: DeviceFacts) -> str:
    """The name torch knows the device by; HIP builds of torch say `cuda` too."""
    return f"cuda:{device.index}" if device.kind in ("cuda", "rocm") else device.kind


def busy_reason(device: DeviceFacts) -> str | None:
    """Who or what holds the card, None when it is idle or when that cannot be known."""
    reasons = []
    if device.foreign_processes:
        plural = "process" if device.foreign_processes == 1 else "processes"
        reasons.append(f"{device.foreign_processes} other {plural}")
    free, total = device.free_memory_bytes, device.memory_bytes
    if free is not None and total is not None and free < IDLE_FREE_RATIO * total:
        reasons.append(f"{format_value(total - free, BYTES)} of {format_value(total, BYTES)} in use")
    return ", ".join(reasons) or None


def wheel_fix(driver: DriverFacts) -> str:
    """The command that gets a torch that this driver runs."""
    if driver.cuda_version is None:
        return "choose a CUDA wheel that fits the driver at https://pytorch.org/get-started/locally/"
    major = int(driver.cuda_version.split(".")[0])
    fitting = [wheel for cuda_major, wheel in _WHEELS.items() if cuda_major <= major]
    if not fitting:
        return f"update the driver: CUDA {driver.cuda_version} is older than every torch that tokbench supports"
    command = f"install the {fitting[-1]} build of torch: {_WHEEL_GUIDE} tells the pip command"
    return command if major > 12 else f"{command} (a Blackwell card needs a driver for CUDA 13)"


def build_name(build: TorchBuild) -> str:
    """`torch 2.13.0 (CUDA 12.6)`, `(ROCm 6.4)` or `(CPU only)`."""
    target = f"CUDA {build.cuda}" if build.cuda else f"ROCm {build.hip}" if build.hip else "CPU only"
    return f"torch {build.version} ({target})"


def is_driver_too_old(build: TorchBuild, driver: DriverFacts) -> bool:
    """Whether torch needs a CUDA major that the driver does not run."""
    if build.cuda is None or driver.cuda_version is None:
        return False
    return int(build.cuda.split(".")[0]) > int(driver.cuda_version.split(".")[0])


def _only(kind: str, devices: Sequence[DeviceFacts]) -> DeviceFacts:
    for device in devices:
        if device.kind == kind:
            return device
    raise PlugError(f"no {kind} device here; there is {_listed(devices)}", fix="device: auto")


def _without_gpu(devices: Sequence[DeviceFacts], build: TorchBuild | None, driver: DriverFacts | None) -> DeviceChoice:
    """The choice of `auto` where torch has no GPU; refuses when the machine has one that torch was not built for."""
    _check_build(build, driver)
    hidden = ""
    if driver is not None and driver.cards:
        hidden = f"; the driver has {_count(len(driver.cards))}, but torch is shown none (CUDA_VISIBLE_DEVICES?)"
    for kind in ("mps", "cpu"):
        for device in devices:
            if device.kind == kind:
                return DeviceChoice(device, f"{kind}: torch sees no GPU{hidden}")
    raise PlugError("torch sees no device at all", fix="tokbench doctor")


def _check_build(build: TorchBuild | None, driver: DriverFacts | None) -> None:
    """Refuse where the machine has an NVIDIA card and the installed torch cannot drive it."""
    if build is None or driver is None or not driver.cards or build.hip:
        return
    cards, version = _count(len(driver.cards)), driver.driver_version or "of unknown version"
    runs = f", which runs CUDA up to {driver.cuda_version}" if driver.cuda_version else ""
    if build.cuda is None:
        message = f"torch has no CUDA: {build_name(build)}, beside {cards} with driver {version}{runs}"
        raise PlugError(message, fix=f"{wheel_fix(driver)} (or choose `device: cpu`)")
    if is_driver_too_old(build, driver):
        message = f"{build_name(build)} is too new for driver {version}{runs}"
        raise PlugError(message, fix=f"{wheel_fix(driver)} (or update the driver, or choose `device: cpu`)")


def _check_vendor(
    kind: str,
    gpus: Sequence[DeviceFacts],
    devices: Sequence[DeviceFacts],
    build: TorchBuild | None,
    driver: DriverFacts | None,
) -> None:
    """Refuse a GPU request that this torch cannot serve; `cuda` is also torch's word for ROCm devices."""
    is_cuda_build = any(gpu.kind == "cuda" for gpu in gpus) or (build is not None and build.cuda is not None)
    is_hip_build = any(gpu.kind == "rocm" for gpu in gpus) or (build is not None and build.hip is not None)
    if kind == "rocm" and not is_hip_build:
        name = "is built for CUDA" if is_cuda_build else "is not built for ROCm"
        raise PlugError(f"device: rocm, but the installed torch {name}", fix=ROCM_WHEEL_FIX)
    if gpus:
        return
    _check_build(build, driver)
    said = f" ({build.note})" if build is not None and build.note else ""
    shown = f"; the driver has {_count(len(driver.cards))}" if driver is not None and driver.cards else ""
    raise PlugError(
        f"device: {kind}, but torch sees no GPU{said}{shown}; there is {_listed(devices)}",
        fix="look at CUDA_VISIBLE_DEVICES (HIP_VISIBLE_DEVICES) and `tokbench doctor`, or choose `device: cpu`",
    )


def _numbered(request: str, number: int, gpus: Sequence[DeviceFacts], devices: Sequence[DeviceFacts]) -> DeviceFacts:
    for gpu in gpus:
        if gpu.index == number:
            return gpu
    raise PlugError(f"no device {request}; there is {_listed(devices)}", fix=f"use 0 to {len(gpus) - 1}")


def _check_idle(request: str, gpu: DeviceFacts, allow_busy: bool) -> DeviceChoice:
    busy = busy_reason(gpu)
    if busy is not None and not allow_busy:
        raise PlugError(f"{_label(gpu)} is busy: {busy}", fix="wait, choose another device, or pass --allow-busy")
    return DeviceChoice(gpu, f"{_label(gpu)}: asked for as {request}{_remarks(gpu)}")


def _freest(request: str, gpus: Sequence[DeviceFacts], allow_busy: bool) -> DeviceChoice:
    """The idle card with the most free memory; one that only looks busy comes after all that do not."""
    idle = [gpu for gpu in gpus if busy_reason(gpu) is None]
    if not idle and not allow_busy:
        held = "; ".join(f"{_label(gpu)}: {busy_reason(gpu)}" for gpu in gpus)
        known = [gpu.foreign_processes for gpu in gpus if gpu.foreign_processes is not None]
        total = f"{sum(known)} other processes" if known else "other processes cannot be seen"
        message = f"{'the GPU is' if len(gpus) == 1 else f'all {len(gpus)} GPUs are'} busy ({total}): {held}"
        raise PlugError(message, fix="wait, or pass --allow-busy; the numbers will then carry the other work too")
    chosen = max(idle or gpus, key=_rank)
    if len(gpus) == 1:
        reason = "the only GPU"
    else:
        reason = f"most free memory of {len(idle)} idle GPUs" if idle else f"most free memory of {len(gpus)} busy GPUs"
    return DeviceChoice(chosen, f"{_label(chosen)}: {reason}, request {request}{_remarks(chosen)}")


def _rank(gpu: DeviceFacts) -> tuple[bool, int, int]:
    looks_busy = gpu.foreign_note is not None and BUSY_NOTE in gpu.foreign_note
    free = -1 if gpu.free_memory_bytes is None else gpu.free_memory_bytes
    return not looks_busy, free, -(gpu.index or 0)


def _remarks(gpu: DeviceFacts) -> str:
    """What a reader of the choice must know beside it."""
    remarks = []
    busy = busy_reason(gpu)
    if busy is not None:
        remarks.append(f"busy, allowed by --allow-busy ({busy})")
    elif gpu.foreign_processes is None:
        remarks.append(f"other processes {gpu.foreign_note or 'unknown'}")
    elif gpu.foreign_note is not None:
        remarks.append(gpu.foreign_note)
    if gpu.kind == "rocm":
        remarks.append("this torch is built for ROCm and calls its devices cuda")
    return "".join(f"; {remark}" for remark in remarks)


def _label(device: DeviceFacts) -> str:
    place = device.kind if device.index is None else f"{device.kind}:{device.index}"
    return f"{place} ({device.name})"


def _listed(devices: Sequence[DeviceFacts]) -> str:
    return ", ".join(_label(device) for device in devices) or "none"


def _count(cards: int) -> str:
    return "1 NVIDIA card" if cards == 1 else f"{cards} NVIDIA cards"
