"""Tables of what was varied or checked: depth, context, prompt, settings, spread, memory, repeats. Derives nothing."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive.bounds.found import Choice, ContextCost, DepthFloor, MemoryRow, PrefillCurve, RepeatRow
from tokbench.derive.evaluate import CellResult
from tokbench.derive.pairs import AMBIGUOUS, BASELINE_MODE, pair_modes
from tokbench.derive.report.document import DASH, Block, Cell, Column, Table
from tokbench.derive.report.fields import cell_columns, cell_fields, fact_field, metric_field, value_field
from tokbench.derive.report.material import Material
from tokbench.derive.standing import estimate_of
from tokbench.derive.words import join, mark, say, t
from tokbench.units import BYTES, SECONDS, Unit, format_number, format_value

JITTER = "step_jitter_ratio"
SMALL_BYTE_SHARE = 0.2
"""Reading takes at most this share of a step: its time is that of its layers, not of its bytes. Our choice."""
UNKNOWN = mark("not known")
AGAINST = {"itself": mark("the same static batch again"), "alone": mark("its first row alone")}
OUTCOMES = {"ok": mark("measured"), "oom": mark("out of memory")}


def run_columns(several: bool) -> tuple[Column, ...]:
    """The column that names a run, where there are several."""
    return (Column(t("Run")),) if several else ()


def run_fields(run_name: str, several: bool) -> tuple[Cell, ...]:
    """The run's name under `run_columns`."""
    return (Cell(run_name),) if several else ()


def unit_cell(value: float | None, unit: Unit, reason: str = UNKNOWN) -> Cell:
    """A value with its unit, or a dash with the reason."""
    return Cell(DASH, note=say(reason)) if value is None else Cell(format_value(value, unit), sort=float(value))


def share_cell(value: float | None, reason: str) -> Cell:
    """A ratio as a percentage, or a dash with the reason."""
    return Cell(DASH, note=say(reason)) if value is None else Cell(f"{format_number(100 * value)} %", sort=value)


def number_cell(value: float | None, reason: str, digits: int = 3) -> Cell:
    """A number without a unit, or a dash with the reason."""
    return Cell(DASH, note=say(reason)) if value is None else Cell(format_number(value, digits), sort=value)


def _right(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, "", "right") for title in titles)


def _series_fields(found: DepthFloor | ContextCost | PrefillCurve, several: bool) -> tuple[Cell, ...]:
    return (*run_fields(found.run_name, several), Cell(say(found.model)), Cell(found.mode))


def _say_counts(counts: Sequence[int]) -> str:
    return join(f"{count:,}" for count in counts)


def _ends_cell(seconds: Sequence[float]) -> Cell:
    ends = [format_value(value, SECONDS) for value in (seconds[0], seconds[-1])]
    text = ends[0] if ends[0] == ends[1] else t("{low} to {high}", low=ends[0], high=ends[1])
    return Cell(text, sort=seconds[-1])


def depths_blocks(material: Material) -> tuple[Block, ...]:
    """What a layer costs, and what such a depth cannot pass."""
    found = [floor for item in material.bounds for floor in item.depths]
    if not found:
        return ()
    several = material.has_several_runs
    caps = sorted({layers for floor in found for layers, _ in floor.caps_tokens_per_s})
    columns = (
        *run_columns(several),
        Column(t("Model")),
        Column(t("Mode")),
        Column(t("Layers")),
        *_right(t("Step time"), t("Per layer"), t("Constant"), "R²", t("Reading, at most")),
        *(Column(t("Cap at {layers} layers", layers=layers), t("tokens/s per stream"), "right") for layers in caps),
    )
    caption = t(
        "Step time over decoder layers, all else equal, a straight line. The cap is 1 / (layers * time per "
        "layer): what that depth cannot pass at this width, on this machine and with these kernels, however "
        "fast the memory. Layers are varied with random weights: right for time, meaningless as text. "
        "Llama-3.1-8B, -70B and -405B have 32, 80 and 126 layers. Reading: the largest share of a step that "
        "its bytes would take at the ceiling; where it is large, the line holds the cost of bytes too."
    )
    return (Table(columns, tuple(_depth_row(floor, caps, several) for floor in found), caption),)


def is_floor_of_depth(floor: DepthFloor) -> bool:
    """Whether the line holds the layers alone: reading their bytes is known to be little of every step."""
    return floor.largest_byte_share is not None and floor.largest_byte_share < SMALL_BYTE_SHARE


