"""The five sentences that open a report and end a run on the console. Never suggests like for like where it is not.

A ratio that is below the minimum for a summary is not told here: what keeps it out is.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import likeness, wording
from tokbench.derive.decision import Decision
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published import Comparison, NoComparison, PublishedFigure
from tokbench.derive.purchase import say_purchase
from tokbench.derive.standing import PER_USER, SYSTEM, Beside, Standing, estimate_of, take_standing
from tokbench.derive.words import SEMICOLON, join, say, t
from tokbench.record.facts import Agreement


def headline(results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> tuple[str, ...]:
    """How many comparisons are like for like, best speed per user, best system speed, the vendors."""
    return lines_of(results, take_standing(results, figures, vendors), vendors)


def lines_of(
    results: Sequence[Results], standing: Standing, vendors: Sequence[str], decision: Decision | None = None
) -> tuple[str, ...]:
    """The same from a standing that is already there: the first vendor has a sentence, the others share one.

    A decision is told last, where there is one.
    """
    if standing.fastest is None:
        return (_say_nothing(results),)
    told = [say_beside(standing.nearest(vendor), vendor) for vendor in vendors[:1]]
    if len(vendors) == 2:
        told.append(say_beside(standing.nearest(vendors[1]), vendors[1]))
    elif len(vendors) > 2:
        told.append(_say_briefly_all(standing, vendors[1:2], vendors[2:]))
    bought = () if decision is None else (say_purchase(decision),)
    return (*_say_ours(standing), *told, *bought)


def console_lines(
    results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]
) -> tuple[str, ...]:
    """What ends a run on the console: the same of ours, and all vendors in one line."""
    standing = take_standing(results, figures, vendors)
    if standing.fastest is None:
        return (_say_nothing(results),)
    told = _say_briefly_all(standing, vendors[:2], vendors[2:])
    return (*_say_ours(standing), told) if vendors else _say_ours(standing)


def _say_ours(standing: Standing) -> tuple[str, ...]:
    alike, compared = standing.count_alike()
    fastest = _say_fastest(standing.fastest)
    if compared:
        first = t(
            "{alike} of {compared} comparisons with published figures are like for like; fastest for one user here: "
            "{fastest}.",
            alike=alike,
            compared=compared,
            fastest=fastest,
        )
    else:
        first = t(
            "No comparison with a published figure could be made; fastest for one user here: {fastest}.",
            fastest=fastest,
        )
    return first, _say_busiest(standing.busiest)


def _say_fastest(cell: CellResult | None) -> str:
    value = estimate_of(cell, PER_USER)
    if cell is None or value is None:
        return t("not measured")
    return t(
        "{value} decode ({interval}): {cell}{doubt}",
        value=wording.say_value(value),
        interval=wording.say_interval(value),
        cell=_say_where(cell),
        doubt=_say_doubt(cell),
    )


def _say_busiest(cell: CellResult | None) -> str:
    value = estimate_of(cell, SYSTEM)
    if cell is None or value is None:
        return t("Most for all users together: not measured.")
    return t(
        "Most for all users together: {value} output ({interval}): {cell}{doubt}; {memory}.",
        value=wording.say_value(value),
        interval=wording.say_interval(value),
        cell=_say_where(cell),
        doubt=_say_doubt(cell),
        memory=_say_memory(cell),
    )


def _say_where(cell: CellResult) -> str:
    hardware = cell.conditions.hardware or t("unknown hardware")
    return t("{cell}, on {hardware}", cell=wording.say_cell(cell), hardware=hardware)


def _say_doubt(cell: CellResult) -> str:
    doubt = wording.say_doubt(cell)
    return f" [{doubt}]" if doubt else ""


def _say_memory(cell: CellResult) -> str:
    peak, weights = estimate_of(cell, "peak_memory_bytes"), estimate_of(cell, "weight_bytes")
    if peak is None:
        said = t("memory not known: {reason}", reason=_reason_of(cell, "peak_memory_bytes"))
    else:
        source = wording.say_memory_source(cell)
        value = wording.say_value(peak)
        said = t("memory {value} {source}", value=value, source=source) if source else t("memory {value}", value=value)
    if weights is None:
        return join((said, t("weights not known: {reason}", reason=_reason_of(cell, "weight_bytes"))))
    return join((said, t("weights {value}", value=wording.say_value(weights))))


def _reason_of(cell: CellResult, metric: str) -> str:
    value = cell.metrics.get(metric)
    return say(value.reason) if isinstance(value, Missing) else t("not a metric of this version")


def _say_nothing(results: Sequence[Results]) -> str:
    cells = [cell for item in results for cell in item.cells]
    reasons = list(dict.fromkeys(cell.status_reason for cell in cells if cell.status_reason))
    if not cells:
        return t("Nothing was measured: no cell was planned.")
    if len(cells) == 1 and reasons:
        return t("No decode speed was measured in the only cell: {reason}.", reason=reasons[0])
    if not reasons:
        return t("No decode speed was measured in {count} cells.", count=len(cells))
    if len(reasons) == 1:
        return t("No decode speed was measured in {count} cells: {reason}.", count=len(cells), reason=reasons[0])
    return t(
        "No decode speed was measured in {count} cells: {reason} (and {more} more reasons).",
        count=len(cells),
        reason=reasons[0],
        more=len(reasons) - 1,
    )


def say_beside(item: Beside | None, vendor: str) -> str:
    """One number of ours beside one vendor's, in one sentence."""
    name = wording.say_vendor(vendor)
    if item is None:
        return t("{vendor}: no comparison: nothing of ours was set beside its figures.", vendor=name)
    if isinstance(item.outcome, NoComparison):
        return t("{vendor}: no comparison: {reason}.", vendor=name, reason=likeness.say_absence(item.outcome))
    comparison = item.outcome
    if not comparison.is_presentable:
        return t(
            "{vendor}: no ratio to tell ({why}; see the appendix). Its nearest figure is {figure}.",
            vendor=name,
            figure=_say_figure(comparison),
            why=likeness.say_kept_out(comparison),
        )
    ours = t("{value} ({model}, {load})", value=wording.say_value(comparison.ours), **_named(item.cell))
    return t(
        "{vendor} publishes {figure}: {factor}, which is {ours}; {counts}{likeness}.",
        vendor=name,
        figure=_say_figure(comparison),
        factor=wording.say_factor(comparison),
        ours=ours,
        counts=wording.say_counts(comparison),
        likeness=_say_likeness(item, comparison),
    )


