"""A number of ours set beside published figures, with every condition that differs.

It never divides two numbers without the list of conditions that differ or are unknown, and never takes what a source
does not state for something that agrees with ours. Like stands with like: per user with per user, a system with a
system, a device with a device, the first token of an endpoint with that of an endpoint, a cost with a price by name.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from tokbench.derive.published.periods import TAILS, PublishedRange, find_range
from tokbench.derive.published.rows import PublishedFigure
from tokbench.derive.published.sheet import first_day
from tokbench.derive.published.systems import PER_DEVICE, is_per_device, is_same_model, is_same_width
from tokbench.derive.words import mark
from tokbench.record.facts import Agreement, Conditions, Difference, differences
from tokbench.stats import Estimate

PER_STREAM_METRICS: Final = frozenset({"decode_tokens_per_s", "e2e_tokens_per_s", "ttft_s", "ttfa_s", "e2e_latency_s"})
COST: Final = "usd_per_million_output_tokens"
COUNTERPARTS: Final[Mapping[str, tuple[str, ...]]] = {
    COST: (COST, "price_usd_per_million_output_tokens"),
    "output_tokens_per_s": ("output_tokens_per_s", PER_DEVICE),
}
"""What is published beside a metric of ours: a price beside our cost, which is none and says so; one device's share of
a system's speed beside our share."""
SIZE_CLASS: Final = 1.5
"""Two models are of one size while neither has more than this many times the parameters of the other."""
HEAVY: Final = ("weights", "precision", "concurrency", "speculation", "excludes_ttft")
"""Conditions each of which alone moves a speed by two to four times: 4 bits a weight instead of 16 are a quarter of the
bytes; drafts made one H200 3.6 times as fast (rows nvidia-h200-l33-70b-base and -draft1b)."""
MAX_OPEN: Final = 2
"""With more of HEAVY different or not stated a ratio says nothing of a machine: two of them span up to 4 x 4, three
4 x 4 x 4, which is more than lies between a GPU and a wafer."""

_DECISIVE: Final = ("model", "weights", "precision", "concurrency", "speculation")
_LENGTHS: Final[Mapping[str, tuple[str, ...]]] = {
    "ttft_s": ("prompt_tokens",),
    "ttfa_s": ("prompt_tokens",),
    **dict.fromkeys(("output_tokens_per_s", PER_DEVICE), ("prompt_tokens", "output_tokens")),
}
"""Lengths that a metric hangs on: the first token waits for the prompt, and a system's speed has the prefill in it."""
_KINDS: Final = frozenset({"endpoint", "kind_of_price"})

Match = Literal["same_model", "same_size_class", "nearest_size"]


class Shortfall(enum.Enum):
    """What keeps a ratio out of summaries and charts; the value is what a reader sees."""

    MODEL = mark("another model")
    KIND = mark("not the same quantity ({kinds})")
    LOAD = mark("the number of streams differs or is not stated")
    OPEN = mark(
        "{open} of the conditions that move a speed by a factor differ or are not stated ({fields}); {most} are allowed"
    )


