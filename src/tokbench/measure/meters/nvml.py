"""NVIDIA cards through NVML: the driver's energy counter, and the board's power as a second source.

A card is found by its UUID, then by its PCI address, never by an index; nothing is ever set.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Literal

from tokbench.errors import PlugError
from tokbench.measure.cards import enrich
from tokbench.measure.meters import Available, MeterDescription, Unavailable
from tokbench.measure.nvml import Answer, NvmlModule, ask, find_handle, load_nvml, read_driver, start_nvml, watts
from tokbench.measure.sources import Clock, domain_of, stamp
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec

DESCRIPTION = MeterDescription(
    kind="nvml",
    what="energy counter and power of NVIDIA cards",
    scope="board",
    auto_for=("cuda",),
    is_of_card=True,
)
MIG_REASON = "a MIG slice has no energy counter: the card's counts all its slices"
_SUPERCHIP_NOTE = (
    "a superchip: power is read at the scope of the GPU, and the module's CPU is left out; "
    "NVIDIA does not say which of the two the energy counter covers"
)
_AVERAGE_NOTE = "power is the driver's own average of about a second"


@dataclasses.dataclass(frozen=True, slots=True)
class _Card:
    """One card that answers."""

    device: DeviceFacts
    handle: Any
    has_counter: bool
    power: Literal["instant", "average"] | None
    note: str | None

    @property
    def source(self) -> str:
        return "nvml_total_energy" if self.has_counter else f"nvml_power_{self.power}"


class NvmlMeter:
    """The card of a run; every card of the driver where no device is given."""

    def __init__(self, device: DeviceFacts | None, nvml: NvmlModule | None, clock: Clock) -> None:
        self._nvml = nvml
        self._clock = clock
        self._cards: list[_Card] = []
        self._absent = self._find(device)

    def availability(self) -> Available | Unavailable:
        """Whether a card tells energy or power."""
        return Available() if self._cards or self._absent is None else self._absent

    def opened(self) -> list[MeterOpened]:
        """Each card, with the power limit that the driver enforces."""
        return [
            MeterOpened(
                meter="nvml",
                domain=domain_of(card.device),
                scope="board",
                source=card.source,
                at_ns=self._clock(),
                device_uuid=card.device.uuid,
                power_limit_w=card.device.power_limit_w,
                note=card.note,
            )
            for card in self._cards
        ]

    def domains(self) -> tuple[str, ...]:
        """The cards as configs name them."""
        return tuple(domain_of(card.device) for card in self._cards)

    def read(self) -> list[EnergyReading | PowerReading]:
        """Counter and power of each card; a card that answers to neither has gone.

        Raises:
            PlugError: a card that has gone, or its counter has.
        """
        return [reading for card in self._cards for reading in self._read_card(card)]

    def read_counters(self) -> list[EnergyReading]:
        """The counters alone: fewer questions where a movement is looked for. Raises as `read`."""
        return [self._count(card) for card in self._cards if card.has_counter]

    def close(self) -> None:
        """NVML counts its starts and is left to the process: the sampler's clocks are read through it too."""
        self._cards = []

    def _read_card(self, card: _Card) -> list[EnergyReading | PowerReading]:
        nvml, domain = self._nvml, domain_of(card.device)
        assert nvml is not None
        readings: list[EnergyReading | PowerReading] = []
        fault: str | None = None
        if card.has_counter:
            readings.append(self._count(card))
        if card.power is not None:
            power = stamp(self._clock, lambda: ask_power(nvml, card.handle, card.power))
            value, fault = watts(power.value.value), power.value.fault
            if value:
                readings.append(
                    PowerReading(meter="nvml", domain=domain, at_ns=power.at_ns, watts=value, kind=card.power)
                )
        if not readings:
            raise PlugError(f"{domain}: {fault or 'power reads 0 W'}")
        return readings

    def _count(self, card: _Card) -> EnergyReading:
        nvml, domain = self._nvml, domain_of(card.device)
        assert nvml is not None
        counter = stamp(self._clock, lambda: ask_millijoules(nvml, card.handle))
        if counter.value.value is None:
            raise PlugError(f"{domain}: {counter.value.fault}")
        joules = counter.value.value / 1000
        return EnergyReading(meter="nvml", domain=domain, at_ns=counter.at_ns, joules=joules, read_s=counter.read_s)

    def _find(self, device: DeviceFacts | None) -> Unavailable | None:
        """Fill the cards; why there is none."""
        if device is not None and device.kind != "cuda":
            return Unavailable(f"the device is no NVIDIA card ({device.kind})")
        nvml, fault = self._nvml, start_nvml(self._nvml)
        if nvml is None or fault is not None:
            return Unavailable(fault or "", "pip install nvidia-ml-py" if nvml is None else None)
        wanted = [device] if device is not None else _all_cards(nvml)
        absent = Unavailable("the NVIDIA driver has no card")
        # A slice's own facts, not only torch's: torch may print a whole card's UUID for a slice.
        for known in enrich(wanted, nvml, (), hides_host_processes=True):
            found = _look_at(nvml, known)
            if isinstance(found, _Card):
                self._cards.append(found)
            else:
                absent = found
        return None if self._cards else absent


