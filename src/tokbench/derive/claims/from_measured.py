"""Inputs that rest on cells of records: which cells are meant, and what their metric says with its interval.

An invalid cell never counts, nor a number without an interval; both are named among what was left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

from tokbench.derive.claims.beneath import find_beneath
from tokbench.derive.claims.dimensions import PLAIN, ReadUnit
from tokbench.derive.claims.evidence import Evidence, Resolved, Scale, Source
from tokbench.derive.claims.from_rows import scaled, unit_or_fault
from tokbench.derive.claims.input_rows import Input, MeasuredInput, Pick
from tokbench.derive.claims.intervals import Interval, hull, middle, point
from tokbench.derive.claims.names import measured_metric, measured_unit
from tokbench.derive.claims.selecting import read_selection
from tokbench.derive.claims.values import Cause, Lacking, Quantity, Rest, RuleError, Series, Value
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published.systems import model_key
from tokbench.derive.words import t
from tokbench.record.facts import Conditions

AT_SCALE_PARAMETERS: Final = 1e9
"""A model below this is one that nobody serves: what it shows of a mechanism may not carry over to those that are."""
BY_CELL: Final = "cell"
SWEEPS: Final = ("static_batch", "concurrency", "prompt_tokens", "output_tokens", "context_tokens")
"""Axes along which one device is followed, whatever the metric's unit."""
_CONDITION, _LABEL = "condition.", "label."
_FIELDS: Final = frozenset({*(field.name for field in dataclasses.fields(Conditions)), "experiment", "run"})


class _Found(NamedTuple):
    """One cell that is meant, with its value in the unit of the metric."""

    result: Results
    cell: CellResult
    interval: Interval

    @property
    def name(self) -> str:
        return f"{self.result.name} {self.cell.cell_id}"


def resolve_measured(name: str, row: Input, evidence: Evidence) -> Resolved:
    """The value that the selected cells give.

    Raises:
        RuleError: a selection, a metric or a pick that makes no sense.
    """
    asked = row.measured
    if asked is None:
        raise RuleError("not a measured input")
    if "weights" not in asked.select:
        raise RuleError("select needs `weights`: whether random weights may speak, e.g. [pretrained, random]")
    if asked.by is not None and asked.by not in {*_FIELDS, BY_CELL} and not asked.by.startswith(_LABEL):
        raise RuleError(f"by: {asked.by!r} is neither `cell`, nor a condition, nor label.NAME")
    metric, unit_text = _metric(asked, evidence)
    unit = unit_or_fault("1" if asked.pick == "count" else unit_text)
    found, left_out = _select(asked, metric, evidence)
    if unit.dimension != PLAIN and not isinstance(found, str):
        found = _of_one_device(asked, found)
    value: Value
    if isinstance(found, str):
        value = Lacking(unit.dimension, asked.by, frozenset({Cause(name, found, row.can_be_had)}))
        return Resolved(name, row, value, unit_text, (), left_out)
    value = _value(name, asked, found, unit)
    sources = tuple(_source(one, unit_text, metric) for one in found)
    return Resolved(name, row, value, unit_text, sources, left_out)


def _metric(asked: MeasuredInput, evidence: Evidence) -> tuple[str, str]:
    """The metric and its unit; the axis of a sweep is a plain number."""
    if asked.metric.startswith((_CONDITION, _LABEL)):
        field = asked.metric.removeprefix(_CONDITION)
        if asked.metric.startswith(_CONDITION) and field not in _FIELDS:
            raise RuleError(f"unknown condition {field!r}")
        return asked.metric, "1"
    metric = measured_metric(asked.metric, evidence.awaited)
    return metric, measured_unit(metric, evidence.awaited)


def _select(asked: MeasuredInput, metric: str, evidence: Evidence) -> tuple[list[_Found] | str, tuple[str, ...]]:
    """The cells that count, or why there are none; and those that were meant and do not count."""
    wanted = read_selection(asked.select, _FIELDS)
    meant = [
        (result, cell)
        for result in evidence.results
        for cell in result.cells
        if all(item.accepts(field_of(result, cell, item.field)) for item in wanted)
    ]
    found: list[_Found] = []
    meant, left_out = _of_larger_device(asked, meant)
    for result, cell in meant:
        interval = _interval(cell, metric)
        if isinstance(interval, str):
            left_out.append(f"{result.name} {cell.cell_id}: {interval}")
        else:
            found.append(_Found(result, cell, interval))
    if found and asked.pick == "only" and asked.by is None and len(found) > 1:
        return t("{count} cells are meant where one should be", count=len(found)), tuple(left_out)
    if found:
        return found, tuple(left_out)
    if left_out:
        return t("no cell that is meant has a firm number: {first}", first=left_out[0]), tuple(left_out)
    if metric in evidence.awaited:
        return t("no version of tokbench computes {metric} yet", metric=metric), ()
    return t("no record that was given has such a cell"), ()


def _of_larger_device(
    asked: MeasuredInput, meant: list[tuple[Results, CellResult]]
) -> tuple[list[tuple[Results, CellResult]], list[str]]:
    """A sweep that one device alone made at scale is that device's, and what was left out.

    Chosen before a metric is looked at, so that all inputs of a claim that mean the same cells speak of one device.
    """
    if asked.by not in SWEEPS:
        return meant, []
    keys: dict[str | None, set[str]] = {}
    for result, cell in meant:
        if _scale(result, cell) == "at-scale":
            keys.setdefault(cell.conditions.hardware, set()).add(str(field_of(result, cell, asked.by)))
    if len(keys) != 1:
        return meant, []
    ((device, made),) = keys.items()
    if len(made) < 2:
        return meant, []
    reason = t("a sweep is of one device, and {device} ran the larger model", device=device or "-")
    others = [f"{result.name} {cell.cell_id}: {reason}" for result, cell in meant if cell.conditions.hardware != device]
    return [pair for pair in meant if pair[1].conditions.hardware == device], others


