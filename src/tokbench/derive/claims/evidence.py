"""All that a verdict may rest on, read once; and one input as it was resolved from it, with its sources.

It holds what others read and derived. It weighs nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from tokbench.derive.claims.input_rows import Input, StrictRow
from tokbench.derive.claims.intervals import Interval
from tokbench.derive.claims.rows import AWAITED
from tokbench.derive.claims.values import Value
from tokbench.derive.evaluate import Results
from tokbench.derive.published.facts import Fact, load_facts
from tokbench.derive.published.prices import RentPrice, load_prices
from tokbench.derive.published.rows import PublishedFigure, load_published
from tokbench.derive.published.sheet import Text, read_sheet
from tokbench.record.catalog import DeviceRow, ModelRow, load_devices, load_models
from tokbench.record.facts import Conditions

Scale = Literal["at-scale", "small", "replayed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that inputs are resolved from."""

    figures: tuple[PublishedFigure, ...]
    facts: Mapping[str, Fact]
    prices: Mapping[str, RentPrice]
    devices: Mapping[str, DeviceRow]
    models: Mapping[str, ModelRow]
    awaited: Mapping[str, str]
    """Metrics that nothing computes yet, and their units."""
    results: tuple[Results, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Repetition:
    """One repetition behind a measured number: where its events stand in the record."""

    trial_id: str
    worker_id: str
    value: float | None
    """In the metric's unit; None where the metric has one value for the whole cell."""
    events: tuple[tuple[str, int], ...]
    """Raw events by kind, and how many."""


@dataclasses.dataclass(frozen=True, slots=True)
class Beneath:
    """What a measured number was made of."""

    record: str
    """The file, as it was named."""
    cell_id: str
    metric: str
    formula: str
    repetitions: tuple[Repetition, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One row, cell or statement that an input took a number from."""

    key: str
    """Which independent source, cell or row it belongs to: the `source` of the values' rests."""
    name: str
    """The id of the row, or run and cell."""
    interval: Interval | None
    """In the units of `unit`; None for a row that gave a number only with others."""
    unit: str
    by: str | None = None
    """Who measured or stated it."""
    date: str | None = None
    read_on: str | None = None
    url: str | None = None
    title: str | None = None
    is_vendor: bool = False
    statistic: str | None = None
    conditions: Conditions | None = None
    labels: tuple[str, ...] = ()
    scale: Scale | None = None
    """Of a measurement; None of all else."""
    beneath: Beneath | None = None
    """Of a measurement, down to the record."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resolved:
    """One input with its value and where it came from."""

    name: str
    row: Input
    value: Value
    unit: str
    """The unit that a reader expects it in."""
    sources: tuple[Source, ...] = ()
    left_out: tuple[str, ...] = ()
    """What was meant and could not count, each with its reason."""


class AwaitedMetric(StrictRow):
    """A metric that claims rest on before anything computes it."""

    id: Text
    unit: Text
    what: Text


def load_evidence(results: Sequence[Results] = (), figures: Sequence[PublishedFigure] | None = None) -> Evidence:
    """Read every row that claims may rest on, beside the records; `figures` are those that were read already.

    Raises:
        DataError: a row is wrong.
    """
    return Evidence(
        figures=load_published() if figures is None else tuple(figures),
        facts={row.id: row for row in load_facts()},
        prices={row.name: row for row in load_prices()},
        devices={row.name: row for row in load_devices()},
        models={row.name: row for row in load_models()},
        awaited={row.id: row.unit for row in load_awaited()},
        results=tuple(results),
    )


def load_awaited() -> tuple[AwaitedMetric, ...]:
    """The metrics that claims wait for.

    Raises:
        DataError: a row is wrong.
    """
    return tuple(read_sheet(AWAITED, "awaited", AwaitedMetric))