def _all_cards(nvml: NvmlModule) -> list[DeviceFacts]:
    return [DeviceFacts(kind="cuda", name=card.name, uuid=card.uuid) for card in read_driver(nvml).cards]


def _look_at(nvml: NvmlModule, device: DeviceFacts) -> _Card | Unavailable:
    """What one card answers to, or why it is not read."""
    name = domain_of(device)
    if device.is_mig or (device.uuid or "").startswith("MIG-"):
        return Unavailable(f"{name}: {MIG_REASON}", "use a whole card for energy; speed and memory go on")
    found = find_card(nvml, device)
    if found.value is None:
        return Unavailable(f"{name}: {found.fault}")
    counter = ask_millijoules(nvml, found.value)
    kinds: tuple[Literal["instant", "average"], ...] = ("instant", "average")
    power = next((kind for kind in kinds if ask_power(nvml, found.value, kind).value), None)
    if not counter.value and power is None:
        return Unavailable(f"{name}: neither energy nor power can be read: {counter.fault or 'the counter reads 0'}")
    notes = [_SUPERCHIP_NOTE] if _is_superchip(nvml, found.value) else []
    notes += [_AVERAGE_NOTE] if power == "average" else []
    notes += [] if counter.value else [f"no energy counter: {counter.fault or 'it reads 0'}"]
    return _Card(device, found.value, bool(counter.value), power, "; ".join(notes) or None)


def find_card(nvml: NvmlModule, device: DeviceFacts) -> Answer[Any]:
    """The handle of a device, by UUID and then by PCI address; an index is not stable and is never used."""
    found: Answer[Any] = Answer(None, "torch tells neither UUID nor PCI address")
    if device.uuid is not None:
        found = find_handle(nvml, device.uuid)
    if found.value is None and device.pci_bus_id is not None:
        by_address = ask(nvml, lambda: nvml.nvmlDeviceGetHandleByPciBusId(device.pci_bus_id))
        return by_address if by_address.value is not None or device.uuid is None else found
    return found


def ask_millijoules(nvml: NvmlModule, handle: Any) -> Answer[int]:
    """The energy counter since the driver was loaded; Volta and newer."""
    return ask(nvml, lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))


def ask_power(nvml: NvmlModule, handle: Any, kind: Literal["instant", "average"] | None) -> Answer[int]:
    """Milliwatts of the GPU: of this moment, or the plain question, which newer drivers answer with an average."""
    if kind == "instant":
        return _ask_instant(nvml, handle, "NVML_POWER_SCOPE_GPU")
    return ask(nvml, lambda: int(nvml.nvmlDeviceGetPowerUsage(handle)))


def _is_superchip(nvml: NvmlModule, handle: Any) -> bool:
    """Whether the card tells a module's power beside its own: GH200, GB200. Elsewhere the driver refuses, or says 0."""
    return bool(_ask_instant(nvml, handle, "NVML_POWER_SCOPE_MODULE").value)


def _ask_instant(
    nvml: NvmlModule, handle: Any, scope: Literal["NVML_POWER_SCOPE_GPU", "NVML_POWER_SCOPE_MODULE"]
) -> Answer[int]:
    def question() -> int:
        number = nvml.NVML_POWER_SCOPE_GPU if scope == "NVML_POWER_SCOPE_GPU" else nvml.NVML_POWER_SCOPE_MODULE
        (field,) = nvml.nvmlDeviceGetFieldValues(handle, [(nvml.NVML_FI_DEV_POWER_INSTANT, number)])
        if field.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(field.nvmlReturn)
        return int(field.value.uiVal)

    return ask(nvml, question)


def open_meter(
    device: DeviceFacts | None,
    spec: EnergySpec | None = None,
    nvml: NvmlModule | None = None,
    clock: Clock = time.monotonic_ns,
) -> NvmlMeter:
    """Open NVML for a card; `nvml` stands in for the library."""
    return NvmlMeter(device, load_nvml() if nvml is None else nvml, clock)