def _of_one_device(asked: MeasuredInput, found: list[_Found]) -> list[_Found] | str:
    """A sweep of times, bytes or joules is of one device: along cells of two it would tell the devices apart."""
    devices = sorted({one.cell.conditions.hardware for one in found if one.cell.conditions.hardware is not None})
    if asked.by in (None, "run", "hardware", BY_CELL) or len(devices) < 2:
        return found
    return t("cells of several devices ({devices}) are no one series: give records of one", devices=", ".join(devices))


def field_of(result: Results, cell: CellResult, field: str) -> object:
    """What a cell says to one field of a selection; None where it says nothing."""
    if field.startswith(_LABEL):
        return cell.labels.get(field.removeprefix(_LABEL))
    if field == "run":
        return result.name
    if field == "experiment":
        experiment = cell.record.spec.experiment
        return experiment if isinstance(experiment, str) else experiment.kind
    return dataclasses.asdict(cell.conditions)[field]


def _interval(cell: CellResult, metric: str) -> Interval | str:
    """The metric's interval in a cell, or why it does not count."""
    if cell.status != "ok":
        return cell.status_reason or cell.status
    if cell.validity.verdict == "invalid":
        return t("invalid: {codes}", codes=", ".join(code.name for code in cell.validity.reasons))
    return _axis_value(cell, metric) if metric.startswith((_CONDITION, _LABEL)) else _metric_value(cell, metric)


def _metric_value(cell: CellResult, metric: str) -> Interval | str:
    value = cell.metrics.get(metric)
    if value is None or isinstance(value, Missing):
        return value.reason if value is not None else t("the cell has no {metric}", metric=metric)
    if value.statistic == "exact":
        return point(value.value)
    if value.low is None or value.high is None:
        return t("one repetition has no interval")
    return Interval(value.low, value.value, value.high)


def _axis_value(cell: CellResult, metric: str) -> Interval | str:
    is_label = metric.startswith(_LABEL)
    given = cell.labels.get(metric.removeprefix(_LABEL)) if is_label else None
    given = given if is_label else dataclasses.asdict(cell.conditions)[metric.removeprefix(_CONDITION)]
    try:
        return point(float(str(given)))
    except ValueError:
        return t("{metric} is no number", metric=metric)


def _value(name: str, asked: MeasuredInput, found: Sequence[_Found], unit: ReadUnit) -> Value:
    if asked.by is None:
        picked = _pick(asked.pick, found)
        rests = frozenset(Rest(name, one.name, False) for one in picked[1])
        return Quantity(scaled(picked[0], unit), PLAIN if asked.pick == "count" else unit.dimension, rests)
    groups: dict[str, list[_Found]] = {}
    for one in found:
        key = one.name if asked.by == BY_CELL else field_of(one.result, one.cell, asked.by)
        if key is not None:
            groups.setdefault(model_key(str(key)) if asked.by == "model" else str(key), []).append(one)
    entries = []
    for key, members in groups.items():
        interval, chosen = _pick(asked.pick, members)
        entries.append((key, scaled(interval, unit), frozenset(Rest(name, one.name, False) for one in chosen)))
    if not entries:
        cause = Cause(name, t("no cell states {field}", field=asked.by), True)
        return Lacking(unit.dimension, asked.by, frozenset({cause}))
    return Series(asked.by, tuple(entries), unit.dimension)


def _pick(pick: Pick, found: Sequence[_Found]) -> tuple[Interval, Sequence[_Found]]:
    ordered = sorted(found, key=lambda one: one.interval.mid)
    if pick == "count":
        return point(float(len(found))), found
    if pick in ("min", "max"):
        chosen = ordered[0 if pick == "min" else -1]
        return chosen.interval, [chosen]
    if pick == "median":
        return Interval(*(middle([one.interval[end] for one in found]) for end in range(3))), found
    if pick == "newest":
        newest = max(found, key=lambda one: one.cell.conditions.as_of or "")
        return newest.interval, [newest]
    return hull([one.interval for one in found]), found


def _source(one: _Found, unit: str, metric: str) -> Source:
    conditions, validity = one.cell.conditions, one.cell.validity
    labels = [] if conditions.weights == "pretrained" else [f"{conditions.weights} weights"]
    labels += [] if validity.verdict == "valid" else [f"suspect: {', '.join(code.name for code in validity.reasons)}"]
    return Source(
        one.name,
        one.name,
        one.interval,
        unit,
        by="tokbench",
        date=conditions.as_of,
        conditions=conditions,
        labels=tuple(labels),
        scale=_scale(one.result, one.cell),
        beneath=find_beneath(one.result, one.cell, metric),
    )


def _scale(result: Results, cell: CellResult) -> Scale:
    if cell.conditions.weights in ("replay", "scripted"):
        return "replayed"
    model, device = cell.record.model, result.run.device
    is_large = model is not None and (model.parameters or 0) >= AT_SCALE_PARAMETERS
    return "at-scale" if is_large and device is not None and device.kind not in ("cpu", "fake") else "small"
