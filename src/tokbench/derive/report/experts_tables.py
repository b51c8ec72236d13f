"""Tables of mixtures of experts: the triple, its memory, selections, grain and offloading. Derives nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokbench.arithmetic import ExpertShape
from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult
from tokbench.derive.experts.coverage import Coverage, Offloaded
from tokbench.derive.experts.families import (
    Sibling,
    Sized,
    Step,
    Triple,
    ceiling_step_s,
    first_multiplying,
    step_bytes,
    value_of,
)
from tokbench.derive.experts.touches import Routing
from tokbench.derive.report.bound_tables import number_cell, run_columns, run_fields, unit_cell
from tokbench.derive.report.document import DASH, Cell, Column, Table
from tokbench.derive.report.fields import metric_field
from tokbench.derive.words import t
from tokbench.stats import Estimate
from tokbench.units import BYTES, BYTES_PER_S, FLOPS_PER_S, format_number, format_value


def triple_table(triple: Triple, several: bool) -> Table:
    """The mixture beside its twins: measured, by bytes, by both ceilings, and what is left."""
    columns = (
        *run_columns(several),
        *_right(t("Static batch"), t("Step time")),
        *_right(t("Wider twin / mixture"), t("By bytes"), t("By both ceilings"), t("Left over")),
        *_right(t("Mixture / active twin"), t("By bytes"), t("By both ceilings"), t("Left over")),
        *_right(t("J/token, mixture / active twin"), t("J/token, mixture / wider twin")),
    )
    return Table(columns, tuple(_triple_row(step, several) for step in triple.steps), _triple_caption(triple))


def _triple_caption(triple: Triple) -> str:
    item, moe = triple.moe, triple.moe.experts
    assert moe is not None  # a triple is a mixture's
    sizes = t(
        "{model}: {experts} experts of {width} a layer, {count} per token. Its twins have the same attention, depth, "
        "width and vocabulary, and one feed-forward of {active} (active twin) or of {total} (wider twin). Speed alone: "
        "the three would not answer equally well.",
        model=wording.say_model(item.cell),
        experts=f"{moe.experts:,}",
        width=f"{moe.feed_forward:,}",
        count=moe.experts_per_token,
        active=f"{moe.experts_per_token * moe.feed_forward:,}",
        total=f"{moe.experts * moe.feed_forward:,}",
    )
    return f"{sizes} {_say_wall(triple, moe)}".strip()


def _say_wall(triple: Triple, moe: ExpertShape) -> str:
    """From which static batch on a step multiplies for longer than it reads: beyond it bytes predict nothing."""
    first = triple.steps[0].moe
    read, multiplied = value_of(first, "read_bytes_per_s"), value_of(first, "matmul_flops_per_s")
    if read is None or multiplied is None:
        return ""
    return t(
        "At the ceilings of this run (reading {read}, multiplying {multiplied}) a step multiplies for longer than it "
        "reads: of the wider twin {total}, of the mixture {mixture}, of the active twin {active}. There the ratio "
        "follows the operations; a token's feed-forward has {times} times as many in the wider twin as in the others.",
        read=format_value(read, BYTES_PER_S),
        multiplied=format_value(multiplied, FLOPS_PER_S),
        total=_say_first(triple.steps, lambda step: step.total),
        mixture=_say_first(triple.steps, lambda step: step.moe),
        active=_say_first(triple.steps, lambda step: step.active),
        times=format_number(moe.experts / moe.experts_per_token),
    )


def _say_first(steps: Sequence[Step], which: Callable[[Step], CellResult | None]) -> str:
    """The smallest static batch that multiplies for longer; a model without cells, or without counts, is said so."""
    if all(ceiling_step_s(which(step)) is None for step in steps):
        return t("unknown (not measured)")
    rows = first_multiplying(steps, which)
    return t("at no static batch measured") if rows is None else t("from static batch {rows} on", rows=f"{rows:,}")


def _triple_row(step: Step, several: bool) -> tuple[Cell, ...]:
    no_twin, no_meter = t("no such twin was measured"), t("no meter read both")
    no_ceiling = t("no such twin was measured, or not both ceilings")
    return (
        *run_fields(step.moe.run_name, several),
        Cell(f"{step.rows:,}", sort=float(step.rows)),
        metric_field(step.moe, "tpot_s"),
        _ratio_cell(step.gain, no_twin),
        number_cell(step.gain_by_bytes, no_twin),
        number_cell(step.gain_by_ceilings, no_ceiling),
        _residual_cell(step.gain, step.gain_by_ceilings, no_ceiling),
        _ratio_cell(step.price, no_twin),
        number_cell(step.price_by_bytes, no_twin),
        number_cell(step.price_by_ceilings, no_ceiling),
        _residual_cell(step.price, step.price_by_ceilings, no_ceiling),
        number_cell(step.energy_price, no_meter),
        number_cell(step.energy_of_total, no_meter),
    )


def memory_table(triples: Sequence[Triple], several: bool) -> Table:
    """What the weights and the peak take, beside the twins."""
    columns = (
        *run_columns(several),
        Column(t("Model")),
        *_right(t("Weights"), t("Read per step at batch 1"), t("Peak memory"), t("Weights, mixture / this")),
    )
    caption = t(
        "Bytes of the loaded weights; the peak is at the smallest static batch measured, {source}.",
        source=wording.say_memory_source(triples[0].steps[0].moe) or t("its source not told"),
    )
    shown = {_beside(triple, cell): (triple, cell) for triple in triples for cell in _members(triple)}
    return Table(columns, tuple(_memory_row(*pair, several) for pair in shown.values()), caption)


def _beside(triple: Triple, cell: CellResult) -> tuple[str, int | None]:
    """One row a model, though mixtures of equal bytes have the same twins."""
    first = triple.steps[0].moe.record.model
    return cell.cell_id, None if first is None else first.expert_bytes


def _members(triple: Triple) -> list[CellResult]:
    first = triple.steps[0]
    return [cell for cell in (first.moe, first.active, first.total) if cell is not None]


def _memory_row(triple: Triple, cell: CellResult, several: bool) -> tuple[Cell, ...]:
    first = triple.steps[0]
    own, weights = value_of(cell, "weight_bytes"), value_of(first.moe, "weight_bytes")
    ratio = weights / own if own and weights else None
    read = step_bytes(cell) if first.rows == 1 else None
    return (
        *run_fields(cell.run_name, several),
        Cell(wording.say_model(cell)),
        metric_field(cell, "weight_bytes"),
        unit_cell(read, BYTES, t("static batch 1 was not measured")),
        metric_field(cell, "peak_memory_bytes"),
        number_cell(ratio, t("the bytes of the weights are not known")),
    )


def coverage_table(found: Sequence[Coverage], several: bool) -> Table:
    """Distinct experts counted, beside the law of the routing."""
    columns = (
        *run_columns(several),
        Column(t("Model")),
        Column(t("Routing")),
        *_right(t("Static batch"), t("Distinct, counted"), t("Standard error"), t("By the law"), t("Errors off")),
        *_right(t("Counted / even"), t("Layers x steps")),
    )
    caption = t(
        "Distinct experts per layer and step, counted in a decode like the measured one, outside its windows. By the "
        "law: of the drawn routing; for the model's own routers that of even and independent selections. The error "
        "takes layers and steps as independent; where tokens repeat they are not, and it is too small."
    )
    return Table(columns, tuple(_coverage_row(one, several) for one in found), caption)


def _coverage_row(one: Coverage, several: bool) -> tuple[Cell, ...]:
    few = t("every step selected as many, or one step was looked at")
    return (
        *run_fields(one.item.cell.run_name, several),
        Cell(wording.say_model(one.item.cell)),
        Cell(say_routing(one.routing)),
        Cell(f"{one.item.rows:,}", sort=float(one.item.rows)),
        number_cell(one.distinct, ""),
        number_cell(one.error or None, few),
        number_cell(one.expected, ""),
        number_cell(one.errors_off, few, 2),
        number_cell(one.distinct / one.even, ""),
        Cell(f"{one.looked_at:,}", sort=float(one.looked_at)),
    )


def say_routing(routing: Routing) -> str:
    """How tokens found their experts."""
    skew = format_number(routing.skew)
    known = {
        "own": t("the model's own"),
        "uniform": t("drawn, even"),
        "zipf": t("drawn, Zipf with exponent {skew}", skew=skew),
        "correlated": t("drawn, as the token before with probability {skew}", skew=skew),
    }
    return known.get(routing.kind, routing.kind)


def sibling_table(found: Sequence[Sibling], several: bool, is_grain: bool) -> Table:
    """Mixtures of equal bytes side by side; of the grain with the equivalence test."""
    columns = (
        *run_columns(several),
        Column(t("Model")),
        Column(t("Beside")),
        *_right(t("Static batch"), t("Experts"), t("Per token"), t("Width")),
        *_right(t("Share touched"), t("Share touched, beside"), t("Weights, ratio"), t("Bytes per step, ratio")),
        Column(t("Step time, ratio"), t("90 % interval"), "right"),
        *((Column(t("Within 5 %")),) if is_grain else ()),
    )
    caption = (
        t("As many bytes and the same share at work, cut into more experts. Within 5 %: both one-sided tests at 5 %.")
        if is_grain
        else t("The same experts, of which a token takes more: the model stores as much, and a step reads more.")
    )
    return Table(columns, tuple(_sibling_row(one, several, is_grain) for one in found), caption)


def _sibling_row(one: Sibling, several: bool, is_grain: bool) -> tuple[Cell, ...]:
    moe, cell, beside = one.other.experts, one.other.cell, one.first.cell
    assert moe is not None  # siblings are mixtures
    verdict = {True: t("yes"), False: t("not shown"), None: t("no interval")}[one.is_equal]
    unknown = t("the bytes of the weights are not known")
    return (
        *run_fields(cell.run_name, several),
        Cell(wording.say_model(cell)),
        Cell(wording.say_model(beside)),
        Cell(f"{one.other.rows:,}", sort=float(one.other.rows)),
        Cell(f"{moe.experts:,}", sort=float(moe.experts)),
        Cell(f"{moe.experts_per_token}", sort=float(moe.experts_per_token)),
        Cell(f"{moe.feed_forward:,}", sort=float(moe.feed_forward)),
        _touched_cell(one.other),
        _touched_cell(one.first),
        number_cell(_over(value_of(cell, "weight_bytes"), value_of(beside, "weight_bytes")), unknown),
        number_cell(_over(step_bytes(cell), step_bytes(beside)), unknown),
        _ratio_cell(one.ratio, t("not measured")),
        *((Cell(verdict),) if is_grain else ()),
    )


def _touched_cell(item: Sized) -> Cell:
    distinct, moe = value_of(item.cell, "distinct_experts"), item.experts
    if distinct is None or moe is None:
        return Cell(DASH, note=t("no step of this cell was looked at for the experts that it selects"))
    return Cell(f"{format_number(100 * distinct / moe.experts)} %", sort=distinct / moe.experts)


def offload_table(groups: Sequence[Sequence[Offloaded]], several: bool) -> Table:
    """Speed over the share of resident experts."""
    columns = (
        *run_columns(several),
        Column(t("Model")),
        Column(t("Static batch"), "", "right"),
        *_right(t("Resident share"), t("Decode speed per user"), t("Speed kept")),
        *_right(t("Copied per step"), t("Copied per second")),
    )
    caption = t(
        "Experts that are not resident are copied when they are selected; the least recently used give way. At 0 % one "
        "place a layer is left to copy into. {where}",
        where=_say_where(groups[0]),
    )
    return Table(columns, tuple(_offload_row(one, several) for group in groups for one in group), caption)


def _say_where(group: Sequence[Offloaded]) -> str:
    engines = [one.cell.record.engine for one in group if one.share < 1.0]
    notes = [note for engine in engines if engine for note in engine.notes if note.startswith("experts resident")]
    where = notes[0].partition("the rest in ")[2] if notes else ""
    return t("The rest lies in {where}.", where=where) if where else ""


def _offload_row(one: Offloaded, several: bool) -> tuple[Cell, ...]:
    untold = t("the engine does not tell which experts it copied")
    return (
        *run_fields(one.cell.run_name, several),
        Cell(wording.say_model(one.cell)),
        Cell(f"{one.cell.conditions.static_batch}"),
        Cell(f"{format_number(100 * one.share)} %", sort=one.share),
        metric_field(one.cell, "decode_tokens_per_s"),
        metric_field(one.cell, "offload_kept_ratio", with_interval=True),
        unit_cell(one.copied_bytes, BYTES, untold),
        unit_cell(one.copied_bytes_per_s, BYTES_PER_S, untold),
    )


def _ratio_cell(value: Estimate | None, reason: str) -> Cell:
    if value is None:
        return Cell(DASH, note=reason)
    text = format_number(value.value)
    if value.low is None or value.high is None:
        return Cell(text, sort=value.value)
    low, high = format_number(value.low), format_number(value.high)
    return Cell(t("{text} ({low} – {high})", text=text, low=low, high=high), sort=value.value)


def _residual_cell(measured: Estimate | None, by_bytes: float | None, reason: str) -> Cell:
    rest = _over(None if measured is None else measured.value, by_bytes)
    return Cell(DASH, note=reason) if rest is None else Cell(f"{100 * (rest - 1):+.0f} %", sort=rest)


def _over(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else value / by


def _right(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, "", "right") for title in titles)