class Absence(enum.Enum):
    """Why nothing of a vendor can be set beside a number of ours; the value is what a reader sees."""

    METRIC = mark("no figure of {vendor} states {metric}")
    UNUSABLE = mark("no figure of {vendor} for {metric} is of a load and a statistic like ours")
    SIZE = mark("no figure of {vendor} for {metric} is of our model, and the sizes are not known on both sides")
    DEVICE = mark("no published figure of this speed for this device")
    DEVICE_MODEL = mark("no published figure of this speed for this device with this model and as many devices")
    LOAD = mark("published figures of this device are of one stream, ours is of more")


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One number of ours, and what it takes to find its match: conditions, and total and active parameters in 1e9."""

    estimate: Estimate
    metric: str  # `ttft_s.p50` is set beside figures of `ttft_s`
    conditions: Conditions
    size_b: float | None
    active_b: float | None
    is_endpoint: bool = False
    """Whether it was had over the network interface of a service, with its queue, and not in the engine's process."""

    @property
    def counterparts(self) -> tuple[str, ...]:
        """The published metrics that it is set beside."""
        metric = self.metric.partition(".")[0]
        return COUNTERPARTS.get(metric, (metric,))

    @property
    def percentile(self) -> str:
        """`p95` of `ttft_s.p95`; empty where the metric is the plain one."""
        return self.metric.partition(".")[2]

    def per_device(self) -> Measured | None:
        """The same for one device; None where their number is not known."""
        count, mine = self.conditions.device_count, self.estimate
        if count is None:
            return None
        ends = [None if end is None else end / count for end in (mine.low, mine.high)]
        share = dataclasses.replace(mine, value=mine.value / count, low=ends[0], high=ends[1])
        return dataclasses.replace(self, estimate=share)


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """One estimate of ours beside one published figure: the ratio, and all that stands between the two."""

    vendor: str
    metric: str
    ours: Estimate  # of one device where `is_per_device`
    theirs: PublishedFigure
    theirs_range: PublishedRange
    """What independent sources of its period say; without ends where there is one source."""
    ours_over_theirs: float  # 0.1: our value is a tenth of theirs
    ours_over_theirs_low: float | None
    """By interval arithmetic: our low end over the highest of their range; their one value where they have no range.
    None where our number has no interval."""
    ours_over_theirs_high: float | None
    match: Match
    their_size_over_ours: float | None  # total parameters; None where either is not known
    their_active_size_over_ours: float | None
    differences: tuple[Difference, ...]
    unlike: tuple[str, ...]
    """The fields that keep the two from being like for like, because they differ or are not known."""
    is_per_device: bool = False
    others: tuple[Comparison, ...] = ()
    """The remaining figures of the same match, in order; only the headline has them."""

    @property
    def is_like_for_like(self) -> bool:
        """Same model and weights, definition, precision class, speculation and concurrency, all of them stated."""
        return not self.unlike

    @property
    def open_conditions(self) -> tuple[str, ...]:
        """Those of HEAVY that differ or are not stated."""
        return tuple(field for field in self.unlike if field in HEAVY)

    @property
    def unlike_kinds(self) -> tuple[str, ...]:
        """What makes one name stand for two quantities."""
        return tuple(field for field in self.unlike if field in _KINDS)

    @property
    def shortfalls(self) -> tuple[Shortfall, ...]:
        """What it lacks to be shown in a summary; the minimum is one model, one quantity, one load, few open."""
        metric = self.metric.partition(".")[0]
        found = {
            Shortfall.MODEL: self.match != "same_model",
            Shortfall.KIND: bool(self.unlike_kinds),
            Shortfall.LOAD: metric in PER_STREAM_METRICS and "concurrency" in self.unlike,
            Shortfall.OPEN: len(self.open_conditions) > MAX_OPEN,
        }
        return tuple(shortfall for shortfall, is_short in found.items() if is_short)

    @property
    def is_presentable(self) -> bool:
        """Whether the ratio may stand in a summary or a chart's headline; else it belongs in the appendix."""
        return not self.shortfalls

    def count(self, agreement: Agreement) -> int:
        """How many conditions are the same, different or unknown."""
        return sum(row.agreement is agreement for row in self.differences)


@dataclasses.dataclass(frozen=True, slots=True)
class NoComparison:
    """Nothing of this vendor can be set beside our number, and why."""

    vendor: str
    metric: str
    why: Absence

    @property
    def reason(self) -> str:
        """Why, in English: for files that are data."""
        return self.why.value.format(vendor=self.vendor, metric=self.metric)


def compare_with_published(
    measured: Measured, figures: Sequence[PublishedFigure], vendors: Sequence[str]
) -> tuple[Comparison | NoComparison, ...]:
    """Set one number of ours beside the best match of each vendor, in the order of `vendors`.

    Figures of our model come first; else those of our size class by total parameters, with as many active ones before
    the rest; else the class nearest in size. Of these one that is presentable comes before one that is not, and then
    the newest is the headline.
    """
    return tuple(_compare_vendor(measured, vendor, figures) for vendor in dict.fromkeys(map(str.lower, vendors)))


def compare_one(ours: Measured, figure: PublishedFigure, match: Match, pool: Sequence[PublishedFigure]) -> Comparison:
    """Set our number beside one figure; `pool`: figures among which other sources of the same are looked for.

    Raises:
        ValueError: the figure is of one device, and it is not known how many of ours there were.
    """
    share = ours.per_device() if is_per_device(figure) else ours
    if share is None:
        raise ValueError(f"{figure.id} is of one device, and ours are of an unknown number")
    rows = _set_side_by_side(share, figure)
    estimate, theirs = share.estimate, find_range(figure, pool)
    low, high = (figure.value if end is None else end for end in (theirs.low, theirs.high))
    return Comparison(
        vendor=figure.vendor,
        metric=ours.metric,
        ours=estimate,
        theirs=figure,
        theirs_range=theirs,
        ours_over_theirs=estimate.value / figure.value,
        ours_over_theirs_low=_quotient(estimate.low, high),
        ours_over_theirs_high=_quotient(estimate.high, low),
        match=match,
        their_size_over_ours=_quotient(figure.total_params_b, ours.size_b),
        their_active_size_over_ours=_quotient(figure.active_params_b, ours.active_b),
        differences=rows,
        unlike=_find_unlike(share, figure, rows),
        is_per_device=is_per_device(figure),
    )


