"""Under what the numbers were had: model, device, host, engine, as read; what could not be read says unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.report.document import DASH, Cell, Column, Section, Table
from tokbench.derive.report.fields import fact_field, in_run
from tokbench.derive.report.material import Material
from tokbench.derive.words import mark, say, t
from tokbench.record.facts import DeviceFacts, HostFacts
from tokbench.units import BYTES, SECONDS, format_value

FACTS = (
    mark("Attention kernel"),
    mark("Bytes"),
    mark("CPU"),
    mark("CPU governor"),
    mark("CUDA graphs"),
    mark("Cache type"),
    mark("Chosen because"),
    mark("Compute capability"),
    mark("Container"),
    mark("Cores"),
    mark("Device"),
    mark("Driver"),
    mark("ECC"),
    mark("Engine"),
    mark("Environment"),
    mark("Experts kernel"),
    mark("Free at the start"),
    mark("Graphs compiled"),
    mark("Highest SM clock"),
    mark("Highest memory clock"),
    mark("Host"),
    mark("Identity"),
    mark("Kind"),
    mark("Loading, from the worker's start"),
    mark("MIG slice"),
    mark("Memory"),
    mark("Model"),
    mark("Name"),
    mark("Note"),
    mark("Notes"),
    mark("On battery"),
    mark("Other processes at the start"),
    mark("Parameters"),
    mark("Persistence mode"),
    mark("Power limit"),
    mark("Revision"),
    mark("Runtime"),
    mark("SHA-256"),
    mark("Scheduler"),
    mark("Source"),
    mark("Operating system"),
    mark("Threads"),
    mark("Type"),
    mark("Versions"),
    mark("Virtualisation"),
    mark("Weights"),
)
"""What the facts below are called."""


def conditions_sections(material: Material) -> list[Section]:
    """One part per run."""
    sections = [Section(t("Conditions"), ())]
    for item in material.results:
        sections += [
            Section(in_run(item.name, title, material.has_several_runs), (table,), level=3)
            for title, table in (
                (t("Model"), _model_table(item)),
                (t("Device"), _device_table(item)),
                (t("Host"), _host_table(item)),
                (t("Engine"), _engine_table(item)),
            )
        ]
    return sections


def _facts_table(*things: Mapping[str, object]) -> Table:
    """One row per fact; one column per thing, where equal ones are shown once."""
    unique = [thing for index, thing in enumerate(things) if thing not in things[:index]]
    names = dict.fromkeys(name for thing in unique for name in thing)
    heads = (t("Value"),) if len(unique) == 1 else tuple(str(number + 1) for number in range(len(unique)))
    rows = tuple((Cell(say(name)), *(_fact(thing, name) for thing in unique)) for name in names)
    return Table((Column(t("Fact")), *map(Column, heads)), rows)


def _fact(thing: Mapping[str, object], name: str) -> Cell:
    return fact_field(thing[name]) if name in thing else Cell(DASH, note=t("has no such fact"))


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
        return {"Name": cell.record.spec.model.source, "Weights": t("never loaded")}
    return {
        "Name": model.name,
        "Source": model.source,
        "Weights": model.weights,
        "Type": model.dtype,
        "Parameters": None if model.parameters is None else f"{model.parameters:,}",
        "Bytes": None if model.weight_bytes is None else format_value(model.weight_bytes, BYTES),
        "Revision": model.revision,
        "SHA-256": model.sha256,
        "Note": model.note if model.note is not None else t("none"),
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
    physical = t("unknown") if host.physical_cores is None else str(host.physical_cores)
    limit = t("none") if host.memory_limit_bytes is None else format_value(host.memory_limit_bytes, BYTES)
    return {
        "CPU": host.cpu_name,
        "Cores": t(
            "{physical} physical, {logical} logical, {usable} usable",
            physical=physical,
            logical=host.logical_cores,
            usable=host.usable_cores,
        ),
        "Memory": t("{memory}, limit {limit}", memory=format_value(host.memory_bytes, BYTES), limit=limit),
        "Operating system": t(
            "{system}, kernel {kernel}, Python {python}", system=host.os_name, kernel=host.kernel, python=host.python
        ),
        "Virtualisation": host.virtualisation or t("none found"),
        "Container": host.container or t("none found"),
        "Scheduler": host.scheduler or t("none found"),
        "On battery": host.on_battery,
        "CPU governor": host.cpu_governor,
        "Notes": "; ".join(host.notes) or t("none"),
        "Identity": host.hostname_sha256,
    }


def _engine_table(results: Results) -> Table:
    groups, members = _groups(results), _members(results)
    loads = results.run.load_s
    return _facts_table(*(_engine_facts(cell, members[group], loads.get(group)) for group, cell in groups.items()))


def _engine_facts(cell: CellResult, members: Sequence[CellResult], load_s: float | None) -> dict[str, object]:
    engine = cell.record.engine
    if engine is None:
        spec = cell.record.spec.engine
        return {"Engine": t("{engine}, mode {mode}, never opened", engine=spec.kind, mode=spec.mode)}
    prepared = [item.engine for known in members for item in known.record.prepared if item.engine is not None]
    prepared = prepared or [engine]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(engine.versions.items()))
    environment = ", ".join(f"{name}={_tame(value)}" for name, value in sorted(engine.environment.items()))
    return {
        "Engine": t("{engine}, mode {mode}", engine=engine.kind, mode=engine.mode),
        "Model": cell.conditions.model,
        "Versions": versions or None,
        "Type": engine.dtype,
        "Cache type": engine.kv_dtype,
        "Attention kernel": _say_distinct([known.attention_kernel for known in prepared]),
        "Experts kernel": engine.experts_kernel or t("none"),
        "Threads": engine.threads,
        "Graphs compiled": engine.graphs_compiled,
        "CUDA graphs": _say_distinct([known.cuda_graphs for known in prepared]),
        "Environment": environment or t("nothing set"),
        "Notes": "; ".join(dict.fromkeys(note for known in prepared for note in known.notes)) or t("none"),
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
