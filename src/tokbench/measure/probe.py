"""What is here: the host, the devices that torch sees, and what the driver adds to them.

The parent process calls this and never imports torch: a child does, prints its facts and ends, so that no context
stays on a card. It reads settings and never changes one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from pydantic import ValidationError

from tokbench.errors import ExitCode, PlugError
from tokbench.measure.cards import enrich
from tokbench.measure.choice import DeviceChoice, choose_device, choose_devices
from tokbench.measure.device import TorchBuild, TorchReading
from tokbench.measure.host import container_kind, hides_host_processes, read_host_facts
from tokbench.measure.nvml import DriverFacts, NvmlModule, load_nvml, read_driver
from tokbench.record.facts import DeviceFacts, HostFacts

__all__ = ["Probe", "find_device", "probe", "probe_devices", "read_host_facts", "read_torch", "run_child"]

CHILD_COMMAND = (sys.executable, "-m", "tokbench.measure.device")
CHILD_LIMIT_S = 180.0
"""A first import of torch from a cold network disk takes more than a minute."""

Runner = Callable[[tuple[str, ...], float], "subprocess.CompletedProcess[str]"]
"""Runs a command with a time limit in seconds; raises subprocess.TimeoutExpired."""


class Probe(NamedTuple):
    """Everything that was found before a run."""

    host: HostFacts
    build: TorchBuild
    devices: tuple[DeviceFacts, ...]
    driver: DriverFacts


def run_child(command: tuple[str, ...], limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with captured output."""
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)


def read_torch(runner: Runner = run_child) -> TorchReading:
    """The build and devices of the installed torch, read by a child process.

    Raises:
        PlugError: torch is absent, cannot be loaded, or does not answer in time.
    """
    try:
        done = runner(CHILD_COMMAND, CHILD_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        message = f"torch did not list its devices within {CHILD_LIMIT_S:.0f} s"
        raise PlugError(message, fix=f"run `{' '.join(CHILD_COMMAND)}` and see where it hangs") from error
    if done.returncode == ExitCode.PLUG:
        raise PlugError("torch is not installed", fix="pip install 'tokbench[local]'")
    said = (done.stderr or "").strip().splitlines()
    if done.returncode != 0:
        last = said[-1] if said else f"it ended with code {done.returncode} and no word"
        raise PlugError(f"torch cannot be loaded: {last}", fix=f"run `{' '.join(CHILD_COMMAND)}` for all of it")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    try:
        return TorchReading.model_validate_json(lines[-1] if lines else "")
    except ValidationError as error:
        raise PlugError("the device probe printed no device list", fix=f"run `{' '.join(CHILD_COMMAND)}`") from error


def probe_devices(
    runner: Runner = run_child, nvml: NvmlModule | None = None, *, hides_host: bool | None = None
) -> tuple[DeviceFacts, ...]:
    """Every device of torch with what the driver adds; `hides_host` is read from this machine where not given.

    Raises:
        PlugError: as `read_torch`.
    """
    return _enriched(read_torch(runner), nvml or load_nvml(), hides_host)


def probe(
    runner: Runner = run_child,
    nvml: NvmlModule | None = None,
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
) -> Probe:
    """Read host, torch, devices and driver.

    Raises:
        PlugError: as `read_torch`.
    """
    binding = nvml or load_nvml()
    facts = read_host_facts(root, environ)
    reading = read_torch(runner)
    devices = _enriched(reading, binding, hides_host_processes(facts.container))
    return Probe(facts, reading.build, devices, read_driver(binding))


def find_device(request: str, allow_busy: bool, found: Probe | None = None) -> DeviceChoice:
    """Probe where that was not done, and choose; the one call that cannot miss a GPU that torch does not see.

    Raises:
        PlugError: as `read_torch` and `choose_device`.
    """
    seen = found or probe()
    return choose_device(request, seen.devices, allow_busy, seen.build, seen.driver)


def find_devices(requests: Sequence[str], allow_busy: bool, seen: Probe) -> tuple[DeviceChoice, ...]:
    """Choose several devices among those that were found.

    Raises:
        PlugError: as `choose_devices`.
    """
    return choose_devices(requests, seen.devices, allow_busy, seen.build, seen.driver)


def own_pids() -> frozenset[int]:
    """This process and all it started."""
    return frozenset({os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))})


def _enriched(reading: TorchReading, nvml: NvmlModule | None, hides_host: bool | None) -> tuple[DeviceFacts, ...]:
    hides = hides_host_processes(container_kind(Path("/"), os.environ)) if hides_host is None else hides_host
    return enrich(reading.devices, nvml, own_pids(), hides_host_processes=hides)
