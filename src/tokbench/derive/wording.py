"""How a value, an interval, a cell and its labels are worded, for console and report alike. Computes nothing new."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

from tokbench.derive.codes import NOTES
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.experts.touches import resident_share, routing_of
from tokbench.derive.published import Comparison, PublishedFigure
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.record.facts import Agreement
from tokbench.stats import Estimate
from tokbench.units import format_number, format_value, unit_of

LABELS = {
    "random": mark("random weights"),
    "replay": mark("replayed acceptance"),
    "scripted": mark("scripted engine, no model"),
}
"""What must stand in every sentence that uses a number had with other than pretrained weights."""

VERDICTS = (mark("valid"), mark("suspect"), mark("invalid"), mark("note"))
"""What validity says of a cell, and what a reason does to one."""
VENDORS = {
    "amd": "AMD",
    "aws": "AWS",
    "deepinfra": "DeepInfra",
    "deepseek": "DeepSeek",
    "digitalocean": "DigitalOcean",
    "eigen-ai": "Eigen AI",
    "nvidia": "NVIDIA",
    "octoai": "OctoAI",
    "openai": "OpenAI",
    "ovhcloud": "OVHcloud",
    "sambanova": "SambaNova",
    "together-ai": "Together AI",
    "wandb": "Weights & Biases",
}
"""Names that are not the row's word with a capital."""
MEASURERS = {
    "vendor": mark("stated by the vendor"),
    "artificial-analysis": mark("measured by Artificial Analysis"),
    "mlperf": mark("measured in MLPerf"),
    "third-party": mark("stated by a third party"),
}

CONDITIONS = {
    "excludes_ttft": mark("whether the time to the first token is left out"),
    "model": mark("model"),
    "weights": mark("weights"),
    "precision": mark("precision"),
    "prompt_tokens": mark("prompt tokens"),
    "output_tokens": mark("output tokens"),
    "context_tokens": mark("context tokens"),
    "concurrency": mark("concurrency"),
    "static_batch": mark("static batch"),
    "speculation": mark("speculation"),
    "engine": mark("engine"),
    "mode": mark("mode"),
    "attention_kernel": mark("attention kernel"),
    "experts_kernel": mark("experts kernel"),
    "hardware": mark("hardware"),
    "device_count": mark("device count"),
    "devices_per_stream": mark("devices per stream"),
    "measured_by": mark("measured by"),
    "as_of": mark("as of"),
}
"""Conditions as a reader says them."""


def say_value(value: Estimate | Missing | None) -> str:
    """The value with its unit, in the digits of its interval, or a dash."""
    if not isinstance(value, Estimate):
        return "–"
    return format_value(value.value, unit_of(value.unit), digits_of(value))


def say_interval(value: Estimate) -> str:
    """The interval and the number of repetitions and processes, as they stand behind a value."""
    if value.statistic == "exact":
        return t("exact")
    repetitions = t("1 repetition") if value.n == 1 else t("{n} repetitions", n=value.n)
    if value.n > 1 and value.blocks is not None:
        one = value.blocks == 1
        repetitions = (
            t("{repetitions} in 1 process", repetitions=repetitions)
            if one
            else t("{repetitions} in {blocks} processes", repetitions=repetitions, blocks=value.blocks)
        )
    if value.low is None or value.high is None:
        return t("no interval, {repetitions}", repetitions=repetitions)
    return t("95 % interval {range}, {repetitions}", range=say_range(value), repetitions=repetitions)


def say_range(value: Estimate) -> str:
    """The ends of the interval, without the unit where it is that of the value, in the digits that tell them apart."""
    if value.low is None or value.high is None:
        return "–"
    unit = unit_of(value.unit)
    digits = digits_of(value)
    low, high = (format_value(end, unit, digits) for end in (value.low, value.high))
    symbols = {text.partition(" ")[2] for text in (low, high, say_value(value))}
    if len(symbols) == 1:
        low = low.partition(" ")[0]
        high = high.partition(" ")[0]
    return t("{low} to {high}", low=low, high=high)


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
    label = LABELS.get(cell.conditions.weights or "")
    return "" if label is None else t(label)