def _depth_row(floor: DepthFloor, caps: Sequence[int], several: bool) -> tuple[Cell, ...]:
    known = dict(floor.caps_tokens_per_s)
    share = share_cell(floor.largest_byte_share, t("no read ceiling was measured"))
    if floor.largest_byte_share is not None and not is_floor_of_depth(floor):
        share = Cell(
            share.text, share.sort, t("no floor of depth alone: reading the layers' bytes is a good part of a step")
        )
    return (
        *_series_fields(floor, several),
        Cell(_say_counts(floor.layers)),
        _ends_cell(floor.step_s),
        unit_cell(floor.s_per_layer, SECONDS),
        unit_cell(floor.t0_s, SECONDS),
        number_cell(floor.r_squared, "", 4),
        share,
        *(number_cell(known.get(layers), t("not derived")) for layers in caps),
    )


def contexts_blocks(material: Material) -> tuple[Block, ...]:
    """What one more token of context costs, beside what reading its bytes has to."""
    found = [cost for item in material.bounds for cost in item.contexts]
    if not found:
        return ()
    several = material.has_several_runs
    columns = (
        *run_columns(several),
        *(Column(t("Model")), Column(t("Mode"))),
        *_right(t("Static batch")),
        Column(t("Contexts"), "tokens"),
        *_right(t("Step time"), t("Per token of context"), t("At the read ceiling")),
    )
    rows = tuple(
        (
            *_series_fields(cost, several),
            Cell(str(cost.static_batch), float(cost.static_batch)),
            Cell(_say_counts(cost.contexts)),
            _ends_cell(cost.step_s),
            _slope_cell(cost),
            unit_cell(
                cost.roofline_s_per_token, SECONDS, t("no read ceiling was measured, or the bytes cannot be counted")
            ),
        )
        for cost in found
    )
    caption = t(
        "What one more token of context in every row adds to a step, all else equal, beside what reading "
        "the bytes that it adds would at the measured ceiling."
    )
    return (Table(columns, rows, caption),)


def _slope_cell(cost: ContextCost) -> Cell:
    """What a token of context costs; said to be no cost where reading its bytes alone would take longer."""
    cell, least = unit_cell(cost.s_per_token, SECONDS), cost.roofline_s_per_token
    if least is None or cost.s_per_token >= least:
        return cell
    note = t(
        "less than reading its bytes takes at the ceiling: more changed from cell to cell "
        "(on a CPU the memory's own rate)"
    )
    return Cell(cell.text, cell.sort, note)


def prefills_blocks(material: Material) -> tuple[Block, ...]:
    """How prefill grows with the prompt."""
    found = [curve for item in material.bounds for curve in item.prefills]
    if not found:
        return ()
    several = material.has_several_runs
    columns = (
        *run_columns(several),
        *(Column(t("Model")), Column(t("Mode"))),
        *_right(t("Static batch")),
        Column(t("Prompts"), "tokens"),
        *_right(
            t("Prefill time"), t("Exponent"), t("At the long end"), t("FLOPs used, shortest"), t("FLOPs used, longest")
        ),
    )
    no_share = t("no multiply ceiling was measured, or the FLOPs cannot be counted")
    rows = tuple(
        (
            *_series_fields(curve, several),
            Cell(str(curve.static_batch), float(curve.static_batch)),
            Cell(_say_counts(curve.prompts)),
            _ends_cell(curve.seconds),
            number_cell(curve.exponent, ""),
            number_cell(curve.last_exponent, t("no prompt is at most half as long as the longest")),
            share_cell(curve.used_ratio[0], no_share),
            share_cell(curve.used_ratio[-1], no_share),
        )
        for curve in found
    )
    caption = t(
        "Prefill time grows as the prompt's length to this power: below 1 where the machine fills up, 1 "
        "where every token costs the same, 2 where attention is all. The long end: between the longest "
        "prompt and the longest of at most half of it."
    )
    return (Table(columns, rows, caption),)


def choices_blocks(material: Material) -> tuple[Block, ...]:
    """Settings against one another, fastest first."""
    found = [choice for item in material.bounds for choice in item.choices]
    if not found:
        return ()
    columns = (
        Column(t("Setting")),
        *cell_columns(),
        Column(t("Value")),
        Column(t("Fastest over it"), t("decode; 95 % interval, n"), "right"),
        Column(t("Bytes per step, fastest over it"), "", "right"),
    )
    caption = t(
        "Cells that differ in one setting alone, fastest first, paired by block. In a precision whose time "
        "is all reading, the speeds would stand to one another inversely as the bytes."
    )
    rows = tuple(row for choice in found for row in _choice_rows(choice, material.has_several_runs))
    return (Table(columns, rows, caption),)


def _choice_rows(choice: Choice, several: bool) -> list[tuple[Cell, ...]]:
    return [
        (
            Cell(choice.setting),
            *cell_fields(cell, several),
            Cell(value),
            value_field(slowdown, with_interval=index > 0),
            number_cell(ratio, t("the bytes of a step cannot be counted")),
        )
        for index, (cell, value, slowdown, ratio) in enumerate(
            zip(choice.cells, choice.values, choice.slowdowns, choice.byte_ratios, strict=True)
        )
    ]


