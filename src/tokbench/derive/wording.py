"""How a value, an interval, a cell and its labels are worded, for console and report alike. Computes nothing new."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

from tokbench.derive.codes import NOTES
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.published import Comparison, PublishedFigure
from tokbench.record.facts import Agreement
from tokbench.stats import Estimate
from tokbench.units import format_number, format_value, unit_of

LABELS = {"random": "random weights", "replay": "replayed weights", "scripted": "scripted engine, no model"}
"""What must stand in every sentence that uses a number had with other than pretrained weights."""

VENDORS = {"cerebras": "Cerebras", "groq": "Groq", "nvidia": "NVIDIA", "sambanova": "SambaNova", "amd": "AMD"}
MEASURERS = {
    "vendor": "stated by the vendor",
    "artificial-analysis": "measured by Artificial Analysis",
    "third-party": "stated by a third party",
}


def say_value(value: Estimate | Missing | None) -> str:
    """The value with its unit, in the digits of its interval, or a dash."""
    if not isinstance(value, Estimate):
        return "–"
    return format_value(value.value, unit_of(value.unit), digits_of(value))


def say_interval(value: Estimate) -> str:
    """The interval and the number of repetitions and processes, as they stand behind a value."""
    if value.statistic == "exact":
        return "exact"
    repetitions = "1 repetition" if value.n == 1 else f"{value.n} repetitions"
    if value.n > 1 and value.blocks is not None:
        repetitions += f" in {value.blocks} process{'' if value.blocks == 1 else 'es'}"
    if value.low is None or value.high is None:
        return f"no interval, {repetitions}"
    return f"95 % interval {say_range(value)}, {repetitions}"


def say_range(value: Estimate) -> str:
    """The ends of the interval, without the unit where it is that of the value, in the digits that tell them apart."""
    if value.low is None or value.high is None:
        return "–"
    unit = unit_of(value.unit)
    digits = digits_of(value)
    low, high = (format_value(end, unit, digits) for end in (value.low, value.high))
    symbols = {text.partition(" ")[2] for text in (low, high, say_value(value))}
    return f"{low.partition(' ')[0]} to {high.partition(' ')[0]}" if len(symbols) == 1 else f"{low} to {high}"


def digits_of(value: Estimate) -> int:
    """Significant digits that a value deserves: 3, and 4 where its interval is within half a percent.

    Repetitions that agree to a millionth are those of a script, or of a count.
    """
    half = value.relative_half_width()
    return 4 if half is not None and 1e-6 < half <= 0.005 else 3


def say_times(ratio: float) -> str:
    """A factor as `52x`."""
    return f"{format_number(ratio)}x"


def label_of(cell: CellResult) -> str:
    """The label that the weights of a cell demand, or nothing."""
    return LABELS.get(cell.conditions.weights or "", "")


def short_model(name: str | None) -> str:
    """A model without its owner."""
    return (name or "unknown model").rstrip("/").rsplit("/", 1)[-1]


def say_model(cell: CellResult) -> str:
    """The model and, where they are not pretrained, what its weights are."""
    label = label_of(cell)
    return f"{short_model(cell.conditions.model)} ({label})" if label else short_model(cell.conditions.model)


def say_load(cell: CellResult) -> str:
    """How many streams there were."""
    conditions = cell.conditions
    if conditions.static_batch is not None:
        return f"static batch {conditions.static_batch}"
    if conditions.concurrency is not None:
        return f"concurrency {conditions.concurrency}"
    return "open load"


def say_prompt(cell: CellResult) -> str:
    """Prompt and output length."""
    prompt = "prompt of its own" if cell.conditions.prompt_tokens is None else f"{cell.conditions.prompt_tokens} prompt"
    return f"{prompt} + {cell.conditions.output_tokens} output tokens"


def say_cell(cell: CellResult) -> str:
    """One cell in one phrase."""
    conditions = cell.conditions
    engine = f"{conditions.engine} {conditions.mode}"
    return f"{say_model(cell)}, {conditions.precision}, {engine}, {say_load(cell)}, {say_prompt(cell)}"


def say_memory_source(cell: CellResult) -> str:
    """What `peak_memory_bytes` was read from: a process holds Python and torch besides the model."""
    trials = (reading for trial in cell.record.trials for reading in trial.memory)
    sources = {reading.source for reading in (*cell.record.memory, *trials)}
    if "allocator_peak" in sources:
        return "on the device"
    return "of the whole worker process, Python and libraries included" if "rss_peak" in sources else ""


def say_doubt(cell: CellResult) -> str:
    """What a reader has to know of a cell's validity, or nothing."""
    if cell.validity.verdict == "valid":
        return ""
    reasons = ", ".join(code.value for code in cell.validity.reasons if code not in NOTES)
    return f"{cell.validity.verdict}: {reasons}" if reasons else cell.validity.verdict