def short_model(name: str | None) -> str:
    """A model without its owner."""
    return (name or t("unknown model")).rstrip("/").rsplit("/", 1)[-1]


def say_model(cell: CellResult) -> str:
    """The model and, where they are not pretrained, what its weights are."""
    return say_labelled(short_model(cell.conditions.model), label_of(cell))


def say_labelled(model: str, label: str) -> str:
    """A model's name with the label that its weights demand, if any."""
    return t("{model} ({label})", model=model, label=label) if label else model


def say_load(cell: CellResult) -> str:
    """How many streams there were."""
    conditions = cell.conditions
    if conditions.static_batch is not None:
        return t("static batch {static_batch}", static_batch=conditions.static_batch)
    if conditions.concurrency is not None:
        return t("concurrency {concurrency}", concurrency=conditions.concurrency)
    return t("open load")


def say_prompt(cell: CellResult) -> str:
    """Prompt and output length."""
    prompt = (
        t("prompt of its own")
        if cell.conditions.prompt_tokens is None
        else t("{prompt_tokens} prompt", prompt_tokens=cell.conditions.prompt_tokens)
    )
    task = cell.record.spec.workload.task
    if task is not None:
        prompt = t("{prompt} of {task}", prompt=prompt, task=task)
    return t("{prompt} + {output_tokens} output tokens", prompt=prompt, output_tokens=cell.conditions.output_tokens)


def say_drafts(cell: CellResult) -> str:
    """How a cell drafts, with the options of the config that tell it from its neighbours, or nothing."""
    drafting = cell.record.spec.speculation
    if drafting == "none":
        return ""
    method, gamma = cell.conditions.speculation, drafting.gamma
    if not drafting.options:
        return t("drafts by {method}, gamma {gamma}", method=method, gamma=gamma)
    options = join(f"{name} {value}" for name, value in drafting.options.items())
    return t("drafts by {method} ({options}), gamma {gamma}", method=method, options=options, gamma=gamma)


def say_mode(cell: CellResult) -> str:
    """The mode of a cell's engine, how it drafts and which experiment it holds, where it does."""
    experiment = cell.record.spec.experiment
    kind = "" if experiment == "none" else experiment.kind
    parts = (
        str(cell.conditions.mode),
        say_drafts(cell),
        say_temperature(cell),
        kind,
        say_drawn(cell),
        say_resident(cell),
    )
    return join(part for part in parts if part)


def say_temperature(cell: CellResult) -> str:
    """At which temperature a cell's tokens are drawn, or nothing where the likeliest is taken."""
    temperature = cell.record.spec.workload.temperature
    return "" if temperature == 0 else t("drawn at temperature {temperature}", temperature=format_number(temperature))


def say_drawn(cell: CellResult) -> str:
    """By which law experts were drawn, or nothing where the model's own routers chose."""
    routing = routing_of(cell.record.spec)
    if routing.kind in ("own", "uniform"):
        return "" if routing.kind == "own" else t("routing drawn, even")
    return t("routing drawn, {law} {skew}", law=routing.kind, skew=format_number(routing.skew))


def say_resident(cell: CellResult) -> str:
    """The share of the experts that lies on the device, or nothing where all do."""
    share = resident_share(cell.record.spec)
    return "" if share == 1.0 else t("{share} % of the experts resident", share=format_number(100 * share))


def say_engine(cell: CellResult) -> str:
    """Engine and mode of a cell, and how it drafts where it does."""
    return t("{engine} {mode}", engine=cell.conditions.engine, mode=say_mode(cell))


def say_cell(cell: CellResult) -> str:
    """One cell in one phrase."""
    parts = (say_model(cell), str(cell.conditions.precision), say_engine(cell), say_load(cell), say_prompt(cell))
    return join(parts)


