"""Cells that differ in their feed-forward alone: what a mixture of experts gains and costs beside its dense twins.

Found by the sizes in the record, never by a model's name or a label.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tokbench.arithmetic import ExpertShape, ModelShape, flops_per_token
from tokbench.derive.evaluate import CellResult
from tokbench.derive.experts.touches import ROUTING, resident_share, routing_of, rows_of_step, shape_of
from tokbench.derive.repetitions import UndefinedError
from tokbench.stats import Estimate, compare

STEP, JOULES = "tpot_s", "energy_j_per_output_token"
EQUAL_WITHIN = 0.05
"""Two steps are equivalent where the interval of their ratio lies within this of 1, either way."""
TOST_CONFIDENCE = 0.90
"""Two one-sided tests at 5 % are one interval of 90 %. Source: Schuirmann 1987, doi.org/10.1007/BF01068419."""


class Sized(NamedTuple):
    """A cell with the sizes of its model."""

    cell: CellResult
    shape: ModelShape
    rows: int

    @property
    def experts(self) -> ExpertShape | None:
        """None for a dense model."""
        return self.shape.experts


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One number of rows: the mixture beside twins that are as wide as its active and as all of its experts."""

    rows: int
    moe: CellResult
    active: CellResult | None
    total: CellResult | None

    @property
    def gain(self) -> Estimate | None:
        """Step time of the twin of all experts over the mixture's."""
        return time_ratio(self.moe, self.total)

    @property
    def price(self) -> Estimate | None:
        """Step time of the mixture over that of the twin of the active experts."""
        return time_ratio(self.active, self.moe)

    @property
    def gain_by_bytes(self) -> float | None:
        """What `gain` would be if a step took as long as its bytes."""
        return _over(step_bytes(self.total), step_bytes(self.moe))

    @property
    def price_by_bytes(self) -> float | None:
        """What `price` would be if a step took as long as its bytes."""
        return _over(step_bytes(self.moe), step_bytes(self.active))

    @property
    def gain_by_ceilings(self) -> float | None:
        """What `gain` would be if each step took no longer than the slower of reading and multiplying."""
        return _over(ceiling_step_s(self.total), ceiling_step_s(self.moe))

    @property
    def price_by_ceilings(self) -> float | None:
        """What `price` would be if each step took no longer than the slower of reading and multiplying."""
        return _over(ceiling_step_s(self.moe), ceiling_step_s(self.active))

    @property
    def energy_price(self) -> float | None:
        """Joules per output token of the mixture over those of the twin of the active experts."""
        return _over(value_of(self.moe, JOULES), value_of(self.active, JOULES))

    @property
    def energy_of_total(self) -> float | None:
        """Joules per output token of the mixture over those of the twin of all experts."""
        return _over(value_of(self.moe, JOULES), value_of(self.total, JOULES))


@dataclasses.dataclass(frozen=True, slots=True)
class Triple:
    """A mixture of experts and its dense twins over the number of rows, of one run."""

    moe: Sized
    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Sibling:
    """A mixture beside another of equal bytes, at one number of rows."""

    first: Sized
    other: Sized
    ratio: Estimate | None
    """Step time of `other` over that of `first`, with the interval of the equivalence test."""

    @property
    def is_equal(self) -> bool | None:
        """Whether the test finds them equivalent; None without an interval."""
        if self.ratio is None or self.ratio.low is None or self.ratio.high is None:
            return None
        return 1 / (1 + EQUAL_WITHIN) <= self.ratio.low and self.ratio.high <= 1 + EQUAL_WITHIN


def find_triples(cells: Sequence[CellResult]) -> list[Triple]:
    """Each mixture that has a dense twin under the same conditions, its cells in the order of their rows."""
    found: dict[tuple[str, ModelShape], list[tuple[Sized, Step]]] = {}
    for group in _alike(cells):
        for item in group:
            step = _beside_twins(item, group)
            if step is not None:
                found.setdefault((_frame(item.cell), item.shape), []).append((item, step))
    ordered = (sorted(pairs, key=lambda pair: pair[1].rows) for pairs in found.values())
    return [Triple(pairs[0][0], tuple(step for _, step in pairs)) for pairs in ordered]


def find_grains(cells: Sequence[CellResult]) -> list[Sibling]:
    """Mixtures of as many bytes and the same share at work in other numbers of experts: each beside the coarsest."""
    return list(
        _siblings(
            cells,
            lambda moe: (moe.experts * moe.feed_forward, moe.experts_per_token * moe.feed_forward),
            lambda moe: moe.experts,
        )
    )


def find_sparsities(cells: Sequence[CellResult]) -> list[Sibling]:
    """Mixtures of the same experts of which a token takes more or fewer: each beside the one that takes the fewest."""
    return list(_siblings(cells, lambda moe: (moe.experts, moe.feed_forward), lambda moe: moe.experts_per_token))


def time_ratio(a: CellResult | None, b: CellResult | None, confidence: float = 0.95) -> Estimate | None:
    """Step time of b over that of a; None where either was not measured."""
    if a is None or b is None:
        return None
    of_a, of_b = a.blocks.get(STEP), b.blocks.get(STEP)
    if not of_a or not of_b:
        return None
    return compare(of_a, of_b, paired=False, confidence=confidence).ratio


