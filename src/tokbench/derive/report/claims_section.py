"""What the claims of the documents come to: one table of verdicts, and for each what speaks against it.

The verdicts are handed in; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive.claims.saying import (
    say_against,
    say_because,
    say_briefly,
    say_contrast,
    say_evidence,
    say_half,
    say_outcome,
    say_statement,
    say_why,
)
from tokbench.derive.claims.verdicts import ClaimVerdict, Outcome, PartVerdict
from tokbench.derive.report.claims_settling import settling_sections
from tokbench.derive.report.document import Block, Bullets, Cell, Column, Item, Paragraph, Section, Table
from tokbench.derive.words import join, t

ORDER = (Outcome.SUPPORTED, Outcome.REFUTED, Outcome.PARTLY, Outcome.OPEN, Outcome.UNTESTED)


def claims_sections(verdicts: Sequence[ClaimVerdict]) -> list[Section]:
    """The table of verdicts, what they rest on, and what would settle the rest; nothing without claims."""
    if not verdicts:
        return []
    blocks: list[Block] = [Paragraph(_count(verdicts), "lead"), Paragraph(_method()), _table(verdicts)]
    blocks.append(Paragraph(_legend()))
    sections = [Section(t("What was claimed"), tuple(blocks))]
    sections.append(Section(t("What the verdicts rest on"), (grounds_of(verdicts),), level=3))
    return [*sections, *settling_sections(verdicts)]


def _count(verdicts: Sequence[ClaimVerdict]) -> str:
    counts = {outcome: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in ORDER}
    said = join([t("{count} {outcome}", count=n, outcome=say_outcome(outcome)) for outcome, n in counts.items() if n])
    tests = sum(len(verdict.parts) for verdict in verdicts)
    return t("Claims: {claims}, tests: {tests}: {counts}.", claims=len(verdicts), tests=tests, counts=said)


def _method() -> str:
    return t(
        "A claim is supported or refuted only where the whole interval lies inside its rule; a single independent "
        "source makes it partly at most. The rules were fixed before the measurements; the tests are many and not "
        "corrected for their number. `tokbench claims --explain ID` goes from a verdict down to its sources."
    )


def _legend() -> str:
    return t(
        "Why: what each part of a claim came to; a firm part had its whole interval within one rule. Evidence: the "
        "weakest that the verdict rests on. Measured, small: on a small model or without an accelerator. One source: a "
        "single one, or the vendor alone. Second-hand: read on another page than the source's own. Suspect cells: the "
        "report of their run tells why."
    )


def _table(verdicts: Sequence[ClaimVerdict]) -> Table:
    columns = (
        Column(t("Claim")),
        Column(t("Topic")),
        Column(t("Statement")),
        Column(t("Verdict")),
        Column(t("Why")),
        Column(t("Evidence")),
    )
    return Table(columns, tuple(_row(verdict) for verdict in verdicts))


def _row(verdict: ClaimVerdict) -> tuple[Cell, ...]:
    claim = verdict.claim
    return (
        Cell(claim.id),
        Cell(claim.topic),
        Cell(say_statement(claim)),
        Cell(say_outcome(verdict.outcome), sort=float(ORDER.index(verdict.outcome))),
        Cell(say_why(verdict)),
        Cell(say_evidence(verdict)),
    )


def grounds_of(verdicts: Sequence[ClaimVerdict]) -> Bullets:
    """What each verdict rests on and what speaks against it, in a paragraph each."""
    return Bullets(tuple(Item(f" {_ground(verdict)}", lead=f"{verdict.claim.id}:") for verdict in verdicts))


def _ground(verdict: ClaimVerdict) -> str:
    parts = " ".join([_say_part(part, verdict) for part in verdict.parts])
    said = t(
        "{parts} Evidence: {evidence}. Against it: {against}",
        parts=parts,
        evidence=say_evidence(verdict),
        against=say_against(verdict.claim),
    )
    contrasts = [say_contrast(contrast) for contrast in verdict.contrasts]
    return t("{said} Unlike conditions: {contrasts}.", said=said, contrasts=join(contrasts)) if contrasts else said


def _say_part(part: PartVerdict, verdict: ClaimVerdict) -> str:
    names = sorted(part.rules.inputs_of(part.rules.supports, part.rules.refutes))
    inputs = join([f"{name} {say_briefly(verdict.inputs[name])}" for name in names])
    reason, outcome = say_because(part.because), say_outcome(part.outcome)
    return t(
        "{says} {outcome}, because {reason} ({inputs}).",
        says=say_half(part.half),
        outcome=outcome,
        reason=reason,
        inputs=inputs,
    )
