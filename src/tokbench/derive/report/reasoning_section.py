"""What thinking costs: seconds, joules, money and cache per answer, right answers over the budget, waiting times."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.reasoning.answers import Answers, check_decides, find_answers
from tokbench.derive.reasoning.lengths import (
    LENGTHS,
    LONG_S,
    SHORT_S,
    THRESHOLDS_TOKENS_PER_S,
    Speed,
    list_speeds,
    reading_tokens_per_s,
    streams,
)
from tokbench.derive.reasoning.thinking import Thinking, Thought, factor_of, find_thinking
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table, bullets
from tokbench.derive.report.fields import in_run, value_field
from tokbench.derive.report.material import Material
from tokbench.derive.standing import estimate_of
from tokbench.derive.words import say, t
from tokbench.units import BYTES, JOULES, SECONDS, Unit, format_number, format_value

USD = Unit("USD", (), False)
WHOLE_SECONDS = Unit("s", (), False)
"""A wait of 1,000 s is written so: nobody waits for kiloseconds."""


def reasoning_sections(material: Material) -> list[Section]:
    """Cost over the budget, answers over the budget, and the arithmetic of lengths; nothing where no cell thinks."""
    thinking = [found for item in material.results for found in find_thinking(item)]
    asked = [(cell, found) for cell in material.measured if (found := _answers(cell)) is not None]
    if not thinking and not asked:
        return []
    costs: tuple[Block, ...] = (bullets(*(_say_growth(one, material) for one in thinking)),) if thinking else ()
    costs += (_costs_table(thinking, material),) if thinking else ()
    sections = [Section(t("What thinking costs"), (Paragraph(_say_how_to_read()), *costs))]
    if asked:
        blocks = (Paragraph(_say_answers()), _answers_table(asked, material))
        sections.append(Section(t("Right answers over the thinking budget"), blocks, level=3))
    return [*sections, _lengths_section(material)]


def _answers(cell: CellResult) -> Answers | None:
    try:
        return find_answers(cell.record)
    except UndefinedError:
        return None


def _say_how_to_read() -> str:
    return t(
        "A model that reasons writes hidden tokens ahead of its answer, and a token costs the same whether it is shown "
        "or not. So the cost of a budget is that of so many more output tokens of the same request, whatever the model "
        "would think; which of them is a thought is the config's word (label thinking_tokens)."
    )


def _say_growth(thinking: Thinking, material: Material) -> str:
    least, most = thinking.thoughts[0], thinking.thoughts[-1]
    times = factor_of(thinking, "e2e_latency_s")
    model = in_run(thinking.run_name, wording.say_cell(most.cell), material.has_several_runs)
    if times is None:
        return t("{model}: the time of an answer is missing at one end.", model=model)
    said = t(
        "{model}: with {most} thinking tokens instead of {least} an answer of {answer} tokens takes {times} as long",
        model=model,
        most=f"{most.thinking_tokens:,}",
        least=f"{least.thinking_tokens:,}",
        answer=f"{most.answer_tokens:,}",
        times=wording.say_times(times),
    )
    if thinking.exponent is None or thinking.exponent_interval is None:
        return t("{said}.", said=said)
    low, high = thinking.exponent_interval
    return t(
        "{said}; seconds grow with the {exponent} power of the output tokens ({low} – {high}, 95 % interval of a line "
        "through the budgets' mean times).",
        said=said,
        exponent=format_number(thinking.exponent),
        low=format_number(low),
        high=format_number(high),
    )


def _costs_table(thinking: Sequence[Thinking], material: Material) -> Table:
    columns = (
        *(Column(t("Model")), Column(t("Mode"))),
        Column(t("Thinking"), "tokens", "right"),
        Column(t("Answer"), "tokens", "right"),
        Column(t("Time per answer"), t("95 % interval, n"), "right"),
        *(Column(title, "", "right") for title in (t("Predicted"), t("Measured over predicted"))),
        *(Column(title, "", "right") for title in (t("Energy per answer"), t("Money per answer"))),
        *(Column(title, "", "right") for title in (t("KV cache at its end"), t("KV cache by formula"))),
    )
    caption = t(
        "Predicted: the first token and the time per token of the least budget, for all tokens of this one; what a "
        "measured time has beyond it is the growing context. Money: at 40 % utilisation, at the config's prices. KV "
        "cache: bytes per token as the cache object has them, and by the closed form, times the tokens in it."
    )
    rows = tuple(_cost_row(one, item.thoughts[0], material) for item in thinking for one in item.thoughts)
    return Table(columns, rows, caption)


def _cost_row(thought: Thought, least: Thought, material: Material) -> tuple[Cell, ...]:
    cell = thought.cell
    name = in_run(cell.run_name, wording.say_model(cell), material.has_several_runs)
    predicted, seconds = thought.predicted_s, estimate_of(cell, "e2e_latency_s")
    residual = None if predicted is None or seconds is None else seconds.value / predicted
    is_least = thought is least
    why = t("the others are predicted from it") if is_least else t("this budget or the least one lacks a time")
    return (
        *(Cell(name), Cell(f"{cell.conditions.engine} {cell.conditions.mode}")),
        Cell(f"{thought.thinking_tokens:,}", sort=float(thought.thinking_tokens)),
        Cell(f"{thought.answer_tokens:,}", sort=float(thought.answer_tokens)),
        value_field(thought.seconds, with_interval=True),
        _amount(predicted, SECONDS, why),
        Cell(DASH, note=why) if residual is None else Cell(wording.say_times(residual), sort=residual),
        _amount(thought.joules, JOULES, ""),
        _amount(thought.usd, USD, ""),
        _amount(thought.kv_bytes, BYTES, ""),
        _amount(thought.predicted_kv_bytes, BYTES, t("no closed form knows the shape")),
    )


def _amount(value: float | Missing | None, unit: Unit, why: str) -> Cell:
    if isinstance(value, Missing):
        return Cell(DASH, note=say(value.reason))
    return Cell(DASH, note=why) if value is None else Cell(format_value(value, unit), sort=value)


def _say_answers() -> str:
    return t(
        "Questions of our own with one exact answer. Each is thought about once, greedily; for every budget the "
        "thoughts are cut there, the answer is asked for, and only its first word counts. A model that was not trained "
        "to reason may think worse than it answers."
    )


def _answers_table(asked: Sequence[tuple[CellResult, Answers]], material: Material) -> Table:
    budgets = sorted({budget for _, found in asked for budget in found.right})
    columns = (
        *(Column(t("Model")), Column(t("Task"))),
        *(Column(f"{budget:,}", "tokens", "right") for budget in budgets),
        Column(t("Gain per doubling"), t("95 % interval, n questions"), "right"),
        Column(t("Reading")),
    )
    caption = t("Right answers of those asked, by thinking budget. The counts stand whatever the model; see Reading.")
    return Table(columns, tuple(_answers_row(cell, found, budgets, material) for cell, found in asked), caption)


def _answers_row(cell: CellResult, found: Answers, budgets: Sequence[int], material: Material) -> tuple[Cell, ...]:
    name = in_run(cell.run_name, wording.say_model(cell), material.has_several_runs)
    gain = value_field(cell.metrics.get("accuracy_per_doubling"), with_interval=True)
    return Cell(name), Cell(found.task), *(_right(found, budget) for budget in budgets), gain, Cell(_reading(cell))


def _right(found: Answers, budget: int) -> Cell:
    if budget not in found.right:
        return Cell(DASH, note=t("not asked with this budget"))
    answers = found.right[budget].values()
    return Cell(t("{right} of {asked}", right=sum(answers), asked=len(answers)), sort=sum(answers) / len(answers))


def _reading(cell: CellResult) -> str:
    try:
        check_decides(cell.record)
    except UndefinedError:
        return t("plumbing and cost only")
    gain, below = estimate_of(cell, "accuracy_per_doubling"), estimate_of(cell, "accuracy_below_peak")
    if gain is None or gain.low is None or gain.high is None:
        return DASH
    if below is not None and below.low is not None and below.low > 0:
        return t("falls again after its best budget")
    if gain.low > 0:
        return t("more thinking, more right answers")
    return t("more thinking, fewer right answers") if gain.high < 0 else t("no gain told from none")


def _lengths_section(material: Material) -> Section:
    speeds = list_speeds(material.measured, material.published, material.vendors)
    columns = (
        *(Column(t("Speed of one stream")), Column("", "tokens/s", "right")),
        *(Column(f"{length:,}", "tokens", "right") for length in LENGTHS),
    )
    rows = tuple(
        (_name(speed), Cell(format_number(speed.tokens_per_s), sort=speed.tokens_per_s), *_waits(speed))
        for speed in speeds
    )
    caption = t(
        "Arithmetic, no measurement: tokens over tokens per second, thinking included. Queues, networks and the time "
        "to the first token are left out; published speeds are of other models and other conditions, the slowest and "
        "the fastest of each vendor that this report was asked to look at."
    )
    blocks = (bullets(_say_thresholds(), _say_thirty(material)), Table(columns, rows, caption))
    return Section(t("How long an answer takes"), blocks, level=3)


def _name(speed: Speed) -> Cell:
    if speed.cell is not None:
        return Cell(t("measured here: {cell}", cell=wording.say_cell(speed.cell)))
    if speed.figure is None:
        is_slow = speed.tokens_per_s == THRESHOLDS_TOKENS_PER_S[0]
        return Cell(t("just acceptable to read along") if is_slow else t("fast enough to read along"))
    figure = speed.figure
    text = t(
        "{vendor}, {model}, {date}, {who}",
        vendor=wording.say_vendor(figure.vendor),
        model=wording.short_model(figure.model),
        date=figure.published,
        who=wording.say_measurer(figure.measured_by),
    )
    return Cell(text, url=figure.source_url)


def _waits(speed: Speed) -> list[Cell]:
    waits = [length / speed.tokens_per_s for length in LENGTHS]
    return [Cell(format_value(wait, SECONDS if wait < 1 else WHOLE_SECONDS), sort=wait) for wait in waits]


def _say_thresholds() -> str:
    slow, fast = THRESHOLDS_TOKENS_PER_S
    reading = reading_tokens_per_s()
    return t(
        "Adults read silently at about {reading} tokens/s (Brysbaert 2019, at 0.75 words a token): 10 tokens/s is "
        "{slow} that and 30 is {fast}. Hidden tokens are not read, they are waited for.",
        reading=format_number(reading),
        slow=wording.say_times(slow / reading),
        fast=wording.say_times(fast / reading),
    )


def _say_thirty(material: Material) -> str:
    """What makes 30 s of waiting 3: a speed ten times as high, and how many published ones are that high."""
    slow = THRESHOLDS_TOKENS_PER_S[1]
    tokens = slow * LONG_S
    needed = tokens / SHORT_S
    known = [figure for vendor in material.vendors for figure in streams(material.published, vendor)]
    said = t(
        "30 s becomes 3 s: an answer of {tokens} tokens takes 30 s at {slow} tokens/s and 3 s at {needed}.",
        tokens=f"{tokens:,.0f}",
        slow=format_number(slow),
        needed=format_number(needed),
    )
    if not known:
        return t("{said} No published figure was looked at.", said=said)
    return t(
        "{said} Of {count} published speeds of one stream that were looked at, {fast} reach it.",
        said=said,
        count=len(known),
        fast=sum(figure.value >= needed for figure in known),
    )
