"""Speed per user against output speed per device: every measured cell as a point, and which of them no other beats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tokbench.derive.evaluate import CellResult
from tokbench.derive.published import Comparison, PublishedFigure, is_per_device
from tokbench.derive.standing import PER_USER, SYSTEM, Standing, estimate_of


@dataclasses.dataclass(frozen=True, slots=True)
class TradeOff:
    """What one cell gives each user, and what it gets out of each device."""

    cell: CellResult
    tokens_per_s_per_user: float
    """Decode speed of one stream: the time to the first token is left out."""
    tokens_per_s_per_device: float
    """Output speed of all streams, prefill included, over the devices of the cell."""


@dataclasses.dataclass(frozen=True, slots=True)
class OneSided:
    """A published figure that states one of the two speeds, as a figure of one user or of one device."""

    figure: PublishedFigure
    tokens_per_s: float
    is_per_user: bool


def find_one_sided(standing: Standing) -> tuple[OneSided, ...]:
    """The published figures of the comparisons that may be shown, each once; a system's is shared out to its devices.

    A system's figure whose source does not say how many devices it has is left out.
    """
    found: dict[str, OneSided] = {}
    for item in standing.beside:
        if not isinstance(item.outcome, Comparison) or not item.outcome.is_presentable:
            continue
        figure, metric = item.outcome.theirs, item.outcome.metric
        if metric == PER_USER:
            found.setdefault(figure.id, OneSided(figure, figure.value, True))
        elif metric == SYSTEM and is_per_device(figure):
            found.setdefault(figure.id, OneSided(figure, figure.value, False))
        elif metric == SYSTEM and figure.devices:
            found.setdefault(figure.id, OneSided(figure, figure.value / figure.devices, False))
    return tuple(found.values())


def find_trade_offs(cells: Sequence[CellResult]) -> tuple[TradeOff, ...]:
    """The cells that have both speeds, in their order; an invalid one is no point: nothing runs at such a speed."""
    found = []
    for cell in cells:
        if cell.validity.verdict == "invalid":
            continue
        user, system, devices = estimate_of(cell, PER_USER), estimate_of(cell, SYSTEM), cell.conditions.device_count
        if user is not None and system is not None and devices:
            found.append(TradeOff(cell, user.value, system.value / devices))
    return tuple(found)


def find_front(points: Sequence[TradeOff]) -> tuple[TradeOff, ...]:
    """The points that no other equals or passes in both speeds, slowest per device first."""
    kept: list[TradeOff] = []
    for point in sorted(points, key=lambda one: (-one.tokens_per_s_per_device, -one.tokens_per_s_per_user)):
        if not kept or point.tokens_per_s_per_user > kept[-1].tokens_per_s_per_user:
            kept.append(point)
    return tuple(reversed(kept))
