"""What vendors sell today: for each the nearest model on sale, its list price, its published speed and TTFT.

Today is the last day on which a price was read, or the day of the run if that is later: nobody knows more. It compares
no cost, and takes no model for on sale that a vendor has withdrawn.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable, Sequence
from typing import Final

from tokbench.derive.decision.promises import Promise
from tokbench.derive.decision.sweeps import Workload
from tokbench.derive.evaluate import Missing, Results
from tokbench.derive.published import SIZE_CLASS, Match, PublishedFigure, PublishedRange, first_day, model_key
from tokbench.derive.published.periods import TAILS, find_range
from tokbench.derive.wording import say_vendor
from tokbench.derive.words import t
from tokbench.stats import Estimate
from tokbench.units import USD_PER_MILLION

PRICE_IN: Final = "price_usd_per_million_input_tokens"
PRICE_OUT: Final = "price_usd_per_million_output_tokens"
MAX_PRICE_AGE_DAYS: Final = 730
"""A list price that nobody has stated anew for two years is of no offer of today. Our choice: models are withdrawn
within one to two years."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """One model of one vendor that can be bought today."""

    vendor: str
    model: str
    match: Match
    size_ratio: float | None
    """Their total parameters over ours; None where either is not known."""
    price_out: PublishedFigure
    price_in: PublishedFigure | None
    speed: PublishedFigure | None
    ttft: PublishedFigure | None
    blended: Estimate | Missing
    """USD for a million output tokens with the prompts that they take, at the workload's lengths."""
    is_asked: bool = True
    """False for the cheapest one of all other vendors, which stands beside those that were asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class NoOffer:
    """A vendor without a price for a model that can be bought today, and why."""

    vendor: str
    reason: str


def price_day(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> datetime.date:
    """The day that counts as today; see the module's head."""
    days = [item.run.header.utc[:10] for item in results]
    days += [figure.read_on for figure in figures if figure.metric in (PRICE_IN, PRICE_OUT)]
    return max(map(first_day, days))


def find_offers(
    workload: Workload,
    size_b: float | None,
    figures: Sequence[PublishedFigure],
    vendors: Sequence[str],
    today: datetime.date,
) -> tuple[Offer | NoOffer, ...]:
    """The nearest model on sale of each vendor, and of all others the cheapest offer of our model.

    `size_b`: total parameters of our model in 1e9.
    """
    market = _Market(workload, size_b, figures, today)
    asked = tuple(dict.fromkeys(map(str.lower, vendors)))
    found = [market.nearest_of(vendor) for vendor in asked]
    others = {figure.vendor for figure in figures if figure.metric == PRICE_OUT} - set(asked)
    rest = [offer for vendor in sorted(others) if isinstance(offer := market.nearest_of(vendor), Offer)]
    rivals = [(offer.blended.value, offer) for offer in rest if isinstance(offer.blended, Estimate)]
    same = [pair for pair in rivals if pair[1].match == "same_model"]
    if same:
        cheapest = min(same, key=lambda pair: (pair[0], pair[1].vendor))[1]
        found.append(dataclasses.replace(cheapest, is_asked=False))
    return tuple(found)


def endpoint_holds(offer: Offer, promise: Promise) -> bool | None:
    """Whether the published speed and TTFT reach the promise; None where what is published does not settle it.

    A published value is a median or an average of one stream as a rule, and not what 95 of 100 get.
    """
    reaches = None if offer.speed is None else offer.speed.value >= promise.tokens_per_s
    starts = None if offer.ttft is None else offer.ttft.value <= promise.ttft_s
    if reaches is False or starts is False:
        return False
    return True if reaches and starts else None


def is_on_sale(price: PublishedFigure, figures: Iterable[PublishedFigure], today: datetime.date) -> bool:
    """Whether a price is of an offer that still stands.

    It does not, if a row of this vendor and model names an end of the offer that has passed, unless the price was
    published after that end; nor if it is older than MAX_PRICE_AGE_DAYS, or a later reading of its page replaced it.
    """
    stated = first_day(price.published)
    if price.superseded_by is not None or price.model is None or (today - stated).days > MAX_PRICE_AGE_DAYS:
        return False
    key = model_key(price.model)
    ends = [
        first_day(row.available_until)
        for row in figures
        if row.available_until is not None
        and row.vendor == price.vendor
        and row.model is not None
        and model_key(row.model) == key
    ]
    return not any(stated <= end <= today for end in ends)


