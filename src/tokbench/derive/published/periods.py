"""The interval of a published figure: what independent sources of its period say of the same thing.

A published figure bears no interval of its own. The range of several sources is not a confidence interval, and that of
one source is none at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tokbench.derive.published.evidence import PERIOD_DAYS, evidence_groups
from tokbench.derive.published.rows import PublishedFigure
from tokbench.derive.published.sheet import first_day
from tokbench.derive.published.systems import generation_of, is_same_model, is_same_width

_PARTING: Final = (
    "speculation",
    "engine",
    "scenario",
    "concurrency",
    "mean_concurrency",
    "devices",
    "input_tokens",
    "output_tokens",
    "excludes_ttft",
)
"""A figure that states another value of one of these is of another thing."""
TAILS: Final = ("p90", "p95", "p99")


class PublishedRange(NamedTuple):
    """The least and the greatest of what independent sources state; no ends where there is one source."""

    low: float | None
    high: float | None
    sources: int
    """Independent ones, reposts counted once."""
    ids: tuple[str, ...]
    """The rows that were looked at, in order."""


def find_range(figure: PublishedFigure, pool: Sequence[PublishedFigure]) -> PublishedRange:
    """The range over the independent sources of one figure's period, itself among them.

    Of the same model, metric and system generation, published within PERIOD_DAYS; a row that states another precision,
    technique, engine, load, length, number of devices or definition than the figure is of another thing, and a reading
    that a later one replaced is none. What either does not state does not part them.
    """
    rows = {row.id: row for row in (figure, *(other for other in pool if _is_same_thing(figure, other)))}
    sources = len(evidence_groups(tuple(rows.values())))
    if sources < 2:
        return PublishedRange(None, None, sources, tuple(sorted(rows)))
    lows = [row.value_low or row.value for row in rows.values()]
    highs = [row.value_high or row.value for row in rows.values()]
    return PublishedRange(min(lows), max(highs), sources, tuple(sorted(rows)))


def _is_same_thing(figure: PublishedFigure, other: PublishedFigure) -> bool:
    if other.superseded_by is not None or other.metric != figure.metric:
        return False
    apart = abs((first_day(other.published) - first_day(figure.published)).days)
    if apart > PERIOD_DAYS or not is_same_model(figure.model, other.model):
        return False
    mine, theirs = figure.model_dump(include=set(_PARTING)), other.model_dump(include=set(_PARTING))
    is_parted = any(None not in (mine[name], theirs[name]) and mine[name] != theirs[name] for name in _PARTING)
    is_one_width = None in (figure.precision, other.precision) or is_same_width(figure.precision, other.precision)
    is_one_tail = (figure.statistic in TAILS, other.statistic in TAILS) == (False, False) or (
        figure.statistic == other.statistic
    )
    return not is_parted and is_one_width and is_one_tail and generation_of(figure) == generation_of(other)
