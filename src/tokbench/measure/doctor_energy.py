"""The doctor's checks of meters: which energy counters and clocks can be read here, and how to open the others.

It reads each once to see whether it can be read; it measures nothing and opens no permission itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokbench.measure.findings import Finding, Surroundings
from tokbench.measure.nvml import DriverFacts, NvmlModule, ask, find_handle, read_clocks

_RAPL_EXPOSES = (
    "any local user can then read the package's energy at millisecond steps, a side channel on other programs "
    "(CVE-2020-8694, CVE-2020-12912); it lasts until the next boot"
)


def energy_findings(
    here: Surroundings, uuids: Sequence[str], driver: DriverFacts, has_rocm: bool = False
) -> list[Finding]:
    """Every energy counter that is here, readable or not; one line saying none where there is none."""
    rows = [_nvml_counter(here.nvml, uuid) for uuid in uuids] if here.nvml is not None and driver.fault is None else []
    if has_rocm:
        rows.append(_amdsmi(here.version_of("amdsmi")))
    rows += _rapl(here.root)
    if rows:
        return rows
    return [
        Finding(
            topic="energy",
            status="missing",
            what="no energy counter: no GPU that has one, and no RAPL under /sys/class/powercap",
            remedy="virtual machines and containers hide it: run on the machine itself, or mount it read-only",
        )
    ]


def clock_findings(here: Surroundings, uuids: Sequence[str]) -> list[Finding]:
    """Whether each card's clocks can be watched, and whether its driver stays loaded between runs."""
    rows = []
    for uuid in uuids:
        handle = None if here.nvml is None else find_handle(here.nvml, uuid).value
        if here.nvml is None or handle is None:
            rows.append(Finding(topic="clocks", status="unknown", what=f"{uuid}: NVML does not find the card"))
            continue
        rows += _clocks(here.nvml, handle, uuid)
    return rows


def _clocks(nvml: NvmlModule, handle: object, uuid: str) -> list[Finding]:
    sample = read_clocks(nvml, handle)
    if sample.sm_clock_mhz is None:
        what = f"{uuid}: clocks cannot be read; throttling will not be noticed"
        rows = [Finding(topic="clocks", status="missing", what=what)]
    else:
        reasons = "unknown" if sample.throttle_reasons is None else ", ".join(sample.throttle_reasons) or "nothing"
        what = f"{uuid}: clocks readable, SM {sample.sm_clock_mhz} MHz now, held down by: {reasons}"
        rows = [Finding(topic="clocks", status="ok", what=what)]
    persistence = ask(nvml, lambda: int(nvml.nvmlDeviceGetPersistenceMode(handle))).value
    if persistence == 0:
        what = f"{uuid}: persistence mode is off: the first trial pays for loading the driver"
        remedy = f"sudo nvidia-smi -i {uuid} -pm 1 (tokbench never changes it)"
        rows.append(Finding(topic="clocks", status="warning", what=what, remedy=remedy))
    return rows


def _nvml_counter(nvml: NvmlModule | None, uuid: str) -> Finding:
    if nvml is None:
        return Finding(topic="energy", status="unknown", what=f"{uuid}: nvidia-ml-py is not installed")
    if uuid.startswith("MIG-"):
        what = f"{uuid}: a MIG slice has no energy counter; the card's counts all its slices"
        return Finding(topic="energy", status="missing", what=what, remedy="use a whole card for energy")
    handle, fault = find_handle(nvml, uuid)
    if handle is None:
        return Finding(topic="energy", status="unknown", what=f"{uuid}: {fault}")
    counter = ask(nvml, lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
    if counter.value is not None:
        return Finding(topic="energy", status="ok", what=f"{uuid}: NVML energy counter readable")
    power = ask(nvml, lambda: int(nvml.nvmlDeviceGetPowerUsage(handle)))
    if power.value is not None:
        what = f"{uuid}: no energy counter ({counter.fault}); power can be polled, which is less exact"
        return Finding(topic="energy", status="warning", what=what, remedy="cards before Volta have no counter")
    what = f"{uuid}: neither energy nor power can be read: {counter.fault}"
    return Finding(topic="energy", status="missing", what=what, remedy="without it a run carries no energy of the card")


def _amdsmi(version: str | None) -> Finding:
    """Whether the AMD counter can be asked at all; whether it counts rightly is checked in the run."""
    if version is not None:
        return Finding(topic="energy", status="ok", what=f"amdsmi {version} for the energy counter of AMD cards")
    what = "amdsmi is not installed: no energy or power of AMD cards"
    return Finding(topic="energy", status="missing", what=what, remedy="pip install /opt/rocm/share/amd_smi")


def _rapl(root: Path) -> list[Finding]:
    """RAPL zones; the package counters stand directly under powercap."""
    folder = root / "sys/class/powercap"
    # AMD's zones bear Intel's name too.
    counters = sorted(zone / "energy_uj" for zone in folder.glob("intel-rapl:*") if (zone / "energy_uj").exists())
    if not counters:
        return []
    refused = [counter for counter in counters if not _is_readable(counter)]
    names = ", ".join(counter.parent.name for counter in counters)
    if not refused:
        return [Finding(topic="energy", status="ok", what=f"RAPL readable: {names}")]
    return [
        Finding(
            topic="energy",
            status="missing",
            what=f"RAPL: permission denied ({len(refused)} of {len(counters)} counters: {names})",
            remedy=f"sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj — {_RAPL_EXPOSES}",
        )
    ]


def _is_readable(counter: Path) -> bool:
    try:
        return bool(counter.read_text(encoding="ascii").strip())
    except OSError:
        return False
