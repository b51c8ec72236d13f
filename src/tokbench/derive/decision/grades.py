"""How firm an answer is: A to D by stated rules. Each weakness lowers the grade by its steps, nothing else does."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from typing import Final, Literal

from tokbench.derive.decision.answers import Answer, Outcome
from tokbench.derive.decision.offers import Offer
from tokbench.derive.published import Comparison, first_day
from tokbench.record.run import Trial
from tokbench.stats import MIN_BLOCKS, Estimate

Grade = Literal["A", "B", "C", "D"]
_GRADES: Final[tuple[Grade, ...]] = ("A", "B", "C", "D")

WIDE: Final = 0.05
"""Half the interval of the decode speed over its value: above this two machines that differ by a tenth look alike."""
VERY_WIDE: Final = 0.2
MIN_REQUESTS: Final = 20
"""With fewer requests a 95th percentile is the slowest one."""
MAX_FIGURE_AGE_DAYS: Final = 365
"""A list price or speed older than this may have been changed since. Our choice."""


class Weakness(enum.Enum):
    """What lowers a grade; the value is what files of data call it."""

    NO_QUEUE = "no_queue"
    WIDE = "wide_interval"
    VERY_WIDE = "very_wide_interval"
    FEW_PROCESSES = "few_processes"
    SUSPECT = "suspect_cell"
    FEW_REQUESTS = "few_requests"
    FAILED_REQUESTS = "failed_requests"
    SMALLER_BREAKS = "smaller_load_breaks"
    OLD_PRICE = "old_price"
    SECOND_HAND = "second_hand_price"
    ONE_SOURCE = "one_source"
    OTHER_MODEL = "other_model"
    UNLIKE = "unlike_conditions"
    RENT_RANGE = "published_rent"


STEPS: Final = {Weakness.VERY_WIDE: 2, Weakness.OTHER_MODEL: 2}
"""Steps of those that weigh more than one."""


def grade_of(weaknesses: Sequence[Weakness]) -> Grade:
    """A without any; each takes its steps, down to D."""
    return _GRADES[min(len(_GRADES) - 1, sum(STEPS.get(weakness, 1) for weakness in weaknesses))]


def weaknesses_of(answer: Answer) -> tuple[Weakness, ...]:
    """What makes an answer less firm; empty for one that rests on no cell."""
    cell = answer.cell
    if cell is None:
        return ()
    speed = cell.metrics.get("decode_tokens_per_s")
    trials = cell.record.good_trials()
    is_service = cell.record.spec.load.kind == "closed"
    half = speed.relative_half_width() if isinstance(speed, Estimate) else None
    blocks = speed.blocks if isinstance(speed, Estimate) else None
    is_told = answer.outcome in (Outcome.HELD, Outcome.NOT_SHOWN)  # else all of the interval is below the promise
    found = {
        Weakness.NO_QUEUE: not is_service and answer.outcome is Outcome.HELD,
        Weakness.WIDE: is_told and half is not None and WIDE < half <= VERY_WIDE,
        Weakness.VERY_WIDE: is_told and (half is None or half > VERY_WIDE),
        Weakness.FEW_PROCESSES: blocks is None or blocks < MIN_BLOCKS,
        Weakness.SUSPECT: cell.validity.verdict == "suspect",
        Weakness.FEW_REQUESTS: is_service and any(len(trial.requests) < MIN_REQUESTS for trial in trials),
        Weakness.FAILED_REQUESTS: any(_has_failed(trial) for trial in trials),
        Weakness.SMALLER_BREAKS: answer.smaller_breaks,
    }
    return tuple(weakness for weakness, applies in found.items() if applies)


def offer_weaknesses(
    offer: Offer, beside: Comparison | None, is_rent_published: bool, today: datetime.date
) -> tuple[Weakness, ...]:
    """What makes a break-even with an offer less firm, beside what makes our own side so."""
    prices = [price for price in (offer.price_out, offer.price_in) if price is not None]
    oldest = min(first_day(price.published) for price in prices)
    found = {
        Weakness.OLD_PRICE: (today - oldest).days > MAX_FIGURE_AGE_DAYS,
        Weakness.SECOND_HAND: not all(price.is_primary for price in prices),
        Weakness.ONE_SOURCE: beside is not None and beside.theirs_range.sources < 2,
        Weakness.OTHER_MODEL: offer.match != "same_model",
        Weakness.UNLIKE: beside is None or bool({"precision", "speculation"}.intersection(beside.unlike)),
        Weakness.RENT_RANGE: is_rent_published,
    }
    return tuple(weakness for weakness, applies in found.items() if applies)


def _has_failed(trial: Trial) -> bool:
    return any(trace.error is not None for trace in trial.requests)