def step_bytes(cell: CellResult | None) -> float | None:
    """Bytes that a step reads; of a mixture by the experts that it touched, where that was counted.

    Formula: bytes_read_per_step + (distinct_experts - predicted_distinct_experts) / E * bytes of the routed experts.
    """
    size = value_of(cell, "bytes_read_per_step")
    if cell is None or size is None or cell.record.model is None:
        return None
    touched, even = value_of(cell, "distinct_experts"), value_of(cell, "predicted_distinct_experts")
    routed = cell.record.model.expert_bytes
    if touched is None or even is None or routed is None:
        return size
    experts = shape_of(cell.record).experts
    return size if experts is None else size + (touched - even) / experts.experts * routed


def reading_s(cell: CellResult | None) -> float | None:
    """Seconds that a step's bytes take at the measured read ceiling; None where either is not known."""
    return _over(step_bytes(cell), value_of(cell, "read_bytes_per_s"))


def multiplying_s(cell: CellResult | None) -> float | None:
    """Seconds that a step's operations take at the measured matrix-multiply ceiling; None where it is not known.

    Formula: static_batch * flops per token at prompt_tokens + output_tokens // 2 / matmul_flops_per_s.
    """
    workload = None if cell is None else cell.record.spec.workload
    if cell is None or workload is None or workload.prompt_tokens is None:
        return None
    flops = flops_per_token(shape_of(cell.record), workload.prompt_tokens + workload.output_tokens // 2)
    return _over(rows_of_step(cell.record.spec) * flops, value_of(cell, "matmul_flops_per_s"))


def ceiling_step_s(cell: CellResult | None) -> float | None:
    """Seconds of a step at the slower of both ceilings; None where either is not known."""
    reading, multiplying = reading_s(cell), multiplying_s(cell)
    return None if reading is None or multiplying is None else max(reading, multiplying)


def first_multiplying(steps: Sequence[Step], which: Callable[[Step], CellResult | None]) -> int | None:
    """The smallest static batch measured from which on multiplying takes longer than reading; None where none does."""
    known = [(step.rows, reading_s(which(step)), multiplying_s(which(step))) for step in steps]
    bound = [rows for rows, reading, multiplying in known if reading and multiplying and multiplying > reading]
    return min(bound, default=None)


def value_of(cell: CellResult | None, metric: str) -> float | None:
    """A metric's value, None where it is missing."""
    found = cell.metrics.get(metric) if cell is not None else None
    return found.value if isinstance(found, Estimate) else None


def size_cells(cells: Sequence[CellResult]) -> Iterator[Sized]:
    """Measured cells of static batches whose model's sizes are known."""
    for cell in cells:
        if cell.status != "ok":
            continue
        try:
            yield Sized(cell, shape_of(cell.record), rows_of_step(cell.record.spec))
        except UndefinedError:
            continue


def _alike(cells: Sequence[CellResult]) -> list[list[Sized]]:
    """Cells that differ in their feed-forward alone; drawn routing and offloading are stories of their own."""
    groups: dict[tuple[str, int, ModelShape], list[Sized]] = {}
    for item in size_cells(cells):
        if routing_of(item.cell.record.spec).kind != "own" or resident_share(item.cell.record.spec) != 1.0:
            continue
        body = dataclasses.replace(item.shape, name="", feed_forward=1, experts=None)
        groups.setdefault((_frame(item.cell), item.rows, body), []).append(item)
    return list(groups.values())


def _frame(cell: CellResult) -> str:
    """Everything of a cell but its model's name and the number of its rows, as text."""
    spec = cell.record.spec
    options = {k: v for k, v in spec.engine.options.items() if k not in (ROUTING, "resident_experts")}
    engine = spec.engine.model_copy(update={"options": options})
    kept = spec.model_copy(update={"engine": engine}).model_dump(mode="json", exclude={"labels", "load"})
    kept["model"].pop("source")
    return f"{cell.run_name} {json.dumps(kept, sort_keys=True)}"


def _beside_twins(item: Sized, group: Sequence[Sized]) -> Step | None:
    moe = item.experts
    if moe is None or moe.shared_experts or moe.leading_dense_layers:
        return None
    dense = {other.shape.feed_forward: other.cell for other in group if other.experts is None}
    active = dense.get(moe.experts_per_token * moe.feed_forward)
    total = dense.get(moe.experts * moe.feed_forward)
    return None if active is total is None else Step(item.rows, item.cell, active, total)


def _siblings(
    cells: Sequence[CellResult], key: Callable[[ExpertShape], tuple[int, int]], order: Callable[[ExpertShape], int]
) -> Iterator[Sibling]:
    """Mixtures of one key, each beside the first of its group by `order`, where that differs."""
    for group in _alike(cells):
        kin: dict[tuple[int, int], list[tuple[int, Sized]]] = {}
        for item in group:
            if item.experts is not None:
                kin.setdefault(key(item.experts), []).append((order(item.experts), item))
        for members in kin.values():
            (least, first), *others = sorted(members, key=lambda member: member[0])
            for place, other in others:
                if place != least:
                    yield Sibling(first, other, time_ratio(first.cell, other.cell, TOST_CONFIDENCE))


def _over(value: float | None, by: float | None) -> float | None:
    return None if value is None or by is None or by == 0 else value / by
