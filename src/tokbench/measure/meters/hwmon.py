"""Sensors that drivers show as hwmon files: AMD and Intel cards, Jetson rails, AMD packages, the machine's own meter.

Only chips whose sensors are known are read: what an unknown chip measures is not guessed.
Source: kernel.org, hwmon/sysfs-interface and the drivers' pages. Read 2026-11-22.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Literal, NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.sources import Clock, Stamped, bus_address, domain_of, read_number, read_word, stamp
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

DESCRIPTION = MeterDescription(
    kind="hwmon",
    what="sensors of drivers: AMD and Intel cards, Jetson rails, AMD packages, ACPI power meter",
    scope="node",
    auto_for=("cpu", "cuda", "rocm"),
)
ROOT = Path("/sys/class/hwmon")
_CARDS = ("amdgpu", "i915", "xe")
_KNOWN = (*_CARDS, "ina3221", "amd_energy", "power_meter")
_WHOLE_RAILS = ("VDD_IN", "POM_5V_IN")
"""Jetson rails that hold all others. Source: NVIDIA Jetson Linux guide, platform power and performance."""
_RAIL_NOTE = "one rail of the module, not the whole of it"
_PART_NOTE = "a part as the firmware names it; such parts may hold each other and must not be added up"

Scope = Literal["board", "module", "package", "node"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Sensor:
    """One file, or a voltage and a current, of one chip."""

    domain: str
    scope: Scope
    source: str
    files: tuple[Path, ...]
    """One of microjoules or microwatts, or millivolts and milliamperes."""
    kind: Literal["energy", "instant", "average"]
    note: str | None = None

    def read(self, clock: Clock) -> EnergyReading | PowerReading | None:
        """A reading; None for 0 W, which no running machine draws."""
        found: Stamped[list[int]] = stamp(clock, lambda: [read_number(path) for path in self.files])
        value = found.value[0] * (found.value[1] if len(found.value) > 1 else 1) * 1e-6
        if self.kind == "energy":
            return EnergyReading(
                meter="hwmon", domain=self.domain, at_ns=found.at_ns, joules=value, read_s=found.read_s
            )
        if value <= 0:
            return None
        return PowerReading(meter="hwmon", domain=self.domain, at_ns=found.at_ns, watts=value, kind=self.kind)


class HwmonMeter:
    """The known sensors of the run's card and of the machine."""

    def __init__(self, device: DeviceFacts | None, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._uuid = None if device is None else device.uuid
        found = _find(device, root)
        self._sensors, self._refused = found.sensors, found.refused
        self._absent = found.absent

    def availability(self) -> Available | Unavailable:
        """Whether a known sensor is there and tells something."""
        return Available() if self._sensors else self._absent

    @property
    def has_any(self) -> bool:
        """Whether there is a known sensor, readable or not."""
        return bool(self._sensors or self._refused)

    def opened(self) -> list[MeterOpened]:
        """Each domain, once: its energy counter where it has one. The first says which others may not be read."""
        refused = f"permission denied for {', '.join(self._refused)}: not read" if self._refused else None
        by_domain: dict[str, _Sensor] = {}
        for sensor in self._sensors:
            if sensor.domain not in by_domain or sensor.kind == "energy":
                by_domain[sensor.domain] = sensor
        return [
            MeterOpened(
                meter="hwmon",
                domain=sensor.domain,
                scope=sensor.scope,
                source=sensor.source,
                at_ns=self._clock(),
                device_uuid=self._uuid if sensor.scope == "board" else None,
                power_limit_w=_limit_w(sensor),
                note="; ".join(part for part in (sensor.note, None if number else refused) if part) or None,
            )
            for number, sensor in enumerate(by_domain.values())
        ]

    def domains(self) -> tuple[str, ...]:
        """The card as configs name it, `VDD_IN`, `Esocket0`, `power_meter of hwmon3`."""
        return tuple(dict.fromkeys(sensor.domain for sensor in self._sensors))

    def read(self) -> list[EnergyReading | PowerReading]:
        """Every sensor."""
        found = [sensor.read(self._clock) for sensor in self._sensors]
        return [reading for reading in found if reading is not None]

    def close(self) -> None:
        """Nothing is held open."""


class _Found(NamedTuple):
    """The sensors that answer, and why there is not more."""

    sensors: tuple[_Sensor, ...]
    refused: tuple[str, ...]
    """Domains with a sensor that may not be read."""
    absent: Unavailable


def _find(device: DeviceFacts | None, root: Path) -> _Found:
    """The sensors that answer, and the reason where there is none."""
    sensors: list[_Sensor] = []
    unknown: list[str] = []
    refused: list[str] = []
    for chip in sorted(root.glob("hwmon*")):
        name = read_word(chip / "name") or ""
        if name not in _KNOWN:
            unknown += [name] if any(chip.glob("power*_input")) or any(chip.glob("energy*_input")) else []
            continue
        for sensor in _sensors_of(name, chip, device):
            state = _answers(sensor)
            sensors += [sensor] if state == "yes" else []
            refused += [sensor.domain] if state == "refused" else []
    if refused:
        reason = f"permission denied for {', '.join(refused)}"
        remedy = f"sudo chmod o+r {root}/hwmon*/energy*_input — any local user can then read it until the next boot"
        return _Found(tuple(sensors), tuple(refused), Unavailable(reason, remedy))
    reason = f"no power sensor under {root} that tokbench knows"
    more = f"; unknown ones: {', '.join(unknown)}" if unknown else ""
    return _Found(tuple(sensors), (), Unavailable(reason + more))


def _sensors_of(name: str, chip: Path, device: DeviceFacts | None) -> list[_Sensor]:
    if name in _CARDS:
        return _card(name, chip, device)
    if name == "ina3221":
        return _rails(chip)
    if name == "amd_energy":
        labels = {path: read_word(path.with_name(path.name.replace("input", "label"))) for path in _energies(chip)}
        return [
            _Sensor(label, "package", "hwmon_amd_energy", (path,), "energy")
            for path, label in labels.items()
            if label is not None and label.startswith("Esocket")
        ]
    return _acpi(chip)


def _card(name: str, chip: Path, device: DeviceFacts | None) -> list[_Sensor]:
    """The sensors of a card; of the run's own card alone, known by its PCI address."""
    address = bus_address((chip / "device").resolve().name)
    if device is not None and (device.pci_bus_id is None or bus_address(device.pci_bus_id) != address):
        return []
    domain = address if device is None else domain_of(device)
    whole = [path for path in _energies(chip) if _label(path) in (None, "card")]
    # A chip that labels its counters counts a package inside the card too.
    counters = [_Sensor(domain, "board", f"hwmon_{name}_energy", (path,), "energy") for path in whole[:1]]
    return counters + _power(chip, domain, "board", f"hwmon_{name}_power")


def _acpi(chip: Path) -> list[_Sensor]:
    """An ACPI power meter: of the machine, or of the part that its firmware names, as on Grace."""
    # Older kernels show the files of this driver one folder further in.
    folder = chip if (chip / "power1_average").exists() else chip / "device"
    part = read_word(folder / "power1_oem_info")
    if part is None:
        return _power(folder, f"power_meter of {chip.name}", "node", "hwmon_power_meter")
    scope: Scope = "module" if part.lower().startswith("module") else "package"
    source = "hwmon_power_meter" if scope == "module" else "hwmon_power_part"
    named = _power(folder, part, scope, source)
    return [dataclasses.replace(sensor, note=_PART_NOTE) for sensor in named]


def _power(chip: Path, domain: str, scope: Scope, source: str) -> list[_Sensor]:
    for file, kind in (("power1_input", "instant"), ("power1_average", "average")):
        if (chip / file).exists():
            return [_Sensor(domain, scope, source, (chip / file,), "instant" if kind == "instant" else "average")]
    return []


def _rails(chip: Path) -> list[_Sensor]:
    """A Jetson's whole module where a rail tells it, every rail by itself elsewhere."""
    rails: dict[str, tuple[Path, ...]] = {}
    for label in sorted(chip.glob("in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        files = (chip / f"in{number}_input", chip / f"curr{number}_input")
        name = read_word(label)
        if name is not None and all(path.exists() for path in files):
            rails[name] = files
    whole = [name for name in _WHOLE_RAILS if name in rails]
    source = "hwmon_ina3221"
    if whole:
        return [_Sensor(whole[0], "module", source, rails[whole[0]], "instant")]
    source = "hwmon_ina3221_rail"
    return [_Sensor(name, "module", source, files, "instant", _RAIL_NOTE) for name, files in rails.items()]


def _energies(chip: Path) -> list[Path]:
    return sorted(chip.glob("energy*_input"))


def _label(counter: Path) -> str | None:
    return read_word(counter.with_name(counter.name.replace("input", "label")))


def _answers(sensor: _Sensor) -> Literal["yes", "no", "refused"]:
    try:
        return "yes" if all(read_number(path) > 0 for path in sensor.files) else "no"
    except PermissionError:
        return "refused"
    except (OSError, PlugError):
        return "no"


def _limit_w(sensor: _Sensor) -> float | None:
    """The cap that the driver holds a card to; read, never set."""
    try:
        return read_number(sensor.files[0].with_name("power1_cap")) * 1e-6 or None
    except (OSError, PlugError):
        return None


def open_meter(
    device: DeviceFacts | None, spec: EnergySpec | None = None, clock: Clock = time.monotonic_ns
) -> HwmonMeter:
    """Open the hwmon files of this machine, or those under `energy.hwmon.root`."""
    root = None if spec is None else spec.hwmon.root
    return HwmonMeter(device, ROOT if root is None else Path(root), clock)
