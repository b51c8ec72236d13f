"""`select:` of an input: which published rows or cells are meant. It compares names and numbers and judges none."""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import fnmatch
from collections.abc import Collection, Mapping
from typing import Final, TypeAlias

from tokbench.derive.claims.values import RuleError, unknown
from tokbench.derive.published.sheet import first_day
from tokbench.derive.published.systems import model_key

Scalar: TypeAlias = str | int | float | bool
Asked: TypeAlias = Scalar | list[Scalar] | dict[str, Scalar | list[Scalar]]

_FORMS: Final = "a value, a list, {min: …, max: …}, {not: […]} or, for a date, {since: …, until: …}"


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One condition of a selection, on one field."""

    field: str
    one_of: tuple[Scalar, ...] = ()
    none_of: tuple[Scalar, ...] = ()
    low: float | None = None
    high: float | None = None
    since: datetime.date | None = None
    until: datetime.date | None = None

    def accepts(self, value: object) -> bool:
        """Whether a row's value is meant; one that is not stated never is, unless something is only excluded."""
        if self.none_of:
            return value is None or not any(self._is(value, item) for item in self.none_of)
        if value is None:
            return False
        if self.since is not None or self.until is not None:
            return self._lies_within(str(value))
        if self.low is not None or self.high is not None:
            return isinstance(value, int | float) and self._is_between(float(value))
        return any(self._is(value, item) for item in self.one_of)

    def _is(self, value: object, item: Scalar) -> bool:
        if self.field == "model":
            return fnmatch.fnmatchcase(model_key(str(value)), model_key(str(item)))
        return value == item and isinstance(value, bool) == isinstance(item, bool)

    def _is_between(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def _lies_within(self, date: str) -> bool:
        """Whether every day that the date can mean lies within; so a bare year never satisfies a month."""
        is_late = self.since is None or first_day(date) >= self.since
        return is_late and (self.until is None or last_day(date) <= self.until)


def last_day(date: str) -> datetime.date:
    """The latest day that a date, possibly only a month or a year, can mean."""
    first = first_day(date)
    if len(date) == len("YYYY"):
        return first.replace(month=12, day=31)
    if len(date) == len("YYYY-MM"):
        return first.replace(day=calendar.monthrange(first.year, first.month)[1])
    return first


def read_selection(select: Mapping[str, Asked], fields: Collection[str]) -> tuple[Wanted, ...]:
    """Every condition of a selection.

    Raises:
        RuleError: an unknown field, or a condition of no known form.
    """
    for field in select:
        if field not in fields and not field.startswith("label."):
            raise unknown("field of select", field, fields)
    return tuple(_read(field, asked) for field, asked in select.items())


def _read(field: str, asked: Asked) -> Wanted:
    if not isinstance(asked, dict):
        return Wanted(field, one_of=tuple(asked) if isinstance(asked, list) else (asked,))
    keys, fault = set(asked), RuleError(f"select.{field}: write {_FORMS}")
    if keys == {"not"}:
        excluded = asked["not"]
        return Wanted(field, none_of=tuple(excluded) if isinstance(excluded, list) else (excluded,))
    if keys and keys <= {"min", "max"}:
        ends = [asked.get("min"), asked.get("max")]
        numbers = [float(end) for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if len(numbers) != len(keys):
            raise fault
        return Wanted(field, low=numbers[0] if "min" in keys else None, high=numbers[-1] if "max" in keys else None)
    if keys and keys <= {"since", "until"}:
        try:
            since = first_day(str(asked["since"])) if "since" in keys else None
            until = last_day(str(asked["until"])) if "until" in keys else None
        except ValueError:
            raise fault from None
        return Wanted(field, since=since, until=until)
    raise fault
