"""What published figures amount to as evidence: which of them are independent, and which contradict one another.

It settles no conflict: every row stays, and whoever uses one has to say which.
"""

from __future__ import annotations

import dataclasses
import math
import urllib.parse
from collections.abc import Sequence
from typing import Final, NamedTuple

from tokbench.derive.published.rows import PublishedFigure
from tokbench.derive.published.sheet import first_day
from tokbench.derive.published.systems import model_key

PERIOD_DAYS: Final = 183
"""Figures further apart than half a year are of different states of a system: vendors speed up and reprice."""
CONFLICT_RATIO: Final = 1.05
"""Values closer than this are one value: rounding, and the change of a rolling median from day to day."""

_SAME_WHERE_STATED: Final = (
    "precision",
    "speculation",
    "engine",
    "scenario",
    "concurrency",
    "mean_concurrency",
    "devices",
    "input_tokens",
    "output_tokens",
    "excludes_ttft",
    "energy_scope",
    "region",
    "includes_network",
)
_TAILS: Final = ("p90", "p95", "p99")
_CODE_HOSTS: Final = ("github.com", "raw.githubusercontent.com", "gitlab.com", "huggingface.co")


class EvidenceGroup(NamedTuple):
    """Figures that count as one source."""

    party: str
    """Who measured or stated them; `row ID` for reposts of a row that is not among the figures."""
    figures: tuple[PublishedFigure, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Conflict:
    """Figures of one vendor, model and metric that cannot all be true of the conditions they state."""

    figures: tuple[PublishedFigure, ...]  # by value, the lowest first

    @property
    def highest_over_lowest(self) -> float:
        """How far they are apart."""
        return self.figures[-1].value / self.figures[0].value


def measuring_party(figure: PublishedFigure) -> str:
    """Who stands behind a figure: the vendor, a named measurer, or, for an unnamed one, the place where it writes.

    A price is the vendor's own statement, whoever copied it: nobody measures what somebody asks for.
    """
    if figure.measured_by == "vendor" or figure.metric.startswith("price_"):
        return figure.vendor
    if figure.measurer is not None:
        return figure.measurer
    return site_of(figure.source_url) if figure.measured_by == "third-party" else figure.measured_by


def evidence_groups(figures: Sequence[PublishedFigure]) -> tuple[EvidenceGroup, ...]:
    """The figures by independent source, each source once; a repost belongs to the source that it repeats.

    A vendor's statement and a result that the vendor submitted to MLPerf itself are one source.
    """
    by_id = {figure.id: figure for figure in figures}
    groups: dict[str, list[PublishedFigure]] = {}
    for figure in figures:
        first = figure if figure.repeats is None else by_id.get(figure.repeats)
        party = f"row {figure.repeats}" if first is None else measuring_party(first)
        groups.setdefault(party, []).append(figure)
    return tuple(EvidenceGroup(party, tuple(members)) for party, members in groups.items())


def conflicts(figures: Sequence[PublishedFigure]) -> tuple[Conflict, ...]:
    """Figures that contradict one another, the widest gap first.

    Compared are rows of one vendor, model and metric whose stated conditions agree, published within `PERIOD_DAYS`;
    neither reposts nor rows that a later reading superseded. Two values that one party gives on one page are of two
    things that the page tells apart.
    """
    buckets: dict[tuple[str, str, str], list[PublishedFigure]] = {}
    for figure in figures:
        if figure.repeats is None and figure.superseded_by is None:
            model = "" if figure.model is None else model_key(figure.model)
            buckets.setdefault((figure.vendor, model, figure.metric), []).append(figure)
    found = [Conflict(part) for bucket in buckets.values() for part in _contradicting(bucket)]
    return tuple(sorted(found, key=lambda item: (-item.highest_over_lowest, item.figures[0].id)))


def _contradicting(bucket: Sequence[PublishedFigure]) -> list[tuple[PublishedFigure, ...]]:
    """The bucket's figures that are linked by contradictions, in parts that no contradiction links."""
    parts: list[list[PublishedFigure]] = []
    for figure in bucket:
        linked = [part for part in parts if any(_contradict(figure, other) for other in part)]
        merged = [figure, *(other for part in linked for other in part)]
        parts = [part for part in parts if part not in linked] + [merged]
    return [tuple(sorted(part, key=lambda row: (row.value, row.id))) for part in parts if len(part) > 1]


def _contradict(one: PublishedFigure, other: PublishedFigure) -> bool:
    days = abs((first_day(one.published) - first_day(other.published)).days)
    is_one_page = one.source_url == other.source_url and measuring_party(one) == measuring_party(other)
    if is_one_page or days > PERIOD_DAYS or not _could_be_one_machine(one, other) or _tail(one) != _tail(other):
        return False
    stated, theirs = one.model_dump(include=set(_SAME_WHERE_STATED)), other.model_dump(include=set(_SAME_WHERE_STATED))
    if any(None not in (stated[name], theirs[name]) and stated[name] != theirs[name] for name in _SAME_WHERE_STATED):
        return False
    (low, high), (other_low, other_high) = _reach(one), _reach(other)
    return low > CONFLICT_RATIO * other_high or other_low > CONFLICT_RATIO * high


def _could_be_one_machine(one: PublishedFigure, other: PublishedFigure) -> bool:
    if one.device is not None and other.device is not None:
        return one.device == other.device
    return one.system == other.system


def _tail(figure: PublishedFigure) -> str | None:
    return figure.statistic if figure.statistic in _TAILS else None


def _reach(figure: PublishedFigure) -> tuple[float, float]:
    """What the figure says the value is, at least and at most; a peak says nothing of the usual."""
    if figure.statistic == "at_least":
        return figure.value, math.inf
    if figure.statistic in ("at_most", "peak"):
        return 0.0, figure.value
    return figure.value_low or figure.value, figure.value_high or figure.value


def site_of(url: str) -> str:
    """The host of an address, and on a host of many owners the owner too."""
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or url).removeprefix("www.")
    owner = parts.path.strip("/").partition("/")[0].lower()
    return f"{host}/{owner}" if host in _CODE_HOSTS and owner else host
