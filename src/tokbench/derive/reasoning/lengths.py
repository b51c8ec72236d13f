"""Seconds per answer over its length and over speeds: what people read at, what was measured, what was published.

Arithmetic alone: tokens over tokens per second. Queues, networks and the time to the first token are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokbench.derive.bounds.points import value_of
from tokbench.derive.evaluate import CellResult
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published.facts import amount_of

LENGTHS = (100, 300, 1_000, 3_000, 10_000, 30_000)
"""Tokens of an answer, its thinking included."""
THRESHOLDS_TOKENS_PER_S = (10.0, 30.0)
"""Just acceptable, and fast enough. Source: data/claims/perception.yaml, quantities `barely` and `fast_enough`."""
LONG_S, SHORT_S = 30.0, 3.0
"""Seconds of waiting before and after. Source: data/claims/latency.yaml."""
PER_STREAM = ("decode_tokens_per_s", "e2e_tokens_per_s")


class Speed(NamedTuple):
    """One row of the table: what makes tokens at that speed."""

    tokens_per_s: float
    figure: PublishedFigure | None = None
    cell: CellResult | None = None


def reading_tokens_per_s() -> float:
    """What adults read silently, in tokens per second, from the data row of the study."""
    found = amount_of("reading-speed.tokens_per_s").value
    assert found is not None  # a single number, held by tests/derive/test_reasoning.py
    return found


def list_speeds(
    cells: Sequence[CellResult], figures: Sequence[PublishedFigure], vendors: Sequence[str]
) -> tuple[Speed, ...]:
    """The thresholds, the fastest single stream measured here, and the slowest and fastest of each vendor's figures."""
    speeds = [Speed(threshold) for threshold in THRESHOLDS_TOKENS_PER_S]
    rated = [
        Speed(rate, cell=cell)
        for cell in cells
        if cell.conditions.concurrency == 1 and (rate := value_of(cell, "decode_tokens_per_s")) is not None
    ]
    speeds += [max(rated, key=lambda speed: speed.tokens_per_s)] if rated else []
    for vendor in vendors:
        own = sorted(streams(figures, vendor), key=lambda figure: figure.value)
        speeds += [Speed(figure.value, figure=figure) for figure in dict.fromkeys((own[0], own[-1]))] if own else []
    return tuple(sorted(speeds, key=lambda speed: speed.tokens_per_s))


def streams(figures: Sequence[PublishedFigure], vendor: str | None = None) -> list[PublishedFigure]:
    """Published speeds of one stream of a named model that stand as they are: neither repeated nor superseded."""
    return [
        figure
        for figure in figures
        if figure.metric in PER_STREAM
        and figure.model is not None
        and figure.repeats is None
        and figure.superseded_by is None
        and (vendor is None or figure.vendor == vendor)
    ]
