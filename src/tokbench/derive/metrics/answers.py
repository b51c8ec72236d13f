"""What thinking is worth: right answers gained by larger budgets of thinking tokens."""

from __future__ import annotations

import math

from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.reasoning.answers import Answers, check_decides, find_answers
from tokbench.derive.repetitions import ByPrompt
from tokbench.derive.words import mark, t
from tokbench.units import RATIO, Better

EIGHTFOLD = 8


def _answers(context: CellContext) -> Answers:
    found = find_answers(context.cell)
    check_decides(context.cell)
    return found


@metric(RATIO, Better.HIGHER, mark("Right answers gained per doubling of the thinking budget"), order=96)
def accuracy_per_doubling(context: CellContext) -> Values:
    """Share of right answers gained per doubling of the thinking budget, from the least above 0 to its eightfold.

    Formula: per question, slope of right (0 or 1) over log2(budget) by least squares, over the budgets b to 8 b; the
    mean over questions is plain, its interval is over questions. Budget 0 has no logarithm and is left out.
    """
    found = _answers(context)
    first = min((budget for budget in found.right if budget > 0), default=0)
    within = [budget for budget in found.right if 0 < first <= budget <= EIGHTFOLD * first]
    if EIGHTFOLD * first not in within:
        raise UndefinedError(t("no budget is eight times the smallest one above 0"))
    doublings = [math.log2(budget) for budget in within]
    middle = math.fsum(doublings) / len(doublings)
    spread = math.fsum((x - middle) ** 2 for x in doublings)
    weights = [(x - middle) / spread for x in doublings]
    return ByPrompt(
        math.fsum(weight * found.right[budget][question] for weight, budget in zip(weights, within, strict=True))
        for question in found.right[first]
    )


@metric(RATIO, Better.LOWER, mark("Right answers at the best thinking budget beyond the largest"), order=97)
def accuracy_below_peak(context: CellContext) -> Values:
    """Share of right answers at the best thinking budget beyond that at the largest one.

    Formula: per question, right at the budget with most right answers - right at the largest budget; the largest of
    equals is the best; the mean over questions is plain. The best is chosen on the same questions, which raises it.
    """
    found = _answers(context)
    if len(found.right) < 2:
        raise UndefinedError(t("one budget has no peak"))
    largest = max(found.right)
    best = max(found.right, key=lambda budget: (sum(found.right[budget].values()), budget))
    return ByPrompt(
        float(found.right[best][question]) - float(found.right[largest][question]) for question in found.right[largest]
    )
