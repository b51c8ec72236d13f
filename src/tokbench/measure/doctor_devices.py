"""The doctor's checks of devices: what torch sees, what the driver adds, and whether the two fit.

It never opens a context on a device: torch was asked in a child process that has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.measure.cards import enrich
from tokbench.measure.choice import build_name, busy_reason, is_driver_too_old, wheel_fix
from tokbench.measure.device import TorchBuild, TorchReading
from tokbench.measure.findings import Finding
from tokbench.measure.nvml import DriverFacts, NvmlModule
from tokbench.measure.probe import own_pids
from tokbench.record.facts import DeviceFacts
from tokbench.units import BYTES, format_value


def enriched(reading: TorchReading, nvml: NvmlModule | None, hides_host: bool) -> tuple[DeviceFacts, ...]:
    """Torch's devices with the driver's facts."""
    return enrich(reading.devices, nvml, own_pids(), hides_host_processes=hides_host)


def device_findings(devices: Sequence[DeviceFacts], build: TorchBuild, driver: DriverFacts) -> list[Finding]:
    """One finding per device, whether GPUs are missing, and the driver against the build."""
    rows = [_device(device) for device in devices]
    if not any(device.kind in ("cuda", "rocm", "mps") for device in devices) and not driver.cards:
        rows.append(Finding(topic="device", status="ok", what="no GPU here: runs use the CPU, or an endpoint"))
    return [*rows, *driver_findings(build, driver, torch_sees_gpu=any(d.kind in ("cuda", "rocm") for d in devices))]


def driver_findings(build: TorchBuild | None, driver: DriverFacts, torch_sees_gpu: bool = False) -> list[Finding]:
    """The NVIDIA driver against what torch was built for; nothing to say where there is neither."""
    if driver.driver_version is None and not driver.cards:
        return [_no_driver(build, driver, torch_sees_gpu)] if build is None or build.cuda or not build.hip else []
    text = f"NVIDIA driver {driver.driver_version or 'of unknown version'}"
    if driver.cuda_version is not None:
        text += f", runs CUDA up to {driver.cuda_version}"
    if build is None:
        return [Finding(topic="driver", status="ok", what=text)]
    return [_fit(f"{text}; {build_name(build)}", build, driver, torch_sees_gpu)]


def _fit(text: str, build: TorchBuild, driver: DriverFacts, torch_sees_gpu: bool) -> Finding:
    """Whether this torch can use the card that this driver drives."""
    if build.cuda is None and build.hip is None:
        return Finding(topic="driver", status="missing", what=f"{text} cannot use the card", remedy=wheel_fix(driver))
    if is_driver_too_old(build, driver):
        remedy = f"update the driver, or {wheel_fix(driver)}"
        return Finding(topic="driver", status="missing", what=f"{text} needs a newer driver", remedy=remedy)
    if not torch_sees_gpu:
        said = f" ({build.note})" if build.note else ""
        remedy = "look at CUDA_VISIBLE_DEVICES, and at the permissions of /dev/nvidia*"
        return Finding(topic="driver", status="warning", what=f"{text} sees no GPU{said}", remedy=remedy)
    if build.cuda is not None and driver.cuda_version is None:
        return Finding(topic="driver", status="unknown", what=f"{text}; whether they fit cannot be told")
    return Finding(topic="driver", status="ok", what=text)


def _no_driver(build: TorchBuild | None, driver: DriverFacts, torch_sees_gpu: bool) -> Finding:
    built = f"; {build_name(build)}" if build is not None else ""
    fault = driver.fault or "the driver gives no version"
    if torch_sees_gpu:
        what = f"NVML cannot be used ({fault}){built}: no energy, clocks or other processes of the card"
        return Finding(topic="driver", status="missing", what=what, remedy="pip install nvidia-ml-py")
    return Finding(topic="driver", status="ok", what=f"no NVIDIA driver in use ({fault}){built}")


def _device(device: DeviceFacts) -> Finding:
    place = device.kind if device.index is None else f"{device.kind}:{device.index}"
    parts = [f"{place} {device.name}"]
    if device.memory_bytes is not None:
        free = "unknown" if device.free_memory_bytes is None else format_value(device.free_memory_bytes, BYTES)
        parts.append(f"memory {format_value(device.memory_bytes, BYTES)}, free {free}")
    if device.compute_capability is not None:
        parts.append(device.compute_capability)
    if device.is_mig:
        parts.append("MIG: power and energy are those of the whole card")
    if device.power_limit_w is not None:
        parts.append(f"power limit {device.power_limit_w:.0f} W")
    if device.kind in ("cuda", "rocm"):
        parts.append(_others(device))
    busy = busy_reason(device) if device.kind in ("cuda", "rocm") else None
    text = "; ".join(parts)
    if busy is not None:
        remedy = "wait, choose another device, or pass --allow-busy"
        return Finding(topic="device", status="warning", what=f"{text}; busy: {busy}", remedy=remedy)
    return Finding(topic="device", status="ok", what=text)


def _others(device: DeviceFacts) -> str:
    note = f" ({device.foreign_note})" if device.foreign_note else ""
    count = "unknown" if device.foreign_processes is None else str(device.foreign_processes)
    return f"other processes: {count}{note}"
