"""Our rounds of drafting beside transformers' assisted generation: whether a second implementation counts the same."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.assisted import BothLoops, Sums, find_both
from tokbench.derive.report.document import DASH, Cell, Column, Paragraph, Section, Table
from tokbench.derive.report.fields import in_run
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, t
from tokbench.units import SECONDS, format_number, format_value

LOOKS_UP = "prompt_lookup"
"""The method whose drafts the two take from different places, each by its own rule."""


def assisted_sections(material: Material) -> list[Section]:
    """One part; nothing where no cell ran the experiment."""
    found = find_both(material.measured)
    if not found:
        return []
    opening = Paragraph(
        t(
            "The same prompts went through our loop and through transformers' own assisted generation, with as many "
            "drafts a round, the likeliest token each time. Two programs that share no code for drafting, verifying "
            "and counting should make the same tokens, and where they draft by the same rule also the same counts."
        )
    )
    return [Section(t("A second implementation of drafting"), (opening, _table(found, material.has_several_runs)))]


def _table(found: tuple[BothLoops, ...], with_run: bool) -> Table:
    columns = (
        Column(t("Cell")),
        Column(t("Method of drafting")),
        Column("γ", "", "right"),
        Column(t("Prompts compared"), "", "right"),
        Column(t("Same tokens"), "", "right"),
        Column(t("Same counts"), "", "right"),
        Column(t("Accepted of drafted, ours"), "", "right"),
        Column(t("Accepted of drafted, transformers"), "", "right"),
        Column(t("Time of all prompts, ours"), "", "right"),
        Column(t("Time of all prompts, transformers"), "", "right"),
        Column(t("Reading")),
    )
    caption = t(
        "Rounds with fewer than γ + 1 tokens to go are left out of the counts: there transformers drafts less, and "
        "ours drops what lies beyond the end. prompt_lookup: transformers copies from the first place where an n-gram "
        "stands, ours from the latest, so that counts may differ. Times are of one pass each, prompts included, and no "
        "measurement of speed: transformers takes one prompt at a time, with a cache that grows, uncompiled."
    )
    return Table(columns, tuple(_row(each, with_run) for each in found), caption)


def _row(each: BothLoops, with_run: bool) -> tuple[Cell, ...]:
    cell = each.cell
    parts = (wording.say_model(cell), str(cell.conditions.precision), wording.say_engine(cell), wording.say_load(cell))
    note = cell.record.model.note if cell.record.model else None
    return (
        Cell(in_run(cell.run_name, join(parts), with_run), note=note),
        Cell(each.method),
        Cell(str(each.gamma), sort=float(each.gamma)),
        Cell(f"{each.prompts:,}", sort=float(each.prompts)),
        _of(each.same_tokens, each.prompts),
        _of(each.same_counts, each.prompts),
        _accepted(each.ours),
        _accepted(each.theirs),
        _time(each.ours),
        _time(each.theirs),
        Cell(_read(each)),
    )


def _read(each: BothLoops) -> str:
    """What the two programs say of one another; rounding may part tokens in fewer bits than float32."""
    if each.same_tokens < each.prompts:
        is_exact = each.cell.conditions.precision == "fp32"
        return t("tokens differ: see where drafts change output") if is_exact else t("tokens differ, as rounding may")
    if not each.ours.accepted and not each.theirs.accepted:
        return t("same tokens; no draft was accepted, so little was tested")
    if each.same_counts == each.prompts:
        return t("the two agree")
    if each.method == LOOKS_UP:
        return t("same tokens; drafts copied from other places")
    return t("counts differ: a fault in one of the two")


def _of(count: int, whole: int) -> Cell:
    return Cell(t("{count} of {whole}", count=count, whole=whole), sort=count / whole)


def _accepted(sums: Sums) -> Cell:
    if not sums.drafted:
        return Cell(DASH, note=t("nothing was drafted"))
    share = format_number(sums.accepted / sums.drafted)
    text = t("{share} ({accepted} of {drafted})", share=share, accepted=sums.accepted, drafted=sums.drafted)
    return Cell(text, sort=sums.accepted / sums.drafted)


def _time(sums: Sums) -> Cell:
    return Cell(format_value(sums.seconds, SECONDS), sort=sums.seconds)
