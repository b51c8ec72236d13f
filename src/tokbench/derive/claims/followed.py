"""Which device a series is of, where cells of several could be mixed in one; and what a cell says to a selection.

It chooses before any metric is looked at, so that all inputs that mean the same cells speak of one device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tokbench.derive.claims.dimensions import PLAIN
from tokbench.derive.claims.evidence import Evidence, Scale
from tokbench.derive.claims.from_rows import unit_or_fault
from tokbench.derive.claims.input_rows import Input, MeasuredInput
from tokbench.derive.claims.names import measured_metric, measured_unit
from tokbench.derive.claims.rows import ClaimRow
from tokbench.derive.claims.rules import Rules
from tokbench.derive.claims.selecting import read_selection
from tokbench.derive.claims.values import RuleError
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.words import t
from tokbench.record.facts import Conditions

AT_SCALE_PARAMETERS: Final = 1e9
"""A model below this is one that nobody serves: what it shows of a mechanism may not carry over to those that are."""
BY_CELL: Final = "cell"
SWEEPS: Final = ("static_batch", "concurrency", "prompt_tokens", "output_tokens", "context_tokens")
"""Axes along which one device is followed, whatever the metric's unit."""
CONDITION, LABEL = "condition.", "label."
DEVICE_KIND: Final = "device_kind"
"""`cpu`, `cuda` … of the record: where host memory is the device's own, leaving experts in it shows nothing."""
FIELDS: Final = frozenset({*(field.name for field in dataclasses.fields(Conditions)), "experiment", "run", DEVICE_KIND})
_WHOLE: Final = ("run", "hardware", BY_CELL)
"""What a series can be by without mixing devices in one entry or along one axis."""
_LEAST_POINTS: Final = 2

Meant = list[tuple[Results, CellResult]]


class Follow(NamedTuple):
    """How one input chooses among devices."""

    is_one: bool = False
    """Whether its cells are to be of one device."""
    device: str | None = None
    """Which, and no other, whatever it lacks; None for the one that made the most points."""


def meant_by(asked: MeasuredInput, evidence: Evidence) -> Meant:
    """Every cell that a selection means, whatever it holds.

    Raises:
        RuleError: an unknown field, or a condition of no known form.
    """
    wanted = read_selection(asked.select, FIELDS)
    return [
        (result, cell)
        for result in evidence.results
        for cell in result.cells
        if all(item.accepts(field_of(result, cell, item.field)) for item in wanted)
    ]


def field_of(result: Results, cell: CellResult, field: str) -> object:
    """What a cell says to one field of a selection; None where it says nothing."""
    if field.startswith(LABEL):
        return cell.labels.get(field.removeprefix(LABEL))
    if field == "run":
        return result.name
    if field == DEVICE_KIND:
        return None if result.run.device is None else result.run.device.kind
    if field == "experiment":
        experiment = cell.record.spec.experiment
        return experiment if isinstance(experiment, str) else experiment.kind
    return dataclasses.asdict(cell.conditions)[field]


def scale_of(result: Results, cell: CellResult) -> Scale:
    """Whether a measurement is of a size that somebody serves, on an accelerator."""
    if cell.conditions.weights in ("replay", "scripted"):
        return "replayed"
    model, device = cell.record.model, result.run.device
    is_large = model is not None and (model.parameters or 0) >= AT_SCALE_PARAMETERS
    return "at-scale" if is_large and device is not None and device.kind not in ("cpu", "fake") else "small"


def follows(claim: ClaimRow, evidence: Evidence, device: str | None) -> dict[str, Follow]:
    """How the inputs that are to be of one device choose: all of one part the same, where several made its series."""
    ones = _of_one(claim, evidence)
    if device is None:
        return {name: Follow(is_one=True) for name in ones}
    rivalled = {name for names, devices in _by_part(claim, evidence) if len(devices) > 1 for name in names}
    own = {name for name, asked in ones.items() if device in _series_devices(asked, meant_by(asked, evidence))}
    return {name: Follow(is_one=True, device=device if name in rivalled | own else None) for name in ones}


def rivals(claim: ClaimRow, evidence: Evidence) -> tuple[str, ...]:
    """The devices of which each made some series of a part, where there are several; else none.

    Raises:
        RuleError: a selection that makes no sense.
    """
    parts = _by_part(claim, evidence)
    return tuple(dict.fromkeys(device for _, devices in parts if len(devices) > 1 for device in devices))


