"""Where the limit is: what bounds each cell, how far it is from the measured ceilings, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator

from tokbench.derive import wording
from tokbench.derive.bounds.found import BoundKind, Bounds, CellBound, StepFit
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.report.bound_tables import (
    choices_blocks,
    contexts_blocks,
    depths_blocks,
    jitter_blocks,
    memory_blocks,
    number_cell,
    prefills_blocks,
    repeats_blocks,
    run_columns,
    run_fields,
    share_cell,
    unit_cell,
)
from tokbench.derive.report.document import DASH, Block, Cell, Code, Column, Paragraph, Section, Table, bullets
from tokbench.derive.report.fields import CELL_COLUMNS, cell_fields
from tokbench.derive.report.material import Material
from tokbench.derive.standing import estimate_of
from tokbench.record.facts import CeilingRate
from tokbench.units import BYTES, BYTES_PER_S, FLOPS_PER_S, SECONDS, format_number, format_value

TITLE = "Where the limit is"
COMMAND = "tokbench run configs/limit.yaml"
CAP_LAYERS_TOLD = 80
"""The depth that the opening speaks of: that of Llama-3.3-70B. Source: its config.json, num_hidden_layers."""
KINDS: dict[BoundKind, str] = {
    "memory": "memory",
    "compute": "arithmetic",
    "host": "the host",
    "overhead": "what lies between kernels",
    "kernels": "the kernels themselves",
    "cache": "not memory: cached",
    "mixed": "several",
    "unknown": "unknown",
}
RATES = {
    "read_sum": "read (sum)",
    "read_mv": "read (matrix times vector)",
    "copy": "copy (bytes read and written)",
    "matmul": "matrix multiply",
}


def bound_sections(material: Material) -> list[Section]:
    """The plain sentences, then the ceilings, the cells, and one part for each thing that was varied."""
    if not any(item.cells or item.memory or item.repeats for item in material.bounds):
        said = "No cell gave the time of a decode step, so nothing tells where the limit is. A run made to tell:"
        return [Section(TITLE, (Paragraph(said), Code(COMMAND)))]
    sections = [Section(TITLE, (*_opening(material), *material.figure("limit_roofline.png")))]
    parts = (
        ("The measured ceilings", _ceilings_blocks(material)),
        ("What bounds each cell", _cells_blocks(material)),
        ("Step time over bytes", _fits_blocks(material)),
        ("Depth", depths_blocks(material)),
        ("Context", contexts_blocks(material)),
        ("Prefill over the prompt's length", prefills_blocks(material)),
        ("Kernels, options and precision", choices_blocks(material)),
        ("Spread of a step", jitter_blocks(material)),
        ("Memory against its prediction", memory_blocks(material)),
        ("Whether a pass repeats", repeats_blocks(material)),
    )
    return [*sections, *(Section(title, blocks, level=3) for title, blocks in parts if blocks)]


def _opening(material: Material) -> Iterator[Block]:
    """The sentences that a reader takes along, and what the runs do not tell."""
    sentences = [
        f"{item.run_name}: {sentence}" if material.has_several_runs else sentence
        for item in material.bounds
        for sentence in _say_limits(item)
    ]
    if sentences:
        yield bullets(*sentences)
    untold = [
        what
        for what, found in (
            ("what a step costs besides its bytes", any(item.fits for item in material.bounds)),
            ("what a layer costs", any(item.depths for item in material.bounds)),
            ("what context costs", any(item.contexts for item in material.bounds)),
            ("how prefill grows", any(item.prefills for item in material.bounds)),
        )
        if not found
    ]
    if untold:
        yield Paragraph(f"Not told here, for want of cells that vary it: {'; '.join(untold)}. A run made to tell:")
        yield Code(COMMAND)


def _say_limits(bounds: Bounds) -> Iterator[str]:
    """The fastest stream, the fit, the depth's cap, the kernels that won: two to four sentences of one run."""
    stream = _telling_stream(bounds)
    if stream is not None:
        yield f"{wording.say_cell(stream.cell)}, {format_value(stream.step_s, SECONDS)} a step. {stream.sentence}"
    if bounds.fits:
        yield _say_fit(min(bounds.fits, key=lambda fit: fit.t0_s))
    caps = [(speed, floor) for floor in bounds.depths for n, speed in floor.caps_tokens_per_s if n == CAP_LAYERS_TOLD]
    if caps:
        speed, floor = max(caps, key=lambda pair: pair[0])
        yield (
            f"Depth alone: {format_value(floor.s_per_layer, SECONDS)} per decoder layer in {floor.mode}, so "
            f"{CAP_LAYERS_TOLD} layers cannot pass {format_number(speed)} tokens/s per stream here, whatever the "
            f"memory ({floor.model})."
        )
    won: dict[str, list[str]] = {}
    for choice in bounds.choices:
        won.setdefault(choice.setting, []).append(choice.values[0])
    if won:
        said = "; ".join(f"{setting}: {_say_winners(values)}" for setting, values in won.items())
        yield f"Fastest of what was tried: {said}."


