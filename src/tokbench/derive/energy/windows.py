"""The edge-exact window: energy between a counter's first and last tick inside it, and the work between the two."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokbench.derive.energy.agreement import Second, choose_kind, integrate_power
from tokbench.derive.energy.counters import Tick, check_alive, choose_edges, find_period_s, find_ticks, select
from tokbench.derive.energy.work import Levels, Work
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.observations import PowerReading
from tokbench.record.run import Run
from tokbench.record.timings import NS
from tokbench.units import SECONDS, format_value

BOUND_LIMIT = 0.01
"""A window is long enough for a quantisation bound of so much, or its row says why it is not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Without:
    """A quantity of a row that cannot be had, and why."""

    reason: str


class Bound(NamedTuple):
    """How far joules per token can be off because a counter moves in steps; relative. Never an accuracy."""

    ticks: float
    """Both ticks' errors, and those of the stamps, over the time between them."""
    cuts: float
    """Tokens by which the two cut steps can be wrong, over the tokens between the ticks."""

    @property
    def total(self) -> float:
        """Both."""
        return self.ticks + self.cuts


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Energy and work of one window of one domain, or of domains added up."""

    joules: float
    seconds: float
    """Between the two ticks, or readings of power, that the joules lie between."""
    tokens: float
    """0 for an idle window: it has no work."""
    window_s: float
    """From opening to closing; the ticks lie inside."""
    method: Literal["counter", "integrated"]
    period_s: float | None
    bound: Bound | Without
    why_wide: str | None
    """Why the bound is above BOUND_LIMIT; None where it is not."""
    second: Second | Without

    @property
    def mean_w(self) -> float:
        """Mean power."""
        return self.joules / self.seconds

    @property
    def unsure_share(self) -> float:
        """The bound; 0 where there is none, which is not to say that the number is exact."""
        return self.bound.total if isinstance(self.bound, Bound) else 0.0


class Frame(NamedTuple):
    """One window that a domain is asked about."""

    start_at_ns: int
    end_at_ns: int
    work: Work | None
    """None: idle."""
    has_counter: bool = True
    """Whether the domain's counter was ever read in this run."""
    boot: int = 0
    """The boot of the machine that the stamps are of."""
    is_lost: bool = False
    """Whether its meter could be read no longer at some time of the run."""
    idle_w: float | None = None
    limit_w: float | None = None


def measure_span(run: Run, source: tuple[str, str], frame: Frame) -> Span:
    """The energy of one domain in one window: by its counter, else by its power where it has no counter at all.

    Raises:
        UndefinedError: neither gives a number.
    """
    power = choose_kind(select(run.in_boot(frame.boot).power, source, frame.start_at_ns, frame.end_at_ns))
    return _count(run, source, frame, power) if frame.has_counter else _integrate(frame, power)


def _count(run: Run, source: tuple[str, str], frame: Frame, power: Sequence[PowerReading]) -> Span:
    start, end = frame.start_at_ns, frame.end_at_ns
    read = run.in_boot(frame.boot)
    readings = select(read.energy, source, start, end)
    if not readings:
        window = format_value((end - start) * NS, SECONDS)
        raise UndefinedError(t("no reading lies within the window of {window}", window=window))
    period_s = find_period_s(read.periods, source, readings, end)
    if frame.work is not None:
        check_alive(readings, period_s, end, is_lost=frame.is_lost)
    inside = [
        tick
        for tick in find_ticks(readings, period_s)
        if start <= tick.at_ns - tick.error_s / NS and tick.at_ns + tick.error_s / NS <= end
    ]
    edges = choose_edges([tick for tick in inside if tick.is_bounded]) or choose_edges(inside)
    if edges is None:
        raise UndefinedError(_say_short(len(inside), (end - start) * NS, period_s))
    first, last = edges
    joules, seconds = last.joules - first.joules, (last.at_ns - first.at_ns) * NS
    tokens = 0.0 if frame.work is None else frame.work.between(first.at_ns, last.at_ns)
    if frame.work is not None and tokens <= 0:
        raise UndefinedError(t("no token was made between the first and the last tick of the window"))
    bound = _bound(frame, edges, _peak_w(frame, inside, power))
    why = None
    if isinstance(bound, Bound) and bound.total > BOUND_LIMIT:
        why = _say_wide(bound, seconds, first.error_s + last.error_s, frame.work)
    second = _second(power, first.at_ns, last.at_ns)
    return Span(joules, seconds, tokens, (end - start) * NS, "counter", period_s, bound, why, second)


def _say_short(ticks: int, window_s: float, period_s: float | None) -> str:
    window = format_value(window_s, SECONDS)
    if ticks == 0:
        seen = t("the counter was not seen to move within the window of {window}", window=window)
    else:
        seen = t("the counter was seen to move once within the window of {window}", window=window)
    if period_s is None:
        return seen
    return t("{seen}; it moves every {period}", seen=seen, period=format_value(period_s, SECONDS))


