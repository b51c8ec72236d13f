"""What the device wrote down of a window's rounds, as the socket's `Round` and `Step`. Computes nothing from them."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.errors import TrialError
from tokbench.measure.engines import Round, Step
from tokbench.measure.engines.transformers.drafting import METHODS
from tokbench.measure.engines.transformers.drafting.cuts import EventCuts, HostCuts

Line = Sequence[Sequence[int]]
"""One round: drafted, accepted, emitted and position of every row."""


def check_gamma(log: Sequence[Line], gamma: int, method: str) -> None:
    """Refuse rounds in which a row that was not finished got another number of drafts than γ.

    A method that copies may find fewer. No round is shortened at a row's end: what lies beyond is verified and dropped.

    Raises:
        TrialError: the row, and what it got.
    """
    for number, line in enumerate(log):
        for row, (drafted, _, emitted, _) in enumerate(line):
            is_short = drafted < gamma and not METHODS[method].is_point_mass
            if emitted and (drafted > gamma or is_short):
                said = f"round {number} drafted {drafted} tokens for row {row}, not {gamma}"
                raise TrialError(f"speculation {method!r}: {said}", cause="engine")


def rounds_of(log: Sequence[Line], cuts: HostCuts | EventCuts, stamps: Sequence[int]) -> list[Step]:
    """A step for each round, stamped where its verification ended.

    Between two stamps lie what is neither drafting nor verification, then the drafts, then verification.
    """
    parts = cuts.seconds()
    at_ns = cuts.at_ns[3::3] if isinstance(cuts, HostCuts) else stamps
    steps = []
    for number, line in enumerate(log):
        drafted, accepted, emitted, position = (tuple(column) for column in zip(*line, strict=True))
        other_s, draft_s, verify_s = parts[3 * number : 3 * number + 3]
        found = Round(drafted, accepted, emitted, position, draft_s, verify_s, other_s)
        steps.append(Step(at_ns[number], min(emitted), found))
    return steps
