"""Words the tables on caches: bytes, time over context, share of memory, growth of a prefill. Derives nothing."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.kv.found import CacheFindings, CacheRow, ContextLine, GrowthRow, ShareTable
from tokbench.derive.report.bound_tables import UNKNOWN, number_cell, run_columns, run_fields, unit_cell
from tokbench.derive.report.document import DASH, Block, Cell, Column, Table
from tokbench.derive.words import join, mark, say, t
from tokbench.units import BYTES, BYTES_PER_S, BYTES_PER_TOKEN, SECONDS, format_number, format_value

NO_FORMULA = mark("the closed forms do not count this model's cache")
NO_CEILING = mark("no read ceiling was measured, or the cache's bytes are not known")
NO_GROWTH = mark("the interval of the slope holds 0, or the cache's bytes are not known")
FIRST = mark("the shortest prompt has none before it")


def say_what_ran(cells: Sequence[CellResult]) -> str:
    """Whose weights, and whether models were cut: what a reader must know before believing a number."""
    random = [cell.conditions.weights == "random" for cell in cells]
    if all(random):
        weights = t("Weights are random: right for bytes and time, meaningless as text.")
    elif any(random):
        weights = t("Some weights are random, which their models' names say.")
    else:
        weights = t("No weights are random.")
    cut = sorted({layers for cell in cells if (layers := cell.record.spec.model.layers) is not None})
    if not cut:
        return weights
    every = all(cell.record.spec.model.layers is not None for cell in cells)
    depths = join(str(layers) for layers in cut)
    told = (
        t("Every model is cut to so many layers: {depths}.", depths=depths)
        if every
        else t("Some models are cut to so many layers: {depths}.", depths=depths)
    )
    return f"{weights} {told}"


def caches_blocks(found: Sequence[CacheFindings], several: bool) -> tuple[Block, ...]:
    """Bytes per token of every block: measured, predicted, residual."""
    rows = [(item.run_name, row) for item in found for row in item.rows]
    if not rows:
        return ()
    columns = (
        *run_columns(several),
        *(Column(t("Block")), Column(t("Model")), Column(t("Mode"))),
        *_right(t("Layers"), t("Measured"), t("By the formula"), t("Residual"), t("Widest over this")),
    )
    how = t(
        "Bytes that one cached token of one sequence takes in all layers: read off the cache object, and by the closed "
        "form from the model's sizes."
    )
    caption = f"{how} {say_what_ran([row.cell for _, row in rows])}"
    return (Table(columns, tuple(_cache_fields(name, row, several) for name, row in rows), caption),)


def _cache_fields(run_name: str, row: CacheRow, several: bool) -> tuple[Cell, ...]:
    cell = row.cell
    return (
        *run_fields(run_name, several),
        Cell(row.block),
        Cell(join((wording.say_model(cell), str(_cache_type(row))))),
        Cell(cell.conditions.mode or ""),
        Cell(DASH, note=t(NO_FORMULA)) if row.layers is None else Cell(str(row.layers), sort=float(row.layers)),
        unit_cell(row.measured_bytes_per_token, BYTES_PER_TOKEN),
        unit_cell(row.predicted_bytes_per_token, BYTES_PER_TOKEN, NO_FORMULA),
        _residual_cell(row.residual_ratio, NO_FORMULA),
        number_cell(row.largest_over_this, UNKNOWN),
    )


def _cache_type(row: CacheRow) -> str | None:
    engine = row.cell.record.engine
    return row.cell.conditions.precision if engine is None or engine.kv_dtype is None else engine.kv_dtype


def _residual_cell(ratio: float | None, reason: str) -> Cell:
    """How far a measured value lies off its prediction, with its sign."""
    if ratio is None:
        return Cell(DASH, note=say(reason))
    percent = 100 * ratio
    text = "0 %" if abs(percent) < 0.005 else f"{'+' if percent > 0 else '-'}{format_number(abs(percent))} %"
    return Cell(text, sort=ratio)


def lines_blocks(found: Sequence[CacheFindings], several: bool) -> tuple[Block, ...]:
    """What one more cached token costs in every block, beside reading its bytes."""
    lines = [(item.run_name, line) for item in found for line in item.lines]
    if not lines:
        return ()
    columns = (
        *run_columns(several),
        *(Column(t("Block")), Column(t("Mode"))),
        *_right(t("Static batch")),
        Column(t("Contexts"), "tokens"),
        *_right(
            t("Step time"), t("Per cached token"), t("At the read ceiling"), t("Residual"), t("Rate implied"), "R²"
        ),
    )
    caption = t(
        "Step time is a straight line over context: its slope is what one more cached token in every row costs (95 % "
        "interval of the line). Beside it the time that reading the bytes of those tokens would take at the measured "
        "ceiling. The rate implied: those bytes over the slope, which is a bandwidth only where a step does nothing "
        "else with its cache; attention that expands latents does."
    )
    return (Table(columns, tuple(_line_fields(name, line, several) for name, line in lines), caption),)


def _line_fields(run_name: str, line: ContextLine, several: bool) -> tuple[Cell, ...]:
    ends = [format_value(value, SECONDS) for value in (line.step_s[0], line.step_s[-1])]
    return (
        *run_fields(run_name, several),
        Cell(line.block),
        Cell(line.cell.conditions.mode or ""),
        Cell(str(line.static_batch), sort=float(line.static_batch)),
        Cell(join(f"{context:,}" for context in line.contexts)),
        Cell(t("{low} to {high}", low=ends[0], high=ends[1]), sort=line.step_s[-1]),
        interval_cell(line.s_per_token, line.interval_s_per_token),
        unit_cell(line.predicted_s_per_token, SECONDS, NO_CEILING),
        _residual_cell(line.residual_ratio, NO_CEILING),
        unit_cell(line.implied_bytes_per_s, BYTES_PER_S, NO_GROWTH),
        number_cell(line.r_squared, UNKNOWN),
    )


def interval_cell(seconds: float, ends: tuple[float, float] | None) -> Cell:
    """A time with the interval of the line that it comes from."""
    text = format_value(seconds, SECONDS)
    if ends is None:
        return Cell(t("{text}, no interval", text=text), sort=seconds)
    low, high = (format_value(end, SECONDS) for end in ends)
    return Cell(t("{text} ({low} – {high})", text=text, low=low, high=high), sort=seconds)


def shares_blocks(found: Sequence[CacheFindings], several: bool) -> tuple[Block, ...]:
    """The cache's share of weights and cache over users and context: arithmetic."""
    tables = [(item.run_name, table) for item in found for table in item.shares]
    if not tables:
        return ()
    contexts = max((table.contexts for _, table in tables), key=len)
    columns = (
        *run_columns(several),
        Column(t("Block")),
        *_right(t("Users")),
        *(Column(t("{context:,} tokens of context", context=context), "", "right") for context in contexts),
    )
    rows = tuple(
        (
            *run_fields(name, several),
            Cell(table.block),
            Cell(str(users), sort=float(users)),
            *_shares(table, sizes, contexts),
        )
        for name, table in tables
        for users, sizes in table.rows
    )
    caption = t(
        "Arithmetic, not measured: what users with full contexts would keep in the cache, and its share of weights and "
        "cache together, for the block at the depth that was run, by the closed form and the bytes of its weights."
    )
    return (Table(columns, rows, caption),)


