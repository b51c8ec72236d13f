"""Words which frameworks ran one model and where, how fast beside the fastest, and with the same tokens or not."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import Missing, Results
from tokbench.derive.portability import FrameworkRow, Support, find_frameworks, find_support, load_builds
from tokbench.derive.report.document import DASH, Cell, Column, Paragraph, Section, Table
from tokbench.derive.words import mark, say, t
from tokbench.stats import Estimate
from tokbench.units import format_number

SEEN = {
    "ran": mark("ran"),
    "failed": mark("did not run"),
    "not_built": mark("no build"),
    "not_tried": mark("not tried"),
}


def frameworks_sections(results: Sequence[Results]) -> list[Section]:
    """One table; nothing for runs whose cells name no framework."""
    rows = find_frameworks(results)
    if not rows:
        return []
    columns = (
        Column(t("Framework")),
        Column(t("Platform")),
        Column(t("Engine")),
        Column(t("Model")),
        Column(t("Decode speed"), "tokens/s", "right"),
        Column(t("Share of the fastest"), "", "right"),
        Column(t("Tokens")),
        Column(t("Tokens beside the reference")),
    )
    table = Table(columns, tuple(_row(row) for row in rows), t("One model on several frameworks"))
    support = find_support(rows, load_builds())
    parts = (Paragraph(_say_method()), table, _differences(rows), Paragraph(_say_support()), _matrix(support))
    return [Section(t("Frameworks side by side"), parts)]


def _differences(rows: Sequence[FrameworkRow]) -> Table:
    """What else differs between the cells, as the engines told it: texts of the record."""
    columns = (
        Column(t("Framework")),
        Column(t("Versions")),
        Column(t("Attention kernel")),
        Column(t("Threads"), "", "right"),
        Column(t("Engine's notes")),
    )
    return Table(columns, tuple(_conditions(row) for row in rows), t("What differs besides the framework"))


def _conditions(row: FrameworkRow) -> tuple[Cell, ...]:
    engine = row.cell.record.engine
    if engine is None:
        return (Cell(row.framework), *(Cell(DASH) for _ in range(4)))
    return (
        Cell(row.framework),
        Cell(", ".join(f"{name} {version}" for name, version in engine.versions.items()) or DASH),
        Cell(engine.attention_kernel or DASH),
        Cell(DASH if engine.threads is None else str(engine.threads)),
        Cell("; ".join(engine.notes) or DASH),
    )


def _say_support() -> str:
    return t(
        "Ran: a cell of these records came to its end. No build: the framework's own pages or packages name none. Not "
        "tried: there is a build, and no cell of these records ran it. A dash: not known. A build is no proof that a "
        "model runs."
    )


def _matrix(support: Sequence[Support]) -> Table:
    """Frameworks down, platforms across."""
    platforms = list(dict.fromkeys(item.platform for item in support))
    by_framework: dict[str, list[Cell]] = {}
    for item in support:
        text = DASH if item.seen == "unknown" else say(SEEN[item.seen])
        by_framework.setdefault(item.framework, []).append(Cell(text, note=item.note and say(item.note)))
    columns = (Column(t("Framework")), *(Column(platform) for platform in platforms))
    lines = tuple((Cell(framework), *cells) for framework, cells in by_framework.items())
    return Table(columns, lines, t("Frameworks and platforms"))


def _say_method() -> str:
    return t(
        "The same weights, prompt and greedy rule in each, but that random weights are drawn by each engine: then "
        "tokens stand side by side within one engine alone. The share is of the fastest on the same platform. "
        "One stream is bound by memory and launches, so that frameworks lie closer together than they would at large "
        "batches. The arithmetic in JAX, MLX and tinygrad is ours, of plain operations: a tuned library may be faster."
    )


def _row(row: FrameworkRow) -> tuple[Cell, ...]:
    return (
        Cell(row.framework),
        Cell(row.platform or DASH),
        Cell(wording.say_engine(row.cell)),
        Cell(wording.say_model(row.cell)),
        _number(row.decode),
        _number(row.share),
        Cell(_say_tokens(row)),
        _reference(row),
    )


def _reference(row: FrameworkRow) -> Cell:
    """Beside the engine's own reference: how far the same, and how near the two candidates lay where they part."""
    found = row.reference
    if found is None:
        return Cell(DASH)
    if found.first_divergence is None:
        return Cell(t("all {count} the same", count=found.tokens_compared), note=found.reference)
    equal, count = found.first_divergence, found.tokens_compared
    if found.top2_gap is None:
        return Cell(t("{equal} of {count}, then another", equal=equal, count=count), note=found.reference)
    gap = format_number(found.top2_gap)
    said = t("{equal} of {count}, then another; logits {gap} apart", equal=equal, count=count, gap=gap)
    return Cell(said, note=found.reference)


def _number(value: Estimate | Missing) -> Cell:
    if isinstance(value, Missing):
        return Cell(DASH, note=say(value.reason))
    return Cell(wording.say_value(value), sort=value.value, note=wording.say_interval(value))


def _say_tokens(row: FrameworkRow) -> str:
    if row.beside is None or row.tokens_equal is None:
        return DASH
    if row.tokens_equal == row.tokens:
        return t("all {count} as with {other}", count=row.tokens_equal, other=row.beside)
    return t("{equal} of {count} as with {other}", equal=row.tokens_equal, count=row.tokens, other=row.beside)
