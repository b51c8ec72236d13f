"""Runs a plan: a coarse pass over all cells, then refinement until the stop rule or the budget ends it.

It appends to the record and computes no result. A failed trial costs that trial; the worker is replaced and the run
goes on. Cells are visited in random order inside their group, groups alternate where they fit side by side.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from typing import Literal

from tokbench.measure.crew import Crew, GroupLostError, OpenWorker
from tokbench.measure.ledger import Account, Ledger, rate_of
from tokbench.measure.messages import Failed, PrepareCell, RunTrial, WarmUp
from tokbench.measure.order import coarse_value, tiers
from tokbench.measure.plan import GroupPlan, Plan, PlannedCell
from tokbench.measure.progress import Progress
from tokbench.measure.worker_process import Worker
from tokbench.record.observations import (
    CellPlanned,
    CellSkipped,
    Event,
    FailureCause,
    RunEnded,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from tokbench.record.run import Run
from tokbench.record.store import RunWriter

VISIT_S, APART_VISIT_S = 2.0, 20.0
MAX_TRIALS_PER_VISIT, APART_MAX_TRIALS_PER_VISIT = 3, 10
"""A visit repeats a short cell up to this often, so that warm-up does not outweigh measuring; groups that do not fit in
memory together cost a reload each time, and stay longer."""
GPU_TOLERANCE, CPU_TOLERANCE = 0.01, 0.05
"""How far the last warm-up samples may lie apart. Source: shared/data/experiments.md, 0.3; 5 % on a shared CPU."""
TRIAL_FLOOR_S, OPEN_FLOOR_S = 60.0, 300.0
"""What a trial, and what loading or compiling, may take where the budget ends sooner: it is overrun by no more."""

EndReason = Literal["complete", "budget"]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    reason: EndReason
    failed_trials: int
    lost_cells: int
    """Cells that cannot be measured here; those that the budget left out are not lost."""


class Runner:
    """One run of one plan."""

    def __init__(
        self,
        plan: Plan,
        writer: RunWriter,
        open_worker: OpenWorker,
        progress: Progress,
        on_block: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._spec = plan.config.run
        self._writer = writer
        self.crew = Crew(plan, writer, open_worker, progress)
        self._progress = progress
        self._on_block = on_block
        self._checked_groups: set[str] = set()
        self._repeated_cells: set[str] = set()
        self._ledger = Ledger([cell.cell.cell_id for cell in plan.cells()], self._spec.stop)
        self._order = 0
        self._first_block = 0
        self._failed = 0
        self._lost: set[str] = set()
        self._started = time.monotonic()

    def left_s(self) -> float:
        """Seconds of the budget that are left; loading and compiling do not count up to `budget.cold`."""
        spent = time.monotonic() - self._started - min(self.crew.cold_s, self._spec.budget.cold)
        return self._spec.budget.total - spent

    def eta_s(self) -> float:
        """Seconds until the stop rule or the budget ends the run, from the visits so far; a rough figure."""
        accounts = [self._account(cell) for cell in self._plan.cells() if self._ledger.wants(cell.cell.cell_id)]
        known = [account.visit_s for account in accounts if account.visit_s is not None]
        usual = sum(known) / len(known) if known else None
        if usual is None:
            return self.left_s()
        needed = sum(self._ledger.missing(account) * (account.visit_s or usual) for account in accounts)
        return min(self.left_s(), needed)

    def run(self, earlier: Run | None = None) -> Outcome:
        """Measure everything that is missing.

        Raises:
            RecordError: the record cannot be written. PlugError: no group could be opened at all.
        """
        self._announce(earlier)
        try:
            reason = self._blocks()
        finally:
            self.crew.close()
        self._writer.append(RunEnded(reason=reason, at_ns=time.monotonic_ns()))
        self._writer.sync()
        return Outcome(reason, self._failed, len(self._lost))

    def _announce(self, earlier: Run | None) -> None:
        plan = self._plan
        for facts in plan.facts(time.monotonic_ns()):
            self._writer.append(facts)
        if earlier is not None:
            self._ledger.load(earlier)
            trials = [trial.started for cell in earlier.cells.values() for trial in cell.trials]
            self._order = max((started.order + 1 for started in trials), default=0)
            self._first_block = max((started.block + 1 for started in trials), default=0)
            self._checked_groups = {cell.planned.group for cell in earlier.cells.values() if cell.identity}
            self._repeated_cells = {cell_id for cell_id, cell in earlier.cells.items() if cell.repeats}
            self.crew.measured_ceilings = {ceiling.dtype for ceiling in earlier.ceilings}
        known = earlier.cells if earlier is not None else {}
        for planned in plan.cells():
            before = known.get(planned.cell.cell_id)
            if before is None:
                self._writer.append(_announcement(planned, plan))
            if planned.refusal is not None:
                is_told = before is not None and before.skipped is not None
                self._close(planned, "oom", f"predicted not to fit: {planned.refusal}", is_told=is_told)
        self._writer.sync()

    def _blocks(self) -> EndReason:
        coarse = [cell for cell in self._plan.cells() if self._account(cell).repetitions == 0]
        block = self._first_block
        for tier in tiers(coarse):
            self._pass(block, tier, is_coarse=True)
            block += 1
        while wanting := [cell for cell in self._plan.cells() if self._ledger.wants(cell.cell.cell_id)]:
            if self.left_s() <= 0 or not self._pass(block, wanting, is_coarse=False):
                return "budget"
            block += 1
        return "complete"

    def _account(self, cell: PlannedCell) -> Account:
        return self._ledger.accounts[cell.cell.cell_id]

    def _pass(self, block: int, cells: list[PlannedCell], *, is_coarse: bool) -> int:
        """One block; returns how many cells had a turn, in vain or not."""
        turns = 0
        wanted = {cell.cell.cell_id for cell in cells}
        for group in self._groups_in_turn(block):
            members = [cell for cell in group.cells if cell.cell.cell_id in wanted]
            random.Random(f"{self._spec.seed}-{block}-{group.group}").shuffle(members)
            if is_coarse:
                members.sort(key=coarse_value)
            for planned in (member for member in members if not self._account(member).is_closed):
                if not self._can_afford(group, planned, is_coarse):
                    if is_coarse:
                        self._skip(planned, "skipped", "the budget was spent before this cell's turn")
                    continue
                turns += 1
                self._progress.begin_cell(turns, len(cells), block, planned)
                self._progress.expect(self.eta_s())
                try:
                    self._visit(group, planned, block, is_long=not (is_coarse or self._plan.is_interleaved))
                except GroupLostError as lost:
                    self._lose_group(group, planned, block, lost)
                    break
            if is_coarse and group is not self._plan.groups[-1]:
                self._on_block()
        self._progress.end_block(block, self.left_s())
        self._on_block()
        return turns

    def _groups_in_turn(self, block: int) -> Iterator[GroupPlan]:
        """Groups of a block; reversed every other block (ABBA), which also spares a reload where only one fits."""
        yield from (self._plan.groups if block % 2 == 0 else tuple(reversed(self._plan.groups)))

    def _can_afford(self, group: GroupPlan, planned: PlannedCell, is_coarse: bool) -> bool:
        """Whether a visit is likely to end in time; in a coarse pass, the group's longest so far is what to expect."""
        visited = [account for member in group.cells if (account := self._account(member)).visit_s is not None]
        if is_coarse:
            longest = max((self._ledger.visit_s(account) + account.cold_s for account in visited), default=0.0)
            return self.left_s() > longest
        return self.left_s() > self._ledger.visit_s(self._account(planned)) + self.crew.reopening_s(group)

    def _limit_s(self) -> float:
        """Seconds that a trial may take: no more than the budget has left, but for a floor."""
        return min(self._spec.budget.trial, max(self.left_s(), TRIAL_FLOOR_S))

    def _open_limit_s(self) -> float:
        """The same for loading and compiling, which `budget.cold` gives more time."""
        left = self.left_s() + max(self._spec.budget.cold - self.crew.cold_s, 0.0)
        return min(self._spec.budget.open, max(left, OPEN_FLOOR_S))

    def _visit(self, group: GroupPlan, planned: PlannedCell, block: int, *, is_long: bool) -> None:
        """Prepare, warm up and repeat one cell."""
        worker = self.crew.worker(group, self._open_limit_s())
        begun, cold_before = time.monotonic(), self.crew.cold_s
        cell = planned.cell
        if not self._prepare(worker, group, planned, block):
            return
        account = self._account(planned)
        done = 0
        limit_s, limit = (APART_VISIT_S, APART_MAX_TRIALS_PER_VISIT) if is_long else (VISIT_S, MAX_TRIALS_PER_VISIT)
        while done == 0 or (
            done < limit
            and account.trial_s is not None
            and (done + 1) * account.trial_s < limit_s
            and self._ledger.wants(cell.cell_id)
        ):
            if not self._trial(worker, group, planned, block, with_warmup=done == 0):
                return
            done += 1
        account.cold_s = self.crew.cold_s - cold_before
        account.visit_s = time.monotonic() - begun - account.cold_s

    def _prepare(self, worker: Worker, group: GroupPlan, planned: PlannedCell, block: int) -> bool:
        cell, engine = planned.cell, planned.cell.spec.engine
        command = PrepareCell(
            cell_id=cell.cell_id,
            spec=cell.spec,
            seed=self._spec.seed,
            check_identity=group.group not in self._checked_groups and engine.check_tokens > 0,
            check_repeat=cell.cell_id not in self._repeated_cells and engine.check_repeat,
        )
        failure = self.crew.ask(worker, command, self._open_limit_s())
        if isinstance(failure, Failed):
            self._lose(group, planned, failure, self._begin_trial(planned, block, worker.worker_id))
            return False
        self._checked_groups.add(group.group)
        self._repeated_cells.add(cell.cell_id)
        return True

    def _begin_trial(self, planned: PlannedCell, block: int, worker_id: str) -> str:
        cell_id = planned.cell.cell_id
        trial_id = f"{cell_id}-{self._order}"
        self._writer.append(
            TrialStarted(
                trial_id=trial_id,
                cell_id=cell_id,
                repetition=self._account(planned).repetitions,
                block=block,
                order=self._order,
                worker_id=worker_id,
                at_ns=time.monotonic_ns(),
            )
        )
        self._order += 1
        return trial_id

    def _trial(self, worker: Worker, group: GroupPlan, planned: PlannedCell, block: int, *, with_warmup: bool) -> bool:
        account = self._account(planned)
        trial_id = self._begin_trial(planned, block, worker.worker_id)
        is_steady: bool | None = None
        if with_warmup:
            warmed = self.crew.ask(worker, self._warm_up(trial_id), self._limit_s())
            if isinstance(warmed, Failed):
                self._lose(group, planned, warmed, trial_id)
                return False
            is_steady = warmed.is_steady
        begun = time.monotonic()
        events: list[Event] = []
        command = RunTrial(trial_id=trial_id, keep_tokens=account.repetitions == 0, seed=self._spec.seed)
        answer = self.crew.ask(worker, command, self._limit_s(), events)
        if isinstance(answer, Failed):
            self._lose(group, planned, answer, trial_id)
            return False
        account.trial_s = time.monotonic() - begun
        self._writer.append(TrialFinished(trial_id=trial_id, at_ns=time.monotonic_ns(), is_steady=is_steady))
        self._writer.sync()
        rate = rate_of(events)
        self._ledger.count(planned.cell.cell_id, rate)
        self._progress.end_trial(planned, rate, account.repetitions)
        return True

    def _warm_up(self, trial_id: str) -> WarmUp:
        is_gpu = self._plan.device.kind in ("cuda", "rocm")
        return WarmUp(
            trial_id=trial_id,
            tolerance=GPU_TOLERANCE if is_gpu else CPU_TOLERANCE,
            cap_s=self._spec.stop.warmup_cap,
        )

    def _lose(self, group: GroupPlan, planned: PlannedCell, failure: Failed, trial_id: str) -> None:
        """Record a failed trial and end the worker; the next visit opens another."""
        self._fail(planned, failure, trial_id)
        is_closed = self._ledger.fail(planned.cell.cell_id, failure.cause)
        if is_closed or failure.is_refusal:
            self._close(planned, failure.cause, failure.text)
        self._writer.sync()
        self._progress.note(f"{failure.cause}: {failure.text}")
        self.crew.drop(group)

    def _lose_group(self, group: GroupPlan, planned: PlannedCell, block: int, lost: GroupLostError) -> None:
        """The worker cannot be opened: one failed trial, and no cell of the group is tried again in this run."""
        self._fail(planned, lost.failure, self._begin_trial(planned, block, lost.worker_id))
        for member in group.cells:
            if not self._account(member).is_closed:
                self._close(member, lost.failure.cause, lost.failure.text)
        self._writer.sync()
        self._progress.note(f"{lost.failure.cause}: {lost.failure.text}")

    def _fail(self, planned: PlannedCell, failure: Failed, trial_id: str) -> None:
        self._failed += 1
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

    def _close(self, planned: PlannedCell, cause: FailureCause, reason: str, *, is_told: bool = False) -> None:
        """Try a cell no more; a cell without a result says why."""
        account = self._account(planned)
        account.is_closed = True
        if account.repetitions == 0:
            if not is_told:
                self._skip(planned, cause, reason)
            self._lost.add(planned.cell.cell_id)

    def _skip(self, planned: PlannedCell, cause: FailureCause, reason: str) -> None:
        self._writer.append(
            CellSkipped(cell_id=planned.cell.cell_id, cause=cause, reason=reason, at_ns=time.monotonic_ns())
        )


def _announcement(planned: PlannedCell, plan: Plan) -> CellPlanned:
    labels = dict(planned.cell.spec.labels)
    if not plan.is_interleaved:
        labels["order"] = "not_interleaved"
    return CellPlanned(
        cell_id=planned.cell.cell_id,
        pair_key=planned.cell.pair_key,
        group=planned.cell.group,
        resolved=planned.cell.resolved_json(),
        labels=labels,
        predicted_memory_bytes=planned.predicted_memory_bytes,
        roofline_decode_tokens_per_s=planned.roofline_decode_tokens_per_s,
    )
