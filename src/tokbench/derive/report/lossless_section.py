"""Whether drafting changed what came out: greedy tokens and draws, each with the control that the test must find."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.lossless import (
    FLAGGED_BELOW,
    FOUND_CHANCE,
    FULL_PRECISION,
    TIE_GAP,
    GTest,
    Matches,
    combined_p,
    count_matches,
    detectable_shift,
    g_tests,
    mismatch_bound,
)
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table
from tokbench.derive.report.fields import in_run
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, t
from tokbench.stats import Estimate
from tokbench.units import format_number

ACCEPTED_FROM = 0.01
"""From this p on draws count as following one distribution; the claims on losslessness use the same bound."""


def lossless_sections(material: Material) -> list[Section]:
    """One part; nothing where no cell ran the experiment."""
    cells = [cell for cell in material.measured if count_matches(cell.record, "greedy") is not None]
    if not cells:
        return []
    drawn = [cell for cell in cells if g_tests(cell.record, "speculative")]
    blocks: list[Block] = [_opening(), _greedy_table(cells, material.has_several_runs)]
    if drawn:
        blocks.append(_sampled_table(drawn, material.has_several_runs))
    return [Section(t("Is the output the same with drafts?"), tuple(blocks))]


def _opening() -> Paragraph:
    return Paragraph(
        t(
            "Each prompt was worked through with drafts and without, and the tokens compared one by one. A rule that "
            "is lossy on purpose (it also accepts a draft among the target's three likeliest tokens) is the control: "
            "a test that does not find it has no power, and says nothing about the lossless rule. Another static "
            "batch without drafts shows what rounding alone changes."
        )
    )


def _name(cell: CellResult, with_run: bool) -> Cell:
    parts = (wording.say_model(cell), str(cell.conditions.precision), wording.say_engine(cell), wording.say_load(cell))
    return Cell(
        in_run(cell.run_name, join(parts), with_run), note=cell.record.model.note if cell.record.model else None
    )


def _greedy_table(cells: Sequence[CellResult], with_run: bool) -> Table:
    columns = (
        Column(t("Cell")),
        Column(t("Prompts compared"), "", "right"),
        Column(t("Tokens each"), "", "right"),
        Column(t("Drafts accepted"), "", "right"),
        Column(t("Unchanged")),
        Column(t("Changed at most (95 %)"), "", "right"),
        Column(t("Changed without a tie")),
        Column(t("Control: unchanged")),
        Column(t("Another batch: unchanged")),
        Column(t("Reading")),
    )
    caption = t(
        "Greedy output, token by token; a prompt that comes round again counts once, by its worst repetition. Drafts "
        "accepted: where hardly any is, drafts had little chance to change anything. Changed at most: the share of "
        "prompts like these that may change, by the one-sided bound of Clopper and Pearson. A tie, told in float32 "
        "alone: the two best logits lie less than {gap:g} apart.",
        gap=TIE_GAP,
    )
    return Table(columns, tuple(_greedy_row(cell, with_run) for cell in cells), caption)


def _greedy_row(cell: CellResult, with_run: bool) -> tuple[Cell, ...]:
    greedy = count_matches(cell.record, "greedy")
    assert greedy is not None  # the section has such cells alone
    lossy, batch = count_matches(cell.record, "lossy"), count_matches(cell.record, "batch")
    bound = mismatch_bound(greedy)
    return (
        _name(cell, with_run),
        Cell(f"{greedy.prompts:,}", sort=greedy.prompts),
        Cell(f"{greedy.compared:,}", sort=greedy.compared),
        _accepted(cell),
        _identical(greedy),
        Cell(f"{format_number(100 * bound)} %", sort=bound),
        _untied(greedy),
        _identical(lossy),
        _identical(batch),
        Cell(_read_greedy(greedy, lossy)),
    )


def _accepted(cell: CellResult) -> Cell:
    """The share of drafts that the cell's own repetitions accepted: where hardly any is, little was tested."""
    found = cell.metrics.get("acceptance_ratio")
    if not isinstance(found, Estimate):
        return Cell(DASH, note=None if found is None else found.reason)
    return Cell(f"{format_number(100 * found.value, 2)} %", sort=found.value)


def _identical(matches: Matches | None) -> Cell:
    if matches is None:
        return Cell(DASH, note=t("that comparison was not made in this cell"))
    text = t("{identical} of {prompts}", identical=matches.identical, prompts=matches.prompts)
    return Cell(text, note=_say_parting(matches), sort=matches.identical / matches.prompts)


