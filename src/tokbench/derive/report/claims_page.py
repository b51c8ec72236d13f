"""The page of all claims: every verdict in one table, three families from claim to number, the others in an appendix.

Claims that matter for a purchase come first. The verdicts are handed in; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tokbench.derive.claims.evidence import Resolved
from tokbench.derive.claims.saying import (
    STATES,
    say_against,
    say_because,
    say_contrast,
    say_half,
    say_input,
    say_labels,
    say_outcome,
    say_source,
    say_statement,
    say_strength,
    say_value,
    say_why,
)
from tokbench.derive.claims.values import Truth
from tokbench.derive.claims.verdicts import ClaimVerdict, PartVerdict
from tokbench.derive.evaluate import Results
from tokbench.derive.report.canvas import Drawn
from tokbench.derive.report.claims_drawn import experts_blocks
from tokbench.derive.report.claims_section import claims_sections, grounds_of
from tokbench.derive.report.claims_settling import UNDECIDED, say_wanted, settling_sections
from tokbench.derive.report.document import Block, Bullets, Document, Item, Paragraph, Section, bullets
from tokbench.derive.report.frameworks_section import frameworks_sections
from tokbench.derive.report.scenarios_section import scenarios_sections
from tokbench.derive.report.sections import chrome
from tokbench.derive.scenarios import Scenarios
from tokbench.derive.words import language, mark, t

FAMILIES = {
    "throughput": mark("Throughput"),
    "speculative": mark("Speculative decoding"),
    "moe": mark("Mixture of experts"),
}
"""The three families that the project is for, in the order of the page."""
MIXTURES, DRAFTS = "moe", "speculative"
"""The families whose numbers records can draw by themselves."""
FIRST = 1
"""The priority of claims that matter for a purchase: those are told from the claim down to the numbers."""
MAX_SOURCES = 8
"""More sources of one input than these are counted; `--explain` lists them all."""


class Found(NamedTuple):
    """What stands on the page besides the verdicts."""

    drawn: Mapping[str, Sequence[Drawn]]
    """Figures by family."""
    scenarios: Scenarios
    results: Sequence[Results]


def claims_document(verdicts: Sequence[ClaimVerdict], found: Found) -> Document:
    """The whole page."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.claim.priority)
    overview = claims_sections(ordered)[0]
    sections = [overview]
    for topic, title in FAMILIES.items():
        own = [verdict for verdict in ordered if verdict.claim.topic == topic]
        if own:
            beside = experts_blocks(found.results) if topic == MIXTURES else ()
            sections += _family(t(title), own, found.drawn.get(topic, ()), beside)
    sections += [*scenarios_sections(found.scenarios), *frameworks_sections(found.results)]
    others = [verdict for verdict in ordered if verdict.claim.topic not in FAMILIES]
    first = [verdict for verdict in others if verdict.claim.priority == FIRST]
    if first:
        sections.append(Section(t("Other claims that matter most for a purchase"), (_outcomes(first),)))
        sections += [_claim(verdict) for verdict in first]
    sections += settling_sections(ordered, level=2)
    rest_of = [verdict for verdict in others if verdict.claim.priority != FIRST]
    if rest_of:
        blocks = (Paragraph(_say_appendix()), grounds_of(rest_of))
        sections.append(Section(t("Appendix: the other claims"), blocks))
    return Document(t("{count} claims, tested", count=len(verdicts)), tuple(sections), language(), chrome())


def _say_appendix() -> str:
    return t(
        "Claims that matter most for a purchase first. `tokbench claims --explain ID` shows each down to its sources."
    )


def _family(
    title: str, verdicts: Sequence[ClaimVerdict], drawn: Sequence[Drawn], beside: Sequence[Block]
) -> list[Section]:
    figures = tuple(item.figure for item in drawn)
    return [Section(title, (_outcomes(verdicts), *figures, *beside)), *(_claim(verdict) for verdict in verdicts)]


def _outcomes(verdicts: Sequence[ClaimVerdict]) -> Bullets:
    said = [t("{outcome} ({why})", outcome=say_outcome(verdict.outcome), why=say_why(verdict)) for verdict in verdicts]
    return Bullets(
        tuple(Item(f" {text}", lead=f"{verdict.claim.id}:") for verdict, text in zip(verdicts, said, strict=True))
    )


def _claim(verdict: ClaimVerdict) -> Section:
    """One claim from what was said down to the numbers."""
    claim = verdict.claim
    blocks: list[Block] = [Paragraph(f"{say_statement(claim)} ({claim.attributed_to})")]
    verdict_line = t(
        "Verdict: {outcome}. Evidence: {strength}.",
        outcome=say_outcome(verdict.outcome),
        strength=say_strength(verdict.strength),
    )
    blocks.append(Paragraph(verdict_line, "lead"))
    for part in verdict.parts:
        blocks += [Paragraph(_say_part(part, several=len(verdict.parts) > 1)), Bullets(tuple(_numbers(part, verdict)))]
    beside = [item for item in verdict.inputs.values() if not item.row.decides and item.sources]
    if beside:
        items = [entry for item in beside for entry in _input_items(item)]
        blocks += [Paragraph(t("Beside it, deciding nothing:")), Bullets(tuple(items))]
    notes = [t("Labels: {labels}.", labels=say_labels(verdict.labels))] if verdict.labels else []
    notes += [t("Conditions: {contrast}.", contrast=say_contrast(contrast)) for contrast in verdict.contrasts]
    notes.append(t("Strongest argument against: {text}", text=say_against(claim)))
    blocks.append(bullets(*notes))
    return Section(claim.id, tuple(blocks), level=3)


def _say_part(part: PartVerdict, *, several: bool) -> str:
    reason = say_because(part.because)
    if not several:
        return t("Because {reason}.", reason=reason)
    return t(
        "{says} {outcome}, because {reason}.",
        says=say_half(part.half),
        outcome=say_outcome(part.outcome),
        reason=reason,
    )


def _numbers(part: PartVerdict, verdict: ClaimVerdict) -> Iterator[Item]:
    """Both rules with what they come to, the steps, the inputs with their sources, and what is missing."""
    evaluated = part.evaluated
    yield _rule(t("supported if"), part.half.supports_if, evaluated.supports)
    yield _rule(t("refuted if"), part.half.refutes_if, evaluated.refutes)
    for name, value in evaluated.steps.items():
        yield Item(f" = {part.half.let[name]} = {say_value(value)}", lead=name)
    for name in sorted(part.rules.inputs_of(part.rules.supports, part.rules.refutes)):
        yield from _input_items(verdict.inputs[name])
    if part.outcome in UNDECIDED:
        yield Item(t("to settle it: {what}", what=say_wanted(part)))
    if part.needs is not None:
        yield Item(t("to test it: {command}", command=part.needs))


def _rule(title: str, rule: str, truth: Truth) -> Item:
    return Item(t("{title} {rule}: {state}", title=title, rule=rule, state=t(STATES[truth.state])))


def _input_items(item: Resolved) -> Iterator[Item]:
    yield Item(f" = {say_input(item)}", lead=item.name)
    for source in item.sources[:MAX_SOURCES]:
        yield Item(t("from {source}", source=say_source(source)), url=source.url)
    if len(item.sources) > MAX_SOURCES:
        yield Item(t("and {count} further sources", count=len(item.sources) - MAX_SOURCES))
