"""Fields of tables as sections need them: a value with its dash and reason, a fact, a cell's names."""

from __future__ import annotations

import dataclasses

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import DASH, Cell, Column
from tokbench.derive.words import join, say, t
from tokbench.stats import Estimate
from tokbench.units import format_number, format_value, unit_of


def value_field(value: Estimate | Missing | None, with_interval: bool = False) -> Cell:
    """A value in its column: without the unit where the column's head names it; a dash with its reason."""
    if not isinstance(value, Estimate):
        return Cell(DASH, note=say(value.reason) if value is not None else t("not a metric of this version"))
    unit = unit_of(value.unit)
    text = format_value(value.value, unit) if unit.is_scaled else format_number(value.value)
    if not with_interval:
        return Cell(text, sort=value.value)
    if value.low is None or value.high is None:
        return Cell(t("{text}, n {n}, no interval", text=text, n=value.n), sort=value.value)
    digits = wording.digits_of(value)
    text = format_value(value.value, unit, digits) if unit.is_scaled else format_number(value.value, digits)
    ends = [format_value(end, unit, digits) for end in (value.low, value.high)]
    low, high = ends if unit.is_scaled else [format_number(end, digits) for end in (value.low, value.high)]
    return Cell(t("{text} ({low} – {high}), n {n}", text=text, low=low, high=high, n=value.n), sort=value.value)


def metric_field(cell: CellResult, name: str, with_interval: bool = False) -> Cell:
    """A metric of a cell."""
    return value_field(cell.metrics.get(name), with_interval)


def share_field(cell: CellResult, name: str) -> Cell:
    """A ratio as a percentage."""
    value = cell.metrics.get(name)
    if not isinstance(value, Estimate):
        return value_field(value)
    return Cell(f"{format_number(100 * value.value)} %", sort=value.value)


def metric_column(name: str, title: str | None = None, with_interval: bool = False) -> Column:
    """The column of a metric, its unit from the catalog."""
    metric = catalog()[name]
    unit = "" if metric.unit.is_scaled else metric.unit.symbol
    parts = [part for part in (unit, t("95 % interval, n") if with_interval else "") if part]
    return Column(title or say(metric.title), "; ".join(parts), "right")


def count_field(value: int | None) -> Cell:
    """A count, or a dash where it is not fixed."""
    return Cell(DASH, note=t("not fixed by the config")) if value is None else Cell(f"{value:,}", sort=float(value))


def fact_field(value: object) -> Cell:
    """A fact as read; unknown where it could not be read."""
    if value is None:
        return Cell(t("unknown"))
    if isinstance(value, bool):
        return Cell(t("yes") if value else t("no"))
    return Cell(str(value))


def load_field(cell: CellResult) -> Cell:
    """Static batch or concurrency of a cell."""
    conditions = cell.conditions
    if conditions.static_batch is not None:
        return count_field(conditions.static_batch)
    return Cell(wording.say_load(cell), sort=_as_sort(conditions.concurrency))


def in_run(run_name: str, text: str, several: bool) -> str:
    """A sentence or a title with the run that it is of, where there are several."""
    return t("{run}: {text}", run=run_name, text=text) if several else text


def _as_sort(value: int | None) -> float | None:
    return None if value is None else float(value)


def cell_columns() -> tuple[Column, ...]:
    """The columns that tell a cell from its neighbours, above `cell_fields`."""
    return (
        Column(t("Model")),
        Column(t("Mode")),
        Column(t("Static batch"), "", "right"),
        Column(t("Prompt"), "tokens", "right"),
    )


def cell_fields(cell: CellResult, with_run: bool) -> tuple[Cell, ...]:
    """What tells a cell from its neighbours, under cell_columns(): model with label, engine and mode, load, prompt."""
    name = join((wording.say_model(cell), str(cell.conditions.precision)))
    mode = wording.say_engine(cell)
    prompt, task = count_field(cell.conditions.prompt_tokens), cell.record.spec.workload.task
    if task is not None:
        prompt = dataclasses.replace(prompt, text=t("{prompt} of {task}", prompt=prompt.text, task=task))
    return Cell(in_run(cell.run_name, name, with_run)), Cell(mode), load_field(cell), prompt
