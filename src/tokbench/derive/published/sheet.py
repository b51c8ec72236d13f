"""One YAML file of rows from outside, read strictly: a wrong row is named by its file, its id and its field.

It knows no row in particular, and takes no number on trust: every row says where and when it was read.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from tokbench.errors import DataError, SpecError
from tokbench.record.catalog import DATA_DIR
from tokbench.record.facts import Frozen
from tokbench.record.yaml_tree import Plain, parse_tree

RowT = TypeVar("RowT", bound=Frozen)


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
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]
Text = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Date = Annotated[str, AfterValidator(_check_date)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_check_date)]


def read_sheet(file: Path, key: str, row_type: type[RowT]) -> Iterator[RowT]:
    """Every row of the list that stands under `key`, the one key of the file.

    Raises:
        DataError: the file cannot be read, or one of its rows is wrong.
    """
    try:
        is_packaged = DATA_DIR in file.parents
        tree = parse_tree(file.read_text(encoding="utf-8"), file.name, is_packaged=is_packaged)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=str(file)) from None
    except SpecError as error:
        raise DataError(f"line {error.line}: {error.message}", file=str(file), field=error.key, fix=error.fix) from None
    rows = tree.value.get(key) if isinstance(tree.value, dict) and len(tree.value) == 1 else None
    if not isinstance(rows, list):
        raise DataError(f"one key `{key}` with a list of rows is expected", file=str(file))
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
        raise DataError(message, file=file, row=_name_row(row, number), field=".".join(path) or None) from None


def _name_row(row: Plain, number: int) -> str:
    """What a reader can search the file for."""
    names = (row.get(key) for key in ("id", "device", "instance")) if isinstance(row, dict) else ()
    return str(next((name for name in names if name), f"number {number}"))
