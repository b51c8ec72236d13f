"""The processor's own counters (RAPL) through the kernel's powercap files: packages and their memory.

It counts the whole machine, not one process. It opens no permission: it says how, and what that exposes.
Source: kernel.org, admin-guide/pm/intel-rapl and power/powercap; AMD's zones bear Intel's name. Read 2026-11-22.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Literal, NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.sources import Clock, Sleep, read_number, read_word, stamp
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

DESCRIPTION = MeterDescription(
    kind="rapl",
    what="energy counters of processor packages and their memory (RAPL)",
    scope="package",
    auto_for=("cpu", "cuda", "rocm"),
)
ROOT = Path("/sys/class/powercap")
EXPOSES = (
    "any local user can then read the package's energy at millisecond steps, a side channel on other programs "
    "(CVE-2020-8694, CVE-2020-12912); it lasts until the next boot"
)
HIDDEN_REMEDY = "virtual machines and containers hide it: run on the machine itself, or mount it read-only"
MIRROR_WATCH_S = 2.0
MIRROR_PARTS = 4
MIRROR_TOLERANCE = 0.001
"""Zones whose counters grew equally by so much in 2 s are one counter shown twice."""
PART_TOLERANCE = 0.004
"""The same for each half second, in which one update of a millisecond more or less weighs four times as much."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Zone:
    """One counter."""

    folder: Path
    domain: str
    scope: Literal["package", "dram"]

    @property
    def counter(self) -> Path:
        return self.folder / "energy_uj"

    def range_uj(self) -> int | None:
        """Where this zone's counter begins again; each zone has its own."""
        try:
            return read_number(self.folder / "max_energy_range_uj") or None
        except (OSError, PlugError):
            return None


class Zones(NamedTuple):
    """The counters that are there, and those of them that may not be read."""

    all: tuple[_Zone, ...]
    refused: tuple[_Zone, ...]


class _Read(NamedTuple):
    """The zones that are read, each once, and what a reader must know of the others."""

    zones: tuple[_Zone, ...]
    notes: dict[str, str]
    """By the domain that is read."""


class RaplMeter:
    """The packages of this machine, each one once."""

    def __init__(self, root: Path, clock: Clock, sleep: Sleep) -> None:
        self._root = root
        self._clock = clock
        self._sleep = sleep
        self._found = find_zones(root)
        self._read_zones: _Read | None = None

    def availability(self) -> Available | Unavailable:
        """Whether a package's counter is there, may be read, and counts."""
        found = self._found
        if not found.all:
            return Unavailable(f"no RAPL package under {self._root}", HIDDEN_REMEDY)
        if len(found.refused) == len(found.all) or any(zone.scope == "package" for zone in found.refused):
            return refusal(found, self._root)
        try:
            if all(read_number(zone.counter) == 0 for zone in found.all if zone not in found.refused):
                return Unavailable("every RAPL counter reads 0: nothing counts behind it", HIDDEN_REMEDY)
        except (OSError, PlugError) as error:
            return Unavailable(f"RAPL cannot be read: {error}")
        return Available()

    def opened(self) -> list[MeterOpened]:
        """Packages and memory; what mirrors another zone is left out and said."""
        chosen = self._choose()
        return [
            MeterOpened(
                meter="rapl",
                domain=zone.domain,
                scope=zone.scope,
                source="rapl_energy_uj",
                at_ns=self._clock(),
                note=chosen.notes.get(zone.domain),
            )
            for zone in chosen.zones
        ]

    def domains(self) -> tuple[str, ...]:
        """`package-0`, `package-0/dram`."""
        return tuple(zone.domain for zone in self._choose().zones)

    def read(self) -> list[EnergyReading | PowerReading]:
        """Each counter in joules, with the joules at which it begins again."""
        return [self._read_one(zone) for zone in self._choose().zones]

    def close(self) -> None:
        """Nothing is held open."""

    def _read_one(self, zone: _Zone) -> EnergyReading:
        counter = stamp(self._clock, lambda: read_number(zone.counter))
        range_uj = zone.range_uj()
        return EnergyReading(
            meter="rapl",
            domain=zone.domain,
            at_ns=counter.at_ns,
            joules=counter.value * 1e-6,
            read_s=counter.read_s,
            range_j=None if range_uj is None else range_uj * 1e-6,
        )

    def _choose(self) -> _Read:
        """Settle once which zones are read: 2 s where there are several of a kind, at once otherwise."""
        if self._read_zones is None:
            readable = tuple(zone for zone in self._found.all if zone not in self._found.refused)
            mirrors = self._mirrors(readable)
            kept = tuple(zone for zone in readable if zone not in mirrors)
            notes: dict[str, list[str]] = {}
            for copy, original in mirrors.items():
                text = f"{copy.folder.name} shows the same counter as {original.folder.name} and is left out"
                notes.setdefault(original.domain, []).append(text)
            if kept and self._found.refused:
                names = ", ".join(zone.folder.name for zone in self._found.refused)
                notes.setdefault(kept[0].domain, []).append(f"permission denied for {names}: not counted")
            self._read_zones = _Read(kept, {domain: "; ".join(texts) for domain, texts in notes.items()})
        return self._read_zones

    def _mirrors(self, zones: tuple[_Zone, ...]) -> dict[_Zone, _Zone]:
        """Zones that show another one's counter; on AMD one counter may stand under two dies."""
        scopes = [zone.scope for zone in zones]
        watched = [zone for zone in zones if scopes.count(zone.scope) > 1]
        if not watched:
            return {}
        rows = [[read_number(zone.counter) for zone in watched]]
        for _ in range(MIRROR_PARTS):
            self._sleep(MIRROR_WATCH_S / MIRROR_PARTS)
            rows.append([read_number(zone.counter) for zone in watched])
        series = {zone: [row[index] for row in rows] for index, zone in enumerate(watched)}
        mirrors: dict[_Zone, _Zone] = {}
        for first, second in itertools.combinations(watched, 2):
            are_of_a_kind = first.scope == second.scope and first not in mirrors and second not in mirrors
            if are_of_a_kind and _are_equal(_steps(first, series[first]), _steps(second, series[second])):
                mirrors[second] = first
        return mirrors


