"""The child process that holds one engine open: reads commands, sends events and replies.

It is the one place that catches every exception: whatever an engine raises becomes a `Failed` with its traceback. What
kills the process is seen by the parent. Run as `python -m tokbench.measure.worker FD ID`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from tokbench.errors import TrialError
from tokbench.measure import energy_windows, experiments, load, request_cells, tasks
from tokbench.measure.drawing import begin_draws
from tokbench.measure.engines import (
    CellWork,
    DraftModel,
    EngineRequest,
    MemoryNow,
    RequestEngine,
    ReservingEngine,
    StagingEngine,
    StepEngine,
    check_load,
    load_plug,
)
from tokbench.measure.failures import failed_by
from tokbench.measure.messages import (
    COMMAND_ADAPTER,
    CloseGroup,
    Command,
    Done,
    MeasureCeilings,
    OpenGroup,
    PrepareCell,
    Reply,
    RunEnergy,
    RunTrial,
    Said,
    WarmUp,
)
from tokbench.measure.reserving import prepare_requests
from tokbench.measure.workloads import make_prompts
from tokbench.record.observations import (
    CellPrepared,
    Event,
    FactsRead,
    IdentityChecked,
    MemoryReading,
    RepeatabilityChecked,
    WindowClosed,
    WindowOpened,
)
from tokbench.record.spec import CellSpec
from tokbench.stats import SteadyRule

STEADY = "_steady"
"""How the sources of readings end that tell what is in use now; the others tell the most that was."""
REPEAT_STEPS = 32
"""Decode steps of a check of repeatability, where the cell has so many."""


class WorkerSession:
    """One engine and the cell that it is prepared for."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._engine: StepEngine | RequestEngine | None = None
        self._is_step_engine = True
        self._cell_id = ""
        self._spec: CellSpec | None = None
        self._work: CellWork | None = None
        self._seed = 0

    def answer(self, command: Command) -> Iterator[Reply]:
        """Carry out one command: its events, then `Done` or `Failed`."""
        is_steady: bool | None = None
        try:
            for event in self._carry_out(command):
                if isinstance(event, bool):
                    is_steady = event
                else:
                    yield Said(event=event)
            yield Done(is_steady=is_steady)
        except Exception as error:  # the worker's boundary: whatever an engine raises is recorded
            failure = failed_by(error)
            if failure.cause == "oom":
                yield from self._memory_at_failure(command)
            yield failure

    def _carry_out(self, command: Command) -> Iterator[Event | bool]:
        match command:
            case OpenGroup():
                yield from self._open(command)
            case PrepareCell():
                yield from self._prepare(command)
            case WarmUp():
                yield from self._warm_up(command)
            case RunTrial():
                yield from self._trial(command)
            case RunEnergy():
                yield from self._energy(command)
            case MeasureCeilings():
                yield from self._ceilings(command)
            case CloseGroup():
                self.close()

    def close(self) -> None:
        """Let go of the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _memory_at_failure(self, command: Command) -> Iterator[Said]:
        """How far memory had been filled when it ran out: what the engine let go of since is not in a peak."""
        trial_id = command.trial_id if isinstance(command, WarmUp | RunTrial | RunEnergy) else None
        readings: list[MemoryNow] = []
        with contextlib.suppress(TrialError, RuntimeError):  # a device that is lost tells no more
            if self._is_step_engine:
                readings = self._step_engine().memory()
            elif isinstance(serving := self._request_engine()[0], ReservingEngine):
                readings = serving.memory()
        for reading in readings:
            if not reading.source.endswith(STEADY):
                yield Said(event=self._memory_reading(reading, trial_id))

    def _memory_reading(self, reading: MemoryNow, trial_id: str | None) -> MemoryReading:
        return MemoryReading.model_validate(
            {
                "trial_id": trial_id,
                "cell_id": self._cell_id,
                "at_ns": time.monotonic_ns(),
                "source": reading.source,
                "value_bytes": reading.value_bytes,
            }
        )

    def _open(self, command: OpenGroup) -> Iterator[Event]:
        begun = time.monotonic()
        spec = command.spec
        plug = load_plug(spec.engine.kind)
        request = EngineRequest(
            model=spec.model,
            engine=spec.engine,
            device=command.device,
            devices=command.devices,
            model_name=command.model_name,
            config_json=command.config_json,
            weights_folder=Path(command.weights_folder) if command.weights_folder else None,
            threads=command.threads,
            seed=command.seed,
            revision=command.revision,
            sha256=command.sha256,
            note=command.note,
        )
        engine = plug.open_engine(request)
        self._engine = engine
        self._is_step_engine = hasattr(engine, "prefill")
        yield FactsRead(
            at_ns=time.monotonic_ns(),
            group=command.group,
            model=engine.model_facts,
            engine=engine.facts,
            load_s=time.monotonic() - begun,
        )

    def _step_engine(self) -> StepEngine:
        if self._engine is None or not self._is_step_engine:
            raise TrialError("no step engine is open", cause="engine")
        return cast(StepEngine, self._engine)

    def _prepared_work(self) -> CellWork:
        if self._work is None:
            raise TrialError("no cell is prepared", cause="engine")
        return self._work

    def _prepare(self, command: PrepareCell) -> Iterator[Event]:
        self._cell_id, self._spec, self._seed = command.cell_id, command.spec, command.seed
        check_load(command.spec.engine, command.spec.load)
        if not self._is_step_engine:
            self._work = None
            yield from prepare_requests(self._request_engine()[0], command, self._worker_id)
            return
        engine, load_spec = self._step_engine(), command.spec.load
        assert load_spec.kind == "static_batch"  # checked above
        begun = time.monotonic()
        prompts = make_prompts(
            command.spec.workload, load_spec.static_batch, engine.tokenizer, engine.vocabulary, command.seed
        )
        self._work = _work_of(command, prompts)
        prepared = engine.prepare(self._work)
        yield CellPrepared(
            cell_id=command.cell_id,
            worker_id=self._worker_id,
            at_ns=time.monotonic_ns(),
            prepare_s=time.monotonic() - begun,
            compile_s=prepared.compile_s,
            cache_rows=prepared.cache_rows,
            kv_bytes_allocated=prepared.kv_bytes_allocated,
            graphs_compiled=engine.graphs_compiled,
            kernels_per_step=prepared.kernels_per_step,
            kernels_counted_by=prepared.kernels_counted_by,
            engine=engine.facts,
        )
        if command.check_identity:
            yield from self._check_identity(engine, command.spec.engine.check_tokens)
        if command.check_repeat:
            yield from self._check_repeat(engine, min(REPEAT_STEPS, self._work.output_tokens - 1))

    def _check_identity(self, engine: StepEngine, tokens: int) -> Iterator[Event]:
        found = engine.check_identity(tokens)
        if found is not None:
            yield IdentityChecked(
                cell_id=self._cell_id,
                reference=found.reference,
                tokens_compared=found.tokens_compared,
                first_divergence=found.first_divergence,
                top2_gap=found.top2_gap,
            )

    def _check_repeat(self, engine: StepEngine, steps: int) -> Iterator[Event]:
        for found in engine.check_repeat(steps):
            yield RepeatabilityChecked(cell_id=self._cell_id, **found._asdict())

    def _warm_up(self, command: WarmUp) -> Iterator[Event | bool]:
        rule = SteadyRule(load.WARMUP_SAMPLES, command.tolerance)
        window_id = f"{command.trial_id}/warmup"
        if not self._is_step_engine:
            yield from request_cells.warm_up(*self._request_engine(), self._seed, command, rule)
            return
        engine = self._step_engine()
        opened = engine.sync()
        is_steady, samples = load.warm_up(engine, self._prepared_work(), rule, command.cap_s)
        yield WindowOpened(trial_id=command.trial_id, window_id=window_id, kind="warmup", at_ns=opened)
        for sample in samples:
            yield sample.model_copy(update={"trial_id": command.trial_id, "window_id": window_id})
        yield WindowClosed(trial_id=command.trial_id, window_id=window_id, at_ns=engine.sync())
        for reading in engine.memory():
            if reading.source.endswith(STEADY):
                yield self._memory_reading(reading, command.trial_id)
        yield is_steady

    def _request_engine(self) -> tuple[RequestEngine, CellSpec]:
        if self._engine is None or self._is_step_engine or self._spec is None:
            raise TrialError("no request engine is open and prepared", cause="engine")
        return cast(RequestEngine, self._engine), self._spec

    def _trial(self, command: RunTrial) -> Iterator[Event]:
        if self._is_step_engine:
            engine = self._step_engine()
            yield from self._stage(engine, command)
            yield from self._experiment(engine, command.trial_id)
            begin_draws(engine, command.repetition)
            yield from load.run_static_batch(engine, self._prepared_work(), command.trial_id, command.keep_tokens)
            for reading in engine.memory():
                yield self._memory_reading(reading, command.trial_id)
        else:
            serving, spec = self._request_engine()
            yield from request_cells.run_trial(serving, spec, command)
            for reading in serving.memory() if isinstance(serving, ReservingEngine) else ():
                yield self._memory_reading(reading, command.trial_id)

    def _stage(self, engine: StepEngine, command: RunTrial) -> Iterator[Event]:
        """Where prompts come from a frozen set, those of this repetition."""
        workload = self._spec.workload if self._spec is not None else None
        if workload is None or workload.kind != "task":
            return
        if not isinstance(engine, StagingEngine):
            raise TrialError("this engine cannot take other prompts in a prepared cell", cause="engine")
        work = self._prepared_work()
        taken = tasks.take_prompts(workload, work.rows, engine.tokenizer, command.repetition)
        engine.rewind(0)
        engine.stage(taken.prompts)
        self._work = dataclasses.replace(work, prompts=taken.prompts)
        yield taken.staged(command.trial_id)

    def _experiment(self, engine: StepEngine, trial_id: str) -> Iterator[Event]:
        """The cell's experiment, if it has one, before the plain repetition that every cell gets."""
        spec = self._spec.experiment if self._spec is not None else "none"
        if spec != "none":
            plug = experiments.load_plug(spec.kind)
            yield from plug.run(engine, self._prepared_work(), spec, trial_id)

    def _energy(self, command: RunEnergy) -> Iterator[Event]:
        if self._is_step_engine:
            return energy_windows.run_static_batch(self._step_engine(), self._prepared_work(), command)
        engine, _ = self._request_engine()
        return energy_windows.run_idle(engine, engine.now, command)

    def _ceilings(self, command: MeasureCeilings) -> Iterator[Event]:
        from tokbench.measure.ceilings import measure_ceilings  # torch: only where an engine is

        ceilings = measure_ceilings(command.device, command.dtype, command.budget_s)
        yield FactsRead(at_ns=time.monotonic_ns(), ceilings=ceilings)


