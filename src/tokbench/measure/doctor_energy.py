"""The doctor's checks of meters: which energy counters and clocks can be read here, and how to open the others.

It reads each once to see whether it can be read; it measures nothing and opens no permission itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tokbench.errors import PlugError
from tokbench.measure.findings import Finding, Surroundings
from tokbench.measure.meters import Available, Meter, apple, hwmon, nvml, rapl
from tokbench.measure.nvml import DriverFacts, NvmlModule, ask, find_handle, read_clocks
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened
from tokbench.record.spec import EnergySpec, SysfsSpec


def energy_findings(
    here: Surroundings, uuids: Sequence[str], driver: DriverFacts, has_rocm: bool = False
) -> list[Finding]:
    """Every energy source that is here, readable or not; one line saying none where there is none."""
    rows: list[Finding] = []
    if here.nvml is not None and driver.fault is None:
        cards = [DeviceFacts(kind="cuda", name=uuid, uuid=uuid) for uuid in uuids]
        rows += [row for card in cards for row in _rows("nvml", nvml.open_meter(card, nvml=here.nvml))]
    if has_rocm:
        rows.append(_amdsmi(here.version_of("amdsmi")))
    spec = EnergySpec(
        rapl=SysfsSpec(root=str(here.root / "sys/class/powercap")),
        hwmon=SysfsSpec(root=str(here.root / "sys/class/hwmon")),
    )
    if rapl.find_zones(here.root / "sys/class/powercap").all:
        rows += _rows("rapl", rapl.open_meter(None, spec))
    sensors = hwmon.open_meter(None, spec)
    rows += _rows("hwmon", sensors) if sensors.has_any else []
    rows += _rows("apple", apple.open_meter(None)) if sys.platform == "darwin" else []
    if rows:
        return rows
    return [
        Finding(
            topic="energy",
            status="missing",
            what="no energy counter: no GPU that has one, no RAPL under /sys/class/powercap, no sensor under "
            "/sys/class/hwmon",
            remedy="virtual machines and containers hide it: run on the machine itself, or mount it read-only",
        )
    ]


def say_domain(item: MeterOpened) -> list[str]:
    """What is to be known of a domain beside its scope and its source."""
    limit = [f"power limit {item.power_limit_w:g} W"] if item.power_limit_w is not None else []
    return [*limit, *(["estimated"] if item.is_estimated else []), *([item.note] if item.note else [])]


def _rows(kind: str, meter: Meter) -> list[Finding]:
    """One line for each domain of a meter, or why it cannot be read."""
    try:
        state = meter.availability()
        if not isinstance(state, Available):
            return [Finding(topic="energy", status="missing", what=f"{kind}: {state.reason}", remedy=state.remedy)]
        counted = {reading.domain for reading in meter.read() if isinstance(reading, EnergyReading)}
        return [_row(kind, item, has_counter=item.domain in counted) for item in meter.opened()]
    except (OSError, PlugError) as error:
        return [Finding(topic="energy", status="unknown", what=f"{kind}: could be opened, but not read: {error}")]
    finally:
        meter.close()


def _row(kind: str, item: MeterOpened, *, has_counter: bool) -> Finding:
    said = "; ".join((f"{kind} {item.domain}: {item.scope}, {item.source}", *say_domain(item)))
    if has_counter:
        return Finding(topic="energy", status="ok", what=said)
    remedy = "power alone, without a counter: it is polled and added up, which is less exact"
    return Finding(topic="energy", status="warning", what=said, remedy=remedy)


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


def _clocks(library: NvmlModule, handle: object, uuid: str) -> list[Finding]:
    sample = read_clocks(library, handle)
    if sample.sm_clock_mhz is None:
        what = f"{uuid}: clocks cannot be read; throttling will not be noticed"
        rows = [Finding(topic="clocks", status="missing", what=what)]
    else:
        reasons = "unknown" if sample.throttle_reasons is None else ", ".join(sample.throttle_reasons) or "nothing"
        what = f"{uuid}: clocks readable, SM {sample.sm_clock_mhz} MHz now, held down by: {reasons}"
        rows = [Finding(topic="clocks", status="ok", what=what)]
    persistence = ask(library, lambda: int(library.nvmlDeviceGetPersistenceMode(handle))).value
    if persistence == 0:
        what = f"{uuid}: persistence mode is off: the first trial pays for loading the driver"
        remedy = f"sudo nvidia-smi -i {uuid} -pm 1 (tokbench never changes it)"
        rows.append(Finding(topic="clocks", status="warning", what=what, remedy=remedy))
    return rows


def _amdsmi(version: str | None) -> Finding:
    """Whether the AMD counter can be asked at all; whether it counts rightly is checked in the run."""
    if version is not None:
        return Finding(topic="energy", status="ok", what=f"amdsmi {version} for the energy counter of AMD cards")
    what = "amdsmi is not installed: no energy or power of AMD cards"
    return Finding(topic="energy", status="missing", what=what, remedy="pip install /opt/rocm/share/amd_smi")
