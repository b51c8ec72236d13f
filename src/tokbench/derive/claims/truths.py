"""Three-valued logic over comparisons, which keeps what decided: the evidence, the straddling interval, the gap.

A truth never becomes firmer than the comparisons it is made of.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

from tokbench.derive.claims.dimensions import PLAIN
from tokbench.derive.claims.intervals import Interval
from tokbench.derive.claims.values import (
    Cause,
    Lacking,
    Number,
    Quantity,
    Rest,
    Rests,
    RuleError,
    Series,
    State,
    Truth,
    Truths,
    combine,
)

OPPOSITE = {State.TRUE: State.FALSE, State.FALSE: State.TRUE, State.UNDECIDED: State.UNDECIDED}


def compare(left: Number, symbol: str, right: Number, say: Callable[[], str]) -> Truth | Truths:
    """`left symbol right`, where symbol is one of `< <= > >=`; `say` tells how the rule writes it, where needed.

    Raises:
        RuleError: the units differ.
    """
    if left.dimension != right.dimension:
        sides = [side.dimension.symbol or "a plain number" for side in (left, right)]
        raise RuleError(f"`{say()}` compares {sides[0]} with {sides[1]}")
    if symbol in ("<", "<="):
        left, right = right, left
    gap = combine(lambda a, b: Interval(a.low - b.high, a.mid - b.mid, a.high - b.low), left.dimension, left, right)
    is_strict = symbol in ("<", ">")
    if isinstance(gap, Lacking):
        undecided = Truth(State.UNDECIDED, causes=gap.causes)
        return undecided if gap.axis is None else Truths(gap.axis, (), gap.causes)
    if isinstance(gap, Quantity):
        return _judge(gap.interval, gap.rests, is_strict, say)
    entries = []
    for key, own, rests in gap.entries:
        entries.append((key, _judge(own, rests, is_strict, functools.partial(_say_at, say, f"{gap.axis} {key}"))))
    return Truths(gap.axis, tuple(entries))


def negate(truth: Truth | Truths) -> Truth | Truths:
    """`not`."""
    if isinstance(truth, Truths):
        return Truths(truth.axis, tuple((key, _negate(own)) for key, own in truth.entries), truth.causes)
    return _negate(truth)


def conjoin(truths: Sequence[Truth | Truths]) -> Truth | Truths:
    """`and`: false as soon as one is false."""
    return _join(truths, all_of)


def disjoin(truths: Sequence[Truth | Truths]) -> Truth | Truths:
    """`or`: true as soon as one is true."""
    return _join(truths, lambda operands: _negate(all_of([_negate(truth) for truth in operands])))


def all_of(truths: Sequence[Truth]) -> Truth:
    """Whether all hold. One that is false decides alone: of several the best supported; if all hold, all count."""
    false = [truth for truth in truths if truth.state is State.FALSE]
    if false:
        return max(false, key=lambda truth: least_sources(truth.rests))
    rests = frozenset[Rest]().union(*(truth.rests for truth in truths))
    undecided = [truth for truth in truths if truth.state is State.UNDECIDED]
    causes = frozenset[Cause]().union(*(truth.causes for truth in undecided))
    straddles = tuple(dict.fromkeys(itertools.chain.from_iterable(truth.straddles for truth in undecided)))
    return Truth(State.UNDECIDED if undecided else State.TRUE, rests, causes, straddles)


def every(truths: Truths) -> Truth:
    """`all(…)` over a series."""
    if truths.causes:
        return Truth(State.UNDECIDED, causes=truths.causes)
    return all_of([truth for _, truth in truths.entries])


def some(truths: Truths) -> Truth:
    """`any(…)` over a series: true on the evidence of all the entries that are true."""
    held = [truth for _, truth in truths.entries if truth.state is State.TRUE]
    if held:
        return Truth(State.TRUE, frozenset[Rest]().union(*(truth.rests for truth in held)))
    opposite = negate(truths)
    return _negate(every(opposite)) if isinstance(opposite, Truths) else _negate(opposite)


def count(counted: Truths | Series | Lacking) -> Number:
    """How many entries are true, at least and at most; of a series, how many there are."""
    if isinstance(counted, Lacking):
        return Lacking(PLAIN, None, counted.causes)
    if isinstance(counted, Series):
        rests = frozenset[Rest]().union(*(own for _, _, own in counted.entries))
        number = float(len(counted.entries))
        return Quantity(Interval(number, number, number), PLAIN, rests)
    if counted.causes:
        return Lacking(PLAIN, None, counted.causes)
    sure = [truth for _, truth in counted.entries if truth.state is State.TRUE]
    possible = [truth for _, truth in counted.entries if truth.state is not State.FALSE]
    rests = frozenset[Rest]().union(*(truth.rests for truth in sure or [own for _, own in counted.entries]))
    return Quantity(Interval(float(len(sure)), float(len(sure)), float(len(possible))), PLAIN, rests)


def least_sources(rests: Rests) -> int:
    """Independent sources of the counted input that has the fewest; very many where none is counted."""
    sources: dict[str, set[str]] = {}
    for rest in rests:
        if rest.is_counted:
            sources.setdefault(rest.input, set()).add(rest.source)
    return min((len(found) for found in sources.values()), default=1_000_000)


def _say_at(say: Callable[[], str], place: str) -> str:
    return f"{say()} at {place}"


def _judge(gap: Interval, rests: Rests, is_strict: bool, say: Callable[[], str]) -> Truth:
    """Whether the gap is positive (or zero, unless strict) over the whole interval."""
    if gap.low > 0 or (gap.low == 0 and not is_strict):
        return Truth(State.TRUE, rests)
    if gap.high < 0 or (gap.high == 0 and is_strict):
        return Truth(State.FALSE, rests)
    return Truth(State.UNDECIDED, rests, straddles=(say(),))


def _negate(truth: Truth) -> Truth:
    return Truth(OPPOSITE[truth.state], truth.rests, truth.causes, truth.straddles)


def _join(truths: Sequence[Truth | Truths], join: Callable[[Sequence[Truth]], Truth]) -> Truth | Truths:
    series = [truth for truth in truths if isinstance(truth, Truths)]
    if not series:
        return join([truth for truth in truths if isinstance(truth, Truth)])
    axes = {truth.axis for truth in series}
    if len(axes) > 1:
        raise RuleError(f"series by {' and by '.join(sorted(axes))} cannot be set side by side")
    causes = frozenset[Cause]().union(*(truth.causes for truth in series))
    if causes:
        return Truths(series[0].axis, (), causes)
    tables = [dict(truth.entries) for truth in series]
    singles = [truth for truth in truths if isinstance(truth, Truth)]
    keys = [key for key in tables[0] if all(key in table for table in tables)]
    if not keys:
        return Truths(series[0].axis, (), frozenset({Cause(None, f"no {series[0].axis} stands on both sides", False)}))
    return Truths(series[0].axis, tuple((key, join([*(table[key] for table in tables), *singles])) for key in keys))