def _say_parting(matches: Matches) -> str | None:
    """Behind how many tokens outputs part, and how far apart the two best logits are there."""
    gaps = [gap for gap in matches.gaps if gap is not None]
    if not matches.places:
        return None
    parted = t("they part behind {least} to {most} tokens", least=min(matches.places), most=max(matches.places))
    if len(gaps) < len(matches.gaps):
        return parted
    low, high = (format_number(pick(gaps), 2) for pick in (min, max))
    return t("{parted}, where the two best logits lie {low} to {high} apart", parted=parted, low=low, high=high)


def _untied(matches: Matches) -> Cell:
    if matches.gaps and matches.dtype != FULL_PRECISION:
        note = t("in {dtype} rounding parts more than ties: see another batch", dtype=matches.dtype)
        return Cell(DASH, note=note)
    if matches.untied is None:
        return Cell(DASH, note=t("a prompt differs, and the engine does not show the logits there"))
    return Cell(str(matches.untied), sort=float(matches.untied))


def _read_greedy(greedy: Matches, lossy: Matches | None) -> str:
    """What the greedy check says, or that it could not have said anything."""
    if greedy.untied:
        return t("output changes")
    if lossy is None or lossy.identical == lossy.prompts:
        return t("no power: the lossy rule was not found either")
    if greedy.identical == greedy.prompts:
        return t("unchanged, and the lossy rule was found")
    if greedy.dtype != FULL_PRECISION:
        return t("differs, as rounding may: see another batch")
    return t("differs") if greedy.untied is None else t("differs at ties alone, and the lossy rule was found")


def _sampled_table(cells: Sequence[CellResult], with_run: bool) -> Table:
    columns = (
        Column(t("Cell")),
        Column(t("Temperature"), "", "right"),
        Column(t("Prefixes"), "", "right"),
        Column(t("Draws a side"), "", "right"),
        Column(t("p, with drafts"), "", "right"),
        Column(t("p, control"), "", "right"),
        Column(t("Would find a shift of"), "", "right"),
        Column(t("Reading")),
    )
    caption = t(
        "Tokens drawn behind frozen prefixes with drafts and without: a G-test per prefix, rare outcomes counted "
        "together. p is corrected for the number of prefixes: twice the smaller of the p of all together and the least "
        "p times their number. Draws a side: of all prefixes together, of the smaller side. Would find: the share of "
        "the first token's probability that drafts would have to move to other tokens, on average over the prefixes, "
        "to be found with p below {level:g} in {chance:.0%} of all runs; a smaller fault may stay unseen. Two tokens "
        "are drawn, so that the one behind two accepted drafts of a round is not among them.",
        level=FLAGGED_BELOW,
        chance=FOUND_CHANCE,
    )
    return Table(columns, tuple(_sampled_row(cell, with_run) for cell in cells), caption)


def _sampled_row(cell: CellResult, with_run: bool) -> tuple[Cell, ...]:
    drafted, control = g_tests(cell.record, "speculative"), g_tests(cell.record, "lossy")
    found, found_control = combined_p(drafted), combined_p(control) if control else None
    draws = sum(test.draws for test in drafted)
    settings = next(
        point.settings
        for trial in cell.record.good_trials()
        for point in trial.points
        if point.experiment == "lossless" and point.settings["check"] == "sampled"
    )
    return (
        _name(cell, with_run),
        Cell(f"{float(settings['temperature']):g}", sort=float(settings["temperature"])),
        Cell(str(len(drafted)), sort=float(len(drafted))),
        Cell(f"{draws:,}", sort=float(draws)),
        _p_value(found, drafted),
        _p_value(found_control, control),
        _shift(drafted),
        Cell(_read_sampled(found, found_control)),
    )


def _p_value(value: float | None, tests: Sequence[GTest]) -> Cell:
    if value is None:
        return Cell(DASH, note=t("too few draws of the control for a test"))
    least = min(test.p_value for test in tests)
    statistic, degrees = sum(test.statistic for test in tests), sum(test.degrees for test in tests)
    note = t("G {g:.1f} at {degrees} degrees, least p {least:.2g}", g=statistic, degrees=degrees, least=least)
    return Cell(f"{value:.2g}", note=note, sort=value)


def _shift(tests: Sequence[GTest]) -> Cell:
    shift = detectable_shift(tests)
    if shift is None:
        return Cell(DASH, note=t("too few draws to be sure of finding any shift"))
    return Cell(f"{format_number(100 * shift, 2)} %", sort=shift)


def _read_sampled(found: float, found_control: float | None) -> str:
    """What the draws say, or that they could not have said anything."""
    if found < FLAGGED_BELOW:
        return t("another distribution")
    if found_control is None or found_control >= FLAGGED_BELOW:
        return t("no power: the lossy rule was not found either")
    if found < ACCEPTED_FROM:
        return t("doubtful: more draws would tell")
    return t("no difference found, and the lossy rule was found")
