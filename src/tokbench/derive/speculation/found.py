"""What runs tell of speculative decoding: each cell with drafts beside the one without. Derived for the report."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.pairs import paired_ratio
from tokbench.derive.published import PublishedFigure
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.speculation.costs import Costs, CostSources, Gap, cost_sources, find_gap, mean_costs
from tokbench.derive.speculation.implied import Implied, find_implied
from tokbench.derive.speculation.loops import LoopCount, find_loops
from tokbench.derive.speculation.pairing import find_baseline
from tokbench.derive.speculation.rounds import acceptance_at_position
from tokbench.derive.speculation.runs import RunLengths, find_run_lengths
from tokbench.stats import Estimate

RESIDUAL_LIMIT = 0.15
"""A speed-up further than this share from its prediction asks for a profile. Source: issue 7."""
JOULES = "energy_j_per_output_token"
TOY = "toy, trained here"
"""How the note of weights begins that `tokbench train pair` made."""
Reading = Literal["measured", "toy", "plumbing", "random", "replay", "scripted", "lossy", "invalid"]
_LABELLED: dict[str | None, Reading] = {"scripted": "scripted", "replay": "replay", "random": "random"}


@dataclasses.dataclass(frozen=True, slots=True)
class DraftedCell:
    """One measured cell with drafts."""

    cell: CellResult
    baseline: CellResult | None
    """The same without drafts; None where the run has no such cell."""
    reading: Reading
    """What its acceptance and speed-up may be taken for."""
    joules_x: Estimate | Missing
    """Joules per emitted token over those without drafts."""
    sources: CostSources | None
    """Where the prediction's costs come from; None without a prediction."""
    costs: Costs | None
    """What the prediction took a round to cost; None without one."""
    gap: Gap | None
    """What a round took beyond that; None without a prediction, and where the parts of a round are not timed."""
    positions: tuple[tuple[int, int], ...]
    """Per position of a draft: how often reached, how often accepted then."""
    lengths: RunLengths | Missing
    loops: LoopCount

    @property
    def task(self) -> str | None:
        """The frozen set of prompts that it worked on; None for others."""
        return self.cell.record.spec.workload.task

    @property
    def method(self) -> str:
        """The name of what drafts."""
        return self.cell.conditions.speculation or ""

    def value(self, metric: str) -> Estimate | None:
        """A metric of the cell; None where it is missing."""
        found = self.cell.metrics.get(metric)
        return found if isinstance(found, Estimate) else None

    @property
    def is_off(self) -> bool:
        """Whether the speed-up lies further from its prediction than the limit."""
        found = self.value("speedup_over_predicted")
        return found is not None and abs(found.value - 1) > RESIDUAL_LIMIT

    @property
    def is_looping(self) -> bool:
        """Whether most of its outputs run in a loop."""
        return 2 * self.loops.looping > self.loops.judged

    @property
    def is_negative_control(self) -> bool:
        """Whether the config says that this cell should come out below 1."""
        return self.cell.labels.get("control") == "negative"


class Crossing(NamedTuple):
    """Between which static batches the speed-up falls below 1."""

    above: int
    below: int
    at: float
    """Where the line between the two crosses 1, both axes logarithmic."""


@dataclasses.dataclass(frozen=True, slots=True)
class BatchCurve:
    """Cells with drafts that differ in the static batch alone."""

    cells: tuple[DraftedCell, ...]
    crossing: Crossing | None


@dataclasses.dataclass(frozen=True, slots=True)
class SpeculationFound:
    """All that a report says of drafts."""

    cells: tuple[DraftedCell, ...] = ()
    curves: tuple[BatchCurve, ...] = ()
    implied: tuple[Implied, ...] = ()
    """Published speed-ups; none where no cell drafts."""


NO_SPECULATION = SpeculationFound()


