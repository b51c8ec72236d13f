"""The two sides of a comparison: a record of tokbench or another tool's file, brought to one form. Compares nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Missing, Results, evaluate
from tokbench.derive.imported import Imported, ImportedCell, ImportedMetric, estimate_of
from tokbench.derive.imports import read_imported
from tokbench.derive.metrics import catalog
from tokbench.errors import RecordError
from tokbench.record.facts import Conditions, Frozen
from tokbench.record.run import Run, read_run
from tokbench.stats import Estimate
from tokbench.units import Better, Unit

TOKBENCH = "tokbench"
_FIRST_LINE_BYTES = 65536
_TOLD_APART = {"kind", "mode", "options", "check_tokens", "check_repeat"}
"""Keys of the engine that have a condition of their own, or that no number depends on."""
_DEVICE = ("driver_version", "runtime_version", "power_limit_w", "compute_capability", "is_mig")
_HOST = ("hostname_sha256", "cpu_name", "usable_cores", "kernel", "python", "cpu_governor")
_ENGINE = ("dtype", "kv_dtype", "threads", "stamped_by", "cuda_graphs")


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One metric of one cell with the values behind it."""

    metric: str
    unit: Unit
    better: Better
    is_exact: bool
    value: Estimate | Missing
    blocks: tuple[tuple[float, ...], ...]
    """Values of repetitions, one inner tuple per process that made them; empty where there are none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """One cell of a side."""

    key: str
    """Alike in cells that are partners: `pair_key`, or the name of a benchmark."""
    identity: str
    name: str
    engine_mode: tuple[str | None, str | None]
    engine_settings: str
    """All that was asked of the engine; tells cells of one engine and mode apart."""
    conditions: Conditions
    settings: Mapping[str, str]
    """Versions, machine, options: what `conditions` has no field for."""
    decisive: frozenset[str]
    """The settings that keep two cells from being like for like."""
    verdict: str
    doubts: tuple[str, ...]
    no_result: str | None
    """Why there is no result at all, with how the cell ended; None where there is one."""
    samples: Mapping[str, Sample]
    cell: CellResult | None
    """The cell of a record; None for another tool's result."""
    free: frozenset[str] = frozenset()
    """Conditions that none of its metrics depends on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """Everything on one side."""

    path: str
    kind: str
    """`tokbench`, or the name of the other tool."""
    cells: tuple[Subject, ...]


def read_side(path: Path) -> Side:
    """Read a run folder, its `events.jsonl` or another tool's JSON file.

    Raises:
        RecordError: it is not there, or a record that cannot be read.
        DataError: a file of another tool that cannot be read, or of none that is known here.
    """
    if not path.exists():
        raise RecordError(f"{path}: there is no such file or folder", fix="name a run folder, e.g. runs/NAME")
    if _is_record(path):
        return side_of(evaluate(read_run(path), str(path)))
    return _imported_side(path, read_imported(path))


def _is_record(path: Path) -> bool:
    """Whether it is a run folder or its events; llama-bench and vLLM write lines of JSON as well."""
    if path.is_dir() or path.suffix != ".jsonl":
        return path.is_dir()
    try:
        with path.open("rb") as file:
            first = file.readline(_FIRST_LINE_BYTES)
    except OSError:
        return True  # read_run says what is wrong with it
    return not first.strip() or b'"event"' in first


def side_of(results: Results) -> Side:
    """A run that is evaluated already, by its name."""
    return Side(results.name, TOKBENCH, tuple(_measured(results, cell) for cell in results.cells))


def _measured(results: Results, cell: CellResult) -> Subject:
    spec = cell.record.spec
    return Subject(
        key=cell.pair_key,
        identity=cell.cell_id,
        name=wording.say_cell(cell),
        engine_mode=(cell.conditions.engine, cell.conditions.mode),
        engine_settings=spec.engine.model_dump_json(),
        conditions=cell.conditions,
        settings=_settings(results.run, cell),
        decisive=frozenset({"weights revision", "weights sha256"}),
        verdict=cell.validity.verdict,
        doubts=tuple(code.value for code in cell.validity.reasons),
        no_result=None if cell.status == "ok" else f"{cell.status}: {cell.status_reason}",
        samples={name: _sample(cell, name) for name in cell.metrics},
        cell=cell,
    )


ENERGY_SCOPE = "energy scope"
"""What a cell's joules are of: joules of unlike scope are not divided."""


def _sample(cell: CellResult, name: str) -> Sample:
    metric = catalog()[name]
    return Sample(name, metric.unit, metric.better, metric.is_exact, cell.metrics[name], cell.blocks.get(name, ()))


def _settings(run: Run, cell: CellResult) -> dict[str, str]:
    record, spec = cell.record, cell.record.spec
    asked = spec.engine.model_dump(mode="json", exclude=_TOLD_APART)
    found: dict[str, object] = {"tokbench version": run.header.tokbench_version}
    found |= {f"engine.{name}": value for name, value in asked.items()}
    found |= {f"engine.options.{name}": value for name, value in sorted(spec.engine.options.items())}
    found |= _named("device", record.trials[-1].device if record.trials else run.device, _DEVICE)
    found |= _named("host", run.host, _HOST)
    if record.engine is not None:
        found |= _named("engine", record.engine, _ENGINE)
        found |= {f"{package} version": version for package, version in sorted(record.engine.versions.items())}
        found |= dict(sorted(record.engine.environment.items()))
    if record.model is not None:
        found |= {"weights revision": record.model.revision, "weights sha256": record.model.sha256}
    if cell.energy.headline:
        group = cell.energy.headline[0].group
        found |= {ENERGY_SCOPE: group.scope, "energy meter": f"{group.meter} {group.name}"}
    return {name: str(value) for name, value in found.items() if value is not None}


def _named(prefix: str, facts: Frozen | None, names: tuple[str, ...]) -> dict[str, object]:
    if facts is None:
        return {}
    plain = facts.model_dump(mode="json", include=set(names))
    return {f"{prefix} {name}": plain[name] for name in names}


def _imported_side(path: Path, imported: Imported) -> Side:
    return Side(str(path), imported.tool, tuple(_imported(cell) for cell in imported.cells))


def _imported(cell: ImportedCell) -> Subject:
    return Subject(
        key=cell.key,
        identity=cell.identity,
        name=cell.key,
        engine_mode=(cell.conditions.engine, cell.conditions.mode),
        engine_settings=cell.options,
        conditions=cell.conditions,
        settings=cell.settings,
        decisive=cell.decisive,
        verdict="not judged",
        doubts=(),
        no_result=None,
        samples={metric.name: _imported_sample(metric) for metric in cell.metrics} | _untold(cell),
        cell=None,
        free=cell.free,
    )


def _imported_sample(metric: ImportedMetric) -> Sample:
    blocks = (metric.values,) if metric.values else ()
    return Sample(metric.name, metric.unit, metric.better, False, estimate_of(metric), blocks)


def _untold(cell: ImportedCell) -> dict[str, Sample]:
    """Metrics of ours that the file does not tell, each with the reason."""
    return {
        name: Sample(name, metric.unit, metric.better, metric.is_exact, Missing(cell.missing[name]), ())
        for name, metric in catalog().items()
        if name in cell.missing
    }
