"""The devices that torch sees, read in a child process: `python -m tokbench.measure.device` prints one JSON line.

The parent imports the types and never calls `main`, so it never loads torch. Nothing is computed on a device here.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tokbench.errors import ExitCode
from tokbench.measure import cgroup, host
from tokbench.record.facts import DeviceFacts, Frozen

T = TypeVar("T")


class TorchBuild(Frozen):
    """What the installed torch was built for; a CPU-only build has neither `cuda` nor `hip`."""

    version: str
    cuda: str | None = None
    hip: str | None = None
    note: str | None = None
    """What torch said while it looked for devices, e.g. that the driver is too old."""


class TorchReading(Frozen):
    """What the child process found: the build, and its devices in torch's own order."""

    build: TorchBuild
    devices: tuple[DeviceFacts, ...]


def main() -> int:
    """Print a TorchReading; exit code 3 says that torch is not installed."""
    try:
        torch_module = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print("torch is not installed", file=sys.stderr)
        return ExitCode.PLUG
    print(read_torch_module(torch_module).model_dump_json())
    return ExitCode.OK


def read_torch_module(torch_module: Any, root: Path = Path("/")) -> TorchReading:
    """The build and the devices of one torch-like module."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        devices = device_facts_from_torch(torch_module, root)
    said = [str(warning.message).strip() for warning in caught if "CUDA" in str(warning.message)]
    build = TorchBuild(
        version=str(torch_module.__version__),
        cuda=torch_module.version.cuda,
        hip=_known(lambda: torch_module.version.hip),
        note=said[0].splitlines()[0] if said else None,
    )
    return TorchReading(build=build, devices=tuple(devices))


def device_facts_from_torch(torch_module: Any, root: Path = Path("/")) -> list[DeviceFacts]:
    """Every device of a torch-like module: its GPUs in torch's order, then mps, then the CPU."""
    devices = []
    if torch_module.cuda.is_available():
        devices += [_gpu_facts(torch_module, index) for index in range(torch_module.cuda.device_count())]
    if _known(lambda: bool(torch_module.backends.mps.is_available())):
        devices.append(_mps_facts(torch_module, root))
    return [*devices, _cpu_facts(root)]


def _gpu_facts(torch_module: Any, index: int) -> DeviceFacts:
    properties = torch_module.cuda.get_device_properties(index)
    hip = _known(lambda: torch_module.version.hip)
    free_bytes, note = _free_memory(torch_module, index)
    if _known(lambda: bool(properties.is_integrated)):
        # On shared memory the driver's "free" leaves out what the system would give back: docs.nvidia.com, DGX Spark.
        free_bytes, note = None, "memory is shared with the host: how much is free is not known"
    architecture = str(properties.gcnArchName).split(":")[0] if hip else f"{properties.major}.{properties.minor}"
    return DeviceFacts(
        kind="rocm" if hip else "cuda",
        name=properties.name,
        index=index,
        uuid=_prefixed_uuid(_known(lambda: str(properties.uuid)), properties.name, is_hip=bool(hip)),
        pci_bus_id=_pci_bus_id(properties),
        memory_bytes=properties.total_memory,
        free_memory_bytes=free_bytes,
        cache_bytes=_known(lambda: int(properties.L2_cache_size)),
        is_mig=True if not hip and " MIG " in properties.name else None,
        compute_capability=architecture,
        multiprocessors=properties.multi_processor_count,
        runtime_version=hip or torch_module.version.cuda,
        foreign_note=note,
    )


def _free_memory(torch_module: Any, index: int) -> tuple[int | None, str | None]:
    """Free bytes; None and the driver's words where a context cannot be opened (exclusive mode, full card)."""
    try:
        return int(torch_module.cuda.mem_get_info(index)[0]), None
    except RuntimeError as error:
        return None, f"free memory cannot be read: {str(error).splitlines()[0]}"


def _mps_facts(torch_module: Any, root: Path) -> DeviceFacts:
    limit = _known(lambda: int(torch_module.mps.recommended_max_memory()))
    return DeviceFacts(kind="mps", name=host.cpu_name(root), index=0, memory_bytes=limit)


def _cpu_facts(root: Path) -> DeviceFacts:
    total, limit = host.memory_bytes(root), cgroup.memory_limit_bytes(root)
    return DeviceFacts(
        kind="cpu",
        name=host.cpu_name(root),
        memory_bytes=total if limit is None else min(total, limit),
        free_memory_bytes=host.free_memory_bytes(root),
        cache_bytes=host.last_cache_bytes(root),
    )


def _prefixed_uuid(uuid: str | None, name: str, *, is_hip: bool) -> str | None:
    """The UUID as the driver prints it; torch leaves out the prefix, and HIP keeps text in the 16 bytes."""
    if not uuid or uuid.startswith(("GPU-", "MIG-")):
        return uuid or None
    digits = uuid.replace("-", "")
    if is_hip and re.fullmatch(r"(3[0-9]|6[1-6]){16}", digits):
        return f"GPU-{bytes.fromhex(digits).decode()}"
    return f"MIG-{uuid}" if " MIG " in name else f"GPU-{uuid}"


def _pci_bus_id(properties: Any) -> str | None:
    """The address as NVML writes it; None in a torch that does not tell it."""
    return _known(
        lambda: f"{properties.pci_domain_id:08X}:{properties.pci_bus_id:02X}:{properties.pci_device_id:02X}.0"
    )


def _known(read: Callable[[], T]) -> T | None:
    """A property that not every torch version has."""
    try:
        return read()
    except AttributeError:
        return None


if __name__ == "__main__":
    sys.exit(main())