def find_speculation(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> SpeculationFound:
    """Everything that runs and published figures tell of drafts; nothing where no cell drafts."""
    cells = find_drafted(results)
    return SpeculationFound(cells, find_curves(cells), find_implied(figures)) if cells else NO_SPECULATION


def find_drafted(results: Sequence[Results]) -> tuple[DraftedCell, ...]:
    """Every measured cell with drafts, in the order of the runs and their cells."""
    return tuple(
        _drafted(item, cell)
        for item in results
        for cell in item.cells
        if cell.status == "ok" and cell.record.spec.speculation != "none"
    )


def _drafted(results: Results, cell: CellResult) -> DraftedCell:
    baseline = _baseline(results, cell)
    unpaired = cell.metrics.get("speedup_x")
    has_prediction = isinstance(cell.metrics.get("predicted_speedup_x"), Estimate)
    joules: Estimate | Missing = unpaired if isinstance(unpaired, Missing) else Missing("")
    if baseline is not None:
        joules = paired_ratio(cell, baseline, JOULES)
    return DraftedCell(
        cell=cell,
        baseline=baseline,
        reading=read_as(cell),
        joules_x=joules,
        sources=cost_sources(results.run, cell.record) if has_prediction else None,
        costs=mean_costs(results.run, cell.record) if has_prediction else None,
        gap=_gap(results, cell) if has_prediction else None,
        positions=_positions(cell),
        lengths=_lengths(cell),
        loops=find_loops(cell.record),
    )


def _baseline(results: Results, cell: CellResult) -> CellResult | None:
    try:
        wanted = find_baseline(results.run, cell.record)
    except UndefinedError:
        return None
    return next((other for other in results.cells if other.record is wanted), None)


def read_as(cell: CellResult) -> Reading:
    """What acceptance and speed-up of a cell may be taken for: least first."""
    drafting, weights = cell.record.spec.speculation, cell.conditions.weights
    note = cell.record.model.note if cell.record.model is not None else None
    if cell.validity.verdict == "invalid":
        return "invalid"
    if drafting != "none" and drafting.accept != "lossless":
        return "lossy"
    if weights in _LABELLED:
        return _LABELLED[weights]
    if drafting != "none" and drafting.draft is not None and drafting.draft.weights == "random":
        return "random"
    if note is not None and "dequantised" in note:
        return "plumbing"
    return "toy" if note is not None and note.startswith(TOY) else "measured"


def _gap(results: Results, cell: CellResult) -> Gap | None:
    try:
        return find_gap(results.run, cell.record)
    except UndefinedError:
        return None


def _positions(cell: CellResult) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(acceptance_at_position(cell.record))
    except UndefinedError:
        return ()


def _lengths(cell: CellResult) -> RunLengths | Missing:
    try:
        return find_run_lengths(cell.record)
    except UndefinedError as undefined:
        return Missing(str(undefined))


def find_curves(cells: Sequence[DraftedCell]) -> tuple[BatchCurve, ...]:
    """Cells that differ in the static batch alone, of at least two batches, smallest first."""
    groups: dict[str, list[DraftedCell]] = {}
    for found in cells:
        spec = found.cell.record.spec
        if spec.load.kind == "static_batch" and found.value("speedup_x") is not None:
            load = spec.load.model_copy(update={"static_batch": 1})
            key = spec.model_copy(update={"load": load, "labels": {}}).model_dump_json()
            groups.setdefault(f"{found.cell.run_name} {key}", []).append(found)
    curves = [tuple(sorted(group, key=batch_of)) for group in groups.values() if len(group) > 1]
    return tuple(BatchCurve(curve, _crossing(curve)) for curve in curves)


def batch_of(found: DraftedCell) -> int:
    """The static batch of a cell; 1 for other loads."""
    return found.cell.conditions.static_batch or 1


def _crossing(curve: Sequence[DraftedCell]) -> Crossing | None:
    """The first step from at least 1 to below it."""
    points = [(batch_of(found), value.value) for found in curve if (value := found.value("speedup_x"))]
    for (above, high), (below, low) in itertools.pairwise(points):
        if high >= 1 > low:
            share = math.log(high) / (math.log(high) - math.log(low))
            return Crossing(above, below, math.exp(math.log(above) + share * (math.log(below) - math.log(above))))
    return None
