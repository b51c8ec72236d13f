"""Measured cells as points of a roofline, and what groups them: all settings but one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from tokbench.derive.bounds.found import Point
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.derive.metrics.roofline import step_bytes, step_flops
from tokbench.record.run import Run
from tokbench.stats import Estimate, t_quantile


def value_of(cell: CellResult, name: str) -> float | None:
    """A metric's value; None where it is missing."""
    found = cell.metrics.get(name)
    return found.value if isinstance(found, Estimate) else None


def step_s(cell: CellResult) -> float | None:
    """Seconds of one decode step of a static batch; None for requests, drafts and cells without a speed."""
    rate, conditions = value_of(cell, "decode_tokens_per_s"), cell.conditions
    is_stepwise = conditions.static_batch is not None and conditions.speculation == "none"
    return 1 / rate if rate is not None and is_stepwise else None


def find_points(results: Results) -> tuple[Point, ...]:
    """Every measured static batch whose bytes and operations can be counted."""
    found = [_point(cell, results.run) for cell in results.cells if cell.status == "ok"]
    return tuple(point for point in found if point is not None)


def _point(cell: CellResult, run: Run) -> Point | None:
    seconds, context = step_s(cell), CellContext(cell.record, run)
    if seconds is None:
        return None
    try:
        return Point(cell, seconds, step_bytes(context), step_flops(context))
    except UndefinedError:
        return None


def alike_but_for(cells: Sequence[CellResult], *path: str) -> list[list[CellResult]]:
    """Cells in groups that differ in the setting at `path` alone; labels and checks outside windows do not count."""
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        tree = cell.record.spec.model_dump(mode="json", exclude={"labels"})
        for check in ("check_tokens", "check_repeat"):
            tree["engine"].pop(check, None)
        branch = tree
        for name in path[:-1]:
            branch = branch[name]
        branch.pop(path[-1], None)
        groups.setdefault(json.dumps(tree, sort_keys=True), []).append(cell)
    return list(groups.values())


class Line:
    """A straight line through points, by least squares."""

    def __init__(self, x: Sequence[float], y: Sequence[float], weights: Sequence[float] | None = None) -> None:
        weights = weights or [1.0] * len(x)
        total = sum(weights)
        mean_x = sum(w * a for w, a in zip(weights, x, strict=True)) / total
        mean_y = sum(w * b for w, b in zip(weights, y, strict=True)) / total
        spread = sum(w * (a - mean_x) ** 2 for w, a in zip(weights, x, strict=True))
        self.slope = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True)) / spread
        self.intercept = mean_y - self.slope * mean_x
        self._spread, self._mean_x, self._total, self._n = spread, mean_x, total, len(x)
        left = sum(w * (b - self.intercept - self.slope * a) ** 2 for w, a, b in zip(weights, x, y, strict=True))
        whole = sum(w * (b - mean_y) ** 2 for w, b in zip(weights, y, strict=True))
        self.r_squared = 1.0 if whole == 0 else 1 - left / whole
        self._left = left

    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """95 % t intervals of intercept and slope; None with fewer than three points."""
        if self._n < 3:
            return None
        quantile, variance = t_quantile(0.975, self._n - 2), self._left / (self._n - 2)
        slope = quantile * math.sqrt(variance / self._spread)
        intercept = quantile * math.sqrt(variance * (1 / self._total + self._mean_x**2 / self._spread))
        return (
            (self.intercept - intercept, self.intercept + intercept),
            (self.slope - slope, self.slope + slope),
        )

    def interval_at(self, x: float) -> tuple[float, float] | None:
        """95 % t interval of the line itself at `x`, however far out; None with fewer than three points."""
        if self._n < 3:
            return None
        variance = self._left / (self._n - 2) * (1 / self._total + (x - self._mean_x) ** 2 / self._spread)
        half, middle = t_quantile(0.975, self._n - 2) * math.sqrt(variance), self.intercept + self.slope * x
        return middle - half, middle + half