def _work_of(command: PrepareCell, prompts: tuple[tuple[int, ...], ...]) -> CellWork:
    """What a cell asks of a step engine."""
    workload, speculation, draft = command.spec.workload, command.spec.speculation, command.draft
    drafting = None if speculation == "none" else speculation
    model = None
    if draft is not None and drafting is not None and drafting.draft is not None:
        folder = Path(draft.weights_folder) if draft.weights_folder else None
        model = DraftModel(drafting.draft, draft.model_name, draft.config_json, folder)
    return CellWork(prompts, workload.output_tokens, workload.temperature, command.seed, drafting, model)


def serve(receive: Callable[[], bytes], send: Callable[[bytes], None], worker_id: str) -> None:
    """Answer commands until told to close or the other side is gone."""
    session = WorkerSession(worker_id)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            command = COMMAND_ADAPTER.validate_json(receive())
            for reply in session.answer(command):
                send(reply.model_dump_json().encode())
            if isinstance(command, CloseGroup):
                break
    session.close()


def _die_with_parent() -> None:
    """Ask Linux to end this process when the runner dies, so that no engine is left holding the device."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)


def main() -> None:
    """Serve the connection whose file descriptor is the first argument, under the id that is the second."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    connection = Connection(int(sys.argv[1]))
    serve(connection.recv_bytes, connection.send_bytes, sys.argv[2])
    os._exit(0)


if __name__ == "__main__":
    main()
