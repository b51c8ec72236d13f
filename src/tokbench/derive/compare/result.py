"""B beside A: per pair of cells and metric the ratio with its interval, what it shows, and whether it passes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Final

from tokbench import stats
from tokbench.derive import words
from tokbench.derive.compare.join import Match, Single, join
from tokbench.derive.compare.sides import ENERGY_SCOPE, TOKBENCH, Side, Subject
from tokbench.derive.compare.thresholds import Held, Threshold, check_known, read_thresholds
from tokbench.derive.evaluate import Missing
from tokbench.derive.metrics import catalog
from tokbench.derive.pairs import compare_cells
from tokbench.derive.words import mark, say, t
from tokbench.errors import SpecError
from tokbench.stats import Estimate, Outcome, outcome_text
from tokbench.units import (
    BYTES,
    BYTES_PER_S,
    BYTES_PER_STEP,
    BYTES_PER_TOKEN,
    FLOPS_PER_S,
    JOULES,
    JOULES_PER_TOKEN,
    REQUESTS_PER_S,
    SECONDS,
    TOKENS_PER_JOULE,
    TOKENS_PER_S,
    USD_PER_MILLION,
    WATTS,
    Better,
    Unit,
)

ENERGY_UNITS: Final = (JOULES, JOULES_PER_TOKEN, TOKENS_PER_JOULE, WATTS)

DEFAULT_METRICS: Final = (
    "decode_tokens_per_s",
    "prefill_tokens_per_s",
    "ttft_s",
    "output_tokens_per_s",
    "e2e_latency_s",
    "energy_j_per_output_token",
    "peak_memory_bytes",
)
"""Shown unless others are named; those that no pair has a value of are left out."""
_SPEEDS: Final = (SECONDS, TOKENS_PER_S, REQUESTS_PER_S, BYTES_PER_S, FLOPS_PER_S)
_AMOUNTS: Final = (BYTES, BYTES_PER_STEP, BYTES_PER_TOKEN, JOULES, JOULES_PER_TOKEN, USD_PER_MILLION, WATTS)


class Verdict(enum.Enum):
    """What a whole comparison comes to."""

    PASSED = "passed"
    BROKEN = "a bound is broken"
    UNLIKE = "refused: not like for like"
    CANNOT_TELL = "cannot tell"


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What to compare, and how strictly."""

    metrics: tuple[str, ...] = ()
    fail_on: tuple[str, ...] = ()
    is_forced: bool = False
    is_strict: bool = False
    is_one_run: bool = False
    """Whether both sides are cells of one run, so that they are paired by its blocks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One metric of a pair."""

    metric: str
    unit: Unit
    better: Better
    a: Estimate | Missing
    b: Estimate | Missing
    ratio: Estimate | Missing
    """B over A."""
    outcome: str
    basis: str
    """What the interval rests on: `unpaired blocks`, `repetitions`, `exact`, `none`."""
    n_a: int
    n_b: int
    """Blocks where `basis` names them, else repetitions."""
    threshold: Threshold | None
    held: Held | None


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A cell of A and its partner of B. `refused` says why there are no rows."""

    match: Match
    rows: tuple[Row, ...]
    refused: tuple[str, ...]
    is_measured: bool
    """False where neither side has a result: nothing was lost."""


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """A whole comparison."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    only_a: tuple[Single, ...]
    only_b: tuple[Single, ...]
    thresholds: tuple[Threshold, ...]
    is_one_run: bool
    verdict: Verdict


def compare_sides(a: Side, b: Side, asked: Asked) -> Compared:
    """Compare every cell of A with its partner of B.

    Raises:
        SpecError: the sides are of two kinds, an unknown metric, or a bound that is none.
    """
    if a.kind != b.kind and not _measured_names(a) & _measured_names(b):
        fix = "give two run folders, two files of one tool, or a run folder and a file that tells one of its metrics"
        raise SpecError(f"{a.path} is of {a.kind}, and {b.path} of {b.kind}: they share no metric", fix=fix)
    known = _known(a, b)
    for name in asked.metrics:
        check_known(name, known, "--metric")
    thresholds = read_thresholds(asked.fail_on, known)
    joined = join(a, b, is_forced=asked.is_forced)
    names = _shown(joined.matches, asked.metrics, thresholds, list(known))
    pairs = tuple(_pair(match, names, thresholds, asked) for match in joined.matches)
    verdict = _judge(pairs, joined.only_a, thresholds, is_strict=asked.is_strict)
    return Compared(a, b, pairs, joined.only_a, joined.only_b, thresholds, asked.is_one_run, verdict)


