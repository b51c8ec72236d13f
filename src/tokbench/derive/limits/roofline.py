"""Where each cell lies under the measured roofs: operations per byte, and operations per second."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.limits.alike import measured_steps, step_of
from tokbench.derive.standing import estimate_of


class Roof(NamedTuple):
    """What the device can do at most for some cells, as measured in the run."""

    read_bytes_per_s: float
    matmul_flops_per_s: float

    @property
    def ridge(self) -> float:
        """Operations per byte above which computing takes longer than reading."""
        return self.matmul_flops_per_s / self.read_bytes_per_s


class Placed(NamedTuple):
    """One cell on the plot."""

    cell: CellResult
    flops_per_byte: float
    flops_per_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Roofline:
    """The roofs of a run and the cells under them; both empty where no ceiling was measured."""

    roofs: tuple[Roof, ...]
    cells: tuple[Placed, ...]


def place_cells(results: Results) -> Roofline:
    """Every cell that has both shares, and the distinct roofs above them.

    Formula: flops_per_s = flops_used_ratio * matmul_flops_per_s; flops_per_byte = flops_per_s * step / bytes per step.
    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
    """
    roofs: dict[Roof, None] = {}
    placed: list[Placed] = []
    for cell in measured_steps(results.cells):
        names = ("flops_used_ratio", "matmul_flops_per_s", "read_bytes_per_s", "bytes_read_per_step")
        values = [value.value for name in names if (value := estimate_of(cell, name)) is not None]
        if len(values) == len(names):
            used, matmul, read, size = values
            roofs.setdefault(Roof(read, matmul))
            placed.append(Placed(cell, used * matmul * step_of(cell) / size, used * matmul))
    return Roofline(tuple(roofs), tuple(placed))
