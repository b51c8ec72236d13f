"""Opens the meters of a run: those that a config names, or every one that fits the device; before there is a record."""

from __future__ import annotations

from typing import NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.meters import Meter, Unavailable, load_plug, names
from tokbench.measure.plan import Plan
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import MeterAbsent, MeterOpened
from tokbench.record.spec import EnergySpec


class Meters(NamedTuple):
    """The meters that are read in a run, by name, what they cover, and those that cannot be read."""

    opened: dict[str, Meter]
    domains: list[MeterOpened]
    absent: list[MeterAbsent]


def open_meters(plan: Plan) -> Meters:
    """Meters named in the config, or every one that can be read beside the run's device.

    Raises:
        PlugError: a meter that was named cannot be read.
    """
    energy = plan.config.run.energy
    if energy == "off":
        return Meters({}, [], [MeterAbsent(meter="all", reason="the config says energy: off")])
    spec = EnergySpec() if energy == "auto" else energy
    found = Meters({}, [], [])
    try:
        for kind in wanted(spec, plan.device):
            for device in _devices(kind, plan):
                _open(kind, device, spec, found, "" if device is plan.device else f" of {device.kind}:{device.index}")
    except PlugError:
        for meter in found.opened.values():
            meter.close()
        raise
    if not found.opened and not found.absent:
        reason = f"no meter goes with a device of the kind {plan.device.kind}"
        found.absent.append(MeterAbsent(meter="all", reason=reason, remedy="name one: --set energy.meters=[rapl]"))
    return found


def wanted(spec: EnergySpec, device: DeviceFacts) -> list[str]:
    """The meters to open: as named, or all that go with the device by themselves."""
    if spec.meters is not None:
        return list(spec.meters)
    return [kind for kind in names() if device.kind in load_plug(kind).DESCRIPTION.auto_for]


def _open(kind: str, device: DeviceFacts, spec: EnergySpec, found: Meters, suffix: str) -> None:
    meter = load_plug(kind).open_meter(device, spec)
    try:
        state = meter.availability()
        if not isinstance(state, Unavailable):
            found.domains.extend(meter.opened())
            found.opened[kind + suffix] = meter
            return
    except Exception as error:  # a library's own: one meter must not end the run, nor hide the others
        state = Unavailable(f"it could be opened, but not read: {error}")
    meter.close()
    if spec.meters is not None:
        raise PlugError(f"energy.meters: {kind} cannot be read: {state.reason}", fix=state.remedy)
    found.absent.append(MeterAbsent(meter=kind + suffix, reason=state.reason, remedy=state.remedy))


def _devices(kind: str, plan: Plan) -> list[DeviceFacts]:
    """The devices that a meter is opened for: each card of a split model by itself, anything else once."""
    return [plan.device, *plan.further] if load_plug(kind).DESCRIPTION.is_of_card else [plan.device]
