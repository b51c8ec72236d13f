"""Each cell beside the same cell of a baseline run, as `tokbench compare` sets them: ratio, reading, what differs."""

from __future__ import annotations

from collections.abc import Iterator

from tokbench.derive import wording
from tokbench.derive.compare.join import Match
from tokbench.derive.compare.pages import notes
from tokbench.derive.compare.result import Compared, Pair, Row
from tokbench.derive.evaluate import Missing
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table, bullets
from tokbench.derive.report.fields import value_field
from tokbench.derive.report.material import Material
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.stats import Estimate

MAX_TEXT = 60
"""A longer value of a condition is cut: paths and checksums tell nothing by their length."""

BASES = {
    "paired blocks": mark("paired blocks"),
    "unpaired blocks": mark("unpaired blocks"),
    "repetitions": mark("repetitions"),
    "exact": mark("exact"),
}
"""What n counts."""


def baseline_sections(material: Material) -> list[Section]:
    """One part per run that was set beside the baseline; nothing for a run alone."""
    return [
        Section(
            t("{run} beside the baseline {baseline}", run=compared.b.path, baseline=compared.a.path),
            tuple(_blocks(compared)),
        )
        for compared in material.baselines
    ]


def _blocks(compared: Compared) -> Iterator[Block]:
    pairs = [pair for pair in compared.pairs if pair.rows]
    refused = [pair for pair in compared.pairs if pair.refused]
    yield Paragraph(
        t(
            "Cells that are like for like with one of the baseline: {pairs}; that have a partner which is unlike, or "
            "no result: {refused}; only in this run: {alone}; only in the baseline: {missing}.",
            pairs=len(pairs),
            refused=len(refused),
            alone=len(compared.only_b),
            missing=len(compared.only_a),
        )
    )
    if pairs:
        yield bullets(*notes(compared))
        yield _table(pairs)
    if refused:
        yield bullets(*(_say_refused(pair) for pair in refused))
    alone = [(t("this run"), single) for single in compared.only_b] + [
        (t("the baseline"), single) for single in compared.only_a
    ]
    if alone:
        yield bullets(
            *(
                t("Only in {side}: {cell}: {why}.", side=side, cell=single.subject.name, why=single.why)
                for side, single in alone
            )
        )


def _table(pairs: list[Pair]) -> Table:
    columns = (
        Column(t("Cell")),
        Column(t("Metric")),
        Column(t("Baseline (A)"), "", "right"),
        Column(t("This run (B)"), "", "right"),
        Column("B / A", t("95 % interval"), "right"),
        Column(t("B is")),
        Column("n"),
    )
    rows = tuple(_row(pair.match, row) for pair in pairs for row in pair.rows)
    caption = t("B over A for every cell that both runs hold; the note at a cell names every condition that differs.")
    return Table(columns, rows, caption)


def _row(match: Match, row: Row) -> tuple[Cell, ...]:
    title = say(catalog()[row.metric].title) if row.metric in catalog() else row.metric
    return (
        Cell(match.b.name, note=_say_differences(match)),
        Cell(title),
        _value(row.a),
        _value(row.b),
        value_field(row.ratio, with_interval=True) if row.basis != "exact" else value_field(row.ratio),
        Cell(say(row.outcome)),
        Cell(DASH if row.basis == "none" else f"{row.n_a} / {row.n_b} {say(BASES[row.basis])}"),
    )


def _value(value: Estimate | Missing) -> Cell:
    if isinstance(value, Missing):
        return Cell(DASH, note=say(value.reason))
    return Cell(wording.say_value(value), sort=value.value)


def _say_differences(match: Match) -> str:
    rows = [f"{row.field} ({_stated(row.ours)} → {_stated(row.theirs)})" for row in match.differences]
    return t("differs (A → B): {rows}", rows=join(rows, SEMICOLON)) if rows else t("no stated condition differs")


def _stated(value: str | int | None) -> str:
    text = t("not stated") if value is None else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _say_refused(pair: Pair) -> str:
    return t("Not set side by side: {cell}: {why}.", cell=pair.match.b.name, why=join(pair.refused, SEMICOLON))
