"""One record as two sides: `--by engine.mode=eager,compiled` sets cells of one run side by side. Joins nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from tokbench.derive.compare.sides import TOKBENCH, Side, Subject
from tokbench.derive.compare.thresholds import check_known
from tokbench.errors import SpecError

KEY = "--by"
EXAMPLE = "write e.g. --by engine.mode=eager,compiled"


def split_side(side: Side, by: str) -> tuple[Side, Side]:
    """The cells with the first value of an engine's key, and those with the second.

    Other keys than the engine's are part of what cells are joined on: for them two records are compared with --force.

    Raises:
        SpecError: not KEY=VALUE,VALUE, a key or a value that no cell has, or a side that is no record of tokbench.
    """
    key, equals, text = by.partition("=")
    values = text.split(",")
    if side.kind != TOKBENCH:
        raise SpecError(f"{side.path} is of {side.kind}: it has no engine", key=KEY, fix="name a run folder")
    if not equals or len(values) != 2 or values[0] == values[1]:
        raise SpecError(f"{by!r} is not a key and two values", key=KEY, fix=EXAMPLE)
    settings = [_flat(subject) for subject in side.cells]
    check_known(key, {name for found in settings for name in found}, KEY, "key of an engine in this run")
    known = {found[key] for found in settings if key in found}
    for value in values:
        check_known(value, known, KEY, f"cell with {key}")
    first, second = (_with(side, settings, key, value) for value in values)
    return first, second


def _flat(subject: Subject) -> dict[str, str]:
    plain = json.loads(subject.engine_settings)
    options = plain.pop("options")
    flat = {**plain, **{f"options.{name}": value for name, value in options.items()}}
    return {f"engine.{name}": str(value) for name, value in flat.items()}


def _with(side: Side, settings: Sequence[dict[str, str]], key: str, value: str) -> Side:
    """The cells of one value; partners are alike in all settings but the key."""
    cells = []
    for subject, found in zip(side.cells, settings, strict=True):
        if found.get(key) == value:
            rest = json.dumps({name: other for name, other in found.items() if name != key}, sort_keys=True)
            cells.append(dataclasses.replace(subject, engine_settings=rest))
    return Side(f"{side.path} with {key}={value}", side.kind, tuple(cells))