def find_zones(root: Path) -> Zones:
    """Packages and their memory under a powercap folder. Left out: `psys`, which holds the packages, `core` and
    `uncore`, which they hold, and `intel-rapl-mmio`, the same counters by another way."""
    folders = {path.name: path for path in (*root.glob("intel-rapl:*"), *root.glob("intel-rapl:*/intel-rapl:*:*"))}
    zones: list[_Zone] = []
    for name in sorted(folders):
        folder = folders[name]
        label = read_word(folder / "name") or ""
        parent = folders.get(name.rpartition(":")[0])
        above = (read_word(parent / "name") or "") if parent is not None else ""
        if not (folder / "energy_uj").exists():
            continue
        if label.startswith("package"):
            zones.append(_Zone(folder, label, "package"))
        elif label == "dram" and above.startswith("package"):
            zones.append(_Zone(folder, f"{above}/dram", "dram"))
    domains = [zone.domain for zone in zones]
    named = tuple(
        dataclasses.replace(zone, domain=f"{zone.domain} of {zone.folder.name}")
        if domains.count(zone.domain) > 1
        else zone
        for zone in zones
    )
    return Zones(named, tuple(zone for zone in named if _is_refused(zone)))


def refusal(found: Zones, root: Path) -> Unavailable:
    """Why counters that are there cannot be read, what would open them, and what that exposes."""
    names = ", ".join(zone.folder.name for zone in found.all)
    return Unavailable(
        f"permission denied ({len(found.refused)} of {len(found.all)} RAPL counters: {names})",
        f"sudo chmod o+r {root}/intel-rapl:*/energy_uj — {EXPOSES}",
    )


def _is_refused(zone: _Zone) -> bool:
    try:
        read_number(zone.counter)
    except PermissionError:
        return True
    except (OSError, PlugError):
        return False
    return False


def _steps(zone: _Zone, counts: list[int]) -> list[int]:
    """Growth from each count to the next, across at most one wrap."""
    range_uj = zone.range_uj()
    return [
        later - earlier if later >= earlier or range_uj is None else later - earlier + range_uj
        for earlier, later in itertools.pairwise(counts)
    ]


def _are_equal(first: list[int], second: list[int]) -> bool:
    """Whether two counters grew alike in every part and over the whole; counters that stand still tell nothing."""
    if sum(first) <= 0 or sum(second) <= 0:
        return False
    parts = (abs(a - b) <= PART_TOLERANCE * max(a, b) for a, b in zip(first, second, strict=True))
    return all(parts) and abs(sum(first) - sum(second)) <= MIRROR_TOLERANCE * max(sum(first), sum(second))


def open_meter(
    device: DeviceFacts | None,
    spec: EnergySpec | None = None,
    clock: Clock = time.monotonic_ns,
    sleep: Sleep = time.sleep,
) -> RaplMeter:
    """Open the powercap files of this machine, or those under `energy.rapl.root`."""
    root = None if spec is None else spec.rapl.root
    return RaplMeter(ROOT if root is None else Path(root), clock, sleep)
