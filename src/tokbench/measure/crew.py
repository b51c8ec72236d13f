"""The open workers of a run: one per group, opened when first asked, replaced when lost. It orders nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tokbench.errors import PlugError
from tokbench.measure.handover import config_json
from tokbench.measure.messages import Command, Done, Failed, MeasureCeilings, OpenGroup, Said
from tokbench.measure.plan import GroupPlan, Plan
from tokbench.measure.progress import Progress
from tokbench.measure.worker_process import Worker
from tokbench.record.observations import CellPrepared, Event, FactsRead, FailureCause
from tokbench.record.store import RunWriter

CEILING_BUDGET_S = 6.0
CROWDED: tuple[FailureCause, ...] = ("oom", "killed", "timeout")
"""What can end a load for no other reason than that another one went on beside it."""

OpenWorker = Callable[[GroupPlan], Worker]


class GroupLostError(Exception):
    """A worker could not be opened: its cells cannot be measured."""

    def __init__(self, failure: Failed, worker_id: str) -> None:
        super().__init__(failure.text)
        self.failure = failure
        self.worker_id = worker_id


class Crew:
    """Workers by group. Everything that they say goes into the record."""

    def __init__(self, plan: Plan, writer: RunWriter, open_worker: OpenWorker, progress: Progress) -> None:
        self._plan = plan
        self._writer = writer
        self._open_worker = open_worker
        self._progress = progress
        self._workers: dict[str, Worker] = {}
        self._opened: set[str] = set()
        """Groups that were opened once: what they refuse later costs them, not the run."""
        self.measured_ceilings: set[str] = set()
        self.cold_s = 0.0
        """Seconds spent on loading weights and compiling so far."""
        self._expected: tuple[GroupPlan, ...] = ()
        """Groups whose first turn is still to come, in that order."""
        self._loads_apart = False
        """Whether two loads at a time were once too much for this machine."""
        self.open_s: dict[str, float] = {}
        """Seconds that loading took the last time, by group; of two that got ready side by side half of it each."""
        self._last_cpu_s: dict[str, float] = {}
        """By worker, closed ones included: the sum never falls when one is replaced."""

    def cpu_s(self) -> float | None:
        """CPU seconds of all workers so far, cumulative; None where an open one cannot tell."""
        for worker in list(self._workers.values()):
            seconds = worker.cpu_s()
            if seconds is None:
                return None
            self._last_cpu_s[worker.worker_id] = seconds
        values = list(self._last_cpu_s.values())
        return sum(values) if values else None

    def worker(self, group: GroupPlan, limit_s: float) -> Worker:
        """The open worker of a group; opened within `limit_s`, or opened anew, where there is none.

        Raises:
            GroupLostError: it cannot be opened. PlugError: the same, and the run has no other group.
        """
        self._leave_out(group)
        known = self._workers.get(group.group)
        if known is not None and known.is_alive():
            return known
        if known is not None:
            self._progress.note(f"{_describe(group)}: its worker died while it had nothing to do, another is opened")
            self.drop(group)
        if not self._plan.is_interleaved:
            self.close()
        self._progress.open_group(_describe(group))
        worker = self._start(group)
        if not self._measure_ceilings(worker, group, limit_s):
            self.drop(group)
            worker = self._start(group)
        answer = self._load(group, limit_s)
        worker = self._workers[group.group]
        if isinstance(answer, Failed):
            self.drop(group)
            if answer.is_refusal and len(self._plan.groups) == 1 and not self._opened:
                raise PlugError(answer.text, fix=answer.fix)
            raise GroupLostError(answer, worker.worker_id)
        self._opened.add(group.group)
        return worker

    def expect(self, groups: Sequence[GroupPlan]) -> None:
        """Know which groups will be asked for: while one loads, the next may load beside it."""
        self._expected = tuple(groups)

    def _leave_out(self, group: GroupPlan) -> None:
        """Never load a group ahead of a turn that it has had: it may have none to come."""
        self._expected = tuple(each for each in self._expected if each.group != group.group)

    def _next_beside(self, group: GroupPlan) -> GroupPlan | None:
        """The group to load beside this one: imports keep one core busy, and nothing is measured meanwhile.

        None where groups do not fit side by side, on an accelerator and on a single core. Left out are groups whose
        worker has ceilings to measure first, and the scripted engine, which loads nothing.
        """
        plan = self._plan
        is_alone = not plan.is_interleaved or plan.device.kind != "cpu" or plan.host.usable_cores < 2
        if is_alone or self._loads_apart:
            return None
        others = (each for each in self._expected if each.group not in {group.group, *self._workers})
        able = (each for each in others if each.spec.model.dtype in self.measured_ceilings)
        return next((each for each in able if each.spec.engine.kind != "fake"), None)

    def _load(self, group: GroupPlan, limit_s: float) -> Done | Failed:
        """Have a group load, and the next one beside it; the first one's answer.

        The second is ahead of its turn: where it fails, its turn will open it again and say why. Where the first may
        have failed for want of what the second took, it loads once more alone.
        """
        begun = time.monotonic()
        beside = self._start_beside(group)
        answer = self._ask_to_open([group], limit_s)[0] if beside is None else self._load_two(group, beside, limit_s)
        took_s = time.monotonic() - begun
        self.cold_s += took_s
        ready = [each for each in (group, beside) if each is not None and each.group in self._workers]
        self.open_s |= {each.group: took_s / len(ready) for each in ready}
        return answer

    def _load_two(self, group: GroupPlan, beside: GroupPlan, limit_s: float) -> Done | Failed:
        """The first one's answer; the second is dropped where it is not ready."""
        self._leave_out(beside)
        answer, ahead = self._ask_to_open([group, beside], limit_s)
        if isinstance(answer, Failed) and answer.cause in CROWDED:
            self._progress.note(f"{answer.cause} while two groups loaded side by side: once more alone")
            self.drop(group)
            self.drop(beside)
            self._start(group)
            answer = self._ask_to_open([group], limit_s)[0]
            self._loads_apart = isinstance(answer, Done)
        elif isinstance(ahead, Failed):
            self.drop(beside)
        else:
            self._opened.add(beside.group)
        return answer

    def _start_beside(self, group: GroupPlan) -> GroupPlan | None:
        """Start the worker of the group that loads beside this one; None where there is none, or it cannot start."""
        beside = self._next_beside(group)
        if beside is not None:
            self._progress.open_group(_describe(beside))
            with contextlib.suppress(GroupLostError):
                self._start(beside)
                return beside
        return None

    def _ask_to_open(self, groups: Sequence[GroupPlan], limit_s: float) -> list[Done | Failed]:
        """What each says; all at a time. Interrupted, none is left in the middle of it."""

        def ask_one(group: GroupPlan) -> Done | Failed:
            return self.ask(self._workers[group.group], open_command(self._plan, group), limit_s)

        if len(groups) == 1:
            return [ask_one(groups[0])]
        with ThreadPoolExecutor(len(groups)) as pool:
            try:
                return list(pool.map(ask_one, groups))
            except BaseException:
                for group in groups:
                    self.drop(group)  # which ends the waiting of the threads
                raise

    def reopening_s(self, group: GroupPlan) -> float:
        """Seconds that a visit will spend on loading first: as long as the last time, none where the worker is open."""
        return 0.0 if group.group in self._workers else self.open_s.get(group.group, 0.0)

    def has_workers(self) -> bool:
        """Whether any worker is open."""
        return bool(self._workers)

    def worker_id(self, group: GroupPlan) -> str | None:
        """The open worker of a group; None where there is none."""
        worker = self._workers.get(group.group)
        return None if worker is None else worker.worker_id

    def _start(self, group: GroupPlan) -> Worker:
        try:
            worker = self._open_worker(group)
        except OSError as error:
            failure = Failed(cause="crashed", text=f"no worker can be started: {error.strerror or error}")
            raise GroupLostError(failure, "none") from None
        self._workers[group.group] = worker
        return worker

    def ask(self, worker: Worker, command: Command, limit_s: float, kept: list[Event] | None = None) -> Done | Failed:
        """Send a command, append the events that come back, give the last reply."""
        answer: Done | Failed = Failed(cause="crashed", text="the worker said nothing")
        for reply in worker.ask(command, limit_s):
            if isinstance(reply, Said):
                self._hear(reply.event)
                if kept is not None:
                    kept.append(reply.event)
            else:
                answer = reply
        return answer

    def _hear(self, event: Event) -> None:
        self._writer.append(event)
        if isinstance(event, CellPrepared):
            self.cold_s += event.compile_s or 0.0
        if isinstance(event, FactsRead) and event.ceilings is not None and event.ceilings.read_bytes_per_s is not None:
            self._progress.know_ceiling(event.ceilings.dtype, event.ceilings.read_bytes_per_s)

    def drop(self, group: GroupPlan) -> None:
        """End the worker of a group."""
        worker = self._workers.pop(group.group, None)
        if worker is not None:
            self._end(worker)

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._end(self._workers.popitem()[1])

    def _end(self, worker: Worker) -> None:
        seconds = worker.cpu_s()
        if seconds is not None:
            self._last_cpu_s[worker.worker_id] = seconds
        worker.close()

    def _measure_ceilings(self, worker: Worker, group: GroupPlan, limit_s: float) -> bool:
        """Measure what the device can do, once a dtype; whether the worker can go on."""
        dtype = group.spec.model.dtype
        if dtype in self.measured_ceilings or group.spec.engine.kind == "fake":
            return True
        self.measured_ceilings.add(dtype)
        command = MeasureCeilings(device=self._plan.torch_device, dtype=dtype, budget_s=CEILING_BUDGET_S)
        failure = self.ask(worker, command, limit_s)
        if not isinstance(failure, Failed):
            return True
        self._progress.note(f"ceilings not measured: {failure.text}")
        return failure.cause == "engine"


def open_command(plan: Plan, group: GroupPlan) -> OpenGroup:
    """What a worker is told to load a group."""
    model = group.model
    return OpenGroup(
        group=group.group,
        spec=group.spec,
        device=plan.torch_device,
        devices=plan.torch_devices(),
        model_name=model.name if model is not None else group.spec.model.source,
        config_json=config_json(model),
        weights_folder=str(model.folder) if model is not None and model.folder is not None else None,
        revision=model.revision if model is not None else None,
        sha256=model.sha256 if model is not None else None,
        note=model.note if model is not None else None,
        threads=group.spec.engine.threads or plan.host.usable_cores,
        seed=plan.config.run.seed,
    )


def _describe(group: GroupPlan) -> str:
    spec = group.spec
    name = group.model.name if group.model is not None else spec.model.source
    return f"{name} ({spec.model.weights}, {spec.model.dtype}), {spec.engine.kind} {spec.engine.mode}"
