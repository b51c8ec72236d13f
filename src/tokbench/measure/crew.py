"""The open workers of a run: one per group, opened when first asked, replaced when lost. It orders nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from tokbench.errors import PlugError
from tokbench.measure.messages import Command, Done, Failed, MeasureCeilings, OpenGroup, Said
from tokbench.measure.plan import GroupPlan, Plan, config_json
from tokbench.measure.progress import Progress
from tokbench.measure.worker_process import Worker
from tokbench.record.observations import CellPrepared, Event, FactsRead
from tokbench.record.store import RunWriter

CEILING_BUDGET_S = 4.0

OpenWorker = Callable[[GroupPlan], Worker]


class GroupLostError(Exception):
    """A worker could not be opened: its cells cannot be measured."""


class Crew:
    """Workers by group. Everything that they say goes into the record."""

    def __init__(self, plan: Plan, writer: RunWriter, open_worker: OpenWorker, progress: Progress) -> None:
        self._plan = plan
        self._writer = writer
        self._open_worker = open_worker
        self._progress = progress
        self._workers: dict[str, Worker] = {}
        self.measured_ceilings: set[str] = set()
        self.cold_s = 0.0
        """Seconds spent on loading weights and compiling so far."""

    def cpu_s(self) -> float | None:
        """CPU seconds of all open workers; None where one cannot tell."""
        values = [worker.cpu_s() for worker in list(self._workers.values())]
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None

    def worker(self, group: GroupPlan) -> Worker:
        """The open worker of a group; opened, or opened anew, where there is none.

        Raises:
            GroupLostError: it cannot be opened. PlugError: the same, and the run has no other group.
        """
        if group.group in self._workers:
            return self._workers[group.group]
        if not self._plan.is_interleaved:
            self.close()
        self._progress.open_group(_describe(group))
        worker = self._open_worker(group)
        self._workers[group.group] = worker
        self._measure_ceilings(worker, group)
        begun = time.monotonic()
        answer = self.ask(worker, self._open_command(group), self._plan.config.run.budget.open)
        self.cold_s += time.monotonic() - begun
        if isinstance(answer, Failed):
            self.drop(group)
            if answer.is_refusal and len(self._plan.groups) == 1:
                raise PlugError(answer.text, fix=answer.fix)
            raise GroupLostError(f"{answer.cause}: {answer.text}", answer.cause)
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
            worker.close()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.popitem()[1].close()

    def _measure_ceilings(self, worker: Worker, group: GroupPlan) -> None:
        dtype = group.spec.model.dtype
        if dtype in self.measured_ceilings or group.spec.engine.kind == "fake":
            return
        self.measured_ceilings.add(dtype)
        command = MeasureCeilings(device=self._plan.torch_device, dtype=dtype, budget_s=CEILING_BUDGET_S)
        failure = self.ask(worker, command, self._plan.config.run.budget.trial)
        if isinstance(failure, Failed):
            self._progress.note(f"ceilings not measured: {failure.text}")

    def _open_command(self, group: GroupPlan) -> OpenGroup:
        model = group.model
        return OpenGroup(
            group=group.group,
            spec=group.spec,
            device=self._plan.torch_device,
            model_name=model.name if model is not None else group.spec.model.source,
            config_json=config_json(model),
            weights_folder=str(model.folder) if model is not None and model.folder is not None else None,
            revision=model.revision if model is not None else None,
            sha256=model.sha256 if model is not None else None,
            note=model.note if model is not None else None,
            threads=group.spec.engine.threads or self._plan.host.usable_cores,
            seed=self._plan.config.run.seed,
        )


def _describe(group: GroupPlan) -> str:
    spec = group.spec
    name = group.model.name if group.model is not None else spec.model.source
    return f"{name} ({spec.model.weights}, {spec.model.dtype}), {spec.engine.kind} {spec.engine.mode}"