def of_one_device(asked: MeasuredInput, meant: Meant, follow: Follow) -> tuple[Meant, list[str]]:
    """The cells of the device that is followed, and the others with the reason; all of them where none is."""
    devices = _series_devices(asked, meant) if follow.is_one else ()
    if follow.is_one and follow.device is not None and asked.by not in _WHOLE:
        is_made = asked.by is None or follow.device in _by_points(asked.by, meant)
        return _split(meant, follow.device, _say_one(follow.device), is_kept=is_made)
    if not devices:
        return meant, []
    chosen = devices[0]
    if len(devices) > 1:
        return _split(meant, chosen, _say_one(chosen))
    is_larger = any(scale_of(*pair) == "at-scale" for pair in meant if pair[1].conditions.hardware == chosen)
    larger = t("a sweep is of one device, and {device} ran the larger model", device=chosen)
    alone = t("a series is of one device, and {device} alone made it", device=chosen)
    return _split(meant, chosen, larger if is_larger else alone)


def _say_one(device: str) -> str:
    return t("a series is of one device, here {device}: each of several is judged by itself", device=device)


def _split(meant: Meant, device: str, reason: str, *, is_kept: bool = True) -> tuple[Meant, list[str]]:
    """A device's cells, and the others with the reason; none of them where its own make no series."""
    kept = [pair for pair in meant if is_kept and pair[1].conditions.hardware == device]
    others = [pair for pair in meant if not is_kept or pair[1].conditions.hardware != device]
    return kept, [f"{result.name} {cell.cell_id}: {reason}" for result, cell in others]


def _of_one(claim: ClaimRow, evidence: Evidence) -> dict[str, MeasuredInput]:
    """Inputs whose cells are to be of one device: along a sweep always; else where the input, or another of the claim
    that means the same cells, is a time, bytes or joules."""
    asked = {name: row.measured for name, row in claim.inputs.items() if row.measured is not None}
    bound = {_cells_key(own) for name, own in asked.items() if _has_unit(claim.inputs[name], evidence)}
    return {name: own for name, own in asked.items() if own.by in SWEEPS or _cells_key(own) in bound}


def _by_part(claim: ClaimRow, evidence: Evidence) -> list[tuple[frozenset[str], tuple[str, ...]]]:
    """The inputs of each part, and the devices that made a series of one of them."""
    made = {name: _series_devices(asked, meant_by(asked, evidence)) for name, asked in _of_one(claim, evidence).items()}
    parts = []
    for half in claim.halves():
        rules = Rules(claim, half)
        own = rules.inputs_of(rules.supports, rules.refutes)
        devices = dict.fromkeys(device for name, found in made.items() if name in own for device in found)
        parts.append((own, tuple(devices)))
    return parts


def _series_devices(asked: MeasuredInput, meant: Meant) -> tuple[str, ...]:
    """Devices that made two points of a series or more, the most points first: those at scale, else all of them."""
    if asked.by is None or asked.by in _WHOLE:
        return ()
    at_scale = [pair for pair in meant if scale_of(*pair) == "at-scale"]
    return tuple(_by_points(asked.by, at_scale)) or tuple(_by_points(asked.by, meant))


def _by_points(axis: str, meant: Sequence[tuple[Results, CellResult]]) -> Iterator[str]:
    keys: dict[str, set[str]] = {}
    for result, cell in meant:
        if cell.conditions.hardware is not None:
            keys.setdefault(cell.conditions.hardware, set()).add(str(field_of(result, cell, axis)))
    made = {device: len(points) for device, points in keys.items() if len(points) >= _LEAST_POINTS}
    yield from sorted(made, key=lambda device: (-made[device], device))


def _cells_key(asked: MeasuredInput) -> str:
    """Which cells an input means, and by what, as text."""
    return f"{sorted(asked.select.items(), key=str)} by {asked.by}"


def _has_unit(row: Input, evidence: Evidence) -> bool:
    """Whether an input is a time, bytes or joules; one that is wrong is told of where it is resolved."""
    asked = row.measured
    if asked is None or asked.pick == "count" or asked.metric.startswith((CONDITION, LABEL)):
        return False
    try:
        metric = measured_metric(asked.metric, evidence.awaited)
        return unit_or_fault(measured_unit(metric, evidence.awaited)).dimension != PLAIN
    except RuleError:
        return False
