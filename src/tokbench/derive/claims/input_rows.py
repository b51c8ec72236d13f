"""The parts of a claim's row that its rules rest on: numbers, and inputs by name. They say where a value comes from.

No row resolves anything: `resolving` does, from published rows, facts, devices, models and records.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tokbench.derive.claims.selecting import Asked
from tokbench.derive.published.sheet import FieldError, Text, Url
from tokbench.record.facts import Frozen

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Pick = Literal["range", "only", "min", "max", "median", "newest", "count"]


def freeze(value: object) -> object:
    """A list as a tuple: YAML has no other way to write one."""
    return tuple(value) if isinstance(value, list) else value


class StrictRow(Frozen):
    """A row whose fields are taken as they are written, without conversion."""

    model_config = ConfigDict(strict=True)


class Bilingual(StrictRow):
    """One text of ours in both languages."""

    en: Text
    zh: Text


class Band(StrictRow):
    """A number with a unit, or the band that it lies in."""

    value: Number | None = None
    low: Number | None = None
    mid: Number | None = None
    high: Number | None = None
    unit: str = "1"

    @model_validator(mode="after")
    def _check_form(self) -> Band:
        ends = (self.low, self.mid, self.high)
        if (self.value is None) == (None in ends) or (self.value is not None and ends != (None, None, None)):
            raise FieldError("value", "give either `value`, or `low`, `mid` and `high`")
        ordered = [end for end in ends if end is not None]
        if ordered != sorted(ordered):
            raise FieldError("low", "low <= mid <= high is broken")
        return self


class AssumedNumber(Band):
    """An assumption or a definition of ours, with its reason; what somebody published is a fact instead."""

    why: Text
    source_url: Url | None = None


class StatedQuantity(Band):
    """A number that the claim states; `words` where it gives none, and then no rule can use it."""

    words: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_words(cls, given: object) -> object:
        if isinstance(given, dict) and "words" in given and len(given) == 1:
            return {**given, "value": 0.0}
        return given


class ModelQuantity(StrictRow):
    """A closed form of one model; a list of rows or contexts makes a series."""

    name: Text
    quantity: Text
    dtype: Text | None = None
    rows: int | Annotated[tuple[int, ...], BeforeValidator(freeze)] = 1
    context_tokens: int | Annotated[tuple[int, ...], BeforeValidator(freeze)] = 0


class PublishedInput(StrictRow):
    """Which published rows, and what is made of them."""

    select: dict[str, Asked]
    pick: Pick = "range"
    by: Text | None = None


class MeasuredInput(StrictRow):
    """Which cells of the records, which metric, and what is made of them."""

    select: dict[str, Asked]
    metric: Text
    pick: Pick = "range"
    by: Text | None = None


KINDS: Final = ("quantity", "number", "fact", "device", "price", "model", "published", "measured")


class Input(StrictRow):
    """One named input: exactly one of KINDS."""

    quantity: Name | None = None
    number: AssumedNumber | None = None
    fact: Text | Annotated[tuple[Text, ...], BeforeValidator(freeze)] | None = None
    device: Text | None = None
    price: Text | None = None
    model: Text | ModelQuantity | None = None
    published: PublishedInput | None = None
    measured: MeasuredInput | None = None
    unit: Text | None = None
    decides: bool = True
    if_missing: Literal["open", "untested"] | None = None
    why: Text | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Input:
        given = [name for name, value in self._by_kind().items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"an input is exactly one of {', '.join(KINDS)}, not {given or 'none'}")
        if self.unit is not None and self.fact is None:
            raise FieldError("unit", "only a fact whose row has no readable unit needs one")
        return self

    @property
    def kind(self) -> str:
        """The one of KINDS that it is."""
        return next(name for name, value in self._by_kind().items() if value is not None)

    @property
    def can_be_had(self) -> bool:
        """Whether a gap is one that the user can close: then the claim is untested, else open."""
        return (self.if_missing or ("untested" if self.measured is not None else "open")) == "untested"

    def _by_kind(self) -> dict[str, object]:
        return {
            "quantity": self.quantity,
            "number": self.number,
            "fact": self.fact,
            "device": self.device,
            "price": self.price,
            "model": self.model,
            "published": self.published,
            "measured": self.measured,
        }