def _telling_stream(bounds: Bounds) -> CellBound | None:
    """The fastest single stream of the largest model, real weights before random ones."""
    single = [bound for bound in bounds.cells if bound.cell.conditions.concurrency == 1]
    return min(single, key=_telling_order, default=None)


def _telling_order(bound: CellBound) -> tuple[bool, int, float]:
    model = bound.cell.record.model
    parameters = model.parameters if model is not None else None
    return bound.cell.conditions.weights != "pretrained", -(parameters or 0), bound.step_s


def _say_fit(fit: StepFit) -> str:
    ceiling = estimate_of(fit.points[0].cell, "read_bytes_per_s")
    beside = "" if ceiling is None else f"; the measured read ceiling is {format_value(ceiling.value, BYTES_PER_S)}"
    return (
        f"Single streams in {fit.mode}, {fit.precision}: a step costs t0 = {_say_constant(fit)} plus its bytes at "
        f"{_say_rate(fit)} (R² {format_number(fit.r_squared, 4)}, {len(fit.points)} points){beside}."
    )


def _say_constant(fit: StepFit) -> str:
    """The constant with its 95 % interval, where there is one."""
    said = format_value(fit.t0_s, SECONDS)
    if fit.t0_interval_s is None:
        return said
    low, high = (format_value(end, SECONDS) for end in fit.t0_interval_s)
    return f"{said} ({low} to {high}{', not told from zero' if fit.t0_interval_s[0] <= 0 else ''})"


def _say_rate(fit: StepFit) -> str:
    """The rate with its 95 % interval, where there is one."""
    said = format_value(fit.bytes_per_s, BYTES_PER_S)
    if fit.bytes_per_s_interval is None:
        return said
    low, high = fit.bytes_per_s_interval
    upper = "no upper end" if high is None else format_value(high, BYTES_PER_S)
    return f"{said} ({format_value(low, BYTES_PER_S)} to {upper})"


def _say_winners(values: list[str]) -> str:
    counts = {value: values.count(value) for value in values}
    if len(counts) == 1:
        return f"{values[0]} in {'the one comparison' if len(values) == 1 else f'all {len(values)} comparisons'}"
    return ", ".join(f"{value} in {count} of {len(values)}" for value, count in counts.items())


def _ceilings_blocks(material: Material) -> tuple[Block, ...]:
    """Every rate by itself, then how the read ceiling stands to the datasheet."""
    several = material.has_several_runs
    rows: dict[tuple[str, CeilingRate], tuple[Cell, ...]] = {}
    left_out: dict[str, None] = {}
    for item in material.results:
        for facts in item.run.ceilings:
            for rate in facts.rates:
                rows[(item.name, rate)] = (*run_fields(item.name, several), *_rate_fields(rate))
            left_out.update(dict.fromkeys(f"Not measured: {text}" for text in facts.left_out))
    said = [
        f"{item.run_name}: {text}" if several else text for item in material.bounds for text in item.ceiling_sentences
    ]
    lines = (*dict.fromkeys(said), *left_out)
    columns = (
        *run_columns(several),
        Column("What"),
        Column("Data type"),
        *(Column(title, "", "right") for title in ("Fastest pass", "Median pass", "Passes", "Buffer")),
    )
    caption = "Measured on this device in the run; a share of a ceiling rests on the fastest pass."
    table: tuple[Block, ...] = (Table(columns, tuple(rows.values()), caption),) if rows else ()
    return (*table, *((bullets(*lines),) if lines else ()))


