"""Under what the numbers were had: model, device, host, engine, as read; what could not be read says unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.report.document import DASH, Cell, Column, Section, Table
from tokbench.derive.report.fields import fact_field
from tokbench.derive.report.material import Material
from tokbench.record.facts import DeviceFacts, HostFacts
from tokbench.units import BYTES, SECONDS, format_value


def conditions_sections(material: Material) -> list[Section]:
    """One part per run."""
    sections = [Section("Conditions", ())]
    for item in material.results:
        prefix = f"{item.name}: " if material.has_several_runs else ""
        sections += [
            Section(f"{prefix}Model", (_model_table(item),), level=3),
            Section(f"{prefix}Device", (_device_table(item),), level=3),
            Section(f"{prefix}Host", (_host_table(item),), level=3),
            Section(f"{prefix}Engine", (_engine_table(item),), level=3),
        ]
    return sections


def _facts_table(*things: Mapping[str, object]) -> Table:
    """One row per fact; one column per thing, where equal ones are shown once."""
    unique = [thing for index, thing in enumerate(things) if thing not in things[:index]]
    names = dict.fromkeys(name for thing in unique for name in thing)
    heads = ("Value",) if len(unique) == 1 else tuple(str(number + 1) for number in range(len(unique)))
    rows = tuple((Cell(name), *(_fact(thing, name) for thing in unique)) for name in names)
    return Table((Column("Fact"), *map(Column, heads)), rows)


def _fact(thing: Mapping[str, object], name: str) -> Cell:
    return fact_field(thing[name]) if name in thing else Cell(DASH, note="has no such fact")


def _groups(results: Results) -> dict[str, CellResult]:
    """One cell of each worker group, best one whose engine is known."""
    return {
        group: next((cell for cell in cells if cell.record.engine is not None), cells[0])
        for group, cells in _members(results).items()
    }


def _members(results: Results) -> dict[str, list[CellResult]]:
    """The cells of each worker group."""
    members: dict[str, list[CellResult]] = {}
    for cell in results.cells:
        members.setdefault(cell.record.planned.group, []).append(cell)
    return members


def _model_table(results: Results) -> Table:
    return _facts_table(*(_model_facts(cell) for cell in _groups(results).values()))


def _model_facts(cell: CellResult) -> dict[str, object]:
    model = cell.record.model
    if model is None:
        return {"Name": cell.record.spec.model.source, "Weights": "never loaded"}
    return {
        "Name": model.name,
        "Source": model.source,
        "Weights": model.weights,
        "Type": model.dtype,
        "Parameters": None if model.parameters is None else f"{model.parameters:,}",
        "Bytes": None if model.weight_bytes is None else format_value(model.weight_bytes, BYTES),
        "Revision": model.revision,
        "SHA-256": model.sha256,
        "Note": model.note if model.note is not None else "none",
    }


def _device_table(results: Results) -> Table:
    devices = [device for _, device in results.run.devices]
    if not devices:
        return _facts_table({"Device": None})
    choice = results.run.device_choice
    return _facts_table(*({**_device_facts(device), "Chosen because": choice} for device in devices))


def _device_facts(device: DeviceFacts) -> dict[str, object]:
    memory = None if device.memory_bytes is None else format_value(device.memory_bytes, BYTES)
    free = None if device.free_memory_bytes is None else format_value(device.free_memory_bytes, BYTES)
    facts: dict[str, object] = {"Name": device.name, "Kind": device.kind, "Memory": memory, "Free at the start": free}
    if device.kind in ("cuda", "rocm"):
        facts |= {
            "Compute capability": device.compute_capability,
            "Driver": device.driver_version,
            "Runtime": device.runtime_version,
            "Power limit": None if device.power_limit_w is None else f"{device.power_limit_w:g} W",
            "MIG slice": device.is_mig,
            "ECC": device.ecc_enabled,
            "Persistence mode": device.persistence_mode,
            "Highest SM clock": None if device.max_sm_clock_mhz is None else f"{device.max_sm_clock_mhz} MHz",
            "Highest memory clock": None
            if device.max_memory_clock_mhz is None
            else f"{device.max_memory_clock_mhz} MHz",
        }
    return facts | {"Other processes at the start": _foreign(device)}


def _foreign(device: DeviceFacts) -> str | None:
    parts = [str(device.foreign_processes)] if device.foreign_processes is not None else []
    return ": ".join([*parts, device.foreign_note] if device.foreign_note else parts) or None


def _host_table(results: Results) -> Table:
    host = results.run.host
    return _facts_table({"Host": None} if host is None else _host_facts(host))


def _host_facts(host: HostFacts) -> dict[str, object]:
    physical = "unknown" if host.physical_cores is None else str(host.physical_cores)
    limit = "none" if host.memory_limit_bytes is None else format_value(host.memory_limit_bytes, BYTES)
    return {
        "CPU": host.cpu_name,
        "Cores": f"{physical} physical, {host.logical_cores} logical, {host.usable_cores} usable",
        "Memory": f"{format_value(host.memory_bytes, BYTES)}, limit {limit}",
        "System": f"{host.os_name}, kernel {host.kernel}, Python {host.python}",
        "Virtualisation": host.virtualisation or "none found",
        "Container": host.container or "none found",
        "Scheduler": host.scheduler or "none found",
        "On battery": host.on_battery,
        "CPU governor": host.cpu_governor,
        "Notes": "; ".join(host.notes) or "none",
        "Identity": host.hostname_sha256,
    }


def _engine_table(results: Results) -> Table:
    groups, members = _groups(results), _members(results)
    loads = results.run.load_s
    return _facts_table(*(_engine_facts(cell, members[group], loads.get(group)) for group, cell in groups.items()))


def _engine_facts(cell: CellResult, members: Sequence[CellResult], load_s: float | None) -> dict[str, object]:
    engine = cell.record.engine
    if engine is None:
        return {"Engine": f"{cell.record.spec.engine.kind}, mode {cell.record.spec.engine.mode}, never opened"}
    prepared = [item.engine for known in members for item in known.record.prepared if item.engine is not None]
    prepared = prepared or [engine]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(engine.versions.items()))
    environment = ", ".join(f"{name}={_tame(value)}" for name, value in sorted(engine.environment.items()))
    return {
        "Engine": f"{engine.kind}, mode {engine.mode}",
        "Model": cell.conditions.model,
        "Versions": versions or None,
        "Type": engine.dtype,
        "Cache type": engine.kv_dtype,
        "Attention kernel": _say_distinct([known.attention_kernel for known in prepared]),
        "Experts kernel": engine.experts_kernel or "none",
        "Threads": engine.threads,
        "Graphs compiled": engine.graphs_compiled,
        "CUDA graphs": _say_distinct([known.cuda_graphs for known in prepared]),
        "Environment": environment or "nothing set",
        "Notes": "; ".join(dict.fromkeys(note for known in prepared for note in known.notes)) or "none",
        "Loading, from the worker's start": None if load_s is None else format_value(load_s, SECONDS),
    }


def _say_distinct(values: Sequence[str | bool | None]) -> object:
    """One fact of several preparations: the value, or all of them where they differ."""
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else " / ".join(fact_field(value).text for value in distinct)


def _tame(value: str) -> str:
    """A variable's value on one line, cut where it is long."""
    flat = re.sub(r"\s+", " ", value)
    return flat if len(flat) <= 80 else f"{flat[:77]}…"