def _shares(table: ShareTable, sizes: Sequence[float], contexts: Sequence[int]) -> tuple[Cell, ...]:
    cells = []
    for size in sizes:
        is_fitting = table.is_fitting(size)
        text = t("{size}, {share} %", size=format_value(size, BYTES), share=format_number(100 * table.share(size)))
        note = None if is_fitting is not False else t("more than the memory of the run's device, weights included")
        cells.append(Cell(text, sort=size, note=note))
    beyond = Cell(DASH, note=t("beyond the model's context"))
    return (*cells, *(beyond for _ in contexts[len(sizes) :]))


def growth_blocks(found: Sequence[CacheFindings], several: bool) -> tuple[Block, ...]:
    """Prefill from one length to the next: time, memory, and the exponents between them."""
    rows = [(item.run_name, row) for item in found for row in item.growth]
    if not rows:
        return ()
    columns = (
        *run_columns(several),
        *(Column(t("Model")), Column(t("Attention kernel"))),
        Column(t("Prompt"), "tokens", "right"),
        *_right(t("Prefill time"), t("Exponent"), t("By operations"), t("Memory beyond the weights"), t("Exponent")),
    )
    caption = t(
        "Exponent: the logarithm of the ratio to the next shorter prompt over that of the lengths; 1 grows as the "
        "prompt, 2 as its square. By operations: the same of the operations that the closed form counts, which the "
        "fastest kernel cannot save. Memory: cache and activations of a prefill; scores of every pair of tokens where "
        "a kernel keeps them."
    )
    return (Table(columns, tuple(_growth_fields(name, row, several) for name, row in rows), caption),)


def _growth_fields(run_name: str, row: GrowthRow, several: bool) -> tuple[Cell, ...]:
    untold = t("the engine's memory was not read, or no shorter prompt is there")
    return (
        *run_fields(run_name, several),
        Cell(wording.say_model(row.cell)),
        Cell(join((row.kernel, str(row.cell.conditions.attention_kernel)))),
        Cell(f"{row.prompt_tokens:,}", sort=float(row.prompt_tokens)),
        unit_cell(row.prefill_s, SECONDS),
        number_cell(row.time_exponent, FIRST),
        number_cell(row.predicted_time_exponent, FIRST),
        unit_cell(row.extra_bytes, BYTES, t("no allocator was read on this device")),
        number_cell(row.memory_exponent, untold),
    )


def _right(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, "", "right") for title in titles)
