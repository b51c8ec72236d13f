"""How much time a run has left, and what that lets a command take. It orders nothing."""

from __future__ import annotations

import time

from tokbench.measure.crew import Crew
from tokbench.record.spec import BudgetSpec

TRIAL_FLOOR_S, OPEN_FLOOR_S = 60.0, 300.0
"""What a trial, and what loading or compiling, may take where the budget ends sooner: it is overrun by no more."""


class Budget:
    """The clock of one run; it starts when this is made."""

    def __init__(self, spec: BudgetSpec, crew: Crew) -> None:
        self._spec = spec
        self._crew = crew
        self._started = time.monotonic()

    def left_s(self) -> float:
        """Seconds that are left; loading and compiling do not count up to `budget.cold`."""
        return self._spec.total - (time.monotonic() - self._started - min(self._crew.cold_s, self._spec.cold))

    def cold_left_s(self) -> float:
        """Seconds of loading and compiling that still come on top."""
        return max(self._spec.cold - self._crew.cold_s, 0.0)

    def pays(self, warm_s: float, cold_s: float) -> bool:
        """Whether so much measuring, with so much loading and compiling, is likely to end in time."""
        return self.left_s() > warm_s + max(cold_s - self.cold_left_s(), 0.0)

    def trial_limit_s(self) -> float:
        """Seconds that a trial may take: no more than is left, but for a floor."""
        return min(self._spec.trial, max(self.left_s(), TRIAL_FLOOR_S))

    def open_limit_s(self) -> float:
        """The same for loading and compiling, which `budget.cold` gives more time."""
        return min(self._spec.open, max(self.left_s() + self.cold_left_s(), OPEN_FLOOR_S))