def _compare_vendor(ours: Measured, vendor: str, figures: Sequence[PublishedFigure]) -> Comparison | NoComparison:
    of_metric = [figure for figure in figures if figure.vendor == vendor and figure.metric in ours.counterparts]
    usable = [figure for figure in of_metric if _is_usable(ours, figure)]
    match, candidates = _best_match(ours, usable)
    if match is None:
        why = Absence.SIZE if usable else Absence.UNUSABLE if of_metric else Absence.METRIC
        return NoComparison(vendor, ours.metric, why)
    compared = [compare_one(ours, figure, match, of_metric) for figure in candidates]
    headline, *others = sorted(compared, key=_rank)
    return dataclasses.replace(headline, others=tuple(others))


def _is_usable(ours: Measured, figure: PublishedFigure) -> bool:
    """One stream beside a metric of one stream, a tail beside the same tail, a device's share where we know ours."""
    if figure.metric in PER_STREAM_METRICS and figure.concurrency != 1:
        return False
    if figure.statistic in TAILS and figure.statistic != ours.percentile:
        return False
    return not is_per_device(figure) or ours.conditions.device_count is not None


def _best_match(ours: Measured, figures: Sequence[PublishedFigure]) -> tuple[Match | None, list[PublishedFigure]]:
    if same := [figure for figure in figures if is_same_model(ours.conditions.model, figure.model)]:
        return "same_model", same
    factors = [_factor(_quotient(figure.total_params_b, ours.size_b)) for figure in figures]
    nearest = min(factors, default=math.inf)
    limit = SIZE_CLASS * (1.0 if nearest <= SIZE_CLASS else nearest)
    close = [figure for figure, factor in zip(figures, factors, strict=True) if factor <= limit < math.inf]
    return ("same_size_class" if nearest <= SIZE_CLASS else "nearest_size") if close else None, close


def _rank(found: Comparison) -> tuple[bool, bool, bool, bool, int, bool, bool, str]:
    """Order within one match; a date that is only a year counts as its first day, so it never passes for newer.

    Of machines that can be had, one with another number of devices than ours comes after the rest.
    """
    figure = found.theirs
    counts = {row.agreement for row in found.differences if row.field == "device_count"}
    is_machine = figure.deployment != "cloud-endpoint" and not found.is_per_device
    return (
        _factor(found.their_active_size_over_ours) > SIZE_CLASS,
        figure.superseded_by is not None,
        not found.is_presentable,
        is_machine and Agreement.DIFFERENT in counts,
        -first_day(figure.published).toordinal(),
        not figure.is_primary,
        figure.repeats is not None,
        figure.id,
    )


def _set_side_by_side(ours: Measured, figure: PublishedFigure) -> tuple[Difference, ...]:
    """Every condition of both, and what makes one name stand for two quantities."""
    mine = ours.conditions
    if mine.concurrency is None:  # the sequences of one forward pass are the requests in flight
        mine = dataclasses.replace(mine, concurrency=mine.static_batch)
    rows = [row._replace(agreement=_agreement(row)) for row in differences(mine, figure.conditions())]
    if figure.metric in ("ttft_s", "ttfa_s"):
        is_theirs = figure.deployment == "cloud-endpoint"
        agreement = Agreement.SAME if ours.is_endpoint else Agreement.DIFFERENT
        here, there = "yes" if ours.is_endpoint else "no", "yes" if is_theirs else None
        rows.append(Difference("endpoint", here, there, agreement if is_theirs else Agreement.UNKNOWN))
    if ours.metric == COST:
        theirs = "cost" if figure.metric == COST else "price"
        rows.append(Difference("kind_of_price", "cost", theirs, Agreement("same" if theirs == "cost" else "different")))
    return tuple(rows)


def _find_unlike(ours: Measured, figure: PublishedFigure, rows: Sequence[Difference]) -> tuple[str, ...]:
    decisive = {*_DECISIVE, *_LENGTHS.get(figure.metric, ()), *_KINDS}
    unlike = [row.field for row in rows if row.field in decisive and row.agreement is not Agreement.SAME]
    if "precision" in unlike and is_same_width(ours.conditions.precision, figure.precision):
        unlike.remove("precision")
    if figure.metric == "decode_tokens_per_s" and not figure.excludes_ttft:
        unlike.append("excludes_ttft")
    return tuple(unlike)


def _agreement(row: Difference) -> Agreement:
    """Plain equality, but for names of one model, and for words that say less than ours and so settle nothing."""
    if row.agreement is not Agreement.DIFFERENT:
        return row.agreement
    ours, theirs = str(row.ours), str(row.theirs)
    if row.field == "model" and is_same_model(ours, theirs):
        return Agreement.SAME
    is_vague = row.field == "precision" and is_same_width(ours, theirs) and "bit" in ours + theirs
    is_vague |= row.field == "speculation" and theirs == "speculative-decoding" and ours != "none"
    return Agreement.UNKNOWN if is_vague else Agreement.DIFFERENT


def _quotient(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or bottom is None else top / bottom


def _factor(quotient: float | None) -> float:
    """How many times the larger holds the smaller; infinite where either is not known."""
    return math.inf if quotient is None else max(quotient, 1 / quotient)
