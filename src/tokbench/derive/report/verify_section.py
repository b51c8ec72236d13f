"""What it costs to verify drafts: passes over m tokens per row, measured beside what bytes and operations predict."""

from __future__ import annotations

from tokbench.derive import wording
from tokbench.derive.evaluate import Missing
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table
from tokbench.derive.report.fields import in_run, value_field
from tokbench.derive.report.material import Material
from tokbench.derive.report.verify_figures import FILE_NAME
from tokbench.derive.verify_cost import PassCost, VerifyCurve, find_curves
from tokbench.derive.words import join, say, t
from tokbench.units import format_number


def verify_sections(material: Material) -> list[Section]:
    """One part; nothing where no cell ran the experiment."""
    curves = [curve for results in material.results for curve in find_curves(results)]
    if not curves:
        return []
    blocks: list[Block] = [_opening(), *material.figure(FILE_NAME), _table(curves, material.has_several_runs)]
    return [Section(t("What it costs to verify drafts"), tuple(blocks))]


def _opening() -> Paragraph:
    return Paragraph(
        t(
            "A drafted token saves nothing unless several tokens are read in one pass for little more than the time "
            "of one. v(m) is the time of a pass over m tokens per row at the cell's cache depth, over that of a pass "
            "over one token. A dense model reads the same weights either way, so v stays near 1 until the pass "
            "computes all the time. With routed experts every further token brings experts of its own, and v climbs "
            "at once; in large batches all experts are read already, and it is flat again."
        )
    )


def _name(curve: VerifyCurve, with_run: bool) -> str:
    cell = curve.cell
    parts = (wording.say_model(cell), str(cell.conditions.precision), wording.say_engine(cell))
    return in_run(cell.run_name, join((*parts, _say_graph(curve))), with_run)


def _say_graph(curve: VerifyCurve) -> str:
    if curve.graph == "device":
        return t("captured passes")
    return t("compiled passes") if curve.graph == "compiled" else t("passes called one by one")


def _table(curves: list[VerifyCurve], with_run: bool) -> Table:
    columns = (
        Column(t("Cell")),
        Column(t("Static batch"), "", "right"),
        Column(t("In the cache"), "tokens", "right"),
        Column("m", "", "right"),
        Column(t("Time of a pass"), "", "right"),
        Column("v(m)", t("95 % interval, n"), "right"),
        Column(t("Predicted"), "", "right"),
        Column(t("Predicted by bytes alone"), "", "right"),
        Column(t("Measured / predicted"), "", "right"),
        Column(t("Experts read per layer"), "", "right"),
        Column(t("Predicted, even routing"), "", "right"),
    )
    rows = tuple(_row(curve, found, with_run) for curve in curves for found in curve.passes)
    caption = t(
        "Predicted: the slower of both measured ceilings, of memory and of multiplication, for m tokens per row "
        "over the same for one. Bytes count the experts that even routing selects for all tokens of the pass, and "
        "the cache once per row. Experts read: counted in a pass of its own; random weights route nearly evenly, "
        "trained ones less so. Where a pass is not captured, launching its kernels is a part of its time and "
        "hides what more tokens cost; of a compiled pass dynamo's guards are such a part too. A library may take "
        "another kernel for several rows than for one: a jump from m = 1 to 2 alone at static batch 1 is that."
    )
    return Table(columns, rows, caption)


def _row(curve: VerifyCurve, found: PassCost, with_run: bool) -> tuple[Cell, ...]:
    return (
        Cell(_name(curve, with_run)),
        Cell(f"{curve.rows:,}", sort=float(curve.rows)),
        Cell(f"{curve.context_tokens:,}", sort=float(curve.context_tokens)),
        Cell(str(found.m), sort=float(found.m)),
        value_field(found.seconds),
        value_field(found.cost, with_interval=True),
        _number(found.predicted),
        _number(found.predicted_bytes),
        _number(found.predicted if isinstance(found.predicted, Missing) else found.residual),
        _experts(found.distinct, curve.experts),
        _experts(found.predicted_distinct, curve.experts),
    )


def _number(value: float | Missing | None) -> Cell:
    if isinstance(value, Missing):
        return Cell(DASH, note=say(value.reason))
    return Cell(DASH) if value is None else Cell(format_number(value), sort=value)


def _experts(value: float | None, experts: int | None) -> Cell:
    if value is None:
        return Cell(DASH, note=t("no routed experts"))
    if experts is None:
        return Cell(format_number(value), sort=value)
    return Cell(t("{value} of {experts}", value=format_number(value), experts=experts), sort=value)