def _known(a: Side, b: Side) -> dict[str, Better]:
    if a.kind == b.kind == TOKBENCH:
        return {name: item.better for name, item in catalog().items()}
    return {sample.metric: sample.better for side in (a, b) for cell in side.cells for sample in cell.samples.values()}


def _measured_names(side: Side) -> set[str]:
    return {name for cell in side.cells for name in cell.samples if _has_value(cell, name)}


def _shown(
    matches: Sequence[Match], asked: Sequence[str], thresholds: Sequence[Threshold], known: Sequence[str]
) -> tuple[str, ...]:
    """Metrics in the order asked; else the usual ones that somebody has; bounded ones always."""
    bounded = [threshold.metric for threshold in thresholds]
    if asked:
        return tuple(dict.fromkeys((*asked, *bounded)))
    usual = [name for name in DEFAULT_METRICS if name in known] or known
    held = {name for match in matches for side in (match.a, match.b) for name in usual if _has_value(side, name)}
    return tuple(dict.fromkeys((*(name for name in usual if name in held), *bounded)))


def _has_value(subject: Subject, name: str) -> bool:
    return name in subject.samples and isinstance(subject.samples[name].value, Estimate)


def _pair(match: Match, names: Sequence[str], thresholds: Sequence[Threshold], asked: Asked) -> Pair:
    is_measured = match.a.no_result is None or match.b.no_result is None
    refused = _refusals(match) if is_measured and not asked.is_forced else ()
    by_metric = {threshold.metric: threshold for threshold in thresholds}
    shown = () if refused or not is_measured else names
    rows = tuple(_row(match, name, by_metric.get(name), is_one_run=asked.is_one_run) for name in shown)
    return Pair(match, rows, refused, is_measured)


def _refusals(match: Match) -> tuple[str, ...]:
    rows = {row.field: row for row in match.differences}
    found = [
        t("{name} differs: {ours} in A, {theirs} in B", name=name, ours=rows[name].ours, theirs=rows[name].theirs)
        for name in match.unlike
    ]
    for letter, subject in (("A", match.a), ("B", match.b)):
        if subject.no_result is not None:
            found.append(t("{side} has no result: {reason}", side=letter, reason=subject.no_result))
        elif subject.verdict == "invalid":
            found.append(t("{side} is invalid: {doubts}", side=letter, doubts=words.join(map(say, subject.doubts))))
    return tuple(found)


def _row(match: Match, name: str, threshold: Threshold | None, *, is_one_run: bool) -> Row:
    a, b = match.a.samples.get(name), match.b.samples.get(name)
    sample = a or b
    if sample is None and name not in catalog():  # a percentile that other cells of a tool's file have
        unit, better, is_exact = Unit("", (), False), Better.NEITHER, False
    elif sample is None:
        metric = catalog()[name]
        unit, better, is_exact = metric.unit, metric.better, metric.is_exact
    else:
        unit, better, is_exact = sample.unit, sample.better, sample.is_exact
    of_a = a.value if a is not None else Missing(t("not in A"))
    of_b = b.value if b is not None else Missing(t("not in B"))
    scopes = [side.settings.get(ENERGY_SCOPE) for side in (match.a, match.b)]
    if unit in ENERGY_UNITS and scopes[0] != scopes[1] and isinstance(of_b, Estimate):
        of_b = Missing(t("not comparable: A is of the {a}, B of the {b}", a=scopes[0], b=scopes[1]))
    if isinstance(of_a, Missing) or isinstance(of_b, Missing):
        ratio, outcome, basis, n_a, n_b = _missing(of_a, of_b)
    elif is_exact:
        ratio, outcome, basis, n_a, n_b = _exact(of_a, of_b, better, unit)
    elif is_one_run:
        ratio, outcome, basis, n_a, n_b = _paired(match, name, better, unit)
    else:
        blocks_a, blocks_b = (item.blocks if item is not None else () for item in (a, b))
        ratio, outcome, basis, n_a, n_b = _varying((of_a, of_b), (blocks_a, blocks_b), better, unit)
    held = threshold.judge(ratio) if threshold is not None else None
    return Row(name, unit, better, of_a, of_b, ratio, outcome, basis, n_a, n_b, threshold, held)


