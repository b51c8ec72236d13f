"""Which cells still need repetitions: counts, rates and failures so far. It steers; nothing in it is a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tokbench.record import timings
from tokbench.record.observations import Event, RequestTrace, StepTrace
from tokbench.record.run import Run
from tokbench.record.spec import StopSpec
from tokbench.stats import StopRule

MAX_FAILURES = 2
"""A cell that failed so often is not tried again; one out-of-memory is enough."""


@dataclasses.dataclass(slots=True)
class Account:
    """One cell's standing."""

    rates: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """Decode tokens per second and user of the repetitions that have one, by worker process."""
    repetitions: int = 0
    failures: int = 0
    is_closed: bool = False
    trial_s: float | None = None
    """Wall time of the last repetition."""
    visit_s: float | None = None
    """Wall time of the last visit, preparation and warm-up included, loading the weights left out."""
    once_s: float | None = None
    """Shortest wall time so far of a warm-up and the repetition behind it."""
    cold_s: float = 0.0
    """Seconds of compiling when the cell was last prepared in a worker process for the first time."""
    prepared_in: str | None = None
    """The worker process that the cell was last prepared in: what it has compiled it need not compile again."""


class Ledger:
    """The accounts of all cells."""

    def __init__(self, cell_ids: list[str], stop: StopSpec) -> None:
        self.accounts = {cell_id: Account() for cell_id in cell_ids}
        self._rule = StopRule(stop.rel_ci, stop.min_repetitions, stop.max_repetitions, stop.blocks)

    def load(self, run: Run) -> None:
        """Take over what an earlier part of the same run finished.

        A cell stays closed where its own trials closed it. One that was only skipped (no worker, no budget, predicted
        not to fit) is tried again.
        """
        for cell_id, cell in run.cells.items():
            account = self.accounts.get(cell_id)
            if account is None:
                continue
            for trial in cell.good_trials():
                steps = [trace for window in trial.of_kind("decode") for trace in window.steps]
                self.count(cell_id, trial.started.worker_id, _rate(steps, trial.requests))
            failures = [trial.failed for trial in cell.trials if trial.failed is not None]
            account.failures = len(failures)
            did_not_fit = any(failure.cause == "oom" for failure in failures)
            account.is_closed = did_not_fit or account.failures >= MAX_FAILURES

    def count(self, cell_id: str, worker_id: str, rate: float | None) -> None:
        """One more repetition in a worker process."""
        account = self.accounts[cell_id]
        account.repetitions += 1
        rates = account.rates.setdefault(worker_id, [])
        if rate is not None:
            rates.append(rate)

    def fail(self, cell_id: str, cause: str) -> bool:
        """One more failure; True if the cell is not to be tried again."""
        account = self.accounts[cell_id]
        account.failures += 1
        account.is_closed = cause == "oom" or account.failures >= MAX_FAILURES
        return account.is_closed

    def visit_s(self, account: Account) -> float:
        """Seconds that a visit takes without compiling: as the last time, nothing where there was none."""
        return 0.0 if account.visit_s is None else account.visit_s

    def missing(self, account: Account) -> int:
        """Repetitions until the stop rule may be met."""
        return max(self._rule.min_repetitions - account.repetitions, self.missing_blocks(account), 1)

    def missing_blocks(self, account: Account) -> int:
        """Fresh worker processes that the cell has still to be measured in."""
        return max(self._rule.min_blocks - len(account.rates), 0)

    def most(self, cell_id: str, worker_id: str, limit: int) -> int:
        """Repetitions that a visit in a worker process may have, at least 1: `limit`, or less to leave some to others.

        While further processes are needed, a visit takes its share of the repetitions that must be (two, so that
        the spread within a process can be told), and never more than its share of those that may be.
        """
        account = self.accounts[cell_id]
        processes = len({*account.rates, worker_id})
        later = max(self._rule.min_blocks - processes, 0)
        if later > 0:
            limit = min(limit, max(math.ceil(self._rule.min_repetitions / self._rule.min_blocks), 2))
        return max(min(limit, math.ceil((self._rule.max_repetitions - account.repetitions) / (later + 1))), 1)

    def wants(self, cell_id: str) -> bool:
        """Whether the stop rule asks for more."""
        account = self.accounts[cell_id]
        if account.is_closed or account.repetitions >= self._rule.max_repetitions:
            return False
        known = [rates for rates in account.rates.values() if rates]
        return not (known and self._rule.is_met(known))


def rate_of(events: list[Event]) -> float | None:
    """Decode tokens per second and user of one repetition's events; None without a duration."""
    steps = [event for event in events if isinstance(event, StepTrace) and event.window_id.endswith("/decode")]
    return _rate(steps, [event for event in events if isinstance(event, RequestTrace)])


def _rate(steps: Sequence[StepTrace], requests: Sequence[RequestTrace]) -> float | None:
    if steps:
        return timings.decode_rate_per_row(steps)
    known = [(trace, span) for trace in requests if (span := timings.request_decode_s(trace)) is not None]
    seconds = sum(span for _, span in known)
    tokens = sum(timings.request_decode_tokens(trace) for trace, _ in known)
    return tokens / seconds if seconds > 0 else None
