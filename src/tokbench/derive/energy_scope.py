"""When our joules may stand beside a vendor's: with a scope on both sides, and a sourced band where the scopes differ.

A board's joules are never divided bare by a system's. It measures nothing, and fills in no scope that a source leaves
out.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokbench.derive.energy.rows import CellEnergy
from tokbench.derive.energy.windows import Span
from tokbench.derive.words import t
from tokbench.errors import DataError
from tokbench.record.catalog import DATA_DIR, find_device
from tokbench.units import format_number

Scope = Literal["board", "boards", "module", "package", "dram", "node part", "node", "wall", "facility", "script"]
"""Those of `MeterOpened`, those of groups of domains (`boards` of a split model, `node part` of package and DRAM), and
`facility`: with the building's power and cooling, as vendors of systems count."""
BOARDS = ("board", "boards")
"""Both are all boards that hold the model: what one board is to a model on it, several are to one that is split."""
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
        return t(
            "{low} to {high} times the boards ({sources})",
            low=format_number(self.low),
            high=format_number(self.high),
            sources="; ".join(dict.fromkeys(row.source_title for row in self.rows)),
        )


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
    return None if band is None else t("sources: {band}", band=band.say())


def state_ours(energy: CellEnergy, joules: float) -> StatedJoules | NotComparable:
    """A cell's joules per output token with the scope of the rows that speak for it, for `set_beside`.

    `joules`: the value of `energy_j_per_output_token`. The boards' load is the lowest of all windows, since a band
    holds only for boards near their limit; None where a limit is not known.
    """
    if not energy.headline:
        return NotComparable(_say(energy.missing or t("no energy was measured")))
    scope = _known_scope(energy.headline[0].group.scope)
    if scope is None:
        return NotComparable(_say(t("{side} scope is unknown", side=t("our"))))
    loads = [
        None if row.power_limit_w is None else row.output.mean_w / row.power_limit_w
        for row in energy.headline
        if isinstance(row.output, Span)
    ]
    known = [load for load in loads if load is not None]
    return StatedJoules(joules, scope, min(known) if known and len(known) == len(loads) else None)


def _known_scope(name: str) -> Scope | None:
    return next((scope for scope in get_args(Scope) if scope == name), None)


def set_beside(ours: StatedJoules, theirs: StatedJoules, device: str | None) -> Beside | NotComparable:
    """Theirs over ours, both brought to the wider of the two scopes; a reason where no sourced band leads there.

    This is how a report sets a cell's joules beside a published figure: `state_ours` for the cell, a `StatedJoules` of
    the row's value and `energy_scope` for the figure, and then `said` or `reason` printed beside the ratio, always.
    `device`: of whichever side was metered on a board; ours, in nearly every case.
    """
    reason = _why_not(t("our"), ours) or _why_not(t("their"), theirs)
    if reason is not None:
        return NotComparable(_say(reason))
    if ours.scope == theirs.scope or (ours.scope in BOARDS and theirs.scope in BOARDS):
        ratio = theirs.joules / ours.joules
        return Beside(ratio, ratio, t("both of the {scope}", scope=ours.scope))
    if ours.scope not in BOARDS and theirs.scope not in BOARDS:
        return NotComparable(
            _say(t("no source says how {ours} and {theirs} relate", ours=ours.scope, theirs=theirs.scope))
        )
    inner, outer = (ours, theirs) if ours.scope in BOARDS else (theirs, ours)
    band = _between(inner, outer, device)
    if isinstance(band, NotComparable):
        return band
    ratios = [
        theirs.joules / (ours.joules * factor) if inner is ours else theirs.joules * factor / ours.joules
        for factor in (band.low, band.high)
    ]
    return Beside(min(ratios), max(ratios), _say_brought(inner, outer, band, is_ours=inner is ours))


def _why_not(side: str, stated: StatedJoules) -> str | None:
    """Why one side's joules can stand beside nothing at all."""
    if stated.scope is None:
        return t("{side} scope is unknown", side=side)
    if stated.scope == "script":
        return t("{side} joules come from a script, not from a meter", side=side)
    if stated.scope == "dram":
        return t("{side} joules are of the memory alone, not of what did the work", side=side)
    return None


def _say(why: str) -> str:
    return t("not comparable, because {why}", why=why)


def _say_brought(inner: StatedJoules, outer: StatedJoules, band: Band, *, is_ours: bool) -> str:
    return t(
        "{side} joules of the {inner} at {band}, to the {outer}",
        side=t("our") if is_ours else t("their"),
        inner=inner.scope,
        band=band.say(),
        outer=outer.scope,
    )


def _between(inner: StatedJoules, outer: StatedJoules, device: str | None) -> Band | NotComparable:
    """The band from boards to a wider scope."""
    if outer.scope not in ("wall", "facility"):
        return NotComparable(
            _say(t("no source says how a {inner} and a {outer} relate", inner=inner.scope, outer=outer.scope))
        )
    band = find_band(device, outer.scope)
    if band is None:
        named = device or t("an unknown device")
        return NotComparable(_say(t("no source gives the overhead around boards of {device}", device=named)))
    if inner.board_load is not None and inner.board_load < MIN_BOARD_LOAD:
        load = f"{100 * inner.board_load:.0f}"
        return NotComparable(
            _say(
                t(
                    "the boards drew {load} % of their limit: the band holds for boards near it, and a host draws its "
                    "share whatever they do",
                    load=load,
                )
            )
        )
    return band