def _named(cell: CellResult) -> dict[str, str]:
    return {"model": wording.say_model(cell), "load": wording.say_load(cell)}


def _say_likeness(item: Beside, comparison: Comparison) -> str:
    """Whether the two are alike, and how much of the gap is the harness's."""
    parts = [wording.say_likeness(comparison), likeness.say_harness_briefly(item.harness)]
    return "".join(f"{t(SEMICOLON)}{part}" for part in parts if part)


def _say_briefly_all(standing: Standing, first: Sequence[str], rest: Sequence[str]) -> str:
    """Vendors in one sentence: the first ones with what keeps them from being alike, the rest with how much does."""
    told = [_say_briefly(standing.nearest(vendor), vendor) for vendor in first]
    told += [_say_in_passing(standing.nearest(vendor), vendor) for vendor in rest]
    return t("{told}.", told=join(told, SEMICOLON))


def _say_in_passing(item: Beside | None, vendor: str) -> str:
    name = wording.say_vendor(vendor)
    if item is None or isinstance(item.outcome, NoComparison):
        return t("{vendor}: no figure to set beside", vendor=name)
    comparison = item.outcome
    if not comparison.is_presentable:
        return t("{vendor}: no ratio to tell", vendor=name)
    same = comparison.count(Agreement.SAME)
    return t(
        "{vendor} {value}, {factor} ({open} of {conditions} conditions differ or are unknown)",
        vendor=name,
        value=wording.say_published(comparison.theirs),
        factor=wording.say_factor(comparison),
        open=len(comparison.differences) - same,
        conditions=len(comparison.differences),
    )


def _say_briefly(item: Beside | None, vendor: str) -> str:
    name = wording.say_vendor(vendor)
    if item is None or isinstance(item.outcome, NoComparison):
        return t("{vendor}: no figure to set beside", vendor=name)
    comparison = item.outcome
    if not comparison.is_presentable:
        return t("{vendor}: no ratio to tell ({why})", vendor=name, why=likeness.say_kept_out(comparison))
    figure = comparison.theirs
    return t(
        "{vendor} publishes {value} for {model} ({date}), {factor} ({counts}{likeness})",
        vendor=name,
        value=wording.say_published(figure),
        model=_model_of(figure),
        date=join((figure.published, *_say_gone(figure))),
        factor=wording.say_factor(comparison),
        counts=wording.say_counts(comparison),
        likeness=_say_likeness(item, comparison),
    )


def _model_of(figure: PublishedFigure) -> str:
    return wording.short_model(figure.model) if figure.model else t("its machine")


def _say_gone(figure: PublishedFigure) -> list[str]:
    """That what reached it can no longer be had: a reader of the first minute may want to buy it."""
    until = figure.available_until
    return [] if until is None else [t("no longer offered (until {date})", date=until)]


def _say_figure(comparison: Comparison) -> str:
    figure = comparison.theirs
    parts = [wording.say_measurer(figure.measured_by), figure.published]
    parts += [t("with speculative decoding")] if figure.speculation not in (None, "none") else []
    parts += _say_gone(figure)
    origin = [wording.say_site(figure.source_url)]
    origin += [] if figure.is_primary else [t("read second-hand")]
    return t(
        "{value} for {model} ({parts}; {origin})",
        value=wording.say_published(figure),
        model=_model_of(figure),
        parts=join(parts),
        origin=join(origin),
    )
