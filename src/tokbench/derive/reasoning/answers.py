"""Right answers by question and budget of thinking tokens, as the experiment `answers` counted them."""

from __future__ import annotations

from typing import NamedTuple

from tokbench.derive.repetitions import UndefinedError, finished_trials
from tokbench.derive.words import t
from tokbench.record.probes import ExperimentPoint
from tokbench.record.run import CellRecord
from tokbench.units import format_number

LEAST_PARAMETERS = 1.5e9
"""A smaller model cannot decide whether thinking helps. Source: shared/data/experiments.md, X6."""
BILLION = 1e9


class Answers(NamedTuple):
    """One task: which questions were answered right with which budget."""

    task: str
    right: dict[int, dict[str, bool]]
    """By budget in tokens, smallest first; then by question."""
    thinking_tokens: dict[int, float]
    """Mean tokens that were really thought under each budget: a model may end earlier."""


def find_answers(cell: CellRecord) -> Answers:
    """What the first repetition counted; the others repeat it, since answers are greedy.

    Raises:
        UndefinedError: the cell asks no questions, or no repetition came to its end.
    """
    experiment = cell.spec.experiment
    if experiment == "none" or experiment.kind != "answers":
        raise UndefinedError(t("the cell has no experiment answers"))
    points = [point for point in finished_trials(cell)[0].points if point.settings.get("phase") == "answer"]
    if not points:
        raise UndefinedError(t("no question was answered"))
    by_budget = sorted((int(point.settings["budget"]), point) for point in points)
    return Answers(
        str(points[0].settings["task"]),
        {budget: {name: bool(value) for name, value in _named(point, "right.")} for budget, point in by_budget},
        {budget: _mean([value for _, value in _named(point, "thinking.")]) for budget, point in by_budget},
    )


def _named(point: ExperimentPoint, prefix: str) -> list[tuple[str, float]]:
    return [(name.removeprefix(prefix), v) for name, v in point.values.items() if name.startswith(prefix)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def check_decides(cell: CellRecord) -> None:
    """Refuse a model whose answers decide nothing.

    Raises:
        UndefinedError: random weights, or fewer than 1.5 billion parameters.
    """
    model = cell.model
    if model is None or model.weights != "pretrained":
        raise UndefinedError(t("weights that were not trained answer nothing"))
    if (model.parameters or 0) < LEAST_PARAMETERS:
        raise UndefinedError(
            t(
                "{parameters} billion parameters show the plumbing and the cost; what thinking is worth takes a model "
                "of {least} billion or more",
                parameters=format_number((model.parameters or 0) / BILLION),
                least=format_number(LEAST_PARAMETERS / BILLION, 2),
            )
        )
