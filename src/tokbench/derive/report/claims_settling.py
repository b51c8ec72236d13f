"""Words what would settle the parts of claims that are open or untested: what it takes, and with which command.

The verdicts are handed in; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive.claims.saying import SHORT_BECAUSE, say_bilingual, say_outcome
from tokbench.derive.claims.verdicts import Because, ClaimVerdict, Outcome, PartVerdict
from tokbench.derive.report.document import DASH, Cell, Column, Paragraph, Section, Table
from tokbench.derive.words import SEMICOLON, join, t

UNDECIDED = (Outcome.OPEN, Outcome.UNTESTED)


def settling_sections(verdicts: Sequence[ClaimVerdict], level: int = 3) -> list[Section]:
    """One table of the parts that nothing decides yet; nothing where every part is decided."""
    parts = [(verdict, part) for verdict in verdicts for part in verdict.parts if part.outcome in UNDECIDED]
    if not parts:
        return []
    columns = (
        Column(t("Claim")),
        Column(t("Part")),
        Column(t("Stands at")),
        Column(t("What it takes")),
        Column(t("Command")),
    )
    said = t(
        "Untested: it can be measured, by the command, where the machine has what it takes. Open: no measurement of "
        "ours would settle it, or the numbers at hand are too wide."
    )
    table = Table(columns, tuple(_row(*pair) for pair in parts))
    return [Section(t("What would settle the rest"), (Paragraph(said), table), level)]


def _row(verdict: ClaimVerdict, part: PartVerdict) -> tuple[Cell, ...]:
    stands = t("{outcome}: {reason}", outcome=say_outcome(part.outcome), reason=t(SHORT_BECAUSE[part.because]))
    name = part.half.name if len(verdict.parts) > 1 else DASH
    is_wide = part.because is Because.STRADDLES  # the command that measured it measures it again, more often
    command = part.needs or ((part.half.needs or verdict.claim.needs) if is_wide else None)
    return (Cell(verdict.claim.id), Cell(name), Cell(stands), Cell(say_wanted(part)), Cell(command or DASH))


def say_wanted(part: PartVerdict) -> str:
    """What is wanting for a verdict on one part."""
    if part.because is Because.DEADLINE:
        return t("the day after {date}", date=part.half.deadline)
    if part.takes is not None:
        return say_bilingual(part.takes)
    if part.because is Because.NOT_TESTED:
        return t("a CPU and the time of its config")
    truths = (part.evaluated.supports, part.evaluated.refutes)
    if part.because is Because.STRADDLES:
        compared = dict.fromkeys(text for truth in truths for text in truth.straddles)
        return t("a narrower interval: {comparisons}", comparisons=join(compared, SEMICOLON))
    causes = sorted({cause for truth in truths for cause in truth.causes}, key=str)
    return join([t("{name}: {reason}", name=cause.input or DASH, reason=cause.reason) for cause in causes], SEMICOLON)
