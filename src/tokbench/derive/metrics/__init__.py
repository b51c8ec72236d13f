"""The socket of metrics: a metric is ONE function of a cell, defined nowhere else.

Every module in this folder holds functions marked with `@metric`; `catalog()` lists them by name. A function returns
one value per repetition, or raises `UndefinedError(reason)` where the value cannot be had: never 0, never a guess.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence

from tokbench.derive.energy.rows import CellEnergy, find_energy
from tokbench.derive.repetitions import UndefinedError, sorted_gaps_s
from tokbench.record.run import CellRecord, Run
from tokbench.units import Better, Unit, check_suffix

__all__ = ["METRICS_VERSION", "CellContext", "Metric", "UndefinedError", "Values", "catalog", "metric"]

METRICS_VERSION = 7
"""Raised whenever a formula changes; see CHANGELOG, Numbers that change meaning."""


@dataclasses.dataclass(frozen=True)
class CellContext:
    """What a metric may look at: the cell and the run around it."""

    cell: CellRecord
    run: Run

    @functools.cached_property
    def energy(self) -> CellEnergy:
        """What the meters say of the cell: read once for all metrics."""
        return find_energy(self.run, self.cell)

    @functools.cached_property
    def gaps_s(self) -> list[list[float]]:
        """Times between neighbouring decode stamps, shortest first, one list per repetition: had once for all metrics.

        Raises:
            UndefinedError: no repetition, or its stamps are not one per token.
        """
        return sorted_gaps_s(self.cell)


Values = Sequence[float]
Compute = Callable[[CellContext], Values]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One quantity: how it is had, its unit, which way is better."""

    name: str
    unit: Unit
    better: Better
    title: str
    formula: str
    compute: Compute
    is_exact: bool
    """A size or count that does not vary between repetitions: shown without an interval."""
    order: int


def metric(
    unit: Unit, better: Better, title: str, *, order: int, is_exact: bool = False
) -> Callable[[Compute], Metric]:
    """Turn a function into the one definition of the metric of its name.

    Raises:
        ValueError: the name does not end in the unit, or the docstring lacks its `Formula:` line.
    """

    def define(function: Compute) -> Metric:
        check_suffix(f"_{function.__name__}", unit)
        _, separator, formula = inspect.cleandoc(function.__doc__ or "").partition("Formula:")
        if not separator:
            raise ValueError(f"metric {function.__name__} has no Formula: line")
        formula = " ".join(formula.split("\n\n")[0].split())
        return Metric(function.__name__, unit, better, title, formula, function, is_exact, order)

    return define


@functools.cache
def catalog() -> dict[str, Metric]:
    """Every metric by name, in the order in which reports show them."""
    found: list[Metric] = []
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        metrics = [value for value in vars(module).values() if isinstance(value, Metric)]
        found += [item for item in metrics if item.compute.__module__ == module.__name__]
    names = [item.name for item in found]
    if len(set(names)) != len(names):
        raise ValueError(f"a metric is defined twice: {sorted(names)}")
    return {item.name: item for item in sorted(found, key=lambda item: item.order)}
