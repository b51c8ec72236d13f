"""What a user is promised, and whether an estimate keeps it with its whole interval. It picks no cell."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from tokbench.derive.decision.latency import ttft_p95
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.stats import Estimate


@dataclasses.dataclass(frozen=True, slots=True)
class Promise:
    """A decode speed that each user gets at least, and a time to the first token that 95 of 100 do not exceed."""

    tokens_per_s: float
    ttft_s: float = 1.0


PROMISES: Final = (Promise(20.0), Promise(50.0), Promise(200.0))
"""Three ways of use. Our choice: text that is read as it comes, text that is skimmed, text that a program waits for."""


class Hold(enum.Enum):
    """How a measured load stands to a promise."""

    HELD = "held"
    BROKEN_SPEED = "speed"
    """The whole interval of the decode speed is below the promise."""
    BROKEN_TTFT = "ttft"
    """The whole interval of the 95th percentile of TTFT is above the promise."""
    SPEED_NOT_SHOWN = "speed_not_shown"
    """The interval of the decode speed straddles the promise, or there is none."""
    TTFT_NOT_SHOWN = "ttft_not_shown"
    """The same of TTFT, while the speed holds."""


def judge_load(cell: CellResult, promise: Promise) -> Hold:
    """Whether a cell keeps a promise; speed that is too low is named before a TTFT that is too long."""
    speed, ttft = cell.metrics.get("decode_tokens_per_s"), ttft_p95(cell)
    reaches = None if not isinstance(speed, Estimate) else _is_at_least(speed, promise.tokens_per_s)
    starts = None if isinstance(ttft, Missing) else _is_at_most(ttft, promise.ttft_s)
    if reaches is False:
        return Hold.BROKEN_SPEED
    if starts is False:
        return Hold.BROKEN_TTFT
    if reaches is None:
        return Hold.SPEED_NOT_SHOWN
    return Hold.TTFT_NOT_SHOWN if starts is None else Hold.HELD


def _is_at_least(value: Estimate, floor: float) -> bool | None:
    """Whether the whole interval is at the floor or above it; None where it straddles it or there is none."""
    if value.low is None or value.high is None:
        return None
    return True if value.low >= floor else False if value.high < floor else None


def _is_at_most(value: Estimate, cap: float) -> bool | None:
    if value.low is None or value.high is None:
        return None
    return True if value.high <= cap else False if value.low > cap else None