def _rate_fields(rate: CeilingRate) -> tuple[Cell, ...]:
    unit = FLOPS_PER_S if rate.kind == "matmul" else BYTES_PER_S
    return (
        Cell(RATES[rate.kind]),
        Cell(rate.dtype),
        unit_cell(rate.per_s, unit),
        unit_cell(rate.median_per_s, unit),
        Cell(f"{rate.passes:,}", sort=float(rate.passes)),
        unit_cell(float(rate.buffer_bytes), BYTES),
    )


def _cells_blocks(material: Material) -> tuple[Block, ...]:
    rows = tuple(_bound_row(bound, material) for item in material.bounds for bound in item.cells)
    if not rows:
        return ()
    titles = ("Step time", "Memory", "Arithmetic", "Host", "Neither", "Kernels per step")
    columns = (*CELL_COLUMNS, *(Column(title, "", "right") for title in titles), Column("Bound by"))
    caption = (
        "Memory and arithmetic: the part of a step that reading its bytes, and computing its operations, would take at "
        "the measured ceilings; they may overlap. Neither: the time that the larger of them leaves unexplained. Host: "
        "the part of the decode window that the host needed to launch it."
    )
    return (Table(columns, rows, caption),)


def _bound_row(bound: CellBound, material: Material) -> tuple[Cell, ...]:
    kernels = bound.kernels_per_step
    counted = f"counted by {bound.kernels_counted_by}" if bound.kernels_counted_by else None
    return (
        *cell_fields(bound.cell, material.has_several_runs),
        unit_cell(bound.step_s, SECONDS),
        share_cell(bound.memory_share, _why_missing(bound.cell, "bandwidth_used_ratio")),
        share_cell(bound.compute_share, _why_missing(bound.cell, "flops_used_ratio")),
        share_cell(bound.host_share, "not recorded, or device and host are one"),
        unit_cell(bound.rest_s, SECONDS, "no share is known"),
        Cell(DASH, note="not counted") if kernels is None else Cell(f"{kernels:,}", float(kernels), counted),
        Cell(KINDS[bound.kind], note=bound.sentence),
    )


def _why_missing(cell: CellResult, metric: str) -> str:
    value = cell.metrics.get(metric)
    return value.reason if isinstance(value, Missing) else "not derived"


def _fits_blocks(material: Material) -> tuple[Block, ...]:
    several = material.has_several_runs
    fits = [fit for item in material.bounds for fit in item.fits]
    reasons = [
        f"{item.run_name}: {text}" if several else text for item in material.bounds for text in item.unfitted if text
    ]
    table: tuple[Block, ...] = ()
    if fits:
        titles = ("Read ceiling", "R²", "Points")
        columns = (
            *run_columns(several),
            *(Column(title) for title in ("Mode", "Precision")),
            *(Column(title, "95 % interval", "right") for title in ("Constant t0", "Rate of the bytes")),
            *(Column(title, "", "right") for title in titles),
        )
        caption = (
            "t = t0 + bytes / rate over single streams whose bytes come from memory; least squares on relative errors."
        )
        rows = tuple((*run_fields(fit.run_name, several), *_fit_fields(fit)) for fit in fits)
        table = (Table(columns, rows, caption), *material.figure("limit_fit.png"))
    return (*table, *((bullets(*dict.fromkeys(reasons)),) if reasons else ()))


def _fit_fields(fit: StepFit) -> tuple[Cell, ...]:
    ceiling = estimate_of(fit.points[0].cell, "read_bytes_per_s")
    note = "below zero, which no time can be: read it as a constant too small to be told here" if fit.t0_s < 0 else None
    return (
        Cell(fit.mode),
        Cell(fit.precision),
        Cell(_say_constant(fit), fit.t0_s, note),
        Cell(_say_rate(fit), fit.bytes_per_s),
        unit_cell(None if ceiling is None else ceiling.value, BYTES_PER_S, "no read ceiling was measured"),
        number_cell(fit.r_squared, "", 4),
        Cell(str(len(fit.points)), float(len(fit.points))),
    )
