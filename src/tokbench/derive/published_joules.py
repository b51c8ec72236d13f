"""Our joules per token set beside published ones of the same model, each with its scope. Words nothing.

A ratio stands only where `energy_scope` finds a sourced way from one scope to the other; else the reason does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tokbench.derive.energy_scope import Beside, NotComparable, StatedJoules, set_beside, state_ours
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.published import PublishedFigure, model_key
from tokbench.record.facts import Agreement, Difference, differences
from tokbench.stats import Estimate

JOULES = "energy_j_per_output_token"


@dataclasses.dataclass(frozen=True, slots=True)
class JoulesBeside:
    """One cell's joules per output token beside one published figure of the same model."""

    cell: CellResult
    ours: Estimate
    theirs: PublishedFigure
    outcome: Beside | NotComparable
    """Theirs over ours as a range, with what lies between the scopes; or why there is no ratio."""
    differences: tuple[Difference, ...]

    def fields(self, agreement: Agreement) -> tuple[str, ...]:
        """The conditions that are the same, different or unknown."""
        return tuple(row.field for row in self.differences if row.agreement is agreement)


def set_joules_beside(results: Sequence[Results], figures: Sequence[PublishedFigure]) -> tuple[JoulesBeside, ...]:
    """The most economical metered cell of each run and model, beside every published figure of that model.

    One of random weights is taken only where the model's own were not metered. A figure that a later reading replaces
    is left out, and so is a repost.
    """
    published = [row for row in figures if row.metric == JOULES and row.model is not None]
    published = [row for row in published if row.superseded_by is None and row.repeats is None]
    rows: list[JoulesBeside] = []
    for cell, value in _most_economical(results):
        for figure in published:
            if model_key(figure.model or "") == model_key(cell.conditions.model or ""):
                rows.append(_beside(cell, value, figure))
    return tuple(rows)


def _most_economical(results: Sequence[Results]) -> list[tuple[CellResult, Estimate]]:
    best: dict[tuple[str, str | None], tuple[CellResult, Estimate]] = {}
    for item in results:
        for cell in item.cells:
            value = cell.metrics.get(JOULES)
            if not isinstance(value, Estimate) or cell.validity.verdict == "invalid":
                continue
            key = (cell.run_name, cell.conditions.model)
            if key not in best or _rank(cell, value) < _rank(*best[key]):
                best[key] = (cell, value)
    return list(best.values())


def _rank(cell: CellResult, value: Estimate) -> tuple[bool, float]:
    return cell.conditions.weights == "random", value.value


def _beside(cell: CellResult, value: Estimate, figure: PublishedFigure) -> JoulesBeside:
    ours = state_ours(cell.energy, value.value)
    theirs = StatedJoules(figure.value, figure.energy_scope)
    outcome = ours if isinstance(ours, NotComparable) else set_beside(ours, theirs, cell.conditions.hardware)
    return JoulesBeside(cell, value, figure, outcome, differences(cell.conditions, figure.conditions()))
