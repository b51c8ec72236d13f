"""The child process that holds one engine open: reads commands, sends events and replies.

It is the one place that catches every exception: whatever an engine raises becomes a `Failed` with its traceback. What
kills the process is seen by the parent. Run as `python -m tokbench.measure.worker FD`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from tokbench.errors import PlugError, SpecError, TokbenchError, TrialError
from tokbench.measure import experiments, load
from tokbench.measure.engines import CellWork, EngineRequest, Request, RequestEngine, StepEngine, load_plug
from tokbench.measure.messages import (
    COMMAND_ADAPTER,
    CloseGroup,
    Command,
    Done,
    Failed,
    MeasureCeilings,
    OpenGroup,
    PrepareCell,
    Reply,
    RunTrial,
    Said,
    WarmUp,
)
from tokbench.measure.workloads import make_prompts
from tokbench.record.observations import (
    CellPrepared,
    Event,
    FactsRead,
    FailureCause,
    IdentityChecked,
    MemoryReading,
    WindowClosed,
    WindowOpened,
)
from tokbench.record.spec import CellSpec
from tokbench.stats import SteadyRule


class WorkerSession:
    """One engine and the cell that it is prepared for."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._engine: StepEngine | RequestEngine | None = None
        self._is_step_engine = True
        self._cell_id = ""
        self._spec: CellSpec | None = None
        self._work: CellWork | None = None

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
            yield _failure(error)

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
            case MeasureCeilings():
                yield from self._ceilings(command)
            case CloseGroup():
                self.close()

    def close(self) -> None:
        """Let go of the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _open(self, command: OpenGroup) -> Iterator[Event]:
        begun = time.monotonic()
        spec = command.spec
        plug = load_plug(spec.engine.kind)
        request = EngineRequest(
            model=spec.model,
            engine=spec.engine,
            device=command.device,
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
        self._cell_id, self._spec = command.cell_id, command.spec
        if not self._is_step_engine:
            self._work = None
            return
        engine = self._step_engine()
        load_spec = command.spec.load
        if load_spec.kind != "static_batch":
            raise PlugError(
                f"engine {command.spec.engine.kind!r} in mode {command.spec.engine.mode!r} serves static batches alone",
                fix="write load: {kind: static_batch, static_batch: 1}",
            )
        begun = time.monotonic()
        prompts = make_prompts(
            command.spec.workload, load_spec.static_batch, engine.tokenizer, engine.vocabulary, command.seed
        )
        self._work = CellWork(prompts, command.spec.workload.output_tokens)
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
            engine=engine.facts,
        )
        if command.check_identity:
            yield from self._check_identity(engine, command.spec.engine.check_tokens)

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

    def _warm_up(self, command: WarmUp) -> Iterator[Event | bool]:
        if not self._is_step_engine:
            return
        engine = self._step_engine()
        rule = SteadyRule(load.WARMUP_SAMPLES, command.tolerance)
        opened = engine.sync()
        is_steady, samples = load.warm_up(engine, self._prepared_work(), rule, command.cap_s)
        window_id = f"{command.trial_id}/warmup"
        yield WindowOpened(trial_id=command.trial_id, window_id=window_id, kind="warmup", at_ns=opened)
        for sample in samples:
            yield sample.model_copy(update={"trial_id": command.trial_id, "window_id": window_id})
        yield WindowClosed(trial_id=command.trial_id, window_id=window_id, at_ns=engine.sync())
        yield is_steady

    def _trial(self, command: RunTrial) -> Iterator[Event]:
        if self._is_step_engine:
            engine = self._step_engine()
            yield from self._experiment(engine, command.trial_id)
            yield from load.run_static_batch(engine, self._prepared_work(), command.trial_id, command.keep_tokens)
            for reading in engine.memory():
                yield MemoryReading.model_validate(
                    {
                        "trial_id": command.trial_id,
                        "cell_id": self._cell_id,
                        "at_ns": time.monotonic_ns(),
                        "source": reading.source,
                        "value_bytes": reading.value_bytes,
                    }
                )
        else:
            yield from self._request_trial(command)

    def _experiment(self, engine: StepEngine, trial_id: str) -> Iterator[Event]:
        """The cell's experiment, if it has one, before the plain repetition that every cell gets."""
        spec = self._spec.experiment if self._spec is not None else "none"
        if spec != "none":
            plug = experiments.load_plug(spec.kind)
            yield from plug.run(engine, self._prepared_work(), spec, trial_id)

    def _request_trial(self, command: RunTrial) -> Iterator[Event]:
        engine = cast(RequestEngine, self._engine)
        spec = self._spec
        assert spec is not None
        count = spec.load.requests if spec.load.kind == "closed" else 1000
        prompts = make_prompts(spec.workload, count, None, engine.vocabulary, command.seed)
        requests = [
            Request(f"{command.trial_id}-{index}", prompt, spec.workload.output_tokens)
            for index, prompt in enumerate(prompts)
        ]
        if spec.load.kind == "closed":
            yield from load.run_closed(engine, spec.load, requests, command.trial_id)
        elif spec.load.kind == "poisson":
            yield from load.run_poisson(engine, spec.load, requests, command.trial_id, command.seed)
        else:
            raise PlugError(
                f"engine {spec.engine.kind!r} in mode {spec.engine.mode!r} answers requests, not static batches",
                fix="write load: {kind: closed, concurrency: 1, requests: 10}",
            )

    def _ceilings(self, command: MeasureCeilings) -> Iterator[Event]:
        from tokbench.measure.ceilings import measure_ceilings  # torch: only where an engine is

        ceilings = measure_ceilings(command.device, command.dtype, command.budget_s)
        yield FactsRead(at_ns=time.monotonic_ns(), ceilings=ceilings)


def _failure(error: Exception) -> Failed:
    cause: FailureCause = "engine"
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TokbenchError):
        text = error.message
    if isinstance(error, TrialError):
        cause = cast(FailureCause, error.cause)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "can't allocate memory" in text:
        cause = "oom"
    return Failed(
        cause=cause,
        text=text,
        traceback=None if isinstance(error, TokbenchError) else traceback.format_exc(),
        is_refusal=isinstance(error, PlugError | SpecError),
        fix=error.fix if isinstance(error, TokbenchError) else None,
    )


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
            ctypes.CDLL("libc.so.6").prctl(1, signal.SIGTERM, 0, 0, 0)


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    connection = Connection(int(sys.argv[1]))
    serve(connection.recv_bytes, connection.send_bytes, f"{os.getpid()}-{time.monotonic_ns()}")
    os._exit(0)


if __name__ == "__main__":
    main()
