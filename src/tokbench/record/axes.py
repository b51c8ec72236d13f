"""Finds a config's axes: lists, and ranges `a-b+step` or `a-b*factor`. Opens nothing by itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from tokbench.errors import SpecError
from tokbench.record.schema import dotted
from tokbench.record.yaml_tree import Place, Plain, Tree

RUN_KEYS = ("name", "stop", "budget", "energy", "compare", "seed")
"""Keys that hold for the whole run: their values are never axes."""
NATIVE_LISTS: tuple[Place, ...] = (("compare", "published"), ("energy", "meters"))
_RANGE = re.compile(r"^(\d+)-(\d+|max)([+*])(\d+)$")


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """One list or range of a config, and where it stands."""

    place: Place
    values: tuple[Plain, ...]
    growth: tuple[int, str, int] | None = None
    """Start, operator and step of a range whose end is `max`."""


def find_axes(tree: Tree) -> list[Axis]:
    """Every axis of a config, in the order of the file.

    Raises:
        SpecError: an empty list or range.
    """
    axes: list[Axis] = []

    def visit(value: Plain, place: Place) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                if place or key not in (*RUN_KEYS, "zip", "exclude", "labels"):
                    visit(child, (*place, key))
        elif isinstance(value, list) and place not in NATIVE_LISTS:
            if not value:
                raise SpecError(
                    "the list is empty: there is nothing to sweep",
                    file=tree.file,
                    line=tree.line_of(place),
                    key=dotted(place),
                    fix="give at least one value",
                )
            opened = [item for part in value for item in _open_range(part, place, tree)]
            axes.append(Axis(place, tuple(opened)))
        elif isinstance(value, str) and (match := _RANGE.match(value)) and match[2] == "max":
            axes.append(Axis(place, (), (int(match[1]), match[3], int(match[4]))))
        elif isinstance(value, str) and _RANGE.match(value):
            axes.append(Axis(place, tuple(_open_range(value, place, tree))))

    visit(tree.value, ())
    return axes


def _open_range(value: Plain, place: Place, tree: Tree) -> list[Plain]:
    match = _RANGE.match(value) if isinstance(value, str) else None
    if match is None:
        return [value]
    if match[2] == "max":
        raise SpecError(
            "a range up to `max` stands alone, not in a list",
            file=tree.file,
            line=tree.line_of(place),
            key=dotted(place),
        )
    values = list(count_up(int(match[1]), match[3], int(match[4]), int(match[2])))
    if not values:
        raise SpecError(
            f"the range {value!r} holds no value",
            file=tree.file,
            line=tree.line_of(place),
            key=dotted(place),
            fix="write a-b+step or a-b*factor with a <= b",
        )
    return list(values)


def count_up(start: int, operator: str, step: int, end: int) -> Iterator[int]:
    """The values of a range, `end` included where the steps meet it."""
    value = start
    while value <= end:
        yield value
        following = value + step if operator == "+" else value * step
        if following <= value:
            return
        value = following