def _bound(frame: Frame, edges: tuple[Tick, Tick], peak_w: float | None) -> Bound | Without:
    first, last = edges
    if not (first.is_bounded and last.is_bounded):
        return Without(
            t("the record does not say how long the counter's readings took, so its ticks have no known error")
        )
    seconds = (last.at_ns - first.at_ns) * NS
    clock_s = 0.0 if frame.work is None else 2 * frame.work.clock_error_s
    by_ticks = (first.error_s + last.error_s + clock_s) / seconds
    if frame.work is None:
        return Bound(by_ticks, 0.0)
    least_w = 0.0 if frame.idle_w is None else frame.idle_w  # nothing draws less: the bound is wider, never too small
    levels = Levels(least_w, (last.joules - first.joules) / seconds, peak_w)
    wrong = frame.work.edge_error(first.at_ns, levels) + frame.work.edge_error(last.at_ns, levels)
    return Bound(by_ticks, wrong / frame.work.between(first.at_ns, last.at_ns))


def _peak_w(frame: Frame, ticks: Sequence[Tick], power: Sequence[PowerReading]) -> float | None:
    """The most power that a step can have drawn: the enforced limit, else the most that was seen between neighbours."""
    if frame.limit_w is not None:
        return frame.limit_w
    between = [
        (after.joules - before.joules) / shortest
        for before, after in itertools.pairwise(ticks)
        if (shortest := (after.at_ns - before.at_ns) * NS - before.error_s - after.error_s) > 0
    ]
    return max((*between, *(reading.watts for reading in power)), default=None)


def _say_wide(bound: Bound, seconds: float, ticks_s: float, work: Work | None) -> str:
    ticks = t(
        "its two ticks are known to {error} together, {apart} apart ({share} %)",
        error=format_value(ticks_s, SECONDS),
        apart=format_value(seconds, SECONDS),
        share=f"{100 * bound.ticks:.2g}",
    )
    total = f"{100 * bound.total:.2g}"
    if work is None:
        return t("the bound is {total} %: {ticks}; a longer energy.window narrows it", total=total, ticks=ticks)
    cuts = t(
        "the steps that they cut last up to {longest} ({share} %)",
        longest=format_value(work.longest_s(), SECONDS),
        share=f"{100 * bound.cuts:.2g}",
    )
    return t(
        "the bound is {total} %: {ticks}, and {cuts}; a longer energy.window narrows it",
        total=total,
        ticks=ticks,
        cuts=cuts,
    )


def _second(power: Sequence[PowerReading], start_at_ns: float, end_at_ns: float) -> Second | Without:
    if power and power[0].kind == "average":
        return Without(t("the power sensor gives averages over its own time, which lag"))
    if not power:
        return Without(t("this source gives no power beside its counter"))
    try:
        return Second(t("integrated power"), integrate_power(power, start_at_ns, end_at_ns))
    except UndefinedError as undefined:
        return Without(str(undefined))


def _integrate(frame: Frame, power: Sequence[PowerReading]) -> Span:
    """Trapezoids between the first and the last reading of power inside the window."""
    if not power:
        raise UndefinedError(t("no energy and no power was read within the window"))
    start, end = power[0].at_ns, power[-1].at_ns
    joules = integrate_power(power, start, end)
    tokens = 0.0 if frame.work is None else frame.work.between(start, end)
    if frame.work is not None and tokens <= 0:
        raise UndefinedError(t("no token was made between the first and the last reading of power"))
    why = t("integrated from power readings: what happens between two of them is not known")
    window_s = (frame.end_at_ns - frame.start_at_ns) * NS
    alone = Without(t("power is the only source here"))
    return Span(joules, (end - start) * NS, tokens, window_s, "integrated", None, Without(why), None, alone)


def add_spans(spans: Sequence[Span]) -> Span:
    """Domains added up over the first one's span: each has ticks of its own, so what is added is mean power.

    Bound and second source are those of the parts, weighted by their energy; one that lacks either leaves the sum
    without it.
    """
    first, total_w = spans[0], sum(span.mean_w for span in spans)
    if len(spans) == 1:
        return first
    bounds = [(span.bound, span.mean_w / total_w) for span in spans]
    lacking = next((bound for bound, _ in bounds if isinstance(bound, Without)), None)
    known = [(bound, share) for bound, share in bounds if isinstance(bound, Bound)]
    bound = Bound(sum(b.ticks * share for b, share in known), sum(b.cuts * share for b, share in known))
    is_wide = lacking is None and bound.total > BOUND_LIMIT
    return dataclasses.replace(
        first,
        joules=total_w * first.seconds,
        method="integrated" if any(span.method == "integrated" for span in spans) else "counter",
        period_s=max((span.period_s for span in spans if span.period_s is not None), default=None),
        bound=lacking or bound,
        why_wide=next((span.why_wide for span in spans if span.why_wide), None) if is_wide else None,
        second=_add_seconds(spans),
    )


def _add_seconds(spans: Sequence[Span]) -> Second | Without:
    total_w = 0.0
    for span in spans:
        if isinstance(span.second, Without):
            return span.second
        total_w += span.second.joules / span.seconds
    return Second(t("integrated power"), total_w * spans[0].seconds)
