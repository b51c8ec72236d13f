"""The decision in words: one sentence per promise, then what holds it, what it costs, and what vendors sell instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tokbench.derive.decision import Decision
from tokbench.derive.decision.sweeps import Workload
from tokbench.derive.report.decision_offers import offer_blocks
from tokbench.derive.report.decision_tables import cost_blocks, load_table
from tokbench.derive.report.decision_words import (
    BARRED_WORDS,
    say_answer,
    say_box,
    say_promise,
    say_rules,
    say_workload,
)
from tokbench.derive.report.document import Block, Bullets, Code, Item, Paragraph, Section
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, mark, say, t

TITLE: Final = mark("What it means for a purchase")
SMALL_B: Final = 1.0
"""A model below so many 1e9 parameters on a CPU shows how a decision is made; nobody buys a machine for it."""


def decision_sections(material: Material) -> list[Section]:
    """The lead for one workload, the tables of all; without a row one paragraph that says why there is none.

    Nothing where no decision was asked for.
    """
    decision, several = material.decision, material.has_several_runs
    if decision is None:
        return []
    if not decision.rows:
        said = t(
            "No decision: no cell with pretrained weights and a fixed number of users was planned, and nothing else "
            "feeds this table."
        )
        return [Section(t(TITLE), (Paragraph(said), *_left_out(decision)))]
    leads = [block for workload in decision.headlines for block in _lead(decision, workload, several)]
    commands = [row.command for workload in decision.headlines for row in decision.of(workload)]
    blocks = (*_labels(decision), *leads, *_commands(commands), *_left_out(decision))
    parts: tuple[tuple[str, tuple[Block, ...]], ...] = (
        (t("Users that each promise holds for"), (load_table(decision, several),)),
        (t("What the box costs and takes"), tuple(cost_blocks(decision, several))),
        (t("Beside what can be bought today"), tuple(_offers(decision, several))),
        (t("How the evidence is graded"), (Paragraph(say_rules()),)),
    )
    return [Section(t(TITLE), blocks), *(Section(title, found, level=3) for title, found in parts if found)]


def _lead(decision: Decision, workload: Workload, several: bool) -> tuple[Block, ...]:
    """One sentence for each promise of one workload."""
    rows = decision.of(workload)
    lead = Paragraph(t("{workload}, on {box}:", workload=say_workload(workload, several), box=say_box(workload)))
    return lead, Bullets(tuple(Item(say_answer(row), lead=say_promise(row.answer.promise)) for row in rows))


def _offers(decision: Decision, several: bool) -> Iterator[Block]:
    """The offers beside the workload that each run speaks of first."""
    for workload in decision.headlines:
        if several:
            named = t("{workload}, on {box}:", workload=say_workload(workload, several), box=say_box(workload))
            yield Paragraph(named)
        yield from offer_blocks(decision, workload)


def _labels(decision: Decision) -> Iterator[Block]:
    """What must be known before any number of the decision is read."""
    if any(row.workload.load_kind == "static_batch" for row in decision.rows):
        text = t(
            "Static batches are an upper bound without queueing: all users ask in one moment and get their first token "
            "together. A service under arriving requests holds no more users than this."
        )
        yield Paragraph(text, "warning")
    if any(row.is_cpu and row.size_b is not None and row.size_b < SMALL_B for row in decision.rows):
        text = t("A model of less than 1e9 parameters on a CPU shows how the decision is made, not what to buy.")
        yield Paragraph(text, "warning")


def _commands(wanted: Sequence[str | None]) -> Iterator[Block]:
    """The commands that close what is open, each once; RUN stands for the run's folder."""
    commands = dict.fromkeys(command for command in wanted if command is not None)
    if commands:
        yield Paragraph(t("What is open is measured by these commands, RUN being the folder of the run:"))
        yield Code("\n".join(commands))


def _left_out(decision: Decision) -> Iterator[Block]:
    if decision.left_out:
        parts = [
            t("{count} with {why}", count=item.cells, why=say(BARRED_WORDS[item.why])) for item in decision.left_out
        ]
        yield Paragraph(t("Cells that feed no decision: {parts}.", parts=join(parts)))
