"""Where the limit is: what bounds each cell, how far it is from the measured ceilings, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator

from tokbench.derive import wording
from tokbench.derive.bounds.found import BoundKind, Bounds, CellBound, DepthFloor, StepFit
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.report.bound_tables import (
    choices_blocks,
    contexts_blocks,
    depths_blocks,
    is_floor_of_depth,
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
from tokbench.derive.report.fields import cell_columns, cell_fields, in_run, share_field
from tokbench.derive.report.material import Material
from tokbench.derive.standing import estimate_of
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.record.facts import CeilingRate
from tokbench.units import BYTES, BYTES_PER_S, FLOPS_PER_S, SECONDS, format_number, format_value

TITLE = mark("Where the limit is")
COMMAND = "tokbench run configs/limit.yaml"
CAP_LAYERS_TOLD = 80
"""The depth that the opening speaks of: that of Llama-3.3-70B. Source: its config.json, num_hidden_layers."""
KINDS: dict[BoundKind, str] = {
    "memory": mark("memory"),
    "compute": mark("arithmetic"),
    "host": mark("the host"),
    "overhead": mark("what lies between kernels"),
    "kernels": mark("the kernels themselves"),
    "cache": mark("not memory alone: cached"),
    "mixed": mark("several"),
    "unknown": mark("unknown"),
}
RATES = {
    "read_sum": mark("read (sum)"),
    "read_mv": mark("read (matrix times vector)"),
    "copy": mark("copy (bytes read and written)"),
    "matmul": mark("matrix multiply"),
}


def bound_sections(material: Material) -> list[Section]:
    """The plain sentences, then the ceilings, the cells, and one part for each thing that was varied."""
    if not any(item.cells or item.memory or item.repeats for item in material.bounds):
        said = t("No cell gave the time of a decode step, so nothing tells where the limit is. A run made to tell:")
        return [Section(t(TITLE), (Paragraph(said), Code(COMMAND)))]
    sections = [Section(t(TITLE), (*_opening(material), *material.figure("limit_roofline.png")))]
    parts = (
        (t("The measured ceilings"), _ceilings_blocks(material)),
        (t("What bounds each cell"), _cells_blocks(material)),
        (t("Step time over bytes"), _fits_blocks(material)),
        (t("Depth"), depths_blocks(material)),
        (t("Context"), contexts_blocks(material)),
        (t("Prefill over the prompt's length"), prefills_blocks(material)),
        (t("Kernels, options and precision"), choices_blocks(material)),
        (t("Spread of a step"), jitter_blocks(material)),
        (t("Memory against its prediction"), memory_blocks(material)),
        (t("Whether a pass repeats"), repeats_blocks(material)),
    )
    return [*sections, *(Section(title, blocks, level=3) for title, blocks in parts if blocks)]


def _opening(material: Material) -> Iterator[Block]:
    """The sentences that a reader takes along, and what the runs do not tell."""
    sentences = [
        in_run(item.run_name, sentence, material.has_several_runs)
        for item in material.bounds
        for sentence in _say_limits(item)
    ]
    if sentences:
        yield bullets(*sentences)
    untold = [
        what
        for what, found in (
            (t("what a step costs besides its bytes"), any(item.fits for item in material.bounds)),
            (t("what a layer costs"), any(item.depths for item in material.bounds)),
            (t("what context costs"), any(item.contexts for item in material.bounds)),
            (t("how prefill grows"), any(item.prefills for item in material.bounds)),
        )
        if not found
    ]
    if untold:
        yield Paragraph(
            t(
                "Not told here, for want of cells that vary it: {untold}. A run made to tell:",
                untold=join(untold, SEMICOLON),
            )
        )
        yield Code(COMMAND)


def _say_limits(bounds: Bounds) -> Iterator[str]:
    """The fastest stream, the fit, the depth's cap, the kernels that won: two to four sentences of one run."""
    stream = _telling_stream(bounds)
    if stream is not None:
        yield t(
            "{cell}, {step_s} a step. {sentence}",
            cell=wording.say_cell(stream.cell),
            step_s=format_value(stream.step_s, SECONDS),
            sentence=say(stream.sentence),
        )
    if bounds.fits:
        yield _say_fit(min(bounds.fits, key=lambda fit: fit.t0_s))
    caps = [(speed, floor) for floor in bounds.depths for n, speed in floor.caps_tokens_per_s if n == CAP_LAYERS_TOLD]
    if caps:
        yield _say_depth(*max(caps, key=lambda pair: pair[0]))
    won: dict[str, list[str]] = {}
    for choice in bounds.choices:
        won.setdefault(choice.setting, []).append(choice.values[0])
    if won:
        said = join(
            (
                t("{setting}: {winners}", setting=setting, winners=_say_winners(values))
                for setting, values in won.items()
            ),
            SEMICOLON,
        )
        yield t("Fastest of what was tried: {said}.", said=said)


