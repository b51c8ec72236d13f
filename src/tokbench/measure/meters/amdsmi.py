"""AMD cards through amdsmi: the energy counter where it agrees with the power, else the power alone.

A card is found by its PCI address, then by its UUID, never by a number; nothing is ever set.
Source: ROCm/amdsmi py-interface, and issues 22, 38 and 115 of it on counters that stand, err or go back. 2026-11-22.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

from tokbench.errors import PlugError
from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.sources import Clock, Sleep, bus_address, domain_of, stamp
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

T = TypeVar("T")
DESCRIPTION = MeterDescription(
    kind="amdsmi",
    what="energy counter and power of AMD cards",
    scope="board",
    auto_for=("rocm",),
    is_of_card=True,
)
INSTALL = "pip install /opt/rocm/share/amd_smi"
WATCH_S = 2.0
WATCH_PARTS = 20
LOWEST_RATIO, HIGHEST_RATIO = 0.8, 1.25
"""Counted joules over watched power times time; outside, the counter is not believed."""
_POWER_FIELDS: tuple[tuple[str, Literal["instant", "average"] | None], ...] = (
    ("current_socket_power", "instant"),
    ("average_socket_power", "average"),
    ("socket_power", None),
)
"""Which of them a card fills depends on its generation; the others say `N/A`."""


class AmdSmiModule(Protocol):
    """The part of amdsmi that stands for the whole: its error class; the rest is asked by lambda."""

    @property
    def AmdSmiLibraryException(self) -> type[Exception]: ...  # noqa: N802

    def __getattr__(self, name: str) -> Any: ...


class _Power(NamedTuple):
    watts: float
    kind: Literal["instant", "average"] | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Trust:
    """Whether the counter is believed, and why not."""

    has_counter: bool
    note: str | None


class AmdSmiMeter:
    """One AMD card; the first that amdsmi lists where no device is given."""

    def __init__(self, device: DeviceFacts | None, library: AmdSmiModule | None, clock: Clock, sleep: Sleep) -> None:
        self._library = library
        self._clock = clock
        self._sleep = sleep
        self._handle: Any = None
        self._domain = "rocm" if device is None else domain_of(device)
        self._uuid = None if device is None else device.uuid
        self._trust: _Trust | None = None
        self._is_started = False
        self._absent = self._open(device)

    def availability(self) -> Available | Unavailable:
        """Whether the card is there and tells energy or power."""
        return Available() if self._absent is None else self._absent

    def opened(self) -> list[MeterOpened]:
        """The card; its counter has been watched against its power for 2 s."""
        if self._absent is not None:
            return []
        trust = self._judge()
        power = self._power()
        source = "amdsmi_power" if power is None or power.kind is None else f"amdsmi_power_{power.kind}"
        return [
            MeterOpened(
                meter="amdsmi",
                domain=self._domain,
                scope="board",
                source="amdsmi_energy_count" if trust.has_counter else source,
                at_ns=self._clock(),
                device_uuid=self._uuid,
                power_limit_w=self._limit_w(),
                note=trust.note,
            )
        ]

    def domains(self) -> tuple[str, ...]:
        """The card as configs name it."""
        return () if self._absent is not None else (self._domain,)

    def read(self) -> list[EnergyReading | PowerReading]:
        """The counter where it is believed, and the power.

        Raises:
            PlugError: the card answers to neither.
        """
        if self._absent is not None:
            return []
        readings: list[EnergyReading | PowerReading] = [*self.read_counters()]
        power = stamp(self._clock, self._power)
        if power.value is not None:
            watts, kind = power.value
            readings.append(
                PowerReading(meter="amdsmi", domain=self._domain, at_ns=power.at_ns, watts=watts, kind=kind)
            )
        if not readings:
            raise PlugError(f"{self._domain}: the card tells neither energy nor power")
        return readings

    def read_counters(self) -> list[EnergyReading]:
        """The counter alone, where it is believed. Raises as `read`."""
        if self._absent is not None or not self._judge().has_counter:
            return []
        told = stamp(self._clock, self._joules)
        if told.value is None:
            raise PlugError(f"{self._domain}: the energy counter answers no longer")
        domain = self._domain
        return [EnergyReading(meter="amdsmi", domain=domain, at_ns=told.at_ns, joules=told.value, read_s=told.read_s)]

    def close(self) -> None:
        """Let go of the library, once."""
        if self._is_started and self._library is not None:
            library = self._library
            self._ask(library.amdsmi_shut_down)
        self._is_started, self._handle = False, None

    def _open(self, device: DeviceFacts | None) -> Unavailable | None:
        """Find the card; why it cannot be read."""
        if device is not None and device.kind != "rocm":
            return Unavailable(f"the device is no AMD card ({device.kind})")
        library = self._library
        if library is None:
            return Unavailable("amdsmi is not installed, or does not fit the ROCm here", INSTALL)
        try:
            library.amdsmi_init()
            self._is_started = True
            handles = list(library.amdsmi_get_processor_handles())
        except library.AmdSmiLibraryException as error:
            return Unavailable(f"amdsmi does not start: {error}", "is the amdgpu driver loaded, and /dev/kfd readable?")
        found = [handle for handle in handles if device is None or self._is_it(handle, device)]
        if not found:
            return Unavailable(f"{self._domain}: amdsmi has no card at its PCI address or with its UUID")
        self._handle = found[0]
        if self._joules() is None and self._power() is None:
            return Unavailable(
                f"{self._domain}: energy and power read 0 or nothing, as on a virtual machine and on the odd half of "
                "an MI250, whose even half counts for both",
                "on an MI250 measure on the even half, and take its number for the whole module",
            )
        return None

    def _is_it(self, handle: Any, device: DeviceFacts) -> bool:
        library = self._library
        assert library is not None
        if device.pci_bus_id is not None:
            address = self._ask(lambda: str(library.amdsmi_get_gpu_device_bdf(handle)))
            return address is not None and bus_address(address) == bus_address(device.pci_bus_id)
        # HIP's number says nothing once HIP_VISIBLE_DEVICES turns the order; its UUID does.
        facts = self._ask(lambda: dict(library.amdsmi_get_gpu_enumeration_info(handle))) or {}
        return device.uuid is not None and str(facts.get("hip_uuid")).lower() == device.uuid.lower()

    def _judge(self) -> _Trust:
        """Watch the counter against the power once: 2 s."""
        if self._trust is None:
            self._trust = self._watch()
        return self._trust

    def _watch(self) -> _Trust:
        first = self._joules()
        if first is None:
            return _Trust(False, "the energy counter reads 0 or cannot be read: power alone")
        begun, powers = self._clock(), [self._power()]
        for _ in range(WATCH_PARTS):
            self._sleep(WATCH_S / WATCH_PARTS)
            powers.append(self._power())
        last, ended = self._joules(), self._clock()
        told = [power.watts for power in powers if power is not None]
        if not told:
            return _Trust(True, "no power to check the energy counter against")
        expected_j = sum(told) / len(told) * (ended - begun) * 1e-9
        ratio = None if last is None or expected_j <= 0 else (last - first) / expected_j
        if ratio is not None and LOWEST_RATIO <= ratio <= HIGHEST_RATIO:
            return _Trust(True, f"the counter agreed with the power before the run (ratio {ratio:.2f} over 2 s)")
        said = "does not answer" if ratio is None else f"counts {ratio:.2f} times what the power says"
        return _Trust(False, f"the energy counter {said} over 2 s: power alone")

    def _joules(self) -> float | None:
        """The counter; None where it reads 0 or cannot be read."""
        library = self._library
        assert library is not None
        count = self._ask(lambda: dict(library.amdsmi_get_energy_count(self._handle)))
        if count is None:
            return None
        # The key was `power` before amdsmi 6.2.1; the resolution is in microjoules.
        ticks, resolution = count.get("energy_accumulator", count.get("power")), count.get("counter_resolution")
        if not isinstance(ticks, int | float) or not isinstance(resolution, int | float):
            return None
        return ticks * resolution * 1e-6 or None

    def _power(self) -> _Power | None:
        """Watts of the socket, as the card's generation tells them."""
        library = self._library
        assert library is not None
        told = self._ask(lambda: dict(library.amdsmi_get_power_info(self._handle))) or {}
        for field, kind in _POWER_FIELDS:
            value = told.get(field)
            if isinstance(value, int | float) and value > 0:
                return _Power(float(value), kind)
        return None

    def _limit_w(self) -> float | None:
        library = self._library
        assert library is not None
        cap = self._ask(lambda: library.amdsmi_get_power_cap_info(self._handle)["power_cap"])
        return cap * 1e-6 if isinstance(cap, int) and cap > 0 else None

    def _ask(self, question: Callable[[], T]) -> T | None:
        """An answer, None where amdsmi refuses it or is too old for it."""
        assert self._library is not None
        try:
            return question()
        except (self._library.AmdSmiLibraryException, AttributeError, KeyError):
            return None


def load_amdsmi() -> AmdSmiModule | None:
    """The library; None where it is absent, or does not fit the installed ROCm, which it says in several ways."""
    try:
        # It prints to standard output when it finds no libamd_smi.so.
        with contextlib.redirect_stdout(None):
            return cast(AmdSmiModule, importlib.import_module("amdsmi"))
    except (ImportError, OSError, AttributeError, KeyError):
        return None


def open_meter(
    device: DeviceFacts | None,
    spec: EnergySpec | None = None,
    library: AmdSmiModule | None = None,
    clock: Clock = time.monotonic_ns,
    sleep: Sleep = time.sleep,
) -> AmdSmiMeter:
    """Open amdsmi for a card; `library` stands in for it."""
    return AmdSmiMeter(device, load_amdsmi() if library is None else library, clock, sleep)
