"""One YAML file of rows from outside, read strictly: a wrong row is named by its file, its id and its field.

It knows no row in particular, and takes no number on trust: every row says where and when it was read.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from tokbench.errors import DataError, SpecError
from tokbench.record.catalog import DATA_DIR
from tokbench.record.facts import Frozen
from tokbench.record.yaml_tree import Plain, parse_tree

RowT = TypeVar("RowT", bound=Frozen)

_URL: Final = r"^https?://[^\s/]\S*$"
_SLUG: Final = r"^[a-z0-9][a-z0-9-]*$"
_DAY: Final = r"^\d{4}-\d{2}-\d{2}$"
_FIXES: Final[Mapping[str, str]] = {
    _URL: "write the whole address, e.g. https://example.com/page",
    _SLUG: "lower case letters, digits and hyphens, e.g. together-ai",
    _DAY: "write a day, e.g. 2026-11-22",
    "missing": "add the field to the row",
    "string_type": 'write text; a year or a number as text stands in quotes, e.g. "2025"',
    "float_type": "write a plain number, without quotes and thousands separators",
    "int_type": "write a whole number, without quotes and thousands separators",
    "bool_type": "write true or false, without quotes",
    "tuple_type": "write a list, e.g. [first-id, second-id]",
    "greater_than": "leave the field out where the source does not state it",
    "string_too_short": "leave the field out where the source does not state it",
    "string_pattern_mismatch": "lower case letters, digits, hyphens and dots",
}
"""What to do about a fault that pydantic finds, by its pattern or else by its kind."""


class FieldError(ValueError):
    """What is wrong with one field of a row in the light of another."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def first_day(date: str) -> datetime.date:
    """The earliest day that a date, possibly only a month or a year, can mean.

    Raises:
        ValueError: it is no such date.
    """
    if re.fullmatch(r"\d{4}(-\d{2}){0,2}", date) is None:
        raise ValueError(f"{date!r} is not YYYY, YYYY-MM or YYYY-MM-DD")
    return datetime.date.fromisoformat(date + "-01-01"[len(date) - 4 :])


def _check_date(date: str) -> str:
    first_day(date)
    return date


Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Url = Annotated[str, Field(pattern=_URL)]
Text = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=_SLUG)]
Date = Annotated[str, AfterValidator(_check_date)]
Day = Annotated[str, Field(pattern=_DAY), AfterValidator(_check_date)]


def read_sheet(file: Path, key: str, row_type: type[RowT]) -> Iterator[RowT]:
    """Every row of the list that stands under `key`, the one key of the file.

    Raises:
        DataError: the file cannot be read, or one of its rows is wrong.
    """
    if file.exists() and not file.is_file():
        raise DataError("is no file", file=str(file), fix="remove it, or give it another name")  # a pipe would hang
    try:
        is_packaged = DATA_DIR in file.parents  # libyaml dies of a user's file that nests 300,000 deep
        tree = parse_tree(file.read_text(encoding="utf-8"), file.name, is_packaged=is_packaged)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=str(file), fix="give a readable file of UTF-8 text") from None
    except SpecError as error:
        raise DataError(f"line {error.line}: {error.message}", file=str(file), field=error.key, fix=error.fix) from None
    rows = tree.value.get(key) if isinstance(tree.value, dict) and len(tree.value) == 1 else None
    if not isinstance(rows, list):
        fix = f"begin the file with `{key}:` and write its rows below, each with a hyphen before it"
        raise DataError(f"one key `{key}` with a list of rows is expected", file=str(file), fix=fix)
    for number, row in enumerate(rows, start=1):
        yield _read_row(row, number, str(file), row_type)


def _read_row(row: Plain, number: int, file: str, row_type: type[RowT]) -> RowT:
    try:
        return row_type.model_validate(row)
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        message = first["msg"].removeprefix("Value error, ") + (f" (and {count - 1} more)" if count > 1 else "")
        cause = first.get("ctx", {}).get("error")
        path = [*map(str, first["loc"]), *([cause.field] if isinstance(cause, FieldError) else [])]
        field, fix = ".".join(path) or None, _say_fix(first, row_type)
        raise DataError(message, file=file, row=_name_row(row, number), field=field, fix=fix) from None


def _say_fix(fault: ErrorDetails, row_type: type[RowT]) -> str | None:
    """What to do; None where the message says it already, as with a list of the words that may stand there."""
    kind, place = fault["type"], fault["loc"]
    if kind == "extra_forbidden" and len(place) == 1:
        near = difflib.get_close_matches(str(place[0]), row_type.model_fields, n=1)
        return f"did you mean {near[0]}?" if near else f"remove it; known: {', '.join(row_type.model_fields)}"
    return _FIXES.get(str(fault.get("ctx", {}).get("pattern")), _FIXES.get(kind))


def _name_row(row: Plain, number: int) -> str:
    """What a reader can search the file for."""
    names = (row.get(key) for key in ("id", "device", "instance")) if isinstance(row, dict) else ()
    return str(next((name for name in names if name), f"number {number}"))
