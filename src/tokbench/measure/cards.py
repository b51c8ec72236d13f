"""Each CUDA device of torch, joined by its UUID with what the driver knows of the card: settings and other users.

It reads and never changes. What the driver does not tell stays None; a process that cannot be seen is
unknown, not none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tokbench.measure.nvml import NOT_SUPPORTED, Answer, NvmlModule, ask, find_handle, start_nvml, watts
from tokbench.record.facts import DeviceFacts
from tokbench.units import BYTES, format_value

BUSY_NOTE = "looks busy"
"""How the note on a card begins that works or is filled while no process can be seen on it."""
UNKNOWN_CONTAINER_NOTE = "unknown: container"
_BUSY_UTILISATION_PERCENT = 5
_BUSY_USED_BYTES = 2**30


def enrich(
    devices: Sequence[DeviceFacts],
    nvml: NvmlModule | None,
    own_pids: Collection[int],
    *,
    hides_host_processes: bool,
) -> tuple[DeviceFacts, ...]:
    """Add to each CUDA device what the driver knows of it; all others, and all where NVML fails, stay as they are."""
    if nvml is None or start_nvml(nvml) is not None:
        return tuple(devices)
    return tuple(
        _enrich_one(device, nvml, own_pids, hides_host_processes) if device.kind == "cuda" else device
        for device in devices
    )


def _switch(state: int | None) -> bool | None:
    return None if state is None else state == 1


def _find_device(device: DeviceFacts, nvml: NvmlModule) -> Answer[Any]:
    if device.uuid is not None:
        return find_handle(nvml, device.uuid)
    if device.pci_bus_id is not None:
        return ask(nvml, lambda: nvml.nvmlDeviceGetHandleByPciBusId(device.pci_bus_id))
    return Answer(None, "torch tells neither UUID nor PCI address")


def _enrich_one(
    device: DeviceFacts, nvml: NvmlModule, own_pids: Collection[int], hides_host_processes: bool
) -> DeviceFacts:
    found = _find_device(device, nvml)
    handle = found.value
    driver = ask(nvml, lambda: str(nvml.nvmlSystemGetDriverVersion())).value
    if handle is None:
        note = _join(device.foreign_note, f"unknown: {found.fault}")
        return device.model_copy(update={"driver_version": driver, "foreign_note": note})
    is_mig = device.is_mig or _is_mig(nvml, handle)
    foreign, note = _foreign_processes(nvml, handle, own_pids, hides_host_processes)
    limit = None if is_mig else watts(ask(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle)).value)
    persistence = ask(nvml, lambda: int(nvml.nvmlDeviceGetPersistenceMode(handle))).value
    ecc = ask(nvml, lambda: int(nvml.nvmlDeviceGetEccMode(handle)[0])).value
    sm_clock = ask(nvml, lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))).value
    memory_clock = ask(nvml, lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM))).value
    address = ask(nvml, lambda: str(nvml.nvmlDeviceGetPciInfo(handle).busId)).value
    return device.model_copy(
        update={
            "driver_version": driver,
            "uuid": ask(nvml, lambda: str(nvml.nvmlDeviceGetUUID(handle))).value or device.uuid,
            "pci_bus_id": address or device.pci_bus_id,
            "is_mig": is_mig,
            "free_memory_bytes": device.free_memory_bytes if is_mig else _free_bytes(nvml, handle, device),
            "power_limit_w": limit,
            "persistence_mode": _switch(persistence),
            "ecc_enabled": _switch(ecc),
            "max_sm_clock_mhz": sm_clock,
            "max_memory_clock_mhz": memory_clock,
            "foreign_processes": foreign,
            "foreign_note": _join(device.foreign_note, note),
        }
    )


def _join(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _is_mig(nvml: NvmlModule, handle: Any) -> bool | None:
    """Whether the handle is a slice, or a card cut into slices; False on cards that cannot be cut."""
    if ask(nvml, lambda: bool(nvml.nvmlDeviceIsMigDeviceHandle(handle))).value:
        return True
    mode = ask(nvml, lambda: int(nvml.nvmlDeviceGetMigMode(handle)[0]))
    return False if mode.fault == NOT_SUPPORTED else _switch(mode.value)


def _memory(nvml: NvmlModule, handle: Any) -> Any:
    """The memory row; version 2 keeps the driver's own reserve out of `used`."""
    newer = ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)).value
    return newer or ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle)).value


def _free_bytes(nvml: NvmlModule, handle: Any, device: DeviceFacts) -> int | None:
    """Free memory after the probing process has gone: torch's own figure lacks that process's context."""
    memory = _memory(nvml, handle)
    if memory is None or device.free_memory_bytes is None or device.memory_bytes is None:
        return device.free_memory_bytes
    return min(int(memory.free), device.memory_bytes)


def _foreign_processes(
    nvml: NvmlModule, handle: Any, own_pids: Collection[int], hides_host_processes: bool
) -> tuple[int | None, str | None]:
    """How many other processes compute on the card, and what keeps that from being certain."""
    listed = ask(nvml, lambda: [int(row.pid) for row in nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)])
    if listed.value is None:
        return None, f"unknown: {listed.fault}"
    foreign = [pid for pid in listed.value if pid not in own_pids]
    if foreign:
        return len(foreign), None
    signs = None if listed.value else _busy_signs(nvml, handle)
    if hides_host_processes:
        return None, _join(signs, UNKNOWN_CONTAINER_NOTE)
    return 0, signs


def _busy_signs(nvml: NvmlModule, handle: Any) -> str | None:
    """Why a card on which no process is seen looks busy, None when it does not."""
    percent = ask(nvml, lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)).value
    memory = _memory(nvml, handle)
    signs = []
    if percent is not None and percent > _BUSY_UTILISATION_PERCENT:
        signs.append(f"{percent} % utilised")
    if memory is not None and int(memory.used) > _BUSY_USED_BYTES:
        signs.append(f"{format_value(int(memory.used), BYTES)} in use")
    return f"{BUSY_NOTE}: {', '.join(signs)}, and no process is visible" if signs else None
