"""Inputs that rest on published figures: rows that a selection means, one voice per independent source.

Reposts count once, a reading that a later one replaced never, and a row that states no field is not taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tokbench.derive.claims.dimensions import PLAIN, read_unit
from tokbench.derive.claims.evidence import Evidence, Resolved, Source
from tokbench.derive.claims.from_rows import scaled
from tokbench.derive.claims.input_rows import Input, Pick, PublishedInput
from tokbench.derive.claims.intervals import Interval, hull, middle, point
from tokbench.derive.claims.names import published_metric
from tokbench.derive.claims.selecting import Asked, Wanted, last_day, read_selection
from tokbench.derive.claims.values import Cause, Lacking, Quantity, Rest, Rests, RuleError, Series, Value
from tokbench.derive.published.evidence import EvidenceGroup, evidence_groups
from tokbench.derive.published.rows import METRIC_UNITS, PublishedFigure
from tokbench.derive.published.systems import model_key
from tokbench.derive.words import t

BY_SOURCE: Final = "source"
FIELDS: Final = frozenset({*PublishedFigure.model_fields, "ids", "not_ids"})


def resolve_published(name: str, row: Input, evidence: Evidence) -> Resolved:
    """The value that the selected rows give.

    Raises:
        RuleError: a selection, a metric or a pick that makes no sense.
    """
    asked = row.published
    if asked is None:
        raise RuleError("not a published input")
    if asked.by is not None and asked.by not in {*PublishedFigure.model_fields, BY_SOURCE}:
        raise RuleError(f"by: {asked.by!r} is neither `source` nor a field of a published row")
    metric = _metric(asked)
    figures, left_out = _select(asked, metric, evidence.figures)
    unit = read_unit(METRIC_UNITS[metric].symbol)
    dimension = PLAIN if asked.pick == "count" else unit.dimension
    value: Value
    if not figures:
        cause = Cause(name, t("no published row is meant by the selection"), row.can_be_had)
        value = Lacking(dimension, asked.by, frozenset({cause}))
    elif asked.by is None:
        interval, rests = _pick(name, asked.pick, figures)
        value = Quantity(interval if asked.pick == "count" else scaled(interval, unit), dimension, rests)
    else:
        groups = _group(asked.by, figures)
        picked = [(key, *_pick(name, asked.pick, members)) for key, members in groups.items()]
        is_count = asked.pick == "count"
        entries = tuple((key, own if is_count else scaled(own, unit), rests) for key, own, rests in picked)
        value = Series(asked.by, entries, dimension)
    unit_text = "1" if asked.pick == "count" else METRIC_UNITS[metric].symbol
    return Resolved(name, row, value, unit_text, _sources(figures), left_out)


def _metric(asked: PublishedInput) -> str:
    metric = asked.select.get("metric")
    if not isinstance(metric, str) or ("vendor" not in asked.select and "ids" not in asked.select):
        raise RuleError("select needs one `metric`, and `vendor` or `ids`")
    return published_metric(metric)


def _select(
    asked: PublishedInput, metric: str, figures: Sequence[PublishedFigure]
) -> tuple[tuple[PublishedFigure, ...], tuple[str, ...]]:
    """The rows that are meant, and those that were left out by name."""
    select: dict[str, Asked] = {**asked.select, "metric": metric}
    ids, not_ids = select.pop("ids", None), select.pop("not_ids", {})
    if not isinstance(not_ids, dict):
        raise RuleError("not_ids: write {ID: why it is left out}")
    named = tuple(str(item) for item in ids) if isinstance(ids, list) else () if ids is None else (str(ids),)
    known = {figure.id for figure in figures}
    for wanted in (*named, *not_ids):
        if wanted not in known:
            raise RuleError(f"no published row has the id {wanted!r}")
    wanted_fields = read_selection(select, FIELDS)
    meant = [f for f in figures if f.superseded_by is None and _is_meant(f, wanted_fields)]
    meant = [figure for figure in meant if ids is None or figure.id in named]
    return (
        tuple(figure for figure in meant if figure.id not in not_ids),
        tuple(f"{figure.id}: {not_ids[figure.id]}" for figure in meant if figure.id in not_ids),
    )


def _is_meant(figure: PublishedFigure, wanted: Sequence[Wanted]) -> bool:
    fields: Mapping[str, object] = dict(figure)
    return all(item.accepts(fields[item.field]) for item in wanted)


def _group(by: str, figures: Sequence[PublishedFigure]) -> dict[str, tuple[PublishedFigure, ...]]:
    """The rows by key; a row that does not state the field belongs to no key."""
    if by == BY_SOURCE:
        return {group.party: group.figures for group in evidence_groups(figures)}
    found: dict[str, list[PublishedFigure]] = {}
    for figure in figures:
        value = dict(figure)[by]
        if value is not None:
            found.setdefault(model_key(str(value)) if by == "model" else str(value), []).append(figure)
    return {key: tuple(members) for key, members in found.items()}


def _pick(name: str, pick: Pick, figures: Sequence[PublishedFigure]) -> tuple[Interval, Rests]:
    groups = evidence_groups(figures)
    by_value = sorted(figures, key=lambda figure: (figure.value, figure.id))
    if pick == "count":
        return point(float(len(groups))), _rests(name, groups)
    if pick == "median":
        return point(middle([_of_group(group).mid for group in groups])), _rests(name, groups)
    if pick == "newest":
        newest = max(last_day(figure.published) for figure in figures)
        chosen = [figure for figure in figures if last_day(figure.published) == newest]
    elif pick in ("min", "max"):
        chosen = [by_value[0 if pick == "min" else -1]]
    elif pick == "only" and len(figures) > 1:
        raise RuleError(f"pick: only, and {len(figures)} published rows are meant")
    else:
        chosen = list(figures)
    groups = tuple(group for group in groups if any(figure in chosen for figure in group.figures))
    parts = [_of_group(EvidenceGroup(g.party, tuple(f for f in g.figures if f in chosen))) for g in groups]
    return hull(parts), _rests(name, groups)


def _of_group(group: EvidenceGroup) -> Interval:
    return hull([_of_figure(figure) for figure in group.figures])


def _of_figure(figure: PublishedFigure) -> Interval:
    low = figure.value if figure.value_low is None else figure.value_low
    return Interval(low, figure.value, figure.value if figure.value_high is None else figure.value_high)


def _rests(name: str, groups: Sequence[EvidenceGroup]) -> Rests:
    return frozenset(Rest(name, group.party, True) for group in groups)


def _sources(figures: Sequence[PublishedFigure]) -> tuple[Source, ...]:
    return tuple(
        Source(
            group.party,
            figure.id,
            _of_figure(figure),
            figure.unit,
            by=figure.measurer or figure.measured_by,
            date=figure.published,
            read_on=figure.read_on,
            url=figure.source_url,
            title=figure.source_title,
            is_vendor=group.party == figure.vendor,
            statistic=figure.statistic,
            conditions=figure.conditions(),
            labels=() if figure.is_primary else ("second-hand",),
        )
        for group in evidence_groups(figures)
        for figure in group.figures
    )
