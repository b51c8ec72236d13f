"""How verdicts, values and sources of claims are said: for the table, the explanation and the report alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokbench.derive.claims.dimensions import read_unit
from tokbench.derive.claims.evidence import Resolved, Source
from tokbench.derive.claims.input_rows import Bilingual
from tokbench.derive.claims.intervals import Interval
from tokbench.derive.claims.rows import ClaimRow, Half
from tokbench.derive.claims.values import Lacking, Quantity, Series, State, Truth, Truths, Value
from tokbench.derive.claims.verdicts import Because, ClaimVerdict, Contrast, Outcome, Strength
from tokbench.derive.words import SEMICOLON, join, language, mark, t
from tokbench.units import format_number

OUTCOMES: Final = {
    Outcome.SUPPORTED: mark("supported"),
    Outcome.REFUTED: mark("refuted"),
    Outcome.PARTLY: mark("partly"),
    Outcome.OPEN: mark("open"),
    Outcome.UNTESTED: mark("untested"),
}
STRENGTHS: Final = {
    Strength.MEASURED_AT_SCALE: mark("measured here at scale"),
    Strength.INDEPENDENT: mark("published by independent sources"),
    Strength.MEASURED_SMALL: mark("measured here on a small model or without an accelerator"),
    Strength.ONE_SOURCE: mark("published by one source, or by the vendor alone"),
    Strength.REPLAYED: mark("replayed or projected"),
    Strength.ARITHMETIC: mark("arithmetic on specifications and assumptions"),
}
BECAUSE: Final = {
    Because.RULE: mark("one rule holds over the whole interval and the other does not"),
    Because.BOTH: mark("both rules hold: the evidence disagrees"),
    Because.NEITHER: mark("neither rule holds"),
    Because.ONE_SOURCE: mark("a rule holds, but rests on a single independent source"),
    Because.STRADDLES: mark("an interval straddles a bound"),
    Because.NO_EVIDENCE: mark("evidence that the rules need does not exist yet, or not here"),
    Because.UNDEFINED: mark("an operation of the rules has no value on these numbers"),
    Because.NOT_TESTED: mark("an input that can be had is missing"),
    Because.DEADLINE: mark("the day that it speaks of has not passed"),
    Because.DEVICES: mark("the devices that measured it disagree"),
}
STATES: Final = {
    State.TRUE: mark("true"),
    State.FALSE: mark("false"),
    State.UNDECIDED: mark("undecided"),
}
LABELS: Final = {
    "second-hand": mark("read second-hand"),
    "our arithmetic": mark("our arithmetic on what the source states"),
    "our assumption": mark("numbers that we assume or define"),
    "random weights": mark("random weights"),
    "replay weights": mark("replayed"),
}
SHORT_STRENGTHS: Final = {
    Strength.MEASURED_AT_SCALE: mark("measured, at scale"),
    Strength.INDEPENDENT: mark("independent sources"),
    Strength.MEASURED_SMALL: mark("measured, small"),
    Strength.ONE_SOURCE: mark("one source"),
    Strength.REPLAYED: mark("replayed or projected"),
    Strength.ARITHMETIC: mark("arithmetic"),
}
"""For a table, whose legend says what they mean."""
SHORT_BECAUSE: Final = {
    Because.RULE: mark("over the whole interval"),
    Because.BOTH: mark("both rules hold"),
    Because.NEITHER: mark("between the rules"),
    Because.ONE_SOURCE: mark("one source alone"),
    Because.STRADDLES: mark("interval too wide"),
    Because.NO_EVIDENCE: mark("no such evidence"),
    Because.UNDEFINED: mark("no value"),
    Because.NOT_TESTED: mark("not measured"),
    Because.DEADLINE: mark("its day has not come"),
    Because.DEVICES: mark("devices disagree"),
}
SHORT_LABELS: Final = {
    "second-hand": mark("second-hand"),
    "our arithmetic": mark("our arithmetic"),
    "our assumption": mark("our assumptions"),
}
SUSPECT: Final = "suspect: "
"""How the label of a suspect cell begins; its reason codes follow."""


STEP_UNITS: Final = {
    "s": ((31_557_600.0, "years"), (86_400.0, "days"), (0.0, "s")),
    "B": ((1e9, "GB"), (1e6, "MB"), (1.0, "B"), (0.0, "bit")),
    "B/s": ((1e9, "GB/s"), (1e6, "MB/s"), (0.0, "B/s")),
    "B/token": ((1e9, "GB/token"), (1e6, "MB/token"), (0.0, "B/token")),
    "USD/J": ((0.0, "USD/kWh"),),
}
"""Units by the size from which a step is said in them, the largest first: nobody reads years in seconds."""
CALENDAR: Final = (1_900.0, 2_100.0)
"""Years between these are dates, and are written without separators."""


def say_outcome(outcome: Outcome) -> str:
    """One word."""
    return t(OUTCOMES[outcome])


def say_because(because: Because) -> str:
    """Why a part has its outcome."""
    return t(BECAUSE[because])


def say_strength(strength: Strength | None) -> str:
    """What the weakest evidence is."""
    return t("nothing yet") if strength is None else t(STRENGTHS[strength])


def say_label(label: str) -> str:
    """A label of evidence; reason codes stay as they are."""
    return t(LABELS[label]) if label in LABELS else label


def say_labels(labels: Sequence[str]) -> str:
    """All labels of a verdict; the reason codes of suspect cells once each."""
    codes = [code for label in labels if label.startswith(SUSPECT) for code in label.removeprefix(SUSPECT).split(", ")]
    said = [say_label(label) for label in labels if not label.startswith(SUSPECT)]
    return join([*said, *([t("suspect: {codes}", codes=", ".join(dict.fromkeys(codes)))] if codes else [])])


def say_evidence(verdict: ClaimVerdict) -> str:
    """Strength and labels in the few words that a table has room for."""
    strength = t("nothing yet") if verdict.strength is None else t(SHORT_STRENGTHS[verdict.strength])
    said = [t(SHORT_LABELS[x]) if x in SHORT_LABELS else say_label(x) for x in verdict.labels if SUSPECT not in x]
    is_suspect = any(label.startswith(SUSPECT) for label in verdict.labels)
    return join([strength, *said, *([t("suspect cells")] if is_suspect else [])])


def say_why(verdict: ClaimVerdict) -> str:
    """Why it has its verdict, in a few words: its parts by what they came to."""
    if len(verdict.parts) == 1:
        return t(SHORT_BECAUSE[verdict.parts[0].because])
    groups: dict[tuple[Outcome, Because], list[str]] = {}
    for part in verdict.parts:
        groups.setdefault((part.outcome, part.because), []).append(part.half.name)
    return join([_say_group(*key, names) for key, names in groups.items()], SEMICOLON)


def _say_group(outcome: Outcome, because: Because, names: Sequence[str]) -> str:
    if because is Because.RULE:
        return t("{outcome}: {names}", outcome=say_outcome(outcome), names=join(names))
    reason = t(SHORT_BECAUSE[because])
    return t("{outcome} ({reason}): {names}", outcome=say_outcome(outcome), reason=reason, names=join(names))


def say_bilingual(text: Bilingual) -> str:
    """A text of a row in the language in force."""
    return text.zh if language() == "zh" else text.en


def say_statement(claim: ClaimRow) -> str:
    """What was claimed, in the language in force."""
    return claim.statement_zh if language() == "zh" else claim.statement


def say_half(half: Half) -> str:
    """What one part of a claim states."""
    return say_bilingual(half.says)


def say_against(claim: ClaimRow) -> str:
    """The strongest argument against the verdict."""
    return say_bilingual(claim.against)


def say_value(value: Value, unit: str | None = None) -> str:
    """A value with its interval, in a unit; a step of a rule has none of its own and is said in base units."""
    match value:
        case Truth():
            return t(STATES[value.state])
        case Truths():
            said = [f"{key}: {t(STATES[truth.state])}" for key, truth in value.entries]
            return join(said) if said else _say_lacking()
        case Lacking():
            return _say_lacking()
        case Quantity():
            return _say_interval(value.interval, unit, value.dimension.symbol)
        case Series():
            return join([f"{key}: {_say_interval(own, unit, value.dimension.symbol)}" for key, own, _ in value.entries])


def say_input(item: Resolved) -> str:
    """An input's value in its own unit."""
    return say_value(item.value, item.unit)