def say_memory_source(cell: CellResult) -> str:
    """What `peak_memory_bytes` was read from: a process holds Python and torch besides the model."""
    trials = (reading for trial in cell.record.trials for reading in trial.memory)
    sources = {reading.source for reading in (*cell.record.memory, *trials)}
    if "allocator_peak" in sources:
        return t("on the device")
    return t("of the whole worker process, Python and libraries included") if "rss_peak" in sources else ""


def say_doubt(cell: CellResult) -> str:
    """What a reader has to know of a cell's validity, or nothing."""
    if cell.validity.verdict == "valid":
        return ""
    reasons = join(say(code.value) for code in cell.validity.reasons if code not in NOTES)
    verdict = say_verdict(cell.validity.verdict)
    return t("{verdict}: {reasons}", verdict=verdict, reasons=reasons) if reasons else verdict


def say_verdict(verdict: str) -> str:
    """A cell's verdict, or what a reason does to it, as a word."""
    return say(verdict)


def say_vendor(vendor: str) -> str:
    """A vendor's name as it writes it."""
    return VENDORS.get(vendor.lower(), vendor.capitalize())


def say_published(figure: PublishedFigure) -> str:
    """A published value as its source gives it: not rounded."""
    unit = unit_of(figure.unit)
    return format_value(figure.value, unit) if unit.is_scaled else f"{figure.value:,.10g} {unit.symbol}".strip()


def say_measurer(measured_by: str) -> str:
    """Who stands behind a published figure."""
    known = MEASURERS.get(measured_by)
    return t("measured by {measured_by}", measured_by=measured_by) if known is None else say(known)


def say_site(url: str) -> str:
    """The site of an address."""
    return (urllib.parse.urlsplit(url).hostname or url).removeprefix("www.")


def say_factor(comparison: Comparison) -> str:
    """How their value stands to ours, with the interval of both sides: `52x ours (51 to 53)`."""
    if comparison.ours.value <= 0:
        return t("no ratio: ours is zero")
    ratio = comparison.theirs.value / comparison.ours.value
    low, high = comparison.ours_over_theirs_low, comparison.ours_over_theirs_high
    text = t("{times} ours", times=say_times(ratio))
    if low is None or high is None or low <= 0:
        return t("{text} (no interval)", text=text)
    digits = digits_of(comparison.ours)
    nearest, farthest = (format_number(1 / end, digits) for end in (high, low))
    return t("{text} ({low} to {high})", text=text, low=nearest, high=farthest)


def say_likeness(comparison: Comparison) -> str:
    """Why the two are not of the same thing; empty only where every decisive condition is stated and the same."""
    size = comparison.their_size_over_ours
    if comparison.match != "same_model":
        if size is None:
            return t("not like for like: another model, the sizes are not known")
        if 1 / 1.5 <= size <= 1.5:
            return t("not like for like: another model of about the same size")
        factor = format_number(max(size, 1 / size), 2)
        if size > 1:
            return t("not like for like: their model is {factor} times larger", factor=factor)
        return t("not like for like: their model is {factor} times smaller", factor=factor)
    if comparison.unlike:
        agreements = {row.field: row.agreement for row in comparison.differences}
        differ = [field for field in comparison.unlike if agreements.get(field) is Agreement.DIFFERENT]
        unstated = [field for field in comparison.unlike if field not in differ]
        parts = [t("different: {fields}", fields=say_fields(differ))] if differ else []
        parts += [t("not stated: {fields}", fields=say_fields(unstated))] if unstated else []
        return t("not like for like ({parts})", parts=join(parts, SEMICOLON))
    return ""


def say_fields(fields: Sequence[str]) -> str:
    """Names of conditions as a reader says them."""
    return join(say(CONDITIONS.get(field, field.replace("_", " "))) for field in fields)


def say_counts(comparison: Comparison) -> str:
    """How many conditions differ and how many are unknown."""
    different, unknown = comparison.count(Agreement.DIFFERENT), comparison.count(Agreement.UNKNOWN)
    differ = t("1 condition differs") if different == 1 else t("{count} conditions differ", count=different)
    if unknown == 1:
        return t("{differ}, 1 is unknown", differ=differ)
    return t("{differ}, {count} are unknown", differ=differ, count=unknown)
