"""One cell's turn in a block: prepare, warm up, repeat; and what becomes of it when that fails. It orders nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from tokbench.measure.budget import Budget
from tokbench.measure.crew import Crew, GroupLostError
from tokbench.measure.energy_trial import EnergySource, lost_before, why_no_time, window_lengths
from tokbench.measure.handover import draft_weights
from tokbench.measure.ledger import Account, Ledger, rate_of
from tokbench.measure.messages import Failed, PrepareCell, RunEnergy, RunTrial, WarmUp
from tokbench.measure.order import Turn
from tokbench.measure.plan import Plan, PlannedCell
from tokbench.measure.progress import Progress
from tokbench.measure.worker_process import Worker
from tokbench.record.blocks import Purpose
from tokbench.record.observations import (
    CellSkipped,
    Event,
    FailureCause,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from tokbench.record.run import Run
from tokbench.record.store import RunWriter

VISIT_S, APART_VISIT_S = 4.0, 20.0
MAX_TRIALS_PER_VISIT, APART_MAX_TRIALS_PER_VISIT = 3, 10
"""A visit repeats a short cell up to this often, so that warm-up does not outweigh measuring; groups that do not fit in
memory together cost a reload each time, and stay longer."""
GPU_TOLERANCE, CPU_TOLERANCE = 0.01, 0.05
"""How far the last warm-up samples may lie apart. Source: shared/data/experiments.md, 0.3; 5 % on a shared CPU."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """A cell in the worker that its turn is taken in."""

    turn: Turn
    worker: Worker
    block: int
    purpose: Purpose

    @property
    def planned(self) -> PlannedCell:
        """The cell."""
        return self.turn.planned


class Visitor:
    """Visits cells, keeps their accounts and writes what happened."""

    def __init__(self, plan: Plan, writer: RunWriter, crew: Crew, ledger: Ledger, progress: Progress) -> None:
        self._plan = plan
        self._spec = plan.config.run
        self._writer = writer
        self._crew = crew
        self._ledger = ledger
        self._progress = progress
        self.budget = Budget(self._spec.budget, crew)
        self._checked_groups: set[str] = set()
        self._repeated_cells: set[str] = set()
        self._order = 0
        self._sentinels = 0
        self.is_sentinel_lost = False
        """Whether a sentinel failed: the run goes on without one."""
        self.energy: EnergySource | None = None
        """The meters; None where none are read."""
        self._energy_trials = 0
        self._without_energy: set[str] = set()
        """Cells whose energy trial failed, in an earlier part of the run too: they have no further one."""
        self.failed = 0
        self.lost: set[str] = set()

    def take_over(self, earlier: Run) -> None:
        """Go on where an earlier part of the run ended."""
        cells = earlier.cells.values()
        trials = [trial.started for cell in cells for trial in cell.all_trials()]
        self._order = max((started.order + 1 for started in trials), default=0)
        self._sentinels = sum(started.purpose == "sentinel" for started in trials)
        self._energy_trials = sum(started.purpose == "energy" for started in trials)
        self._without_energy = lost_before(earlier)
        self._checked_groups = {cell.planned.group for cell in cells if cell.identity}
        self._repeated_cells = {cell.cell_id for cell in cells if cell.repeats}

    def visit(self, turn: Turn, block: int, *, is_long: bool) -> None:
        """Prepare, warm up and repeat one cell."""
        attempt = self._begin(turn, block, "measure")
        if attempt is None:
            return
        account = self._account(turn.planned)
        begun, cold_before = time.monotonic(), self._crew.cold_s
        if not self._prepare(attempt):
            return
        limit_s, limit = (APART_VISIT_S, APART_MAX_TRIALS_PER_VISIT) if is_long else (VISIT_S, MAX_TRIALS_PER_VISIT)
        limit = self._ledger.most(turn.cell_id, attempt.worker.worker_id, limit)
        prepared, done = time.monotonic(), 0
        while done == 0 or (
            done < limit
            and account.trial_s is not None
            and (done + 1) * account.trial_s < limit_s
            and self._ledger.wants(turn.cell_id)
        ):
            if not self._trial(attempt, with_warmup=done == 0):
                return
            done += 1
            if done == 1:
                once_s = time.monotonic() - prepared
                account.once_s = once_s if account.once_s is None else min(once_s, account.once_s)
        self._measure_energy(dataclasses.replace(attempt, purpose="energy"))
        account.visit_s = time.monotonic() - begun - (self._crew.cold_s - cold_before)

    def watch(self, turn: Turn, block: int) -> None:
        """One repetition of the sentinel: recorded, counted nowhere."""
        attempt = self._begin(turn, block, "sentinel")
        if attempt is not None and self._prepare(attempt):
            self._trial(attempt, with_warmup=True)

    def _begin(self, turn: Turn, block: int, purpose: Purpose) -> Attempt | None:
        try:
            worker = self._crew.worker(turn.group, self.budget.open_limit_s())
        except GroupLostError as lost:
            self._lose_group(turn, block, lost)
            return None
        return Attempt(turn, worker, block, purpose)

    def _account(self, cell: PlannedCell) -> Account:
        return self._ledger.accounts[cell.cell.cell_id]

    def _prepare(self, attempt: Attempt) -> bool:
        cell, group = attempt.planned.cell, attempt.turn.group.group
        command = PrepareCell(
            cell_id=cell.cell_id,
            spec=cell.spec,
            seed=self._spec.seed,
            check_identity=group not in self._checked_groups and cell.spec.engine.check_tokens > 0,
            check_repeat=cell.cell_id not in self._repeated_cells and cell.spec.engine.check_repeat,
            draft=draft_weights(attempt.planned.draft),
        )
        cold_before = self._crew.cold_s
        failure = self._crew.ask(attempt.worker, command, self.budget.open_limit_s())
        if isinstance(failure, Failed):
            self._lose(attempt, failure, self._start_trial(attempt))
            return False
        account = self._account(attempt.planned)
        if account.prepared_in != attempt.worker.worker_id:
            account.cold_s, account.prepared_in = self._crew.cold_s - cold_before, attempt.worker.worker_id
        self._checked_groups.add(group)
        self._repeated_cells.add(cell.cell_id)
        return True

    def _start_trial(self, attempt: Attempt) -> str:
        return self._write_start(attempt.turn, attempt.block, attempt.worker.worker_id, attempt.purpose)

    def _write_start(self, turn: Turn, block: int, worker_id: str, purpose: Purpose) -> str:
        trial_id = f"{turn.cell_id}-{self._order}"
        numbers = {"sentinel": self._sentinels, "energy": self._energy_trials}
        self._writer.append(
            TrialStarted(
                trial_id=trial_id,
                cell_id=turn.cell_id,
                repetition=numbers.get(purpose, self._account(turn.planned).repetitions),
                block=block,
                order=self._order,
                worker_id=worker_id,
                at_ns=time.monotonic_ns(),
                purpose=purpose,
            )
        )
        self._order += 1
        self._sentinels += purpose == "sentinel"
        self._energy_trials += purpose == "energy"
        return trial_id

    def _trial(self, attempt: Attempt, *, with_warmup: bool) -> bool:
        account, is_counted = self._account(attempt.planned), attempt.purpose == "measure"
        trial_id = self._start_trial(attempt)
        is_steady: bool | None = None
        if with_warmup:
            warmed = self._crew.ask(attempt.worker, self._warm_up(trial_id), self.budget.trial_limit_s())
            if isinstance(warmed, Failed):
                self._lose(attempt, warmed, trial_id)
                return False
            is_steady = warmed.is_steady
        begun = time.monotonic()
        events: list[Event] = []
        has_own_prompts = attempt.planned.cell.spec.workload.kind == "task"
        command = RunTrial(
            trial_id=trial_id,
            keep_tokens=is_counted and (has_own_prompts or account.repetitions == 0),
            seed=self._spec.seed,
            repetition=account.repetitions if is_counted else 0,
        )
        is_window = attempt.planned.cell.spec.load.kind != "static_batch"
        with self._close_looks() if is_window else contextlib.nullcontext():
            answer = self._crew.ask(attempt.worker, command, self.budget.trial_limit_s(), events)
        if isinstance(answer, Failed):
            self._lose(attempt, answer, trial_id)
            return False
        took_s = time.monotonic() - begun
        self._writer.append(TrialFinished(trial_id=trial_id, at_ns=time.monotonic_ns(), is_steady=is_steady))
        self._writer.sync()
        if is_counted:
            account.trial_s = took_s
            rate = rate_of(events)
            self._ledger.count(attempt.turn.cell_id, attempt.worker.worker_id, rate)
            self._progress.end_trial(attempt.planned, rate, account.repetitions)
        return True

    def _measure_energy(self, attempt: Attempt) -> None:
        """Windows that are long enough for the meters, where any can be read; a failure costs these alone."""
        if self.energy is None or not self.energy.has_meters() or attempt.turn.cell_id in self._without_energy:
            return
        lengths = window_lengths(self._spec.energy, self.energy.period_s(), is_gpu=self._is_gpu)
        has_work = attempt.planned.cell.spec.load.kind == "static_batch"
        needed_s = lengths.total_s(self._account(attempt.planned).trial_s, has_work=has_work)
        trial_id = self._start_trial(attempt)
        reason = why_no_time(needed_s, self.budget.left_s(), self._spec.budget.trial)
        if reason is not None:
            self._leave_out(attempt, trial_id, reason)
            return
        command = RunEnergy(trial_id=trial_id, idle_s=lengths.idle_s, window_s=lengths.window_s)
        with self._close_looks():
            answer = self._crew.ask(attempt.worker, command, self.budget.trial_limit_s())
        if isinstance(answer, Failed):
            self._lose(attempt, answer, trial_id)
            return
        self._writer.append(TrialFinished(trial_id=trial_id, at_ns=time.monotonic_ns()))
        self._writer.sync()

    @contextlib.contextmanager
    def _close_looks(self) -> Iterator[None]:
        """The sampler looks closely at the counters meanwhile."""
        if self.energy is None:
            yield
            return
        self.energy.begin_energy()
        try:
            yield
        finally:
            self.energy.end_energy()

    @property
    def _is_gpu(self) -> bool:
        return self._plan.device.kind in ("cuda", "rocm")

    def _warm_up(self, trial_id: str) -> WarmUp:
        return WarmUp(
            trial_id=trial_id,
            tolerance=GPU_TOLERANCE if self._is_gpu else CPU_TOLERANCE,
            cap_s=self._spec.stop.warmup_cap,
        )

    def _lose(self, attempt: Attempt, failure: Failed, trial_id: str) -> None:
        """Record a failed trial and end the worker; the next visit opens another."""
        self._fail(attempt.planned, failure, trial_id)
        if attempt.purpose == "sentinel":
            self.is_sentinel_lost = True
        elif attempt.purpose == "energy":
            self._without_energy.add(attempt.turn.cell_id)
        elif self._ledger.fail(attempt.turn.cell_id, failure.cause) or failure.is_refusal:
            self.close(attempt.planned, failure.cause, failure.text)
        self._writer.sync()
        self._progress.note(f"{failure.cause}: {failure.text}")
        self._crew.drop(attempt.turn.group)

    def _lose_group(self, turn: Turn, block: int, lost: GroupLostError) -> None:
        """The worker cannot be opened: one failed trial, and no cell of the group is tried again in this run."""
        self._fail(turn.planned, lost.failure, self._write_start(turn, block, lost.worker_id, "measure"))
        for member in turn.group.cells:
            if not self._account(member).is_closed:
                self.skip(member, lost.failure.cause, lost.failure.text)  # said of those with repetitions too
                self.close(member, lost.failure.cause, lost.failure.text, is_told=True)
        self._writer.sync()
        self._progress.note(f"{lost.failure.cause}: {lost.failure.text}")

    def _leave_out(self, attempt: Attempt, trial_id: str, reason: str) -> None:
        """A trial that does not take place, and why: what it would have given is missing with that reason."""
        self._write_failure(attempt.planned, Failed(cause="skipped", text=reason), trial_id)

    def _fail(self, planned: PlannedCell, failure: Failed, trial_id: str) -> None:
        self.failed += 1
        self._write_failure(planned, failure, trial_id)

    def _write_failure(self, planned: PlannedCell, failure: Failed, trial_id: str) -> None:
        self._writer.append(
            TrialFailed(
                trial_id=trial_id,
                cell_id=planned.cell.cell_id,
                at_ns=time.monotonic_ns(),
                cause=failure.cause,
                message=failure.text,
                traceback=failure.traceback,
            )
        )

    def close(self, planned: PlannedCell, cause: FailureCause, reason: str, *, is_told: bool = False) -> None:
        """Try a cell no more; a cell without a result says why."""
        account = self._account(planned)
        account.is_closed = True
        if account.repetitions == 0:
            if not is_told:
                self.skip(planned, cause, reason)
            self.lost.add(planned.cell.cell_id)

    def skip(self, planned: PlannedCell, cause: FailureCause, reason: str) -> None:
        """A cell has no turn, and why."""
        self._writer.append(
            CellSkipped(cell_id=planned.cell.cell_id, cause=cause, reason=reason, at_ns=time.monotonic_ns())
        )
