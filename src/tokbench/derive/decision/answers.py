"""The most users that a promise holds for, from measured cells alone: nothing between two of them is guessed."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from typing import Final

from tokbench.derive.bounds.verdicts import is_cached
from tokbench.derive.cell_shape import shape_of_cell
from tokbench.derive.decision.promises import Hold, Promise, judge_load
from tokbench.derive.decision.sweeps import Sweep, users_of
from tokbench.derive.evaluate import CellResult
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.record.run import Run
from tokbench.stats import Estimate

CEILING: Final = "roofline_decode_tokens_per_s"


class Outcome(enum.Enum):
    """What the measured cells say of one promise."""

    HELD = "held"
    CANNOT = "cannot"
    """One user gets less, and the measured ceilings of the device are below the promise too."""
    NOT_MET = "not_met"
    """Broken for one user by everything that was measured; the ceilings would allow it, or are not known."""
    NOT_SHOWN = "not_shown"
    """No load keeps it with its whole interval, and one that might has an interval too wide to tell."""
    NOT_MEASURED = "not_measured"
    """Broken, or without a number, at the loads that were measured; one user was not."""


class Edge(enum.Enum):
    """Why a load is not the answer; the first four as in `Hold`."""

    SPEED = "speed"
    TTFT = "ttft"
    SPEED_NOT_SHOWN = "speed_not_shown"
    TTFT_NOT_SHOWN = "ttft_not_shown"
    INVALID = "invalid"
    """It was measured, and its cell is invalid."""
    MEMORY = "memory"
    FAILED = "failed"
    NOT_MEASURED = "not_measured"


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """Where the promise ends: above the users that it holds for, and at or below those of `cell`."""

    cell: CellResult | None
    """The next larger load of the sweep; None where the largest one that was asked for holds it."""
    why: Edge

    @property
    def users(self) -> int | None:
        """Streams of the next larger load."""
        return None if self.cell is None else users_of(self.cell)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One promise answered by the cells of one workload."""

    promise: Promise
    outcome: Outcome
    cell: CellResult | None
    """The load that holds it, the most telling one that does not, or None where none was measured."""
    limit: Limit | None
    """For a promise that holds."""
    why_not: Edge | None
    """For one that is broken or not shown: by what."""
    ceiling: Estimate | None
    """What the measured ceilings allow one stream, where it was broken for one user."""
    smaller_breaks: bool = False
    """Whether a smaller load of the same sweep breaks what the larger one holds."""


def answer(run: Run, sweeps: Sequence[Sweep], promise: Promise) -> Answer:
    """The load with the most users that holds the promise, of two alike the one with the higher system speed."""
    held = [found for sweep in sweeps if (found := _largest(sweep, promise)) is not None]
    if held:
        return max(held, key=_capacity)
    usable = [cell for sweep in sweeps for cell in sweep.cells if is_usable(cell)]
    alone = [cell for cell in usable if users_of(cell) == 1]
    if alone and _is_beyond(run, _fastest(alone), promise):
        return _broken(_fastest(alone), promise, Outcome.CANNOT)
    open_cells = [cell for sweep in sweeps for cell in _open_loads(sweep, promise)]
    if open_cells:
        cell = _fastest(open_cells)
        return Answer(promise, Outcome.NOT_SHOWN, cell, None, _edge_of(cell, promise), None)
    if alone:
        return _broken(_fastest(alone), promise, Outcome.NOT_MET)
    why = _edge_of(_fastest(usable), promise) if usable else _first_failure(sweeps)
    return Answer(promise, Outcome.NOT_MEASURED, None, None, why, None)


def is_usable(cell: CellResult) -> bool:
    """Whether the cell has numbers that may be used."""
    return cell.status == "ok" and cell.validity.verdict != "invalid"


