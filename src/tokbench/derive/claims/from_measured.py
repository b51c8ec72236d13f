"""Inputs that rest on cells of records: which cells are meant, and what their metric says with its interval.

An invalid cell never counts, nor a number without an interval; both are named among what was left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.claims.beneath import find_beneath
from tokbench.derive.claims.dimensions import PLAIN, ReadUnit
from tokbench.derive.claims.evidence import Evidence, Resolved, Source
from tokbench.derive.claims.followed import (
    BY_CELL,
    CONDITION,
    FIELDS,
    LABEL,
    Follow,
    field_of,
    meant_by,
    of_one_device,
    scale_of,
)
from tokbench.derive.claims.from_rows import scaled, unit_or_fault
from tokbench.derive.claims.input_rows import Input, MeasuredInput, Pick
from tokbench.derive.claims.intervals import Interval, hull, middle, point
from tokbench.derive.claims.names import measured_metric, measured_unit
from tokbench.derive.claims.values import Cause, Lacking, Quantity, Rest, RuleError, Series, Value
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published.systems import model_key
from tokbench.derive.words import t


class _Found(NamedTuple):
    """One cell that is meant, with its value in the unit of the metric."""

    result: Results
    cell: CellResult
    interval: Interval

    @property
    def name(self) -> str:
        return f"{self.result.name} {self.cell.cell_id}"


def resolve_measured(name: str, row: Input, evidence: Evidence, follow: Follow) -> Resolved:
    """The value that the selected cells give.

    Raises:
        RuleError: a selection, a metric or a pick that makes no sense.
    """
    asked = row.measured
    if asked is None:
        raise RuleError("not a measured input")
    if "weights" not in asked.select:
        raise RuleError("select needs `weights`: whether random weights may speak, e.g. [pretrained, random]")
    if asked.by is not None and asked.by not in {*FIELDS, BY_CELL} and not asked.by.startswith(LABEL):
        raise RuleError(f"by: {asked.by!r} is neither `cell`, nor a condition, nor label.NAME")
    metric, unit_text = _metric(asked, evidence)
    unit = unit_or_fault("1" if asked.pick == "count" else unit_text)
    found, left_out = _select(asked, metric, evidence, follow)
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
    if asked.metric.startswith((CONDITION, LABEL)):
        field = asked.metric.removeprefix(CONDITION)
        if asked.metric.startswith(CONDITION) and field not in FIELDS:
            raise RuleError(f"unknown condition {field!r}")
        return asked.metric, "1"
    metric = measured_metric(asked.metric, evidence.awaited)
    return metric, measured_unit(metric, evidence.awaited)


def _select(
    asked: MeasuredInput, metric: str, evidence: Evidence, follow: Follow
) -> tuple[list[_Found] | str, tuple[str, ...]]:
    """The cells that count, or why there are none; and those that were meant and do not count."""
    found: list[_Found] = []
    meant, left_out = of_one_device(asked, meant_by(asked, evidence), follow)
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


def _of_one_device(asked: MeasuredInput, found: list[_Found]) -> list[_Found] | str:
    """A series of times, bytes or joules is of one device: along cells of two it would tell the devices apart."""
    devices = sorted({one.cell.conditions.hardware for one in found if one.cell.conditions.hardware is not None})
    if asked.by in (None, "run", "hardware", BY_CELL) or len(devices) < 2:
        return found
    return t("cells of several devices ({devices}) are no one series: give records of one", devices=", ".join(devices))


def _interval(cell: CellResult, metric: str) -> Interval | str:
    """The metric's interval in a cell, or why it does not count."""
    if cell.status != "ok":
        return cell.status_reason or cell.status
    if cell.validity.verdict == "invalid":
        return t("invalid: {codes}", codes=", ".join(code.name for code in cell.validity.reasons))
    return _axis_value(cell, metric) if metric.startswith((CONDITION, LABEL)) else _metric_value(cell, metric)


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
    is_label = metric.startswith(LABEL)
    given = cell.labels.get(metric.removeprefix(LABEL)) if is_label else None
    given = given if is_label else dataclasses.asdict(cell.conditions)[metric.removeprefix(CONDITION)]
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
        scale=scale_of(one.result, one.cell),
        beneath=find_beneath(one.result, one.cell, metric),
    )
