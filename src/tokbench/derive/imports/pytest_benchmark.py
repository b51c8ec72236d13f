"""pytest-benchmark's JSON (`pytest --benchmark-json=FILE`): seconds per call, one value per round, of one process.

Source: pytest-benchmark 5.3.1, files written by it; a round's duration is divided by the calls (`iterations`) in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokbench.derive.imports import ImportedCell, ImportedMetric
from tokbench.errors import RecordError
from tokbench.record.facts import Conditions
from tokbench.units import SECONDS, Better

TOOL = "pytest-benchmark"
METRIC = "call_s"
DECISIVE = frozenset({"benchmark", "timer", "disable_gc"})

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    """Keys that are not needed are passed over: another tool may add some in any version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Stats(_Part):
    median: Seconds
    rounds: int
    iterations: int | None = None
    data: tuple[Seconds, ...] = ()


class _Options(_Part):
    timer: str | None = None
    disable_gc: bool | None = None


class _Benchmark(_Part):
    fullname: Annotated[str, Field(min_length=1)]
    stats: _Stats
    options: _Options = _Options()


class _Cpu(_Part):
    brand_raw: str | None = None
    count: int | None = None


class _Machine(_Part):
    node: str | None = None
    machine: str | None = None
    system: str | None = None
    release: str | None = None
    python_implementation: str | None = None
    python_version: str | None = None
    cpu: _Cpu = _Cpu()


class _Commit(_Part):
    id: str | None = None


class _File(_Part):
    machine_info: _Machine
    commit_info: _Commit = _Commit()
    benchmarks: tuple[_Benchmark, ...]
    datetime: str | None = None
    version: str


def is_mine(document: Mapping[str, object]) -> bool:
    """Whether the document has the outline of this tool's files."""
    return {"machine_info", "benchmarks", "version"} <= document.keys()


def read(document: Mapping[str, object], file: str) -> tuple[ImportedCell, ...]:
    """Take over every benchmark.

    Raises:
        RecordError: the document is not as pytest-benchmark writes it.
    """
    try:
        parsed = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        fix = "write it anew with `pytest --benchmark-json=FILE`"
        raise RecordError(f"{file}: {where}: {first['msg']}: not as {TOOL} writes it", fix=fix) from None
    known = [item.fullname for item in parsed.benchmarks]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice is not None:
        raise RecordError(f"{file}: the benchmark {twice!r} stands in it twice", fix="write the file anew")
    return tuple(_cell(parsed, item) for item in parsed.benchmarks)


def _cell(file: _File, item: _Benchmark) -> ImportedCell:
    stats = item.stats
    metric = ImportedMetric(METRIC, SECONDS, Better.LOWER, stats.data, stats.median, "median", stats.rounds)
    conditions = Conditions(
        hardware=file.machine_info.cpu.brand_raw,
        measured_by=TOOL,
        as_of=file.datetime[:10] if file.datetime else None,
    )
    return ImportedCell(item.fullname, (metric,), conditions, _settings(file, item), DECISIVE)


def _settings(file: _File, item: _Benchmark) -> dict[str, str]:
    machine, options = file.machine_info, item.options
    stated: dict[str, str | int | bool | None] = {
        "benchmark": item.fullname,
        "timer": options.timer,
        "disable_gc": options.disable_gc,
        "calls per round": item.stats.iterations,
        "pytest-benchmark version": file.version,
        "python": " ".join(part for part in (machine.python_implementation, machine.python_version) if part) or None,
        "host": hashlib.sha256(machine.node.encode()).hexdigest()[:12] if machine.node else None,
        "machine": machine.machine,
        "cores": machine.cpu.count,
        "system": " ".join(part for part in (machine.system, machine.release) if part) or None,
        "commit": file.commit_info.id,
    }
    return {name: str(value) for name, value in stated.items() if value is not None}