def _largest(sweep: Sweep, promise: Promise) -> Answer | None:
    """The largest load of one sweep that holds the promise, and what the next larger one does."""
    holds = [judge_load(cell, promise) if is_usable(cell) else None for cell in sweep.cells]
    kept = [index for index, hold in enumerate(holds) if hold is Hold.HELD]
    if not kept:
        return None
    cell = sweep.cells[kept[-1]]
    larger = next((other for other in sweep.cells[kept[-1] :] if _users(other) > _users(cell)), None)
    limit = Limit(None, Edge.NOT_MEASURED) if larger is None else Limit(larger, _edge_of(larger, promise))
    breaks = any(hold in (Hold.BROKEN_SPEED, Hold.BROKEN_TTFT) for hold in holds[: kept[-1]])
    return Answer(promise, Outcome.HELD, cell, limit, None, None, breaks)


def _open_loads(sweep: Sweep, promise: Promise) -> Iterator[CellResult]:
    """Loads that might hold the promise; none above one whose speed breaks it: users do not make a stream faster."""
    for cell in filter(is_usable, sweep.cells):
        hold = judge_load(cell, promise)
        if hold is Hold.BROKEN_SPEED:
            return
        if hold in (Hold.SPEED_NOT_SHOWN, Hold.TTFT_NOT_SHOWN):
            yield cell


def _edge_of(cell: CellResult, promise: Promise) -> Edge:
    if cell.status == "oom":
        return Edge.MEMORY
    if cell.status in ("planned", "skipped"):
        return Edge.NOT_MEASURED
    if cell.status != "ok":
        return Edge.FAILED
    if not is_usable(cell):
        return Edge.INVALID
    return Edge(judge_load(cell, promise).value)


def _first_failure(sweeps: Sequence[Sweep]) -> Edge:
    """Why there is no number at all: the smallest load's reason."""
    cell = min((cell for sweep in sweeps for cell in sweep.cells), key=_users)
    states = {"oom": Edge.MEMORY, "ok": Edge.INVALID, "planned": Edge.NOT_MEASURED, "skipped": Edge.NOT_MEASURED}
    return states.get(cell.status, Edge.FAILED)


def _broken(cell: CellResult, promise: Promise, outcome: Outcome) -> Answer:
    """One user does not get it; a ceiling of the device says how far an engine could go."""
    why = Edge.SPEED if outcome is Outcome.CANNOT else _edge_of(cell, promise)
    return Answer(promise, outcome, cell, None, why, _ceiling_of(cell))


def _ceiling_of(cell: CellResult) -> Estimate | None:
    ceiling = cell.metrics.get(CEILING)
    return ceiling if isinstance(ceiling, Estimate) else None


def _is_beyond(run: Run, cell: CellResult, promise: Promise) -> bool:
    """Whether one user gets less than promised and the ceilings allow no more, whatever the engine."""
    ceiling = _ceiling_of(cell)
    if ceiling is None or not 0 <= _speed(cell) < promise.tokens_per_s:
        return False
    return ceiling.value < promise.tokens_per_s and _is_bound(run, cell)


def _is_bound(run: Run, cell: CellResult) -> bool:
    """Whether the ceiling is one that no engine passes: all weights read each step, from memory, one token a step."""
    try:
        is_dense = shape_of_cell(CellContext(cell.record, run)).experts is None
    except UndefinedError:
        is_dense = False
    return is_dense and not is_cached(cell) and cell.conditions.speculation == "none"


def _fastest(cells: Sequence[CellResult]) -> CellResult:
    return max(cells, key=_speed)


def _speed(cell: CellResult) -> float:
    value = cell.metrics.get("decode_tokens_per_s")
    return value.value if isinstance(value, Estimate) else -1.0


def _capacity(found: Answer) -> tuple[int, float]:
    assert found.cell is not None
    system = found.cell.metrics.get("output_tokens_per_s")
    return _users(found.cell), system.value if isinstance(system, Estimate) else -1.0


def _users(cell: CellResult) -> int:
    users = users_of(cell)
    assert users is not None
    return users
