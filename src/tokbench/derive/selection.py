"""The published figures that a reader asks for: by vendor, model, metric and date, newest first. Compares nothing."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokbench.derive.published import METRIC_UNITS, PublishedFigure, first_day, model_key
from tokbench.derive.published.evidence import evidence_groups
from tokbench.errors import SpecError


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; nothing named means everything."""

    vendors: tuple[str, ...] = ()
    model: str | None = None
    metric: str | None = None
    since: str | None = None


class VendorCount(NamedTuple):
    """What the rows of one vendor amount to."""

    vendor: str
    figures: int
    models: int
    primary: int
    superseded: int
    reposts: int
    sources: int
    """Independent ones among them."""
    newest: str


class SubjectCount(NamedTuple):
    """How many things (one metric of one model of one vendor) the figures are of."""

    total: int
    several: int
    """Of these, stated by more than one independent source."""


def select(figures: Sequence[PublishedFigure], asked: Selection) -> tuple[PublishedFigure, ...]:
    """The figures that are asked for, newest first; of one date those read in the source itself come first.

    A model is meant by its whole name or by leading or inner words of it (`llama-3.1`), a percentile by `ttft_s.p50`. A
    date that is only a year or a month counts as its first day, here as in `compare_with_published`.

    Raises:
        SpecError: no figure has such a vendor or metric, or the date is none; the nearest are named.
    """
    vendors = {_known(vendor, {figure.vendor for figure in figures}, "vendor") for vendor in asked.vendors}
    names = {*METRIC_UNITS, *(figure.metric_name for figure in figures)}
    metric = None if asked.metric is None else _known(asked.metric, names, "metric")
    earliest = None if asked.since is None else _date(asked.since)
    chosen = [
        figure
        for figure in figures
        if (not vendors or figure.vendor in vendors)
        and (metric is None or metric in (figure.metric, figure.metric_name))
        and (asked.model is None or is_meant(asked.model, figure.model))
        and (earliest is None or first_day(figure.published) >= earliest)
    ]
    return tuple(sorted(chosen, key=_order))


def is_meant(asked: str, model: str | None) -> bool:
    """Whether a name stands in a model's name, whole words only; owners, chat and precision suffixes do not matter."""
    wanted = model_key(asked)
    return model is not None and bool(wanted) and f"-{wanted}-" in f"-{model_key(model)}-"


def near_models(figures: Sequence[PublishedFigure], asked: str) -> list[str]:
    """Models of the figures whose names are closest to the one asked for."""
    by_key = {model_key(figure.model): figure.model for figure in figures if figure.model is not None}
    return [by_key[key] for key in difflib.get_close_matches(model_key(asked), by_key, n=5, cutoff=0.4)]


def count_by_vendor(figures: Sequence[PublishedFigure]) -> tuple[VendorCount, ...]:
    """One row per vendor, by name."""
    counts = []
    for vendor in sorted({figure.vendor for figure in figures}):
        rows = [figure for figure in figures if figure.vendor == vendor]
        counts.append(
            VendorCount(
                vendor=vendor,
                figures=len(rows),
                models=len({model_key(figure.model) for figure in rows if figure.model is not None}),
                primary=sum(figure.is_primary for figure in rows),
                superseded=sum(figure.superseded_by is not None for figure in rows),
                reposts=sum(figure.repeats is not None for figure in rows),
                sources=len(evidence_groups(rows)),
                newest=max((figure.published for figure in rows), key=first_day),
            )
        )
    return tuple(counts)


def count_subjects(figures: Sequence[PublishedFigure]) -> SubjectCount:
    """Over the rows that no later reading superseded."""
    subjects: dict[tuple[str, str, str], list[PublishedFigure]] = {}
    for figure in figures:
        if figure.superseded_by is None:
            model = figure.system if figure.model is None else model_key(figure.model)
            subjects.setdefault((figure.vendor, model, figure.metric), []).append(figure)
    return SubjectCount(len(subjects), sum(len(evidence_groups(rows)) > 1 for rows in subjects.values()))


def _order(figure: PublishedFigure) -> tuple[int, bool, bool, str]:
    newest_first = -first_day(figure.published).toordinal()
    return newest_first, not figure.is_primary, figure.superseded_by is not None, figure.id


def _known(name: str, known: Iterable[str], what: str) -> str:
    word, names = name.strip().lower(), sorted(known)
    if word in names:
        return word
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SpecError(f"no published figure has the {what} {name!r}", fix=f"{hint}known: {', '.join(names)}")


def _date(text: str) -> datetime.date:
    try:
        return first_day(text.strip())
    except ValueError as error:
        raise SpecError(f"{error}", key="--since", fix="e.g. --since 2025-06") from None