def jitter_blocks(material: Material) -> tuple[Block, ...]:
    """The slowest steps over the median one, other modes beside eager."""
    rows: list[tuple[Cell, ...]] = []
    several = material.has_several_runs
    pairs = pair_modes(material.measured, JITTER)
    shown: set[int] = set()
    for pair in pairs:
        if _has_jitter(pair.cell) or _has_jitter(pair.baseline):
            eager = Cell(DASH, note=t(AMBIGUOUS)) if pair.baseline is None else metric_field(pair.baseline, JITTER)
            rows.append((*cell_fields(pair.cell, several), metric_field(pair.cell, JITTER), eager))
            shown |= {id(pair.cell), id(pair.baseline)}
    for cell in material.measured:
        if _has_jitter(cell) and id(cell) not in shown:
            eager = Cell(DASH, note=_say_alone(cell))
            rows.append((*cell_fields(cell, several), metric_field(cell, JITTER), eager))
    if not rows:
        return ()
    caption = t(
        "The 99th percentile of a cell's decode steps over their median: 1 where every step takes the same "
        "time; missing below the number of steps that a percentile needs."
    )
    return (Table((*cell_columns(), *_right(t("p99 over p50"), t("The same in eager"))), tuple(rows), caption),)


def _has_jitter(cell: CellResult | None) -> bool:
    return estimate_of(cell, JITTER) is not None


def _say_alone(cell: CellResult) -> str:
    is_eager = cell.conditions.mode == BASELINE_MODE
    return t("this is eager; no other mode was measured at this point") if is_eager else t("not measured in eager")


def memory_blocks(material: Material) -> tuple[Block, ...]:
    """Memory as predicted before the run and as read in it, cells that ran out of it included."""
    rows = tuple(
        _memory_row(row, material.has_several_runs)
        for item in material.bounds
        for row in item.memory
        if row.predicted_bytes is not None or row.cell.status == "oom"
    )
    if not rows:
        return ()
    columns = (
        *cell_columns(),
        *_right(t("Predicted"), t("Peak"), t("Steady"), t("Peak over predicted")),
        Column(t("Outcome")),
    )
    caption = t(
        "Predicted by the plan, before the device was touched. Peak: the most at any time; steady: after "
        "warm-up. A reading of the whole process holds Python, libraries and compiled code besides the "
        "model: far over the prediction for a small model."
    )
    return (Table(columns, rows, caption),)


def _memory_row(row: MemoryRow, several: bool) -> tuple[Cell, ...]:
    ratio = row.peak_bytes / row.predicted_bytes if row.peak_bytes is not None and row.predicted_bytes else None
    outcome = say(OUTCOMES.get(row.cell.status, row.cell.status))
    peak = unit_cell(row.peak_bytes, BYTES, t("no reading of memory"))
    if row.is_whole_process and row.peak_bytes is not None:
        peak = Cell(peak.text, peak.sort, t("of the whole process, Python and libraries included"))
    return (
        *cell_fields(row.cell, several),
        unit_cell(row.predicted_bytes, BYTES, t("not predicted: the sizes were not known before")),
        peak,
        unit_cell(row.steady_bytes, BYTES, t("no reading of memory after warm-up")),
        number_cell(ratio, t("a prediction and a reading are needed")),
        Cell(outcome, note=row.cell.status_reason and say(row.cell.status_reason)),
    )


def repeats_blocks(material: Material) -> tuple[Block, ...]:
    """The same prompts worked through twice."""
    rows = tuple(_repeat_row(row, material.has_several_runs) for item in material.bounds for row in item.repeats)
    if not rows:
        return ()
    columns = (
        *cell_columns(),
        Column(t("Against")),
        *_right(t("Steps")),
        *(Column(t("Same tokens")), Column(t("Same cache, bit by bit"))),
        *_right(t("Largest difference")),
    )
    caption = t(
        "The same prompts worked through twice: a pass against itself shows whether the kernels repeat, a "
        "row alone against the row within its static batch whether a neighbour changes it. The largest "
        "difference is that of two cached keys or values."
    )
    return (Table(columns, rows, caption),)


def _repeat_row(row: RepeatRow, several: bool) -> tuple[Cell, ...]:
    unseen = t("the engine does not show its cache")
    return (
        *cell_fields(row.cell, several),
        Cell(say(AGAINST.get(row.against, row.against))),
        Cell(f"{row.steps:,}", sort=float(row.steps)),
        fact_field(row.tokens_equal),
        Cell(DASH, note=unseen) if row.states_equal is None else fact_field(row.states_equal),
        number_cell(row.max_abs_difference, unseen),
    )
