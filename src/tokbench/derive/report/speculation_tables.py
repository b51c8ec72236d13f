"""The tables of speculative decoding: what drafts buy, how it was predicted, acceptance, what others published.

Words, and computes no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokbench.derive.evaluate import Missing
from tokbench.derive.report.document import DASH, Cell, Column, Table
from tokbench.derive.report.fields import cell_columns, cell_fields, metric_column, metric_field, value_field
from tokbench.derive.speculation.found import DraftedCell, Reading
from tokbench.derive.speculation.implied import Implied
from tokbench.derive.speculation.loops import LEAST_DISTINCT
from tokbench.derive.speculation.runs import RunLengths
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.units import format_number

READINGS: Final[dict[Reading, str]] = {
    "measured": mark("as measured"),
    "toy": mark("as measured, of a toy pair that was trained here"),
    "plumbing": mark("plumbing only"),
    "random": mark("costs only: random weights"),
    "replay": mark("costs only: acceptance is replayed"),
    "scripted": mark("nothing: a script"),
    "lossy": mark("a control: it accepts wrong tokens"),
    "invalid": mark("nothing: invalid"),
}
SOURCES: Final = {
    "rounds": mark("from the rounds themselves: no test"),
    "apart": mark("measured apart"),
    "alone": mark("each part alone"),
}
LEAST_P: Final = 0.01
"""Below it run lengths are not those of independent drafts."""


def gain_table(cells: Sequence[DraftedCell], with_run: bool) -> Table:
    """Method by task: acceptance, tokens per step, costs, speed-up, joules."""
    columns = (
        *cell_columns(),
        Column(t("Task")),
        metric_column("acceptance_alpha", t("Acceptance α"), with_interval=True),
        metric_column("tokens_per_step", t("Tokens per step τ")),
        metric_column("draft_cost_ratio", t("Draft cost c")),
        metric_column("verify_cost_ratio", t("Verify cost v")),
        metric_column("speedup_x", t("Speed-up"), with_interval=True),
        Column(t("Joules per token, with over without"), "", "right"),
        Column(t("May be read as")),
    )
    rows = tuple(
        (
            *cell_fields(found.cell, with_run),
            task_field(found),
            metric_field(found.cell, "acceptance_alpha", with_interval=True),
            metric_field(found.cell, "tokens_per_step"),
            metric_field(found.cell, "draft_cost_ratio"),
            metric_field(found.cell, "verify_cost_ratio"),
            metric_field(found.cell, "speedup_x", with_interval=True),
            value_field(found.joules_x, with_interval=True),
            Cell(t(READINGS[found.reading])),
        )
        for found in cells
    )
    caption = t(
        "α: probability that a draft is accepted if all before it were. τ: tokens that one pass of the target gives a "
        "row, its own included. c and v: time of one drafted token and of one verifying pass, in steps of the same "
        "cell without drafts. The speed-up is that of one stream over the same cell without drafts, in the same block "
        "of the same run, on the same prompts where the block has them. Joules are those per emitted token, drafts and "
        "refused work included."
    )
    return Table(columns, rows, caption)


def task_field(found: DraftedCell) -> Cell:
    """The set of prompts, or a dash for prompts that are no task."""
    return Cell(found.task) if found.task is not None else Cell(DASH, note=t("synthetic prompts: no task"))


def prediction_table(cells: Sequence[DraftedCell], with_run: bool) -> Table:
    """Speed-up beside its prediction, with the bandwidth that the baseline used."""
    columns = (
        *cell_columns(),
        Column(t("Task")),
        metric_column("speedup_x", t("Speed-up"), with_interval=True),
        metric_column("predicted_speedup_x", t("Predicted"), with_interval=True),
        metric_column("speedup_over_predicted", t("Over predicted"), with_interval=True),
        Column(t("Predicted with c"), "", "right"),
        Column(t("Predicted with v"), "", "right"),
        Column(t("Draft and verify cost from")),
        Column(t("Bandwidth used without drafts"), "MBU", "right"),
    )
    rows = tuple(
        (
            *cell_fields(found.cell, with_run),
            task_field(found),
            metric_field(found.cell, "speedup_x", with_interval=True),
            metric_field(found.cell, "predicted_speedup_x", with_interval=True),
            metric_field(found.cell, "speedup_over_predicted", with_interval=True),
            *_cost_fields(found),
            _sources_field(found),
            _baseline_field(found),
        )
        for found in cells
    )
    caption = t(
        "Predicted: τ / (γ c + v) with τ as measured; what a round does besides drafting and verifying is left out. "
        "Each part alone: plain steps, drafts and verification, as compiled for this cell, timed in windows of their "
        "own that take turns; cells of other tasks take these costs on. Measured apart: in the draft model's own cell, "
        "or by the experiment verify_cost. Both make it a test. Costs from the rounds themselves only show whether the "
        "parts of a round add up to it. A baseline that uses little of the bandwidth makes a speed-up look larger."
    )
    return Table(columns, rows, caption)


def _cost_fields(found: DraftedCell) -> tuple[Cell, Cell]:
    drafting = found.cell.record.spec.speculation
    if found.costs is None or drafting == "none":
        return (Cell(DASH, note=t("there is no prediction")),) * 2
    draft, verify = found.costs.draft / drafting.gamma, found.costs.verify
    return Cell(format_number(draft), sort=draft), Cell(format_number(verify), sort=verify)


def _sources_field(found: DraftedCell) -> Cell:
    if found.sources is None:
        return Cell(DASH, note=t("there is no prediction"))
    draft, verify = t(SOURCES[found.sources.draft]), t(SOURCES[found.sources.verify])
    return Cell(draft if draft == verify else join((draft, verify), SEMICOLON))


def _baseline_field(found: DraftedCell) -> Cell:
    if found.baseline is None:
        return Cell(DASH, note=t("the run has no such cell without drafts"))
    return metric_field(found.baseline, "bandwidth_used_ratio")


def acceptance_table(cells: Sequence[DraftedCell], with_run: bool) -> Table:
    """Acceptance by position, and whether drafts are accepted independently."""
    most = max((len(found.positions) for found in cells), default=0)
    columns = (
        *cell_columns(),
        Column(t("Task")),
        metric_column("acceptance_ratio", t("Accepted over drafted")),
        *(Column(t("Position {place}", place=place), "", "right") for place in range(1, most + 1)),
        Column(t("Full rounds"), "n", "right"),
        Column(t("Independent drafts"), "p", "right"),
        Column(t("Bias of the closed form"), "%", "right"),
        Column(t("Different outputs in a loop"), "", "right"),
    )
    rows = tuple(
        (
            *cell_fields(found.cell, with_run),
            task_field(found),
            metric_field(found.cell, "acceptance_ratio"),
            *(_position_field(found, place) for place in range(most)),
            *_length_fields(found),
            _loop_field(found),
        )
        for found in cells
    )
    caption = t(
        "By position: how often a draft was accepted where all before it were. Full rounds drafted as many tokens as "
        "asked. p: Pearson's chi-square of their run lengths against the geometric law of one α, rounds taken as "
        "independent. Bias: tokens per round of the closed form with that α, over those measured, less 1. Loop: fewer "
        "than {share:.0%} of an output's 4-grams are distinct; what is accepted in a repetition says little of text.",
        share=LEAST_DISTINCT,
    )
    return Table(columns, rows, caption)


def _position_field(found: DraftedCell, place: int) -> Cell:
    reached, accepted = found.positions[place] if place < len(found.positions) else (0, 0)
    if not reached:
        return Cell(DASH, note=t("no round got so far"))
    return Cell(format_number(accepted / reached), sort=accepted / reached)


def _length_fields(found: DraftedCell) -> tuple[Cell, Cell, Cell]:
    lengths = found.lengths
    if isinstance(lengths, Missing):
        return (Cell(DASH, note=say(lengths.reason)),) * 3
    count, bias = sum(lengths.seen), 100 * lengths.bias
    test = Cell(DASH, note=t("too few rounds, or too few lengths, for a test"))
    if lengths.p_value is not None:
        test = Cell(format_number(lengths.p_value, 2), sort=lengths.p_value, note=_say_lengths(lengths))
    return Cell(f"{count:,}", sort=float(count)), test, Cell(format_number(bias, 2), sort=bias)


def _say_lengths(lengths: RunLengths) -> str | None:
    """How run lengths differ from those of independent drafts; None where they are not known to."""
    if lengths.p_value is None or lengths.p_value >= LEAST_P:
        return None
    if lengths.is_bursty:
        return t("run lengths are not geometric: acceptance comes in bursts")
    return t("run lengths are not geometric: behind an accepted draft the next is accepted less often")


def _loop_field(found: DraftedCell) -> Cell:
    loops = found.loops
    if not loops.judged:
        return Cell(DASH, note=t("no output of at least 16 tokens was kept"))
    return Cell(
        t("{looping} of {judged}", looping=loops.looping, judged=loops.judged), sort=loops.looping / loops.judged
    )


def implied_table(implied: Sequence[Implied]) -> Table:
    """Published speed-ups, and the acceptance that each needs."""
    columns = (
        Column(t("Published by")),
        Column(t("Speed-up"), "x", "right"),
        Column(t("Published")),
        Column(t("Drafted tokens, acceptance needed")),
        Column(t("Draft cost c"), "", "right"),
        Column(t("Assumed")),
    )
    rows = tuple(
        (
            Cell(item.row.who, url=item.source_url),
            Cell(format_number(item.speedup), sort=item.speedup),
            Cell(item.published),
            Cell(join((_say_alpha(gamma, alpha) for gamma, alpha in item.alphas), SEMICOLON)),
            Cell(f"{item.row.draft_cost_ratio:g}", sort=item.row.draft_cost_ratio),
            Cell(item.row.assumed),
        )
        for item in implied
    )
    caption = t(
        "Arithmetic, not measured: the α at which τ / (γ c + 1) is the published speed-up. Verifying is taken to cost "
        "one step; where it costs more, more acceptance is needed."
    )
    return Table(columns, rows, caption)


def _say_alpha(gamma: int, alpha: float | None) -> str:
    if alpha is None:
        return t("γ {gamma}: not even 1", gamma=gamma)
    return t("γ {gamma}: {alpha}", gamma=gamma, alpha=f"{alpha:.2f}")