_Shown = tuple[Estimate | Missing, str, str, int, int]
"""Ratio, outcome, basis, n of A and n of B."""


def _missing(a: Estimate | Missing, b: Estimate | Missing) -> _Shown:
    reasons = [
        t("{side}: {reason}", side=side, reason=value.reason)
        for side, value in (("A", a), ("B", b))
        if isinstance(value, Missing)
    ]
    counts = [value.n if isinstance(value, Estimate) else 0 for value in (a, b)]
    return Missing(words.join(reasons, words.SEMICOLON)), t("no value"), "none", counts[0], counts[1]


def _exact(a: Estimate, b: Estimate, better: Better, unit: Unit) -> _Shown:
    """Sizes and counts: equal or not, without an interval."""
    if a.value == b.value:
        return stats.exact(1.0, ""), t("equal"), "exact", a.n, b.n
    if a.value <= 0:
        return Missing(t("a ratio needs positive values")), t("differs"), "exact", a.n, b.n
    outcome = Outcome.HIGHER if b.value > a.value else Outcome.LOWER
    text = outcome_text(outcome, better, words_of(unit))
    return stats.exact(b.value / a.value, ""), t("differs: {reading}", reading=say(text)), "exact", a.n, b.n


def _varying(
    values: tuple[Estimate, Estimate],
    blocks: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]],
    better: Better,
    unit: Unit,
) -> _Shown:
    a, b = values
    everything = [value for side in blocks for block in side for value in block]
    if any(value <= 0 for value in (a.value, b.value, *everything)):
        return Missing(t("a ratio needs positive values")), t("no value"), "none", a.n, b.n
    if not all(blocks):
        ratio = Estimate(b.value / a.value, None, None, a.n + b.n, "", f"ratio of {a.statistic}s")
        return ratio, t("cannot tell: the file holds aggregates, not the values behind them"), "none", a.n, b.n
    found = stats.compare(blocks[0], blocks[1], paired=False)
    text = outcome_text(found.outcome, better, words_of(unit))
    return found.ratio, text, found.basis, found.n_a, found.n_b


def _paired(match: Match, name: str, better: Better, unit: Unit) -> _Shown:
    """Two cells of one run over the blocks that hold both."""
    assert match.a.cell is not None and match.b.cell is not None
    found = compare_cells(match.b.cell, match.a.cell, name)
    if isinstance(found, Missing):
        return found, t("no value"), "none", 0, 0
    return found.ratio, outcome_text(found.outcome, better, words_of(unit)), found.basis, found.n_a, found.n_b


def words_of(unit: Unit) -> tuple[str, str]:
    """What B is when it is better, and when it is worse."""
    if unit in _SPEEDS:
        return mark("faster"), mark("slower")
    return (mark("less"), mark("more")) if unit in _AMOUNTS else (mark("better"), mark("worse"))


def _judge(
    pairs: Sequence[Pair], only_a: Sequence[Single], thresholds: Sequence[Threshold], *, is_strict: bool
) -> Verdict:
    held = {row.held for pair in pairs for row in pair.rows}
    if Held.BROKEN in held:
        return Verdict.BROKEN
    if any(pair.refused for pair in pairs) or not any(pair.rows for pair in pairs):
        return Verdict.UNLIKE
    is_open = Held.CANNOT_TELL in held or bool(only_a)
    return Verdict.CANNOT_TELL if thresholds and is_strict and is_open else Verdict.PASSED
