"""When our joules may stand beside a vendor's: with a scope on both sides, and a sourced band where the scopes differ.

A board's joules are never divided bare by a system's. It measures nothing, and fills in no scope that a source leaves
out.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokbench.errors import DataError
from tokbench.record.catalog import DATA_DIR, find_device
from tokbench.units import format_number

Scope = Literal["board", "module", "package", "dram", "node", "wall", "facility", "script"]
"""As in `MeterOpened`, and `facility`: with the building's power and cooling, as vendors of systems count."""
ROWS = DATA_DIR / "host_overhead.yaml"
MIN_BOARD_LOAD = 0.5
"""Share of their limit that boards have to draw for a band over rated boards to hold: a host draws its share whatever
the boards do. Our choice."""


class OverheadRow(BaseModel):
    """One source's word on what a whole takes over its boards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    device: str
    boards: Annotated[int, Field(gt=0)]
    whole_w: Annotated[float, Field(gt=0)]
    reaches: Literal["wall", "facility"]
    basis: str
    source_url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    source_title: str
    is_primary: bool
    read_on: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


@dataclasses.dataclass(frozen=True, slots=True)
class Band:
    """Lower and upper factor from a board to the whole, over every row that reaches so far."""

    low: float
    high: float
    reaches: Literal["wall", "facility"]
    rows: tuple[OverheadRow, ...]

    def say(self) -> str:
        """The band with its sources."""
        ends = f"{format_number(self.low)} to {format_number(self.high)}"
        return f"{ends} times the boards ({'; '.join(dict.fromkeys(row.source_title for row in self.rows))})"


@dataclasses.dataclass(frozen=True, slots=True)
class StatedJoules:
    """Joules per output token with what they cover; None where the source does not say."""

    joules: float
    scope: Scope | None
    board_load: float | None = None
    """Mean power over power limit of the boards, where they were metered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Beside:
    """Theirs over ours as a range; `said` names the scopes and the band that lie between the two."""

    low: float
    high: float
    said: str


@dataclasses.dataclass(frozen=True, slots=True)
class NotComparable:
    """No ratio, and why."""

    reason: str


@functools.cache
def load_overheads(path: Path = ROWS) -> tuple[OverheadRow, ...]:
    """Every row of data/host_overhead.yaml.

    Raises:
        DataError: the file or a row is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return tuple(OverheadRow.model_validate(row) for row in content["rows"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read: {error}", file=path.name) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DataError(first["msg"], file=path.name, field=".".join(map(str, first["loc"]))) from None


def find_band(device: str | None, reaches: Literal["wall", "facility"]) -> Band | None:
    """The band of a device that one of the rows is about; None for any other: a desktop is no data-centre node.

    The ends are over all rows that reach so far, of whichever device: one row alone would be a band of no width.
    """
    rows = [row for row in load_overheads() if row.reaches == reaches]
    known = find_device(device) if device is not None else None
    if known is None or known.name not in {row.device for row in load_overheads()}:
        return None
    factors = [_factor(row) for row in rows]
    return Band(min(factors), max(factors), reaches, tuple(rows))


def _factor(row: OverheadRow) -> float:
    device = find_device(row.device)
    if device is None or device.tdp_watts is None:
        raise DataError(f"devices.yaml has no tdp_watts of {row.device}", file=ROWS.name, row=row.id, field="device")
    return row.whole_w / (row.boards * device.tdp_watts)


def say_band(device: str | None) -> str | None:
    """What sources say of the whole machine over the boards of this device, for somebody who has to state it."""
    band = find_band(device, "wall")
    return None if band is None else f"sources: {band.say()}"


def set_beside(ours: StatedJoules, theirs: StatedJoules, device: str | None) -> Beside | NotComparable:
    """Theirs over ours, both brought to the wider of the two scopes; a reason where no sourced band leads there.

    `device`: of whichever side was metered on a board; ours, in nearly every case.
    """
    for side, stated in (("our", ours), ("their", theirs)):
        if stated.scope is None:
            return NotComparable(f"not comparable, because {side} scope is unknown")
        if stated.scope == "script":
            return NotComparable(f"not comparable, because {side} joules come from a script, not from a meter")
    if ours.scope == theirs.scope:
        ratio = theirs.joules / ours.joules
        return Beside(ratio, ratio, f"both of the {ours.scope}")
    if "board" not in (ours.scope, theirs.scope):
        return NotComparable(f"not comparable, because no source says how {ours.scope} and {theirs.scope} relate")
    inner, outer = (ours, theirs) if ours.scope == "board" else (theirs, ours)
    factors = _between(inner, outer, device)
    if isinstance(factors, NotComparable):
        return factors
    ratios = [
        theirs.joules / (ours.joules * factor) if inner is ours else theirs.joules * factor / ours.joules
        for factor in (factors.low, factors.high)
    ]
    whose = "our" if inner is ours else "their"
    return Beside(min(ratios), max(ratios), f"{whose} joules of the board at {factors.say()}, to the {outer.scope}")


def _between(inner: StatedJoules, outer: StatedJoules, device: str | None) -> Band | NotComparable:
    """The band from a board to a wider scope."""
    if outer.scope not in ("wall", "facility"):
        return NotComparable(f"not comparable, because no source says how a board and a {outer.scope} relate")
    band = find_band(device, outer.scope)
    if band is None:
        named = device or "an unknown device"
        return NotComparable(f"not comparable, because no source gives the overhead around boards of {named}")
    if inner.board_load is not None and inner.board_load < MIN_BOARD_LOAD:
        return NotComparable(
            f"not comparable, because the boards drew {100 * inner.board_load:.0f} % of their limit: the band holds "
            "for boards near it, and a host draws its share whatever they do"
        )
    return band
