"""Runs a plan in blocks, each a pass over all cells in fresh workers, until the stop rule or the budget ends it.

It appends to the record and computes no result. A failed trial costs that trial; the worker is replaced and the run
goes on. The first block is coarse: small cells first. Later ones are random. See docs/design/blocks.md.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Literal

from tokbench.measure.blocks import choose_sentinel, costs, renewal
from tokbench.measure.crew import Crew, OpenWorker
from tokbench.measure.energy_trial import EnergySource
from tokbench.measure.ledger import Account, Ledger
from tokbench.measure.order import Draw, Turn, coarse_passes, random_pass
from tokbench.measure.plan import Plan, PlannedCell
from tokbench.measure.progress import Progress
from tokbench.measure.visit import Visitor
from tokbench.record.blocks import BlockStarted
from tokbench.record.observations import CellPlanned, RunEnded
from tokbench.record.run import Run
from tokbench.record.store import RunWriter

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
        self._ledger = Ledger([cell.cell.cell_id for cell in plan.cells()], self._spec.stop)
        self._visitor = Visitor(plan, writer, self.crew, self._ledger, progress)
        self._budget = self._visitor.budget
        self._block = 0

    def eta_s(self) -> float:
        """Seconds until the stop rule or the budget ends the run, from the visits so far; a rough figure."""
        accounts = [self._account(cell) for cell in self._plan.cells() if self._ledger.wants(cell.cell.cell_id)]
        known = [account.visit_s for account in accounts if account.visit_s is not None]
        usual = sum(known) / len(known) if known else None
        if usual is None:
            return self._budget.left_s()
        needed = sum(self._ledger.missing(account) * (account.visit_s or usual) for account in accounts)
        return min(self._budget.left_s(), needed)

    def run(self, earlier: Run | None = None, energy: EnergySource | None = None) -> Outcome:
        """Measure everything that is missing; energy too where there are meters.

        Raises:
            RecordError: the record cannot be written. PlugError: no group could be opened at all.
        """
        self._visitor.energy = energy
        self._announce(earlier)
        try:
            reason = self._blocks()
        finally:
            self.crew.close()
        self._writer.append(RunEnded(reason=reason, at_ns=time.monotonic_ns()))
        self._writer.sync()
        return Outcome(reason, self._visitor.failed, len(self._visitor.lost))

    def _announce(self, earlier: Run | None) -> None:
        plan = self._plan
        for facts in plan.facts(time.monotonic_ns()):
            self._writer.append(facts)
        if earlier is not None:
            self._ledger.load(earlier)
            self._visitor.take_over(earlier)
            self._block = _next_block(earlier)
            self.crew.measured_ceilings = {ceiling.dtype for ceiling in earlier.ceilings}
        known = earlier.cells if earlier is not None else {}
        for planned in plan.cells():
            before = known.get(planned.cell.cell_id)
            if before is None:
                self._writer.append(_announcement(planned, plan))
            if planned.refusal is not None:
                is_told = before is not None and before.skipped is not None
                self._visitor.close(planned, "oom", f"predicted not to fit: {planned.refusal}", is_told=is_told)
        self._writer.sync()

    def _blocks(self) -> EndReason:
        wanting = self._wanting()
        coarse = [cell for cell in wanting if self._account(cell).repetitions == 0]
        if coarse:
            self._take_block(coarse_passes(self._plan, coarse, self._draw()), is_coarse=True)
        while wanting := self._wanting():
            turns = random_pass(self._plan, wanting, self._draw())
            if self._budget.left_s() <= 0 or not self._take_block([turns], is_coarse=False):
                return "budget"
        return "complete"

    def _wanting(self) -> list[PlannedCell]:
        return [cell for cell in self._plan.cells() if self._ledger.wants(cell.cell.cell_id)]

    def _draw(self) -> Draw:
        return Draw(self._spec.seed, self._block)

    def _account(self, cell: PlannedCell) -> Account:
        return self._ledger.accounts[cell.cell.cell_id]

    def _take_block(self, passes: Sequence[Sequence[Turn]], *, is_coarse: bool) -> int:
        """One block, opened and closed by the sentinel; returns how many cells had a turn, in vain or not."""
        turns = [turn for each in passes for turn in each]
        if not is_coarse and not any(self._can_afford(turn) for turn in turns):
            return 0
        sentinel = self._begin_block(turns)
        self._watch(sentinel)
        done = 0
        for each in passes:
            done += self._pass(each, done, len(turns), is_coarse=is_coarse)
        if done:
            self._watch(sentinel)
        self._progress.end_block(self._block, self._budget.left_s())
        self._block += 1
        self._on_block()
        return done

    def _begin_block(self, turns: Sequence[Turn]) -> Turn | None:
        """Choose the sentinel, replace the workers where that can be paid for, and record both."""
        sentinel = None if self._visitor.is_sentinel_lost else choose_sentinel(self._plan, turns, self._ledger)
        is_fresh, reason = renewal(
            costs(turns, self.crew, self._ledger), self.crew, self._budget, self._spec.stop.blocks
        )
        if is_fresh:
            self.crew.close()
        self.crew.expect([turn.group for turn in turns])
        self._writer.append(
            BlockStarted(
                block=self._block,
                at_ns=time.monotonic_ns(),
                seed=self._spec.seed,
                order=tuple(turn.cell_id for turn in turns),
                is_fresh=is_fresh,
                reason=reason,
                sentinel=None if sentinel is None else sentinel.cell_id,
            )
        )
        self._progress.note(f"block {self._block}: {'fresh workers' if is_fresh else f'workers kept ({reason})'}")
        return sentinel

    def _watch(self, sentinel: Turn | None) -> None:
        """One repetition of the sentinel, unless there is none, or no time for it."""
        if sentinel is None or self._visitor.is_sentinel_lost or self._account(sentinel.planned).is_closed:
            return
        if self._budget.left_s() > (self._account(sentinel.planned).once_s or 0.0):
            self._visitor.watch(sentinel, self._block)

    def _pass(self, turns: Sequence[Turn], before: int, cells: int, *, is_coarse: bool) -> int:
        """Visits one after the other; returns how many there were."""
        done = 0
        for number, turn in enumerate(turns):
            if is_coarse and number and self.crew.worker_id(turn.group) is None:
                self._on_block()
            if self._account(turn.planned).is_closed:
                continue
            if not self._can_afford(turn):
                if is_coarse:
                    self._visitor.skip(turn.planned, "skipped", "the budget was spent before this cell's turn")
                continue
            done += 1
            self._progress.begin_cell(before + done, cells, self._block, turn.planned)
            self._progress.expect(self.eta_s())
            self._visitor.visit(turn, self._block, is_long=not (is_coarse or self._plan.is_interleaved))
        return done

    def _can_afford(self, turn: Turn) -> bool:
        """Whether a visit is likely to end in time; of a first one, the group's longest so far is what to expect."""
        account, worker_id = self._account(turn.planned), self.crew.worker_id(turn.group)
        if account.visit_s is None:
            accounts = [self._account(member) for member in turn.group.cells]
            return self._budget.left_s() > 0 and all(
                self._budget.pays(self._ledger.visit_s(each), each.cold_s)
                for each in accounts
                if each.visit_s is not None
            )
        compiling_s = 0.0 if account.prepared_in == worker_id else account.cold_s
        return self._budget.pays(self._ledger.visit_s(account), self.crew.reopening_s(turn.group) + compiling_s)


def _next_block(earlier: Run) -> int:
    """The number behind the last block that an earlier part of the run began."""
    trials = [trial.started.block for cell in earlier.cells.values() for trial in cell.trials]
    return max((*trials, *(started.block for started in earlier.blocks)), default=-1) + 1


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