def say_briefly(item: Resolved) -> str:
    """The same in a few words: of a series how many values there are, and the least and the greatest."""
    if not isinstance(item.value, Series) or len(item.value.entries) == 1:
        return say_input(item)
    lows, highs = zip(*((own.low, own.high) for _, own, _ in item.value.entries), strict=True)
    factor = read_unit(item.unit).factor
    low, high = format_number(min(lows) / factor, 4), format_number(max(highs) / factor, 4)
    unit = "" if item.unit == "1" else item.unit
    return t("{count} values from {low} to {high} {unit}", count=len(lows), low=low, high=high, unit=unit).strip()


def say_source(source: Source) -> str:
    """Where one number came from, with its date and what must be known of it."""
    parts = [source.name.rstrip(".")]
    if source.interval is not None:
        parts.append(_write(source.interval, source.unit))
    if source.by is not None and source.by != source.name:
        parts.append(source.by)
    if source.statistic is not None:
        parts.append(source.statistic)
    if source.date is not None:
        parts.append(t("of {date}", date=source.date))
    if source.read_on is not None:
        parts.append(t("read {date}", date=source.read_on))
    return join([*parts, *(say_label(label) for label in source.labels)])


def say_contrast(contrast: Contrast) -> str:
    """Which conditions keep two inputs from being alike."""
    return t(
        "{one} against {other}: differ: {different}; not stated: {unknown}",
        one=contrast.one,
        other=contrast.other,
        different=join(contrast.different) or t("nothing"),
        unknown=join(contrast.unknown) or t("nothing"),
    )


def _say_lacking() -> str:
    return t("missing")


def _say_interval(interval: Interval, unit: str | None, symbol: str) -> str:
    if unit is None:
        unit = _readable(interval, symbol)
    factor = read_unit(unit).factor if unit else 1.0
    return _write(Interval(*(end / factor for end in interval)), unit)


def _readable(interval: Interval, symbol: str) -> str:
    """The unit in which a step of a rule is said: the base unit, or one of its kind that suits the size."""
    size = max(abs(interval.low), abs(interval.high))
    fitting = (unit for at_least, unit in STEP_UNITS.get(symbol, ()) if size >= at_least)
    return next(fitting, symbol)


def _write(interval: Interval, unit: str) -> str:
    if unit == "year" and interval.is_point and CALENDAR[0] <= interval.mid <= CALENDAR[1]:
        return t("the year {year}", year=f"{interval.mid:.0f}")
    shown = "" if unit in ("1", "") else unit
    mid = f"{format_number(interval.mid, 4)} {shown}".strip()
    if interval.is_point:
        return mid
    low, high = format_number(interval.low, 4), format_number(interval.high, 4)
    return t("{value} ({low} to {high})", value=mid, low=low, high=high)
