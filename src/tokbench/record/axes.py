"""Finds a config's axes: lists, and ranges `a-b+step` or `a-b*factor`. Opens nothing by itself."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator

from tokbench.record.yaml_tree import Place, Plain, Tree, dotted

RUN_KEYS = ("name", "stop", "budget", "energy", "compare", "cost", "seed")
"""Keys that hold for the whole run: their values are never axes."""
NATIVE_LISTS: tuple[Place, ...] = (("compare", "published"), ("energy", "meters"), ("device",))
TEXTS: tuple[Place, ...] = (("workload", "text"), ("workload", "path"), ("model", "source"))
"""Free text: `1-2+3` is not a range there."""
MAX_CELLS = 5_000
_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18}|max)([+*])([0-9]{1,18})")


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
                if place or not (key in (*RUN_KEYS, "zip", "exclude") or (key == "labels" and isinstance(child, list))):
                    visit(child, (*place, key))
        elif isinstance(value, list) and place not in NATIVE_LISTS:
            if not value:
                message = "the list is empty: there is nothing to sweep"
                raise tree.fault(message, place, fix="give at least one value")
            opened = [item for part in value for item in _open_range(part, place, tree)]
            axes.append(Axis(place, tuple(opened)))
        elif (match := _match(value, place)) and match[2] == "max":
            _refuse_standstill(match, place, tree)
            axes.append(Axis(place, (), (int(match[1]), match[3], int(match[4]))))
        elif match:
            axes.append(Axis(place, tuple(_open_range(value, place, tree))))

    visit(tree.value, ())
    return axes


def _match(value: Plain, place: Place) -> re.Match[str] | None:
    is_text = place in TEXTS or place[:1] == ("labels",)
    return _RANGE.fullmatch(value) if isinstance(value, str) and not is_text else None


def _open_range(value: Plain, place: Place, tree: Tree) -> list[Plain]:
    match = _match(value, place)
    if match is None:
        return [value]
    if match[2] == "max":
        fix = f"write {dotted(place)}: {value} by itself"
        raise tree.fault("a range up to `max` stands alone, not in a list", place, fix=fix)
    _refuse_standstill(match, place, tree)
    counted = count_up(int(match[1]), match[3], int(match[4]), int(match[2]))
    values = list(itertools.islice(counted, MAX_CELLS + 1))
    if not values:
        fix = "write a-b+step or a-b*factor with a <= b"
        raise tree.fault(f"the range {value!r} holds no value", place, fix=fix)
    if len(values) > MAX_CELLS:
        message = f"the range {value!r} holds more than {MAX_CELLS} values"
        raise tree.fault(message, place, fix="take a larger step, or a factor as in 1-4096*2")
    return list(values)


def _refuse_standstill(match: re.Match[str], place: Place, tree: Tree) -> None:
    start, step = int(match[1]), int(match[4])
    if step < 1 or (match[3] == "*" and (step < 2 or start < 1)):
        fix = "use a step of 1 or more, or a factor of 2 or more from a start of 1 or more"
        raise tree.fault(f"the range {match[0]!r} never gets to its end", place, fix=fix)


def count_up(start: int, operator: str, step: int, end: int) -> Iterator[int]:
    """The values of a range, `end` included where the steps meet it."""
    value = start
    while value <= end:
        yield value
        following = value + step if operator == "+" else value * step
        if following <= value:
            return
        value = following
