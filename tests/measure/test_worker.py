"""The worker's session in this process: commands in, events and one last reply out, whatever the engine does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from scripted_facts import HOST
from tokbench.measure import worker
from tokbench.measure.engines import MemoryNow, Step, fake
from tokbench.measure.failures import failed_by
from tokbench.measure.messages import (
    REPLY_ADAPTER,
    CloseGroup,
    Command,
    Done,
    Failed,
    OpenGroup,
    PrepareCell,
    Reply,
    RunTrial,
    Said,
    WarmUp,
)
from tokbench.measure.worker import WorkerSession
from tokbench.record.observations import (
    CellPrepared,
    Event,
    ExperimentPoint,
    FactsRead,
    MemoryReading,
    OutputTokens,
    RepeatabilityChecked,
    RequestTrace,
    StepTrace,
    WindowOpened,
)
from tokbench.record.spec import (
    CellSpec,
    ClosedLoad,
    EngineSpec,
    ExperimentSpec,
    LoadSpec,
    ModelSpec,
    Option,
    PoissonLoad,
    StaticBatchLoad,
    WorkloadSpec,
)

WARM_UP = WarmUp(trial_id="t", tolerance=0.01, cap_s=20)
TRIAL = RunTrial(trial_id="t", keep_tokens=True, seed=1)


def cell(
    mode: str = "default",
    load: LoadSpec = StaticBatchLoad(static_batch=2),  # noqa: B008
    experiment: ExperimentSpec | None = None,
    **options: Option,
) -> CellSpec:
    return CellSpec(
        model=ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32"),
        engine=EngineSpec(kind="fake", mode=mode, options=options),
        workload=WorkloadSpec(prompt_tokens=10, output_tokens=5),
        load=load,
        experiment=experiment or "none",
    )


def opening(spec: CellSpec) -> OpenGroup:
    return OpenGroup(
        group="g",
        spec=spec,
        device="cpu",
        model_name="tiny-llama",
        config_json=None,
        weights_folder=None,
        revision=None,
        sha256=None,
        note=None,
        threads=HOST.usable_cores,
        seed=1,
    )


def preparing(spec: CellSpec) -> PrepareCell:
    return PrepareCell(cell_id="c", spec=spec, seed=1, check_identity=True)


def tell(session: WorkerSession, *commands: Command) -> tuple[list[Event], Reply]:
    """The events of the last command, and its last reply; the commands before it must succeed."""
    for command in commands[:-1]:
        *_, last = session.answer(command)
        assert isinstance(last, Done), last
    *events, last = session.answer(commands[-1])
    return [reply.event for reply in events if isinstance(reply, Said)], last


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.event for event in events]


def test_the_life_of_a_cell() -> None:
    session, spec = WorkerSession("w"), cell()
    events, last = tell(session, opening(spec))
    assert (["facts_read"], Done()) == (kinds(events), last)
    assert isinstance(events[0], FactsRead) and events[0].group == "g" and events[0].load_s is not None
    events, last = tell(session, preparing(spec))
    assert (["cell_prepared"], Done()) == (kinds(events), last)
    assert isinstance(events[0], CellPrepared) and ("w", 15, 30_000) == (
        events[0].worker_id,
        events[0].cache_rows,
        events[0].kv_bytes_allocated,
    )
    events, last = tell(session, WARM_UP)
    assert Done(is_steady=True) == last
    window = ["window_opened", "step_trace", "step_trace", "step_trace", "window_closed"]
    assert [*window, "memory_reading"] == kinds(events)
    assert {"t/warmup"} == {event.window_id for event in events if isinstance(event, StepTrace)}
    events, last = tell(session, TRIAL)
    assert Done() == last
    window = ["window_opened", "step_trace", "window_closed"]
    assert [*window, *window, "output_tokens", "memory_reading", "memory_reading"] == kinds(events)
    assert isinstance(tell(session, CloseGroup())[1], Done)
    session.close()


def test_a_cell_prepared_anew_is_measured_in_its_own_shape() -> None:
    session = WorkerSession("w")
    for rows in (4, 1):
        spec = cell(load=StaticBatchLoad(static_batch=rows))
        events, _ = tell(session, opening(spec), preparing(spec), TRIAL)
        assert {rows} == {event.rows for event in events if isinstance(event, StepTrace)}
        assert [rows] == [len(event.token_ids) for event in events if isinstance(event, OutputTokens)]


def test_an_experiment_comes_before_the_plain_repetition() -> None:
    spec = cell(experiment=ExperimentSpec(kind="fake", options={"steps": 2}))
    events, last = tell(WorkerSession("w"), opening(spec), preparing(spec), TRIAL)
    assert isinstance(last, Done)
    points = [event for event in events if isinstance(event, ExperimentPoint)]
    assert [({"steps": 1}, 0.01), ({"steps": 2}, 0.02)] == [
        (point.settings, pytest.approx(point.duration_s)) for point in points
    ]
    assert points == events[:2]


def test_memory_readings_name_their_trial() -> None:
    events, _ = tell(WorkerSession("w"), opening(cell()), preparing(cell()), TRIAL)
    reading = next(event for event in events if isinstance(event, MemoryReading))
    assert ("t", "c", "script", 1_030_000) == (reading.trial_id, reading.cell_id, reading.source, reading.value_bytes)


def test_what_is_in_use_is_read_when_a_cell_is_warm() -> None:
    events, _ = tell(WorkerSession("w"), opening(cell()), preparing(cell()), WARM_UP)
    found = [event for event in events if isinstance(event, MemoryReading)]
    assert [("t", "c", "script_steady", 1_030_000)] == [(e.trial_id, e.cell_id, e.source, e.value_bytes) for e in found]


@pytest.mark.parametrize("command", [WARM_UP, TRIAL])
def test_memory_that_ran_out_tells_how_far_it_had_been_filled(command: Command) -> None:
    spec = cell(fail="oom", fail_at_rows=2)
    check_peak(*tell(WorkerSession("w"), opening(spec), preparing(spec), command), "t")


def test_memory_that_ran_out_while_preparing_has_a_peak_of_the_cell() -> None:
    spec = cell(fail="oom", fail_at_rows=2, fail_in="prepare")
    check_peak(*tell(WorkerSession("w"), opening(spec), preparing(spec)), None)


def check_peak(events: Sequence[Event], last: Reply, trial_id: str | None) -> None:
    """One reading, a peak, before the failure."""
    assert isinstance(last, Failed) and "oom" == last.cause
    (peak,) = [event for event in events if isinstance(event, MemoryReading)]
    assert (trial_id, "c", "script", 1_030_000) == (peak.trial_id, peak.cell_id, peak.source, peak.value_bytes)


def test_another_failure_tells_of_no_memory() -> None:
    spec = cell(fail="engine", fail_at_rows=2)
    events, _ = tell(WorkerSession("w"), opening(spec), preparing(spec), TRIAL)
    assert [] == events


def test_a_device_that_is_lost_with_its_memory_is_still_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: fake.FakeStepEngine) -> list[MemoryNow]:
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(fake.FakeStepEngine, "memory", lost)
    spec = cell(fail="oom", fail_at_rows=2)
    events, last = tell(WorkerSession("w"), opening(spec), preparing(spec), TRIAL)
    assert ([], "oom") == (events, last.cause if isinstance(last, Failed) else None)


@pytest.mark.parametrize("repeats", [True, False])
def test_repeatability_is_checked_where_it_was_asked_for(repeats: bool) -> None:
    spec = cell(repeats=repeats)
    assert ["cell_prepared"] == kinds(tell(WorkerSession("w"), opening(spec), preparing(spec))[0])
    asked = preparing(spec).model_copy(update={"check_repeat": True})
    (_, *found), last = tell(WorkerSession("w"), opening(spec), asked)
    assert isinstance(last, Done)
    rest = {"cell_id": "c", "steps": 4, "tokens_equal": repeats, "states_equal": None, "max_abs_difference": None}
    assert [RepeatabilityChecked(against=against, **rest) for against in ("itself", "alone")] == found  # type: ignore[arg-type]


def test_requests_are_warmed_up_and_answered() -> None:
    spec = cell("requests", ClosedLoad(kind="closed", concurrency=2, requests=4))
    session = WorkerSession("w")
    events, last = tell(session, opening(spec), preparing(spec), WARM_UP)
    assert (["window_opened", "window_closed"], Done(is_steady=True)) == (kinds(events), last)
    assert isinstance(events[0], WindowOpened) and events[0].kind == "warmup"
    events, last = tell(session, TRIAL)
    assert Done() == last
    assert ["t-0", "t-1", "t-2", "t-3"] == sorted(e.request_id for e in events if isinstance(e, RequestTrace))


def test_poisson_requests_are_not_cut_off_at_a_thousand() -> None:
    spec = cell(
        "requests", PoissonLoad(kind="poisson", rate_per_s=400, duration_s=4), prefill_s_per_token=1e-6, step_s=1e-4
    )
    events, last = tell(WorkerSession("w"), opening(spec), preparing(spec), TRIAL)
    assert isinstance(last, Done)
    assert 1400 < sum(isinstance(event, RequestTrace) for event in events) < 1800


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (cell("requests"), "answers requests, not static batches"),
        (cell(load=ClosedLoad(kind="closed", concurrency=1, requests=1)), "serves static batches alone"),
    ],
)
def test_a_load_that_the_engine_cannot_serve_is_refused_before_a_trial(spec: CellSpec, text: str) -> None:
    _, last = tell(WorkerSession("w"), opening(spec), preparing(spec))
    assert isinstance(last, Failed) and last.is_refusal and text in last.text and last.fix is not None


def test_an_unknown_option_is_a_refusal_and_carries_no_traceback() -> None:
    _, last = tell(WorkerSession("w"), opening(cell(stride=3)))
    assert isinstance(last, Failed)
    assert (True, None, "engine") == (last.is_refusal, last.traceback, last.cause)
    assert "options of the fake engine" in str(last.fix)


@pytest.mark.parametrize(("fail", "cause"), [("oom", "oom"), ("engine", "engine")])
def test_what_an_engine_raises_becomes_a_failure_and_the_session_lives_on(fail: str, cause: str) -> None:
    session = WorkerSession("w")
    spec = cell(fail=fail, fail_at_rows=2)
    _, last = tell(session, opening(spec), preparing(spec), WARM_UP)
    assert isinstance(last, Failed) and last.cause == cause
    assert (last.traceback is not None) == (fail == "engine")
    small = cell(load=StaticBatchLoad(static_batch=1), fail=fail, fail_at_rows=2)
    assert isinstance(tell(session, preparing(small), TRIAL)[1], Done)


@pytest.mark.parametrize("command", [WARM_UP, TRIAL])
def test_a_command_out_of_order_is_a_failure(command: Command) -> None:
    assert isinstance(tell(WorkerSession("w"), command)[1], Failed)
    _, last = tell(WorkerSession("w"), opening(cell()), command)
    assert isinstance(last, Failed) and last.text == "no cell is prepared"


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def wrapped(cause: Exception) -> Exception:
    error = RuntimeError("backend compiler failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OutOfMemoryError("tried to allocate 2 GiB"), "oom"),
        (MemoryError(), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (RuntimeError("HIP out of memory"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom"),
        (wrapped(OutOfMemoryError("inside the compiler")), "oom"),
        (RuntimeError("shape mismatch"), "engine"),
        (ValueError("the prompt says: out of memory"), "engine"),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error: Exception, cause: str) -> None:
    assert cause == failed_by(error).cause


def test_a_failure_in_mid_decode_gives_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: fake.FakeStepEngine, steps: int) -> Iterator[Step]:
        yield Step(2_000_000_000, 1)
        raise RuntimeError("lost the device")

    monkeypatch.setattr(fake.FakeStepEngine, "decode", broken)
    events, last = tell(WorkerSession("w"), opening(cell()), preparing(cell()), TRIAL)
    assert isinstance(last, Failed) and "lost the device" in str(last.traceback)
    assert {"t/prefill"} == {event.window_id for event in events if isinstance(event, WindowOpened)}


def served(*commands: bytes) -> list[Reply]:
    """What `serve` sends for commands, the other side being gone after the last."""
    waiting = list(commands)
    sent: list[bytes] = []

    def receive() -> bytes:
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    worker.serve(receive, sent.append, "w")
    return [REPLY_ADAPTER.validate_json(line) for line in sent]


def test_serve_ends_with_the_other_side_and_with_close() -> None:
    spec = cell()
    first = [opening(spec).model_dump_json().encode(), preparing(spec).model_dump_json().encode()]
    assert ["event", "done", "event", "done"] == [reply.message for reply in served(*first)]
    close = CloseGroup().model_dump_json().encode()
    assert ["done"] == [reply.message for reply in served(close, *first)]
    assert [] == served()