def _say_depth(speed: float, floor: DepthFloor) -> str:
    """The cap of the fastest mode; where its layers' bytes take time as well, that it is none of depth alone."""
    each = format_value(floor.s_per_layer, SECONDS)
    if not is_floor_of_depth(floor):
        return t(
            "Depth: {s_per_layer} per decoder layer in {mode}, of which reading the layer's bytes may be a good part, "
            "so this is no floor of depth alone ({model}).",
            s_per_layer=each,
            mode=floor.mode,
            model=floor.model,
        )
    return t(
        "Depth alone: {s_per_layer} per decoder layer in {mode}, so {layers} layers cannot pass "
        "{speed} tokens/s per stream here, whatever the memory ({model}).",
        s_per_layer=each,
        mode=floor.mode,
        layers=CAP_LAYERS_TOLD,
        speed=format_number(speed),
        model=floor.model,
    )


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
    beside = (
        ""
        if ceiling is None
        else t("; the measured read ceiling is {rate}", rate=format_value(ceiling.value, BYTES_PER_S))
    )
    return t(
        "Single streams in {mode}, {precision}: a step costs t0 = {constant} plus its bytes at {rate} (R² "
        "{r_squared}, {count} points){beside}.",
        mode=fit.mode,
        precision=fit.precision,
        constant=_say_constant(fit),
        rate=_say_rate(fit),
        r_squared=format_number(fit.r_squared, 4),
        count=len(fit.points),
        beside=beside,
    )


def _say_constant(fit: StepFit) -> str:
    """The constant with its 95 % interval, where there is one."""
    said = format_value(fit.t0_s, SECONDS)
    if fit.t0_interval_s is None:
        return said
    low, high = (format_value(end, SECONDS) for end in fit.t0_interval_s)
    if fit.t0_interval_s[0] <= 0:
        return t("{value} ({low} to {high}, not told from zero)", value=said, low=low, high=high)
    return t("{value} ({low} to {high})", value=said, low=low, high=high)


def _say_rate(fit: StepFit) -> str:
    """The rate with its 95 % interval, where there is one."""
    said = format_value(fit.bytes_per_s, BYTES_PER_S)
    if fit.bytes_per_s_interval is None:
        return said
    low, high = fit.bytes_per_s_interval
    upper = t("no upper end") if high is None else format_value(high, BYTES_PER_S)
    return t("{value} ({low} to {high})", value=said, low=format_value(low, BYTES_PER_S), high=upper)


def _say_winners(values: list[str]) -> str:
    counts = {value: values.count(value) for value in values}
    if len(counts) == 1:
        if len(values) == 1:
            return t("{value} in the one comparison", value=values[0])
        return t("{value} in all {total} comparisons", value=values[0], total=len(values))
    return join(
        t("{value} in {count} of {total}", value=value, count=count, total=len(values))
        for value, count in counts.items()
    )


def _ceilings_blocks(material: Material) -> tuple[Block, ...]:
    """Every rate by itself, then how the read ceiling stands to the datasheet."""
    several = material.has_several_runs
    rows: dict[tuple[str, CeilingRate], tuple[Cell, ...]] = {}
    left_out: dict[str, None] = {}
    for item in material.results:
        for facts in item.run.ceilings:
            for rate in facts.rates:
                rows[(item.name, rate)] = (*run_fields(item.name, several), *_rate_fields(rate))
            left_out.update(dict.fromkeys(t("Not measured: {what}", what=text) for text in facts.left_out))
    said = [in_run(item.run_name, say(text), several) for item in material.bounds for text in item.ceiling_sentences]
    lines = (*dict.fromkeys(said), *_beside(material), *left_out)
    columns = (
        *run_columns(several),
        Column(t("What")),
        Column(t("Data type")),
        *(Column(title, "", "right") for title in (t("Fastest pass"), t("Median pass"), t("Passes"), t("Buffer"))),
    )
    caption = t("Measured on this device in the run; a share of a ceiling rests on the fastest pass.")
    table: tuple[Block, ...] = (Table(columns, tuple(rows.values()), caption),) if rows else ()
    return (*table, *((bullets(*lines),) if lines else ()))


