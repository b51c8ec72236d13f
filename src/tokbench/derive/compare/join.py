"""Who is compared with whom, and what the two differ in. Divides nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Final

from tokbench.derive import words
from tokbench.derive.compare.sides import Side, Subject
from tokbench.derive.words import t
from tokbench.record.facts import Agreement, Difference, differences

DECISIVE: Final = frozenset(
    {
        "model",
        "weights",
        "precision",
        "prompt_tokens",
        "output_tokens",
        "context_tokens",
        "concurrency",
        "static_batch",
        "speculation",
    }
)
"""Conditions that keep two cells from being like for like; hardware, engine, mode and versions are what is compared."""
_RULES: Final[tuple[Callable[[Subject], Hashable], ...]] = (
    lambda subject: subject.identity,
    lambda subject: subject.engine_settings,
    lambda subject: subject.engine_mode,
)
"""How partners are found among cells of one key, the closest first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A cell of each side, what differs between them, and which of that makes them unlike."""

    a: Subject
    b: Subject
    differences: tuple[Difference, ...]
    """Fields that differ, or that one side alone states."""
    unlike: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Single:
    """A cell without a partner, and why."""

    subject: Subject
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """Both sides joined: no cell is in none of the three."""

    matches: tuple[Match, ...]
    only_a: tuple[Single, ...]
    only_b: tuple[Single, ...]


def join(a: Side, b: Side, *, is_forced: bool) -> Joined:
    """Find the partner of every cell.

    Where nothing shares a key, and everywhere if forced, what is left is joined with the cell that it differs least
    from, if that is one cell and the feeling is mutual.
    """
    matches: list[Match] = []
    left_a: list[Single] = []
    left_b: list[Single] = []
    keys = dict.fromkeys(subject.key for subject in (*a.cells, *b.cells))
    for key in keys:
        ours = [subject for subject in a.cells if subject.key == key]
        theirs = [subject for subject in b.cells if subject.key == key]
        found = _match_group(ours, theirs)
        matches += found
        left_a += _left(ours, theirs, {match.a.identity for match in found}, "B")
        left_b += _left(theirs, ours, {match.b.identity for match in found}, "A")
    if is_forced or not matches:
        forced = _match_nearest([single.subject for single in left_a], [single.subject for single in left_b])
        matches += forced
        left_a = [single for single in left_a if single.subject not in [match.a for match in forced]]
        left_b = [single for single in left_b if single.subject not in [match.b for match in forced]]
    return Joined(tuple(matches), tuple(left_a), tuple(left_b))


def set_beside(a: Subject, b: Subject) -> Match:
    """Two cells with all that differs between them."""
    rows = [row for row in differences(a.conditions, b.conditions) if row.ours != row.theirs]
    for name in dict.fromkeys((*a.settings, *b.settings)):
        ours, theirs = a.settings.get(name), b.settings.get(name)
        if ours != theirs:
            is_known = ours is not None and theirs is not None
            rows.append(Difference(name, ours, theirs, Agreement.DIFFERENT if is_known else Agreement.UNKNOWN))
    decisive = (DECISIVE | a.decisive | b.decisive) - a.free - b.free
    unlike = [row.field for row in rows if _is_unlike(row, decisive)]
    return Match(a, b, tuple(rows), tuple(unlike))


def _is_unlike(row: Difference, decisive: frozenset[str]) -> bool:
    """A condition stated on one side alone is unlike; a revision or checksum that one side lacks says nothing."""
    return row.field in decisive and (row.agreement is Agreement.DIFFERENT or row.field in DECISIVE)


def _match_group(ours: Sequence[Subject], theirs: Sequence[Subject]) -> list[Match]:
    if len(ours) == len(theirs) == 1:
        return [set_beside(ours[0], theirs[0])]
    free_a, free_b = list(ours), list(theirs)
    found = []
    for rule in _RULES:
        for subject in list(free_a):
            alike_a = [other for other in free_a if rule(other) == rule(subject)]
            alike_b = [other for other in free_b if rule(other) == rule(subject)]
            if len(alike_a) == len(alike_b) == 1:
                found.append(set_beside(subject, alike_b[0]))
                free_a.remove(subject)
                free_b.remove(alike_b[0])
    return found


def _left(ours: Sequence[Subject], theirs: Sequence[Subject], matched: set[str], other: str) -> list[Single]:
    why = t("{other} has no cell of this model, workload and load", other=other)
    if theirs:
        engines = words.join(dict.fromkeys(_say_engine(subject) for subject in theirs))
        why = t("{other} has this cell with {engines} only", other=other, engines=engines)
    singles = []
    for subject in ours:
        if subject.identity in matched:
            continue
        alike = [cell for cell in theirs if cell.engine_mode == subject.engine_mode]
        text = t(
            "ambiguous: {count} cells of {other} have this engine and mode and differ in its settings",
            count=len(alike),
            other=other,
        )
        singles.append(Single(subject, text if len(alike) > 1 else why))
    return singles


def _say_engine(subject: Subject) -> str:
    return " ".join(part for part in subject.engine_mode if part) or subject.name


def _match_nearest(ours: Sequence[Subject], theirs: Sequence[Subject]) -> list[Match]:
    table = {(i, j): set_beside(a, b) for i, a in enumerate(ours) for j, b in enumerate(theirs)}
    found = []
    for i in range(len(ours)):
        j = _nearest([table[i, j] for j in range(len(theirs))])
        if j is not None and _nearest([table[other, j] for other in range(len(ours))]) == i:
            found.append(table[i, j])
    return found


def _nearest(row: Sequence[Match]) -> int | None:
    """The one that differs in the fewest decisive fields, then is of the same engine and mode; None if several do."""
    costs = [(len(match.unlike), match.a.engine_mode != match.b.engine_mode) for match in row]
    least = min(costs, default=None)
    return costs.index(least) if least is not None and costs.count(least) == 1 else None
