"""Facts from outside that claims rest on: rows of `data/facts.yaml`, each a statement with its numbers and its source.

A fact is no figure of inference speed, energy or price of tokens: those are published figures, with conditions.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tokbench.derive.published.sheet import Date, Day, FieldError, Slug, Text, Url, first_day, read_sheet
from tokbench.errors import DataError
from tokbench.record.catalog import DATA_DIR
from tokbench.record.facts import Frozen

FACTS: Final = DATA_DIR / "facts.yaml"

Number = Annotated[float, Field(allow_inf_nan=False)]
PartName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


@dataclasses.dataclass(frozen=True, slots=True)
class Amount:
    """One number of a fact, or a range; `low` and `high` are equal where a single number is stated."""

    low: float
    value: float | None  # None: the source gives a range alone
    high: float
    unit: str


def _freeze_range(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


NumberOrRange = Annotated[Number | tuple[Number, Number], BeforeValidator(_freeze_range)]


class Part(Frozen):
    """One named number of a fact that states several."""

    model_config = ConfigDict(strict=True)

    value: NumberOrRange
    unit: Text
    derived: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Part:
        _check_range(self.value)
        return self


class Fact(Frozen):
    """One statement, in our own words, and the numbers in it."""

    model_config = ConfigDict(strict=True)

    id: Slug
    topic: Slug
    statement: Text
    value: bool | NumberOrRange | None = None
    """True or false where the statement is no number."""
    unit: Text | None = None
    parts: dict[PartName, Part] = Field(default_factory=dict)
    derived: bool = False  # our own arithmetic on what the source states
    is_primary: bool
    published: Date
    read_on: Day
    source_url: Url
    source_title: Text
    notes: Text | None = None

    @model_validator(mode="after")
    def _check_fields_together(self) -> Fact:
        if (self.value is None or isinstance(self.value, bool)) != (self.unit is None):
            raise FieldError("unit", "a number and its unit go together; `1` is the unit of a bare number")
        if self.value is not None and self.parts:
            raise FieldError("parts", "a fact has one value or named parts, not both")
        if self.value is not None:
            _check_range(self.value)
        if first_day(self.published) > first_day(self.read_on):
            raise FieldError("published", f"later than it was read ({self.read_on})")
        return self

    def amount(self, part: str | None = None) -> Amount:
        """The number of the fact, or of one of its parts.

        Raises:
            DataError: the fact states no such number.
        """
        if part is None and self.value is not None and self.unit is not None:
            return _amount(self.value, self.unit)
        if part is not None and part in self.parts:
            return _amount(self.parts[part].value, self.parts[part].unit)
        known = f"its parts: {', '.join(self.parts)}" if self.parts else "it has no parts"
        what = f"it has no part {part!r}" if part is not None else "it states no single number"
        raise DataError(what, file=FACTS.name, row=self.id, field=part, fix=known)


def load_facts(path: Path = FACTS) -> tuple[Fact, ...]:
    """Every row.

    Raises:
        DataError: the file, a row or a field is wrong, or an id stands twice.
    """
    found: dict[str, Fact] = {}
    for fact in read_sheet(path, "facts", Fact):
        if fact.id in found:
            raise DataError("stands twice", file=str(path), row=fact.id, field="id")
        found[fact.id] = fact
    return tuple(found.values())


def find_fact(name: str, path: Path = FACTS) -> Fact:
    """The fact of that id.

    Raises:
        DataError: no row has it; the nearest are named.
    """
    by_id = {fact.id: fact for fact in load_facts(path)}
    if name in by_id:
        return by_id[name]
    near = ", ".join(difflib.get_close_matches(name, by_id, n=3, cutoff=0.4))
    raise DataError("no such fact", file=path.name, row=name, field="id", fix=f"nearest: {near}" if near else None)


def amount_of(name: str, path: Path = FACTS) -> Amount:
    """The number that `ID` or `ID.part` names.

    Raises:
        DataError: there is no such fact, part or number.
    """
    row, _, part = name.partition(".")
    return find_fact(row, path).amount(part or None)


def _amount(value: float | tuple[float, float], unit: str) -> Amount:
    if isinstance(value, tuple):
        return Amount(value[0], None, value[1], unit)
    return Amount(value, value, value, unit)


def _check_range(value: float | tuple[float, float]) -> None:
    if isinstance(value, tuple) and value[0] >= value[1]:
        raise FieldError("value", "a range is written [low, high]")