def _beside(material: Material) -> Iterator[str]:
    """That shares of memory rest on other passes than these, where a repetition has its own."""
    if any(trial.reads for cell in material.measured for trial in cell.record.good_trials()):
        yield t(
            "Where weights were read beside a repetition, its share of memory is of that rate: the memory of a shared "
            "machine is now faster, now slower. Roofline, fits and slopes take the ceiling of the run: a point above "
            "the roof may have run in a faster moment."
        )


def _rate_fields(rate: CeilingRate) -> tuple[Cell, ...]:
    unit = FLOPS_PER_S if rate.kind == "matmul" else BYTES_PER_S
    return (
        Cell(t(RATES[rate.kind])),
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
    titles = (
        *(t("Step time"), t("Memory"), t("Memory, median step")),
        *(t("Arithmetic"), t("Host"), t("Neither"), t("Kernels per step")),
    )
    columns = (*cell_columns(), *(Column(title, "", "right") for title in titles), Column(t("Bound by")))
    caption = t(
        "Memory and arithmetic: the part of a step that reading its bytes, and computing its operations, "
        "would take at the measured ceilings; they may overlap. Neither: the time that the larger of them "
        "leaves unexplained. Host: the part of the decode window that the host needed to launch it. Median step: what "
        "it has above the mean was lost in few long steps, by other work on the machine."
    )
    return (Table(columns, rows, caption),)


def _bound_row(bound: CellBound, material: Material) -> tuple[Cell, ...]:
    kernels = bound.kernels_per_step
    counted = t("counted by {source}", source=bound.kernels_counted_by) if bound.kernels_counted_by else None
    return (
        *cell_fields(bound.cell, material.has_several_runs),
        unit_cell(bound.step_s, SECONDS),
        share_cell(bound.memory_share, _why_missing(bound.cell, "bandwidth_used_ratio")),
        share_field(bound.cell, "bandwidth_used_p50_ratio"),
        share_cell(bound.compute_share, _why_missing(bound.cell, "flops_used_ratio")),
        share_cell(bound.host_share, t("not recorded, or device and host are one")),
        unit_cell(bound.rest_s, SECONDS, t("no share is known")),
        Cell(DASH, note=t("not counted")) if kernels is None else Cell(f"{kernels:,}", float(kernels), counted),
        Cell(t(KINDS[bound.kind]), note=say(bound.sentence)),
    )


def _why_missing(cell: CellResult, metric: str) -> str:
    value = cell.metrics.get(metric)
    return say(value.reason) if isinstance(value, Missing) else t("not derived")


def _fits_blocks(material: Material) -> tuple[Block, ...]:
    several = material.has_several_runs
    fits = [fit for item in material.bounds for fit in item.fits]
    reasons = [in_run(item.run_name, say(text), several) for item in material.bounds for text in item.unfitted if text]
    table: tuple[Block, ...] = ()
    if fits:
        titles = (t("Read ceiling"), "R²", t("Points"))
        columns = (
            *run_columns(several),
            *(Column(title) for title in (t("Mode"), t("Precision"))),
            *(Column(title, t("95 % interval"), "right") for title in (t("Constant t0"), t("Rate of the bytes"))),
            *(Column(title, "", "right") for title in titles),
        )
        caption = t(
            "t = t0 + bytes / rate over single streams whose bytes come from memory; least squares on relative errors."
        )
        rows = tuple((*run_fields(fit.run_name, several), *_fit_fields(fit)) for fit in fits)
        table = (Table(columns, rows, caption), *material.figure("limit_fit.png"))
    return (*table, *((bullets(*dict.fromkeys(reasons)),) if reasons else ()))


def _fit_fields(fit: StepFit) -> tuple[Cell, ...]:
    ceiling = estimate_of(fit.points[0].cell, "read_bytes_per_s")
    note = (
        t("below zero, which no time can be: read it as a constant too small to be told here") if fit.t0_s < 0 else None
    )
    return (
        Cell(fit.mode),
        Cell(fit.precision),
        Cell(_say_constant(fit), fit.t0_s, note),
        Cell(_say_rate(fit), fit.bytes_per_s),
        unit_cell(None if ceiling is None else ceiling.value, BYTES_PER_S, t("no read ceiling was measured")),
        number_cell(fit.r_squared, "", 4),
        Cell(str(len(fit.points)), float(len(fit.points))),
    )
