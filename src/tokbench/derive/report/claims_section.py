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
    say_half,
    say_label,
    say_outcome,
    say_statement,
    say_strength,
)
from tokbench.derive.claims.verdicts import ClaimVerdict, Outcome, PartVerdict
from tokbench.derive.report.document import Block, Bullets, Cell, Column, Item, Paragraph, Section, Table, bullets
from tokbench.derive.words import SEMICOLON, join, t

ORDER = (Outcome.SUPPORTED, Outcome.REFUTED, Outcome.PARTLY, Outcome.OPEN, Outcome.UNTESTED)


def claims_sections(verdicts: Sequence[ClaimVerdict]) -> list[Section]:
    """The table of verdicts, what they rest on, and the commands that would settle the rest; nothing without claims."""
    if not verdicts:
        return []
    blocks: list[Block] = [Paragraph(_count(verdicts)), _table(verdicts), Paragraph(_method())]
    sections = [Section(t("What was claimed"), tuple(blocks))]
    sections.append(Section(t("What the verdicts rest on"), (grounds_of(verdicts),), level=3))
    needs = list(dict.fromkeys(command for verdict in verdicts for command in verdict.needs))
    if needs:
        sections.append(Section(t("What would test the rest"), (bullets(*needs),), level=3))
    return sections


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


def _table(verdicts: Sequence[ClaimVerdict]) -> Table:
    columns = (
        Column(t("Claim")),
        Column(t("Topic")),
        Column(t("Statement")),
        Column(t("Verdict")),
        Column(t("Evidence behind it")),
    )
    return Table(columns, tuple(_row(verdict) for verdict in verdicts))


def _row(verdict: ClaimVerdict) -> tuple[Cell, ...]:
    claim = verdict.claim
    labels = join([say_label(label) for label in verdict.labels])
    return (
        Cell(claim.id),
        Cell(claim.topic),
        Cell(say_statement(claim)),
        Cell(say_outcome(verdict.outcome), sort=float(ORDER.index(verdict.outcome)), note=_say_why(verdict)),
        Cell(say_strength(verdict.strength), note=labels or None),
    )


def _say_why(verdict: ClaimVerdict) -> str:
    """Why it has its verdict: of each part by name, where there are several."""
    if len(verdict.parts) == 1:
        return say_because(verdict.parts[0].because)
    said = [
        t(
            "{name}: {outcome}, because {reason}",
            name=part.half.name,
            outcome=say_outcome(part.outcome),
            reason=say_because(part.because),
        )
        for part in verdict.parts
    ]
    return join(said, SEMICOLON)


def grounds_of(verdicts: Sequence[ClaimVerdict]) -> Bullets:
    """What each verdict rests on and what speaks against it, in a paragraph each."""
    return Bullets(tuple(Item(_ground(verdict), lead=f"{verdict.claim.id}: ") for verdict in verdicts))


def _ground(verdict: ClaimVerdict) -> str:
    parts = " ".join([_say_part(part, verdict) for part in verdict.parts])
    said = t("{parts} Against it: {against}", parts=parts, against=say_against(verdict.claim))
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
