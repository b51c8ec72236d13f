"""How a comparison with published figures is worded: its interval, what keeps it out, the harness. Computes nothing."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.published import MAX_OPEN, Comparison, NoComparison, PublishedFigure
from tokbench.derive.words import SEMICOLON, join, mark, t
from tokbench.record.facts import Agreement
from tokbench.units import format_number, format_value, unit_of

METRIC_WORDS = {
    "decode_tokens_per_s": mark("decode per user"),
    "e2e_tokens_per_s": mark("speed per user, first token included"),
    "ttft_s": mark("time to first token"),
    "output_tokens_per_s": mark("output of the whole system"),
    "usd_per_million_output_tokens": mark("our cost beside their price, per million output tokens"),
}


def say_metric(metric: str) -> str:
    """What is compared, as a reader says it."""
    template = METRIC_WORDS.get(metric)
    return metric if template is None else t(template)


def say_share(comparison: Comparison) -> str:
    """What is compared, and that it is of one device where it is."""
    return t("output of one device") if comparison.is_per_device else say_metric(comparison.metric)


def say_kept_out(comparison: Comparison) -> str:
    """What keeps a ratio out of the summary; empty where nothing does."""
    values = {
        "open": len(comparison.open_conditions),
        "fields": wording.say_fields(comparison.open_conditions),
        "kinds": wording.say_fields(comparison.unlike_kinds),
        "most": MAX_OPEN,
    }
    return join((t(shortfall.value, **values) for shortfall in comparison.shortfalls), SEMICOLON)


def say_absence(outcome: NoComparison) -> str:
    """Why there is nothing to set beside our number."""
    return t(outcome.why.value, vendor=wording.say_vendor(outcome.vendor), metric=say_metric(outcome.metric))


def say_quotient(comparison: Comparison) -> str:
    """Theirs over ours with the interval of both sides, for a column that says so: `52x (51 to 53)`."""
    if comparison.ours_over_theirs <= 0:
        return t("no ratio: ours is zero")
    low, high = comparison.ours_over_theirs_low, comparison.ours_over_theirs_high
    times = wording.say_times(1 / comparison.ours_over_theirs)
    if low is None or high is None or low <= 0:
        return t("{text} (no interval)", text=times)
    digits = wording.digits_of(comparison.ours)
    nearest, farthest = (format_number(1 / end, digits) for end in (high, low))
    return t("{text} ({low} to {high})", text=times, low=nearest, high=farthest)


def say_their_range(comparison: Comparison) -> str:
    """What independent sources of the figure's period say, or that there is one source."""
    found, unit = comparison.theirs_range, unit_of(comparison.theirs.unit)
    if found.low is None or found.high is None:
        return t("one source, so no interval of theirs")
    low, high = format_value(found.low, unit), format_value(found.high, unit)
    if found.low == found.high:
        return t("{sources} independent sources within half a year agree", sources=found.sources)
    return t(
        "{low} to {high} in {sources} independent sources within half a year",
        low=low,
        high=high,
        sources=found.sources,
    )


def say_harness(harness: Comparison | NoComparison | None) -> str:
    """The harness efficiency in one clause, or why there is none."""
    if harness is None:
        return t("no harness efficiency: the cell has no such speed")
    if isinstance(harness, NoComparison):
        return t("no harness efficiency: {reason}", reason=say_absence(harness))
    return t(
        "harness efficiency {share}: {of_what}", share=say_percentage(harness), of_what=say_best_on_device(harness)
    )


def say_harness_briefly(harness: Comparison | NoComparison | None) -> str:
    """The harness efficiency in a few words, for a line that has to be short."""
    if isinstance(harness, Comparison):
        return t("harness efficiency {share}", share=say_percentage(harness))
    return t("harness efficiency not known")


def say_percentage(harness: Comparison) -> str:
    """Our value as a share of the best that was published for the same device and model."""
    return f"{format_number(100 * harness.ours_over_theirs)} %"


def say_best_on_device(harness: Comparison) -> str:
    """The figure that an efficiency is a share of, with what differs."""
    figure = harness.theirs
    said = wording.say_measurer(figure.measured_by), figure.published
    return t(
        "of {value}, the best published for this device and model ({system}; {parts}; {counts})",
        value=wording.say_published(figure),
        system=figure.system,
        parts=join((*said, *say_caveats(figure), *_say_load(harness))),
        counts=wording.say_counts(harness),
    )


def _say_load(harness: Comparison) -> list[str]:
    """That the best was had with another number of streams, or an unstated one: part of the gap may be the load's."""
    for row in harness.differences:
        if row.field == "concurrency" and row.theirs is None:
            return [t("its number of streams is not stated, so that the gap may be the load's")]
        if row.field == "concurrency" and row.agreement is Agreement.DIFFERENT:
            return [
                t(
                    "with {theirs} streams, ours with {ours}: the load's share included",
                    theirs=row.theirs,
                    ours=row.ours,
                )
            ]
    return []


def say_caveats(figure: PublishedFigure) -> list[str]:
    """What a reader has to know of a published value: its statistic, its technique, how it was read, if it is gone."""
    parts = []
    if figure.statistic == "at_least":
        parts.append(t("a floor"))
    elif figure.statistic == "rated":
        parts.append(t("a rated value"))
    elif figure.statistic is not None:
        parts.append(t("statistic: {statistic}", statistic=figure.statistic))
    if figure.derived_from:
        parts.append(t("our arithmetic on {rows}", rows=join(figure.derived_from)))
    if figure.speculation not in (None, "none"):
        parts.append(t("with speculative decoding"))
    if not figure.is_primary:
        parts.append(t("read second-hand"))
    if figure.available_until is not None:
        parts.append(t("no longer offered (until {date})", date=figure.available_until))
    return parts
