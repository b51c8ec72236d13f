"""The KV cache and attention: what it takes, what context costs, and a slice of a model too large for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokbench.derive.evaluate import CellResult
from tokbench.derive.kv.family import find_caches
from tokbench.derive.kv.found import CacheFindings, ContextLine, Slice
from tokbench.derive.kv.slices import find_slices
from tokbench.derive.report.bound_tables import number_cell, run_columns, run_fields, share_cell, unit_cell
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table, bullets
from tokbench.derive.report.kv_figures import is_caches
from tokbench.derive.report.kv_tables import (
    NO_CEILING,
    caches_blocks,
    growth_blocks,
    interval_cell,
    lines_blocks,
    shares_blocks,
)
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, mark, t
from tokbench.units import SECONDS, format_number

NO_SHARE = mark("no read ceiling was measured, or more layers were not slower")


def kv_sections(material: Material) -> list[Section]:
    """Both parts; each is absent where no cell of any run is about it."""
    return [*_cache_sections(material), *_slice_sections(material)]


def _cache_sections(material: Material) -> list[Section]:
    found, several = [find_caches(item) for item in material.results], material.has_several_runs
    parts = (
        (t("Bytes per cached token"), caches_blocks(found, several)),
        (t("Time over context"), lines_blocks(found, several)),
        (t("The cache's share of memory"), shares_blocks(found, several)),
        (t("Growth of a prefill"), growth_blocks(found, several)),
    )
    told = [Section(title, blocks, level=3) for title, blocks in parts if blocks]
    if not told:
        return []
    sentences = tuple(_say_caches(found))
    opening: tuple[Block, ...] = (bullets(*sentences),) if sentences else ()
    figures = tuple(figure for figure in material.figures if is_caches(figure))
    return [Section(t("KV cache and attention"), (*opening, *figures)), *told]


def _say_caches(found: Sequence[CacheFindings]) -> Iterator[str]:
    """The widest and the narrowest cache, and the way in which context costs most."""
    for item in found:
        if item.rows:
            narrow = max(item.rows, key=lambda row: row.largest_over_this)
            wide = min(item.rows, key=lambda row: row.largest_over_this)
            residuals = [abs(row.residual_ratio) for row in item.rows if row.residual_ratio is not None]
            off = max(residuals, default=None)
            if narrow.largest_over_this > 1:
                yield t(
                    "The cache of {narrow} is {ratio} times smaller than that of {wide}. {formula}",
                    narrow=narrow.block,
                    wide=wide.block,
                    ratio=format_number(narrow.largest_over_this),
                    formula=_say_formula(off),
                )
            else:  # one block, or several that take the same
                yield _say_formula(off)
        yield from _say_lines(item.lines)


def _say_lines(lines: Sequence[ContextLine]) -> Iterator[str]:
    """Where context costs most and least, of the smallest static batch that several blocks were run with."""
    for batch in sorted({line.static_batch for line in lines}):
        rising = [line for line in lines if line.static_batch == batch and line.is_told]
        if len(rising) > 1:
            dear, cheap = (pick(rising, key=lambda line: line.s_per_token) for pick in (max, min))
            yield t(
                "Of the blocks whose line tells its slope from 0, one more cached token in every row costs most in "
                "{dear}, {most} a step, and least in {cheap}, {least} (static batch {batch}; 95 % intervals of the "
                "lines).",
                dear=dear.block,
                most=interval_cell(dear.s_per_token, dear.interval_s_per_token).text,
                cheap=cheap.block,
                least=interval_cell(cheap.s_per_token, cheap.interval_s_per_token).text,
                batch=batch,
            )
            return


def _say_formula(off: float | None) -> str:
    """How far the measured bytes lie off the closed form, at most."""
    if off is None:
        return t("No formula counts these caches.")
    if off < 1e-6:
        return t("The measured bytes are those of the formula.")
    return t("The measured bytes lie up to {share} % off the formula.", share=format_number(100 * off))


def _slice_sections(material: Material) -> list[Section]:
    found = [(item.name, part) for item in material.results for part in find_slices(item)]
    if not found:
        return []
    several = material.has_several_runs
    warning = t(
        "Extrapolated, not measured: a few layers were run, and the whole depth is taken to cost the "
        "same per layer. No traffic between devices is in it, which the whole model cannot do without: every time of "
        "a whole model is a lower bound, every speed an upper one."
    )
    told = " ".join((warning, *_say_weights([part.cell for _, part in found])))
    columns = (
        *run_columns(several),
        *(Column(t("Model")), Column(t("Mode")), Column(t("Attention kernel"))),
        *_right(t("Static batch"), t("Context")),
        Column(t("Layers")),
        *_right(t("Per layer"), t("At the read ceiling"), t("Of the ceiling"), t("Constant"), "R²"),
        *_right(t("Whole depth, extrapolated"), t("Speed, extrapolated")),
    )
    caption = t(
        "Step time over layers, all else equal, a straight line; cells that end among leading layers of another kind "
        "are left out. Per layer and whole depth with the 95 % interval of the line. At the read ceiling: the bytes "
        "that a layer has to read, expected experts and cache included, at the measured rate. Speed: of one stream, "
        "at most."
    )
    table = Table(columns, tuple(_slice_fields(name, part, several) for name, part in found), caption)
    return [Section(t("A slice of a larger model"), (Paragraph(told, "warning"), table))]


def _say_weights(cells: Sequence[CellResult]) -> Iterator[str]:
    """Random weights, and what they do to routed experts."""
    random = [cell for cell in cells if cell.conditions.weights == "random"]
    if random:
        yield t("Weights are random.") if len(random) == len(cells) else t("Weights are random in some.")
    if any(cell.conditions.experts_kernel is not None for cell in random):
        yield t("Random routers choose experts about evenly, trained ones do not.")


def _slice_fields(run_name: str, part: Slice, several: bool) -> tuple[Cell, ...]:
    conditions, predicted = part.cell.conditions, part.predicted_s_per_layer
    batch, prompt = conditions.static_batch or 1, conditions.prompt_tokens or 0
    context = prompt + part.cell.record.spec.workload.output_tokens // 2
    return (
        *run_fields(run_name, several),
        Cell(part.model),
        Cell(conditions.mode or ""),
        Cell(str(conditions.attention_kernel)),
        Cell(str(batch), sort=float(batch)),
        Cell(f"{context:,}", sort=float(context)),
        Cell(join(str(layers) for layers in part.layers)),
        interval_cell(part.s_per_layer, part.interval_s_per_layer),
        unit_cell(predicted, SECONDS, NO_CEILING),
        share_cell(None if predicted is None or part.s_per_layer <= 0 else predicted / part.s_per_layer, NO_SHARE),
        unit_cell(part.rest_s, SECONDS),
        number_cell(part.r_squared, NO_CEILING),
        *_whole_fields(part),
    )


def _whole_fields(part: Slice) -> tuple[Cell, Cell]:
    """The extrapolated step and the speed that it caps, or why there are none."""
    if part.whole_step_s is None:
        none = Cell(DASH, note=t("more layers were not slower: nothing is extrapolated from that"))
        return none, none
    whole, speed = interval_cell(part.whole_step_s, part.interval_whole_step_s), 1 / part.whole_step_s
    return (
        Cell(t("{text} at {layers} layers", text=whole.text, layers=part.whole_layers), sort=part.whole_step_s),
        Cell(t("at most {speed} tokens/s", speed=format_number(speed)), sort=speed),
    )


def _right(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, "", "right") for title in titles)
