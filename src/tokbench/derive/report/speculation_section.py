"""Speculative decoding: what drafts buy, predicted and measured; what published speed-ups need. Computes no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokbench.derive import wording
from tokbench.derive.report.document import Block, Bullets, Item, Paragraph, Section
from tokbench.derive.report.material import Material
from tokbench.derive.report.speculation_tables import acceptance_table, gain_table, implied_table, prediction_table
from tokbench.derive.speculation.costs import Gap
from tokbench.derive.speculation.found import RESIDUAL_LIMIT, BatchCurve, DraftedCell
from tokbench.derive.words import mark, t
from tokbench.stats import Estimate
from tokbench.units import format_number

CAUSES = {
    "draft": mark("drafting takes another time in a round than alone"),
    "verify": mark("verification takes another time in a round than alone"),
    "other": mark("what a round does besides both: the host, and what lies between the passes"),
    "rows": mark("rows that end apart"),
}
"""Why a round may take another time than was predicted."""
PREDICTION, ACCEPTANCE, BATCH = "speculation.png", "acceptance.png", "speculation_batch.png"


def speculation_sections(material: Material) -> list[Section]:
    """What cells with drafts tell; nothing where there are none."""
    found = material.speculation
    if not found.cells:
        return []
    several = material.has_several_runs
    lead: list[Block] = [Paragraph(text, "warning") for text in _warnings(found.cells)]
    lead += [gain_table(found.cells, several), *_listed(_remarks(found.cells))]
    sections = [Section(t("Speculative decoding"), tuple(lead))]
    paired = [cell for cell in found.cells if cell.value("speedup_x") is not None]
    if paired:
        predicted: tuple[Block, ...] = (
            *material.figure(PREDICTION),
            prediction_table(paired, several),
            *_listed(_residuals(paired)),
        )
        sections.append(Section(t("Predicted and measured speed-up"), predicted, 3))
    if any(cell.positions for cell in found.cells):
        accepted: tuple[Block, ...] = (*material.figure(ACCEPTANCE), acceptance_table(found.cells, several))
        sections.append(Section(t("Acceptance by position and task"), accepted, 3))
    if found.curves:
        over: tuple[Block, ...] = (*material.figure(BATCH), *_listed(map(_say_curve, found.curves)))
        sections.append(Section(t("Speed-up over the static batch"), over, 3))
    if found.implied:
        text = Paragraph(_say_highest(found.cells))
        sections.append(Section(t("Published speed-ups"), (implied_table(found.implied), text), 3))
    return sections


def _listed(texts: Iterator[str]) -> tuple[Bullets, ...]:
    items = tuple(Item(text) for text in texts)
    return (Bullets(items),) if items else ()


def _warnings(cells: Sequence[DraftedCell]) -> Iterator[str]:
    readings = {found.reading for found in cells}
    if "plumbing" in readings:
        yield t(
            "Plumbing only: these weights come from a file of fewer bits. Drafts that are quantised again look better "
            "than they are, and a loss of quality does not show: such rows say nothing of acceptance with a model's "
            "own weights."
        )
    for note in dict.fromkeys(_note(found) for found in cells if found.reading == "toy"):
        yield t(
            "A toy pair ({note}): its acceptance is its own, and says nothing of models that anybody serves.", note=note
        )
    if "replay" in readings:
        yield t(
            "Replayed: the drafts and the verifying passes ran for real, which drafts were accepted was read from a "
            "trace. Such a row tells what a given acceptance costs and buys at this size, and nothing of the "
            "acceptance."
        )
    if "random" in readings:
        yield t("Random weights: acceptance has no meaning there, what drafting and verifying take has.")


def _note(found: DraftedCell) -> str | None:
    model = found.cell.record.model
    return model.note if model is not None else None


def _remarks(cells: Sequence[DraftedCell]) -> Iterator[str]:
    for found in cells:
        value = found.value("speedup_x")
        if found.is_negative_control and value is not None:
            yield _say_control(found, value)
        if found.loops.looping and found.reading in ("measured", "toy", "plumbing"):
            yield _say_loops(found)


def _say_loops(found: DraftedCell) -> str:
    """How many outputs loop, and how many prompts came to the same one."""
    cell, loops = wording.say_cell(found.cell), found.loops
    if loops.judged < loops.prompts:
        return t(
            "{cell}: {prompts} prompts gave {judged} different outputs, {looping} of them in a loop: acceptance there "
            "is that of a phrase that repeats, not of text, and its interval takes the prompts for independent.",
            cell=cell,
            prompts=loops.prompts,
            judged=loops.judged,
            looping=loops.looping,
        )
    return t(
        "{cell}: {looping} of {judged} outputs run in a loop: acceptance there is that of a phrase that repeats, not "
        "of text.",
        cell=cell,
        looping=loops.looping,
        judged=loops.judged,
    )


def _say_control(found: DraftedCell, value: Estimate) -> str:
    cell, speedup = wording.say_cell(found.cell), f"{format_number(value.value)}x"
    if value.value < 1:
        return t("{cell}: the control that was to lose speed does so, {speedup}.", cell=cell, speedup=speedup)
    return t(
        "{cell}: the control that was to lose speed gains, {speedup}. That is a finding: its drafts are better or "
        "cheaper than was thought.",
        cell=cell,
        speedup=speedup,
    )


def _residuals(cells: Sequence[DraftedCell]) -> Iterator[str]:
    """Where prediction and measurement are apart, and how the cause is found."""
    off = [found for found in cells if found.is_off]
    for found in off:
        value = found.value("speedup_over_predicted")
        assert value is not None  # held by is_off
        yield t(
            "{cell}: measured {ratio} of what was predicted, beyond {limit:.0%}.",
            cell=wording.say_cell(found.cell),
            ratio=format_number(value.value),
            limit=RESIDUAL_LIMIT,
        )
        if found.gap is not None:
            yield _say_gap(found, found.gap)
    if off:
        yield t(
            "Where the time went: scripts/profile_speculation CONFIG runs one round under the profiler and prints it "
            "operator by operator."
        )


def _say_gap(found: DraftedCell, gap: Gap) -> str:
    """Which part of a round took another time than was predicted."""
    return t(
        "{cell}: beyond the prediction a round took, in plain steps, {draft} drafting, {verify} verifying, {other} "
        "besides, and {rows} because rows end apart. Most of it: {cause}.",
        cell=wording.say_cell(found.cell),
        draft=_signed(gap.draft),
        verify=_signed(gap.verify),
        other=_signed(gap.other),
        rows=_signed(gap.rows),
        cause=t(CAUSES[gap.cause]),
    )


def _signed(steps: float) -> str:
    return f"{round(steps, 2) + 0.0:+.2f}"  # no minus before nothing


def _say_curve(curve: BatchCurve) -> str:
    first = curve.cells[0].cell
    name = f"{wording.say_model(first)}, {wording.say_engine(first)}"
    if curve.crossing is not None:
        return t(
            "{name}: the speed-up falls below 1 between static batch {above} and {below}, near {at}.",
            name=name,
            above=curve.crossing.above,
            below=curve.crossing.below,
            at=format_number(curve.crossing.at, 2),
        )
    values = [value.value for found in curve.cells if (value := found.value("speedup_x"))]
    last = curve.cells[-1].cell.conditions.static_batch
    if min(values) >= 1:
        return t("{name}: above 1 up to static batch {last}, the largest measured.", name=name, last=last)
    return t("{name}: below 1 from the smallest static batch on, or above it again later.", name=name)


def _say_highest(cells: Sequence[DraftedCell]) -> str:
    """The highest acceptance here that may be read as measured, to set beside those."""
    own = [found for found in cells if found.reading in ("measured", "toy")]
    known = [(value.value, found) for found in own if (value := _alpha(found))]
    if not known:
        return t("No acceptance of a model's own weights was measured in these runs to set beside them.")
    alpha, found = max(known, key=lambda pair: (pair[1].reading == "measured", not pair[1].is_looping, pair[0]))
    if found.reading == "toy":
        return t(
            "The highest acceptance measured here: α {alpha}, {cell}; a toy pair that was trained here, not a model "
            "that anybody serves.",
            alpha=format_number(alpha),
            cell=wording.say_cell(found.cell),
        )
    return t(
        "The highest acceptance measured here with a model's own weights: α {alpha}, {cell}.",
        alpha=format_number(alpha),
        cell=wording.say_cell(found.cell),
    )


def _alpha(found: DraftedCell) -> Estimate | None:
    return found.value("acceptance_alpha")
