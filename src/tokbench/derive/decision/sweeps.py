"""Which measured cells may feed a decision, and the sweeps over the load that they make up. It judges no promise.

Cells of other than pretrained weights, of scripted engines, of replayed drafts, of experiments and of open loads are
counted and left out: their numbers never reach a decision.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokbench.derive.evaluate import CellResult, Results
from tokbench.record.spec import StaticBatchLoad
from tokbench.record.sweep import canonical_json

LoadKind = Literal["closed", "static_batch"]
"""`closed`: a service with so many requests in flight. `static_batch`: one forward pass, no queue."""


class Barred(enum.Enum):
    """Why a cell feeds no decision."""

    RANDOM = "random"
    REPLAY = "replay"
    SCRIPTED = "scripted"
    UNKNOWN_WEIGHTS = "unknown_weights"
    LOSSY = "lossy"
    EXPERIMENT = "experiment"
    OPEN_LOAD = "open_load"


class LeftOut(NamedTuple):
    """How many cells are left out for one reason."""

    why: Barred
    cells: int


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """What is decided about: one model in one precision on one machine, at one length of prompt and answer."""

    run_name: str
    load_kind: LoadKind
    model: str
    precision: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    hardware: str | None
    device_count: int | None
    speculation: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Sweep:
    """Cells that differ in their load alone, in the order of the users that they serve at once."""

    cells: tuple[CellResult, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Sweeps:
    """All that may be decided about, services first, and what was left out."""

    by_workload: dict[Workload, tuple[Sweep, ...]]
    left_out: tuple[LeftOut, ...]


def find_sweeps(results: Sequence[Results]) -> Sweeps:
    """Sort the cells of all runs by workload and sweep, in the order of the runs and their cells."""
    barred: Counter[Barred] = Counter()
    found: dict[Workload, dict[str, list[CellResult]]] = {}
    for cell in (cell for item in results for cell in item.cells):
        why = why_barred(cell)
        if why is not None:
            barred[why] += 1
            continue
        found.setdefault(_workload_of(cell), {}).setdefault(_sweep_key(cell), []).append(cell)
    ordered = sorted(found, key=lambda workload: workload.load_kind == "static_batch")  # a stable sort
    by_workload = {workload: tuple(map(_sweep_of, found[workload].values())) for workload in ordered}
    return Sweeps(by_workload, tuple(LeftOut(why, barred[why]) for why in Barred if barred[why]))


def why_barred(cell: CellResult) -> Barred | None:
    """Why the cell's numbers must not reach a decision; None where they may."""
    conditions, spec = cell.conditions, cell.record.spec
    if conditions.weights != "pretrained":
        kinds = {"random": Barred.RANDOM, "replay": Barred.REPLAY, "scripted": Barred.SCRIPTED}
        return kinds.get(conditions.weights or "", Barred.UNKNOWN_WEIGHTS)
    if conditions.speculation == "replay":
        return Barred.REPLAY
    if spec.speculation != "none" and spec.speculation.accept != "lossless":
        return Barred.LOSSY
    if spec.experiment != "none":
        return Barred.EXPERIMENT
    return Barred.OPEN_LOAD if users_of(cell) is None else None


def users_of(cell: CellResult) -> int | None:
    """Streams served at once; None for an open load, which fixes a rate and not a number of users."""
    load = cell.record.spec.load
    return load.static_batch if load.kind == "static_batch" else load.concurrency if load.kind == "closed" else None


def _workload_of(cell: CellResult) -> Workload:
    conditions = cell.conditions
    return Workload(
        run_name=cell.run_name,
        load_kind="closed" if cell.record.spec.load.kind == "closed" else "static_batch",
        model=conditions.model or cell.record.spec.model.source,
        precision=conditions.precision,
        prompt_tokens=conditions.prompt_tokens,
        output_tokens=conditions.output_tokens,
        hardware=conditions.hardware,
        device_count=conditions.device_count,
        speculation=conditions.speculation,
    )


def _sweep_key(cell: CellResult) -> str:
    """Everything that was asked of the cell but its load."""
    return canonical_json(cell.record.spec.model_copy(update={"load": StaticBatchLoad()}))


def _sweep_of(cells: Sequence[CellResult]) -> Sweep:
    return Sweep(tuple(sorted(cells, key=lambda cell: users_of(cell) or 0)))
