"""A cross-check by another program: ZeusMonitor's windows, laid end to end into one counter. Read only when named.

Zeus asks the same driver counter: it checks tokbench's reading of it, not the sensor behind it.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from tokbench.errors import PlugError
from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.nvml import Answer, NvmlModule, ask, find_handle, load_nvml, read_driver, start_nvml
from tokbench.measure.sources import Clock, domain_of, stamp
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

DESCRIPTION = MeterDescription(
    kind="zeus", what="cross-check of an NVIDIA card's energy through ZeusMonitor", scope="board", is_of_card=True
)
WINDOW_S = 1.0
"""Between two windows the counter is read twice; once a second, what may fall between weighs under a thousandth."""
_NOTE = "the driver's own counter, read by zeus: it checks the reading, not the sensor"


class ZeusLibrary(NamedTuple):
    """What is used of zeus."""

    monitor: Any
    """zeus.monitor.ZeusMonitor"""
    error: type[Exception]
    """zeus.exception.ZeusBaseError"""


class _Monitor(Protocol):
    def begin_window(self, key: str, sync_execution: bool = True) -> None: ...

    def end_window(self, key: str, sync_execution: bool = True) -> Any: ...


class ZeusMeter:
    """One NVIDIA card, counted by zeus."""

    def __init__(
        self,
        device: DeviceFacts | None,
        library: ZeusLibrary | None,
        nvml: NvmlModule | None,
        environ: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._device = _first_card(nvml) if device is None else device
        self._library = library
        self._clock = clock
        self._monitor: _Monitor | None = None
        self._position = 0
        self._joules = 0.0
        self._begun_at_ns = clock()
        self._windows = 0
        self._absent = self._open(nvml, environ)

    def availability(self) -> Available | Unavailable:
        """Whether zeus can be pointed at the run's own card."""
        return Available() if self._absent is None else self._absent

    def opened(self) -> list[MeterOpened]:
        """The card, as zeus counts it."""
        if self._device is None or self._monitor is None:
            return []
        return [
            MeterOpened(
                meter="zeus",
                domain=domain_of(self._device),
                scope="board",
                source="zeus_monitor",
                at_ns=self._clock(),
                device_uuid=self._device.uuid,
                note=_NOTE,
            )
        ]

    def domains(self) -> tuple[str, ...]:
        """The card as configs name it."""
        return () if self._device is None or self._monitor is None else (domain_of(self._device),)

    def read(self) -> list[EnergyReading | PowerReading]:
        """The sum of all windows that have ended, nothing while it is 0 J; it moves once a second.

        Raises:
            PlugError: zeus gave up.
        """
        if self._monitor is None or self._device is None or self._library is None:
            return []
        at_ns, read_s = self._clock(), None
        if at_ns - self._begun_at_ns >= WINDOW_S * 1e9:
            try:
                told = stamp(self._clock, self._turn)
            except self._library.error as error:
                raise PlugError(f"zeus: {error}") from error
            self._joules += told.value
            self._begun_at_ns, at_ns, read_s = told.at_ns, told.at_ns, told.read_s
        if self._joules <= 0:
            return []
        domain = domain_of(self._device)
        return [EnergyReading(meter="zeus", domain=domain, at_ns=at_ns, joules=self._joules, read_s=read_s)]

    def close(self) -> None:
        """Let go of zeus; its open window is given up."""
        self._monitor = None

    def _turn(self) -> float:
        """End a window and begin the next; its joules."""
        assert self._monitor is not None
        measured = self._monitor.end_window(str(self._windows), sync_execution=False)
        self._windows += 1
        self._monitor.begin_window(str(self._windows), sync_execution=False)
        return float(measured.gpu_energy[self._position])

    def _open(self, nvml: NvmlModule | None, environ: Mapping[str, str]) -> Unavailable | None:
        if self._library is None:
            return Unavailable("zeus is not installed", "pip install zeus")
        if self._device is None or self._device.kind != "cuda" or self._device.uuid is None:
            return Unavailable("zeus is set beside one NVIDIA card with a UUID")
        position = _position(self._device.uuid, nvml, environ.get("CUDA_VISIBLE_DEVICES"))
        if isinstance(position, Unavailable):
            return position
        self._position = position
        try:
            monitor: _Monitor = self._library.monitor(gpu_indices=[position], cpu_indices=[])
            monitor.begin_window("0", sync_execution=False)
        except (self._library.error, ValueError, OSError) as error:
            return Unavailable(f"zeus does not start: {error}")
        self._monitor, self._begun_at_ns = monitor, self._clock()
        return None


def _first_card(nvml: NvmlModule | None) -> DeviceFacts | None:
    cards = read_driver(nvml).cards
    return DeviceFacts(kind="cuda", name=cards[0].name, uuid=cards[0].uuid) if cards else None


def _position(uuid: str, nvml: NvmlModule | None, visible: str | None) -> int | Unavailable:
    """Where zeus counts the card: by NVML's order, through CUDA_VISIBLE_DEVICES read as numbers in that order."""
    index = _nvml_index(uuid, nvml)
    if index.value is None:
        return Unavailable(f"{uuid}: {index.fault}")
    if visible is None:
        return index.value
    entries = [entry.strip() for entry in visible.split(",")]
    if not all(entry.isdigit() for entry in entries):
        return Unavailable("zeus reads CUDA_VISIBLE_DEVICES as numbers, and it holds UUIDs")
    numbers = [int(entry) for entry in entries]
    if index.value not in numbers:
        return Unavailable(
            "zeus would count another card: its order is NVML's, not CUDA's", "set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return numbers.index(index.value)


def _nvml_index(uuid: str, nvml: NvmlModule | None) -> Answer[int]:
    fault = start_nvml(nvml)
    if nvml is None or fault is not None:
        return Answer(None, fault)
    found = find_handle(nvml, uuid)
    return ask(nvml, lambda: int(nvml.nvmlDeviceGetIndex(found.value))) if found.value is not None else found


def load_zeus() -> ZeusLibrary | None:
    """The library, None where it is not installed or cannot be loaded."""
    try:
        monitor = importlib.import_module("zeus.monitor").ZeusMonitor
        return ZeusLibrary(monitor, importlib.import_module("zeus.exception").ZeusBaseError)
    except (ImportError, OSError, AttributeError):
        return None


def open_meter(
    device: DeviceFacts | None,
    spec: EnergySpec | None = None,
    library: ZeusLibrary | None = None,
    nvml: NvmlModule | None = None,
    clock: Clock = time.monotonic_ns,
) -> ZeusMeter:
    """Open zeus for a card; `library` and `nvml` stand in for the real ones."""
    return ZeusMeter(
        device,
        load_zeus() if library is None else library,
        load_nvml() if nvml is None else nvml,
        os.environ,
        clock,
    )
