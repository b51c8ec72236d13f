"""Apple silicon through zeus-apple-silicon: macOS's own energy model of processor, GPU, memory and neural engine.

The numbers are computed by Apple from activity, not sensed: every domain says that it is estimated. `powermetrics`
tells the same model to administrators only, and is not used.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any, Literal, NamedTuple, Protocol, cast

from tokbench.errors import PlugError
from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.sources import Clock, stamp
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

DESCRIPTION = MeterDescription(
    kind="apple",
    what="Apple's energy model of processor, GPU, memory and neural engine (estimated)",
    scope="package",
    auto_for=("mps",),
)
_NOTE = "computed by macOS from activity (IOReport, Energy Model), not sensed"


class _Part(NamedTuple):
    domain: str
    scope: Literal["package", "dram"]
    millijoules: int | None


class AppleMonitor(Protocol):
    """The part of zeus_apple_silicon.AppleEnergyMonitor that is used."""

    def get_cumulative_energy(self) -> Any: ...


class AppleModule(Protocol):
    """The library."""

    def AppleEnergyMonitor(self) -> AppleMonitor: ...  # noqa: N802


class AppleMeter:
    """The parts of one Apple chip that its model tells."""

    def __init__(self, library: AppleModule | None, platform: str, clock: Clock) -> None:
        self._clock = clock
        self._monitor: AppleMonitor | None = None
        self._domains: tuple[str, ...] = ()
        self._absent = self._open(library, platform)

    def availability(self) -> Available | Unavailable:
        """Whether the model tells anything here."""
        return Available() if self._absent is None else self._absent

    def opened(self) -> list[MeterOpened]:
        """Each part, marked as estimated."""
        return [
            MeterOpened(
                meter="apple",
                domain=domain,
                scope="dram" if domain == "dram" else "package",
                source="ioreport_energy_model",
                at_ns=self._clock(),
                is_estimated=True,
                note=_NOTE,
            )
            for domain in self._domains
        ]

    def domains(self) -> tuple[str, ...]:
        """Of `cpu`, `gpu`, `dram` and `ane` those that this chip tells."""
        return self._domains

    def read(self) -> list[EnergyReading | PowerReading]:
        """Joules of each part since an instant that macOS chooses."""
        if self._monitor is None:
            return []
        try:
            told = stamp(self._clock, self._monitor.get_cumulative_energy)
        except RuntimeError as error:
            raise PlugError(f"macOS tells no energy any longer: {error}") from error
        return [
            EnergyReading(meter="apple", domain=domain, at_ns=told.at_ns, joules=millijoules / 1000, read_s=told.read_s)
            for domain, _, millijoules in _parts(told.value)
            if millijoules is not None and domain in self._domains
        ]

    def close(self) -> None:
        """Let go of the monitor."""
        self._monitor, self._domains = None, ()

    def _open(self, library: AppleModule | None, platform: str) -> Unavailable | None:
        if platform != "darwin":
            return Unavailable("this is not macOS")
        if library is None:
            return Unavailable("zeus-apple-silicon is not installed", "pip install zeus-apple-silicon")
        try:
            self._monitor = library.AppleEnergyMonitor()
            parts = _parts(self._monitor.get_cumulative_energy())
        except (RuntimeError, AttributeError) as error:
            self._monitor = None
            return Unavailable(f"macOS tells no energy: {error}", "it needs Apple silicon")
        self._domains = tuple(part.domain for part in parts if part.millijoules)
        return None if self._domains else Unavailable("macOS tells no energy of any part", "it needs Apple silicon")


def _parts(metrics: Any) -> tuple[_Part, ...]:
    """The four that do not hold each other; clusters and cores are inside `cpu`."""
    return (
        _Part("cpu", "package", metrics.cpu_total_mj),
        _Part("gpu", "package", metrics.gpu_mj),
        _Part("ane", "package", metrics.ane_mj),
        _Part("dram", "dram", metrics.dram_mj),
    )


def load_apple() -> AppleModule | None:
    """The library, None where it is not installed."""
    try:
        return cast(AppleModule, importlib.import_module("zeus_apple_silicon"))
    except ImportError:
        return None


def open_meter(
    device: DeviceFacts | None,
    spec: EnergySpec | None = None,
    library: AppleModule | None = None,
    platform: str = sys.platform,
    clock: Clock = time.monotonic_ns,
) -> AppleMeter:
    """Open macOS's energy model; `library` and `platform` stand in for the real ones."""
    return AppleMeter(load_apple() if library is None else library, platform, clock)
