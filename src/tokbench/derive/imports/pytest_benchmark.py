"""pytest-benchmark's JSON (`pytest --benchmark-json=FILE`): seconds per call, one value per round, of one process.

Source: pytest-benchmark 5.3.1, files written by it; a round's duration is divided by the calls (`iterations`) in it.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field

from tokbench.derive.imported import ForeignRow, ImportedCell, ImportedMetric, Rows, parse_row, settle
from tokbench.errors import DataError
from tokbench.record.facts import Conditions
from tokbench.units import SECONDS, Better

TOOL = "pytest-benchmark"
METRIC = "call_s"
DECISIVE = frozenset({"benchmark", "timer", "disable_gc"})

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Stats(ForeignRow):
    median: Seconds
    rounds: int
    iterations: int | None = None
    data: tuple[Seconds, ...] = ()


class _Options(ForeignRow):
    timer: str | None = None
    disable_gc: bool | None = None


class _Benchmark(ForeignRow):
    fullname: Annotated[str, Field(min_length=1)]
    stats: _Stats
    options: _Options = _Options()


class _Cpu(ForeignRow):
    brand_raw: str | None = None
    count: int | None = None


class _Machine(ForeignRow):
    node: str | None = None
    machine: str | None = None
    system: str | None = None
    release: str | None = None
    python_implementation: str | None = None
    python_version: str | None = None
    cpu: _Cpu = _Cpu()


class _Commit(ForeignRow):
    id: str | None = None


class _File(ForeignRow):
    machine_info: _Machine
    commit_info: _Commit = _Commit()
    benchmarks: tuple[_Benchmark, ...]
    datetime: str | None = None
    version: str


def is_mine(rows: Rows) -> bool:
    """Whether the file has the outline of this tool's files."""
    return len(rows) == 1 and {"machine_info", "benchmarks", "version"} <= rows[0].keys()


def read(rows: Rows, file: str, given: Conditions) -> tuple[ImportedCell, ...]:
    """Take over every benchmark.

    Raises:
        DataError: the file is not as pytest-benchmark writes it.
        SpecError: `given` contradicts it.
    """
    parsed = parse_row(_File, rows[0], file, None, "`pytest --benchmark-json=FILE`")
    known = [item.fullname for item in parsed.benchmarks]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice is not None:
        row = str(len(known) - known[::-1].index(twice))
        fault = f"the benchmark {twice!r} stands in it twice"
        raise DataError(fault, file=file, row=row, field="fullname", fix="write the file anew")
    return tuple(_cell(parsed, item, given) for item in parsed.benchmarks)


def _cell(file: _File, item: _Benchmark, given: Conditions) -> ImportedCell:
    stats = item.stats
    metric = ImportedMetric(METRIC, SECONDS, Better.LOWER, stats.data, stats.median, "median", stats.rounds)
    stated = Conditions(hardware=file.machine_info.cpu.brand_raw, as_of=file.datetime[:10] if file.datetime else None)
    settled = settle(stated, Conditions(measured_by=TOOL), given)
    return ImportedCell(
        item.fullname, (metric,), settled.conditions, _settings(file, item), DECISIVE, origins=settled.origins
    )


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