def say_vendor(vendor: str) -> str:
    """A vendor's name as it writes it."""
    return VENDORS.get(vendor.lower(), vendor.capitalize())


def say_published(figure: PublishedFigure) -> str:
    """A published value as its source gives it: not rounded."""
    unit = unit_of(figure.unit)
    return format_value(figure.value, unit) if unit.is_scaled else f"{figure.value:,.10g} {unit.symbol}".strip()


def say_measurer(measured_by: str) -> str:
    """Who stands behind a published figure."""
    return MEASURERS.get(measured_by, f"measured by {measured_by}")


def say_site(url: str) -> str:
    """The site of an address."""
    return (urllib.parse.urlsplit(url).hostname or url).removeprefix("www.")


def say_factor(comparison: Comparison) -> str:
    """How their value stands to ours, with the interval that ours gives it: `52x ours (51x to 53x)`."""
    if comparison.ours.value <= 0:
        return "no ratio: ours is zero"
    ratio = comparison.theirs.value / comparison.ours.value
    low, high = comparison.ours.low, comparison.ours.high
    text = f"{say_times(ratio)} ours"
    if low is None or high is None or low <= 0:
        return f"{text} (no interval)"
    digits = digits_of(comparison.ours)
    ends = (format_number(comparison.theirs.value / end, digits) for end in (high, low))
    return f"{text} ({' to '.join(ends)})"


def say_likeness(comparison: Comparison) -> str:
    """Why the two are not of the same thing; empty only where every decisive condition is stated and the same."""
    size = comparison.their_size_over_ours
    if comparison.match != "same_model":
        if size is None:
            return "not like for like: another model, the sizes are not known"
        if 1 / 1.5 <= size <= 1.5:
            return "not like for like: another model of about the same size"
        factor = f"{format_number(max(size, 1 / size), 2)} times {'larger' if size > 1 else 'smaller'}"
        return f"not like for like: their model is {factor}"
    if comparison.unlike:
        agreements = {row.field: row.agreement for row in comparison.differences}
        differ = [field for field in comparison.unlike if agreements.get(field) is Agreement.DIFFERENT]
        unstated = [field for field in comparison.unlike if field not in differ]
        parts = [f"different: {say_fields(differ)}"] if differ else []
        parts += [f"not stated: {say_fields(unstated)}"] if unstated else []
        return f"not like for like ({'; '.join(parts)})"
    return ""


def say_fields(fields: Sequence[str]) -> str:
    """Names of conditions as a reader says them."""
    words = {"excludes_ttft": "whether the time to the first token is left out"}
    return ", ".join(words.get(field, field.replace("_", " ")) for field in fields)


def say_counts(comparison: Comparison) -> str:
    """How many conditions differ and how many are unknown."""
    different, unknown = comparison.count(Agreement.DIFFERENT), comparison.count(Agreement.UNKNOWN)
    differ = "1 condition differs" if different == 1 else f"{different} conditions differ"
    return f"{differ}, {unknown} {'is' if unknown == 1 else 'are'} unknown"