class _Market:
    """All rows, for one workload on one day."""

    def __init__(
        self, workload: Workload, size_b: float | None, figures: Sequence[PublishedFigure], today: datetime.date
    ) -> None:
        self._workload = workload
        self._size_b = size_b
        self._figures = figures
        self._today = today

    def nearest_of(self, vendor: str) -> Offer | NoOffer:
        """The vendor's offer of our model, else of the model nearest in size; of one model the newest price."""
        name = say_vendor(vendor)
        rows = [figure for figure in self._figures if figure.vendor == vendor]
        prices = [figure for figure in rows if figure.metric == PRICE_OUT]
        on_sale = [price for price in prices if is_on_sale(price, rows, self._today)]
        if not on_sale:
            known = t("no model of {vendor} with a known price is on sale any more", vendor=name)
            return NoOffer(vendor, known if prices else t("no price of {vendor} is known", vendor=name))
        price = min(on_sale, key=self._distance)
        if self._match(price) is None:
            return NoOffer(vendor, t("no price of {vendor} is of a model whose size is known", vendor=name))
        return self._offer(price, rows)

    def _distance(self, price: PublishedFigure) -> tuple[bool, float, int, bool, str]:
        is_other = not self._is_ours(price)
        ratio = self._ratio(price)
        apart = math.inf if ratio is None else abs(math.log(ratio))
        newest = -first_day(price.published).toordinal()
        return is_other, apart if is_other else 0.0, newest, not price.is_primary, price.id

    def _is_ours(self, row: PublishedFigure) -> bool:
        return row.model is not None and model_key(row.model) == model_key(self._workload.model)

    def _ratio(self, row: PublishedFigure) -> float | None:
        known = self._size_b is not None and row.total_params_b is not None
        return row.total_params_b / self._size_b if known and row.total_params_b and self._size_b else None

    def _match(self, price: PublishedFigure) -> Match | None:
        if self._is_ours(price):
            return "same_model"
        ratio = self._ratio(price)
        if ratio is None:
            return None
        return "same_size_class" if max(ratio, 1 / ratio) <= SIZE_CLASS else "nearest_size"

    def _offer(self, price: PublishedFigure, rows: Sequence[PublishedFigure]) -> Offer:
        assert price.model is not None
        key, match = model_key(price.model), self._match(price)
        assert match is not None
        of_model = [row for row in rows if row.model is not None and model_key(row.model) == key]
        entry = _newest(of_model, PRICE_IN)
        return Offer(
            vendor=price.vendor,
            model=price.model,
            match=match,
            size_ratio=self._ratio(price),
            price_out=price,
            price_in=entry,
            speed=_newest([row for row in of_model if row.concurrency in (1, None)], "decode_tokens_per_s"),
            ttft=_newest(of_model, "ttft_s"),
            blended=self._blend(price, entry, rows),
        )

    def _blend(
        self, price: PublishedFigure, entry: PublishedFigure | None, rows: Sequence[PublishedFigure]
    ) -> Estimate | Missing:
        """What a million output tokens cost with their prompts.

        Formula: price_out + price_in * prompt_tokens / output_tokens. The ends are those of the range over independent
        sources of each price's period; None where neither has two sources.
        """
        prompt, output = self._workload.prompt_tokens, self._workload.output_tokens
        if entry is None:
            name = say_vendor(price.vendor)
            return Missing(t("no price of {vendor} for input tokens of this model is known", vendor=name))
        if prompt is None or output is None:
            return Missing(t("the prompt length is not fixed"))
        weight = prompt / output
        value = price.value + weight * entry.value
        ranges = [find_range(row, rows) for row in (price, entry)]
        sources = min(found.sources for found in ranges)
        if all(found.low is None for found in ranges):
            return Estimate(value, None, None, sources, USD_PER_MILLION.symbol, "list_price")
        (out_low, out_high), (in_low, in_high) = (
            _ends_of(row, found) for row, found in zip((price, entry), ranges, strict=True)
        )
        low, high = out_low + weight * in_low, out_high + weight * in_high
        return Estimate(value, low, high, sources, USD_PER_MILLION.symbol, "list_price")


def _ends_of(row: PublishedFigure, found: PublishedRange) -> tuple[float, float]:
    if found.low is None or found.high is None:
        return row.value, row.value
    return found.low, found.high


def _newest(rows: Sequence[PublishedFigure], metric: str) -> PublishedFigure | None:
    """The newest row of a metric that no later reading replaced; tails of a distribution are no usual value."""
    usable = [row for row in rows if row.metric == metric and row.superseded_by is None and row.statistic not in TAILS]
    return min(
        usable,
        key=lambda row: (-first_day(row.published).toordinal(), not row.is_primary, row.repeats is not None, row.id),
        default=None,
    )
