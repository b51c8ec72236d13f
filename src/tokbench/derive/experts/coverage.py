"""Distinct experts per step beside what the law of the routing expects, and decode with experts left in host memory."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence

from tokbench.arithmetic import ExpertShape, expected_distinct_experts
from tokbench.arithmetic.experts import correlated_distinct_experts, zipf_distinct_experts
from tokbench.derive.evaluate import CellResult
from tokbench.derive.experts.families import Sized, size_cells, value_of
from tokbench.derive.experts.touches import Routing, resident_share, routing_of, without_offloading
from tokbench.stats import Estimate

OWN = "own"


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """What one cell's steps touched."""

    item: Sized
    experts: ExpertShape
    routing: Routing
    distinct: float
    error: float | None
    """Standard error of `distinct`, layers and steps taken as independent; None with fewer than two of them."""
    looked_at: int
    """Layers times steps."""
    expected: float
    """By the law that selections were drawn from; for the model's own routers by the even one."""

    @property
    def even(self) -> float:
        """What even and independent routing expects."""
        return expected_distinct_experts(self.experts.experts, self.experts.experts_per_token, self.item.rows)

    @property
    def errors_off(self) -> float | None:
        """How many standard errors lie between the count and what is expected; None where no error is known."""
        return (self.distinct - self.expected) / self.error if self.error else None


@dataclasses.dataclass(frozen=True, slots=True)
class Offloaded:
    """A cell with a share of its experts on the device."""

    cell: CellResult
    share: float
    speed: Estimate
    copied_bytes: float | None
    """Per step; None where it was not told, 0 with all experts resident."""

    @property
    def copied_bytes_per_s(self) -> float | None:
        """At the speed of decode."""
        step_s = value_of(self.cell, "tpot_s")
        return None if self.copied_bytes is None or not step_s else self.copied_bytes / step_s


def expected_distinct(experts: ExpertShape, routing: Routing) -> Callable[[int], float]:
    """Distinct experts over the number of rows, by the law of the routing; even for the model's own routers."""
    sizes = experts.experts, experts.experts_per_token
    if routing.kind == "zipf":
        return lambda rows: zipf_distinct_experts(*sizes, rows, routing.skew)
    if routing.kind == "correlated":
        return lambda rows: correlated_distinct_experts(*sizes, rows, routing.skew)
    return lambda rows: expected_distinct_experts(*sizes, rows)


def find_coverage(cells: Sequence[CellResult]) -> list[Coverage]:
    """Every cell whose steps were looked at, by model, routing and rows; the same selections are shown once."""
    found: dict[tuple[str, str, Routing, int], Coverage] = {}
    for item in size_cells(cells):
        moe = item.experts
        touches = [trial.experts for trial in item.cell.record.good_trials() if trial.experts]
        if moe is None or not touches or resident_share(item.cell.record.spec) != 1.0:
            continue
        counts = [float(count) for layer in touches[-1] for count in layer.distinct]
        routing = routing_of(item.cell.record.spec)
        error = statistics.stdev(counts) / math.sqrt(len(counts)) if len(counts) > 1 else None
        law = expected_distinct(moe, routing)
        key = (item.cell.run_name, item.shape.name, routing, item.rows)
        coverage = Coverage(item, moe, routing, statistics.fmean(counts), error, len(counts), law(item.rows))
        found.setdefault(key, coverage)
    return [found[key] for key in sorted(found)]


def find_offloaded(cells: Sequence[CellResult]) -> list[list[Offloaded]]:
    """Cells that differ in the share of resident experts alone, the largest share first; two shares at least."""
    groups: dict[str, list[Offloaded]] = {}
    for item in size_cells(cells):
        spec, speed = item.cell.record.spec, item.cell.metrics.get("decode_tokens_per_s")
        if item.experts is None or not isinstance(speed, Estimate):
            continue
        share = resident_share(spec)
        copied = 0.0 if share == 1.0 else value_of(item.cell, "copied_expert_bytes")
        key = f"{item.cell.run_name} {without_offloading(spec).model_dump_json()}"
        groups.setdefault(key, []).append(Offloaded(item.cell, share, speed, copied))
    kept = [group for group in groups.values() if len({one.share for one in group}) > 1]
    return [sorted(group, key=lambda one: -one.share) for group in kept]
