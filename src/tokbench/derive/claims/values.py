"""What an expression works on: numbers with bounds and a dimension, series of them by key, and truths of three kinds.

Every value remembers what it rests on. A value that cannot be had keeps its dimension, so that units are checked even
where evidence is missing.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from tokbench.derive.claims.dimensions import PLAIN, Dimension
from tokbench.derive.claims.intervals import Interval, UndefinedError, point


class RuleError(ValueError):
    """An expression that makes no sense, whatever the evidence: units that do not agree, a name that is not there."""


def unknown(what: str, name: str, known: Iterable[str]) -> RuleError:
    """The error for a name that is not there, with the nearest that are."""
    near = difflib.get_close_matches(name, tuple(known), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return RuleError(f"unknown {what} {name!r}{hint}")


class Rest(NamedTuple):
    """One piece of evidence that a value rests on."""

    input: str
    source: str
    """An independent source, a cell, or a row."""
    is_counted: bool
    """Whether the number of independent sources decides how firm a verdict on it may be."""


class Cause(NamedTuple):
    """Why a value cannot be had."""

    input: str | None
    reason: str
    can_be_had: bool


class State(enum.Enum):
    """Whether a comparison holds over the whole interval."""

    TRUE = "true"
    FALSE = "false"
    UNDECIDED = "undecided"


Rests: TypeAlias = frozenset[Rest]
Causes: TypeAlias = frozenset[Cause]
Bounds: TypeAlias = Callable[..., Interval]


@dataclasses.dataclass(frozen=True, slots=True)
class Quantity:
    """One number, in base units of its dimension."""

    interval: Interval
    dimension: Dimension
    rests: Rests = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """Numbers of one dimension, each under a key of `axis`."""

    axis: str
    entries: tuple[tuple[str, Interval, Rests], ...]
    dimension: Dimension


@dataclasses.dataclass(frozen=True, slots=True)
class Lacking:
    """A number, or with an `axis` a series, that cannot be had."""

    dimension: Dimension
    axis: str | None
    causes: Causes


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """What a comparison gives; undecided for want of a value (`causes`) or because an interval straddles."""

    state: State
    rests: Rests = frozenset()
    causes: Causes = frozenset()
    straddles: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Truths:
    """One truth per key of `axis`; none and `causes` where the series cannot be had."""

    axis: str
    entries: tuple[tuple[str, Truth], ...]
    causes: Causes = frozenset()


Number: TypeAlias = Quantity | Series | Lacking
Value: TypeAlias = Number | Truth | Truths


def plain(value: float) -> Quantity:
    """A number without unit or width."""
    return Quantity(point(value), PLAIN)


def combine(function: Bounds, dimension: Dimension, *operands: Number) -> Number:
    """The function of the operands' intervals: of single numbers, or entry by entry of series that share keys."""
    axes = {item.axis for item in operands if isinstance(item, Series | Lacking) and item.axis is not None}
    if len(axes) > 1:
        raise RuleError(f"series by {' and by '.join(sorted(axes))} cannot be set side by side")
    axis = next(iter(axes), None)
    causes = frozenset[Cause]().union(*(item.causes for item in operands if isinstance(item, Lacking)))
    if causes:
        return Lacking(dimension, axis, causes)
    if axis is None:
        quantities = [item for item in operands if isinstance(item, Quantity)]
        try:
            interval = function(*(item.interval for item in quantities))
        except UndefinedError as error:
            return Lacking(dimension, None, frozenset({Cause(None, str(error), False)}))
        return Quantity(interval, dimension, _union(item.rests for item in quantities))
    return _combine_series(function, dimension, axis, operands)


def shared_keys(*series: Series) -> tuple[str, ...]:
    """The keys that all have, in the order of the first."""
    others = [{key for key, _, _ in item.entries} for item in series[1:]]
    return tuple(key for key, _, _ in series[0].entries if all(key in keys for keys in others))


def _combine_series(function: Bounds, dimension: Dimension, axis: str, operands: Sequence[Number]) -> Number:
    series = [item for item in operands if isinstance(item, Series)]
    entries = []
    for key in shared_keys(*series):
        picked = [_at(item, key) for item in operands]
        try:
            entries.append((key, function(*(interval for interval, _ in picked)), _union(rests for _, rests in picked)))
        except UndefinedError as error:
            return Lacking(dimension, axis, frozenset({Cause(None, f"{axis} {key}: {error}", False)}))
    if not entries:
        return Lacking(dimension, axis, frozenset({Cause(None, f"no {axis} stands on both sides", False)}))
    return Series(axis, tuple(entries), dimension)


def _at(item: Number, key: str) -> tuple[Interval, Rests]:
    if isinstance(item, Series):
        return next((interval, rests) for own, interval, rests in item.entries if own == key)
    if isinstance(item, Quantity):
        return item.interval, item.rests
    raise TypeError("a value that is lacking has no entries")


def _union(rests: Iterable[Rests]) -> Rests:
    return frozenset[Rest]().union(*rests)
