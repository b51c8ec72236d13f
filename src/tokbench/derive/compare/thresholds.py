"""`METRIC:-3%`: how far a metric may worsen, and whether a ratio with its interval is shown to be beyond that."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
from collections.abc import Collection, Mapping

from tokbench.derive.evaluate import Missing
from tokbench.errors import SpecError
from tokbench.stats import Estimate
from tokbench.stats.comparison import ROUNDING
from tokbench.units import Better

KEY = "--fail-on"
_FORM = re.compile(r"([A-Za-z0-9_.]+):([+-])([0-9]+(?:\.[0-9]+)?) ?%")


class Held(enum.Enum):
    """How a threshold stands to what was measured."""

    HELD = "held"
    BROKEN = "broken"
    CANNOT_TELL = "cannot tell"


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """The largest change for the worse of one metric that passes."""

    text: str
    metric: str
    ratio: float
    """B over A at the bound: 0.97 for -3 %."""
    is_floor: bool
    """Whether a ratio below it breaks it; else one above."""

    def judge(self, ratio: Estimate | Missing) -> Held:
        """Broken or held only where the whole interval is on that side; exact values have no interval."""
        if isinstance(ratio, Missing):
            return Held.CANNOT_TELL
        low, high = (ratio.value, ratio.value) if ratio.statistic == "exact" else (ratio.low, ratio.high)
        if low is None or high is None:
            return Held.CANNOT_TELL
        worst, best = (low, high) if self.is_floor else (-high, -low)
        bound = self.ratio if self.is_floor else -self.ratio
        if best < bound - ROUNDING:
            return Held.BROKEN
        is_held = worst >= bound - ROUNDING
        return Held.HELD if is_held else Held.CANNOT_TELL


def read_thresholds(texts: Collection[str], known: Mapping[str, Better]) -> tuple[Threshold, ...]:
    """Read every `METRIC:±P%`.

    Raises:
        SpecError: not of that form, an unknown metric, one named twice, or a change for the better.
    """
    found: dict[str, Threshold] = {}
    for text in texts:
        threshold = _read(text, known)
        if threshold.metric in found:
            raise SpecError(f"the metric `{threshold.metric}` is named twice", key=KEY, fix="keep the stricter bound")
        found[threshold.metric] = threshold
    return tuple(found.values())


def check_known(name: str, known: Collection[str], key: str, what: str = "metric") -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        SpecError: the nearest, or all of them.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
        raise SpecError(f"there is no {what} {name!r}", key=key, fix=fix)


def _read(text: str, known: Mapping[str, Better]) -> Threshold:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        fix = "write a metric, a colon, a sign and percent, e.g. decode_tokens_per_s:-3% or ttft_s:+5%"
        raise SpecError(f"{text!r} is no bound", key=KEY, fix=fix)
    metric, sign, percent = match[1], match[2], float(match[3])
    check_known(metric, known, KEY)
    better = known[metric]
    if (better, sign) in ((Better.HIGHER, "+"), (Better.LOWER, "-")):
        worse = "lower" if better is Better.HIGHER else "higher"
        message = f"{text!r} would fail on an improvement: of {metric} {better.value} is better"
        other = "-" if sign == "+" else "+"
        fix = f"write {metric}:{other}{match[3]}% to fail when it is {worse} by more than that"
        raise SpecError(message, key=KEY, fix=fix)
    if sign == "-" and percent >= 100:
        raise SpecError(f"{text!r} can never be broken: nothing falls by more", key=KEY, fix="stay below 100 %")
    ratio = 1 - percent / 100 if sign == "-" else 1 + percent / 100
    return Threshold(f"{metric}:{sign}{match[3]}%", metric, ratio, sign == "-")
