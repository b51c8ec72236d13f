"""Words which frameworks ran one model, how fast beside the fastest, and with the same tokens or not."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import Missing, Results
from tokbench.derive.portability import FrameworkRow, find_frameworks
from tokbench.derive.report.document import DASH, Cell, Column, Paragraph, Section, Table
from tokbench.derive.words import say, t
from tokbench.stats import Estimate


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
    )
    table = Table(columns, tuple(_row(row) for row in rows), t("One model on several frameworks"))
    return [Section(t("Frameworks side by side"), (Paragraph(_say_method()), table))]


def _say_method() -> str:
    return t(
        "The same weights, prompt and greedy rule in each, but that random weights are drawn by each engine: then "
        "tokens stand side by side within one engine alone. The share is of the fastest on the same platform. "
        "One stream is bound by memory and launches, so that frameworks lie closer together than they would at large "
        "batches. The arithmetic in JAX and MLX is ours, of plain operations: a tuned library on either may be faster."
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
    )


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
