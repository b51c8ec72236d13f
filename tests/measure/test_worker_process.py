"""Real children: how each way of dying is told, that the parent sleeps while it waits, and that no child stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest

from tokbench.measure.handover import safe_environment
from tokbench.measure.messages import CloseGroup, Command, Done, Failed, OpenGroup, PrepareCell, Reply, RunTrial, WarmUp
from tokbench.measure.worker_process import ProcessWorker, worker_environment
from tokbench.record.observations import CellPrepared
from tokbench.record.spec import CellSpec, EngineSpec, ModelSpec, StaticBatchLoad, WorkloadSpec

WARM_UP = WarmUp(trial_id="t", tolerance=0.01, cap_s=20)
TRIAL = RunTrial(trial_id="t", keep_tokens=False, seed=1)


def spec(fail: str = "engine", rows: int = 1) -> CellSpec:
    """A cell of the fake engine, which fails at 2 rows."""
    return CellSpec(
        model=ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32"),
        engine=EngineSpec(kind="fake", options={"fail": fail, "fail_at_rows": 2}),
        workload=WorkloadSpec(prompt_tokens=10, output_tokens=5),
        load=StaticBatchLoad(static_batch=rows),
    )


def opening(cell: CellSpec) -> OpenGroup:
    return OpenGroup(
        group="g",
        spec=cell,
        device="cpu",
        model_name="tiny-llama",
        config_json=None,
        weights_folder=None,
        revision=None,
        sha256=None,
        note=None,
        threads=1,
        seed=1,
    )


def preparing(cell: CellSpec) -> PrepareCell:
    return PrepareCell(cell_id="c", spec=cell, seed=1, check_identity=False)


OpenWorker = Callable[[], ProcessWorker]


@pytest.fixture
def open_worker(tmp_path: Path) -> Iterator[OpenWorker]:
    opened: list[ProcessWorker] = []

    def make() -> ProcessWorker:
        opened.append(ProcessWorker(tmp_path / "worker.log", safe_environment(os.environ), threads=1))
        return opened[-1]

    yield make
    for worker in opened:
        worker.close()


def last(worker: ProcessWorker, command: Command, limit_s: float = 60.0) -> Reply:
    """The last reply to a command."""
    *_, reply = worker.ask(command, limit_s)
    return reply


def ready(worker: ProcessWorker, cell: CellSpec) -> ProcessWorker:
    """The same worker with the cell open and prepared."""
    assert isinstance(last(worker, opening(cell)), Done)
    assert isinstance(last(worker, preparing(cell)), Done)
    return worker


def test_a_child_answers_until_it_is_told_to_leave(open_worker: OpenWorker) -> None:
    worker = open_worker()
    assert isinstance(last(worker, opening(spec())), Done)
    replies = list(worker.ask(preparing(spec()), 60))
    prepared = [r.event for r in replies if r.message == "event" and isinstance(r.event, CellPrepared)]
    assert [worker.worker_id] == [event.worker_id for event in prepared]  # one name on both sides
    assert Done(is_steady=True) == last(worker, WARM_UP)
    assert Done() == last(worker, TRIAL)
    seconds = worker.cpu_s()
    assert seconds is not None and seconds > 0
    child = psutil.Process(worker._process.pid)
    worker.close()
    worker.close()
    assert (False, False, 0) == (child.is_running(), worker.is_alive(), worker._process.returncode)
    assert worker.cpu_s() is None
    assert isinstance(last(worker, TRIAL), Failed)


@pytest.mark.parametrize(
    ("fail", "cause", "text"),
    [
        ("segfault", "crashed", "the worker died: SIGSEGV"),
        ("kill", "killed", "the worker was killed (signal 9)"),
        ("oom", "oom", "scripted: out of memory"),
        ("engine", "engine", "scripted: the engine failed"),
    ],
)
def test_every_way_to_fail_has_its_cause(open_worker: OpenWorker, fail: str, cause: str, text: str) -> None:
    worker = ready(open_worker(), spec(fail, rows=2))
    reply = last(worker, WARM_UP)
    assert isinstance(reply, Failed)
    assert cause == reply.cause
    assert text in reply.text
    assert (fail in ("oom", "engine")) == worker.is_alive()
    if fail == "segfault":
        assert "Segmentation fault" in str(reply.traceback) and "fake.py" in str(reply.traceback)


def test_a_hang_is_ended_at_its_limit_and_the_parent_sleeps_meanwhile(open_worker: OpenWorker) -> None:
    worker = ready(open_worker(), spec("hang", rows=2))
    wall, cpu = time.monotonic(), time.process_time()
    reply = last(worker, WARM_UP, limit_s=2.0)
    assert time.process_time() - cpu < 0.5
    assert time.monotonic() - wall >= 2.0
    assert Failed(cause="timeout", text="took longer than 2 s and was ended") == reply
    worker.close()
    assert -signal.SIGKILL == worker._process.returncode


@contextlib.contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """As Ctrl-C at that moment."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_child_in_the_middle_of_a_command_is_ended_without_a_wait(open_worker: OpenWorker) -> None:
    worker = ready(open_worker(), spec("hang", rows=2))
    with pytest.raises(KeyboardInterrupt), interrupt_after(0.5):
        last(worker, WARM_UP)
    begun = time.monotonic()
    worker.close()
    assert time.monotonic() - begun < 5.0  # an idle child is given ten seconds to leave
    assert not worker.is_alive()


def test_the_log_of_a_death_is_that_of_the_child_that_died(open_worker: OpenWorker) -> None:
    for _ in range(2):
        reply = last(ready(open_worker(), spec("segfault", rows=2)), WARM_UP)
        assert isinstance(reply, Failed)
        assert 1 == str(reply.traceback).count("Fatal Python error")


def test_a_child_that_dies_before_its_first_command(open_worker: OpenWorker) -> None:
    worker = open_worker()
    os.kill(worker._process.pid, signal.SIGTERM)
    reply = last(worker, opening(spec()))
    assert isinstance(reply, Failed)
    assert ("crashed", "the worker died: SIGTERM") == (reply.cause, reply.text)


def test_ctrl_c_in_a_terminal_does_not_reach_the_child(open_worker: OpenWorker) -> None:
    worker = ready(open_worker(), spec())
    assert os.getpgid(worker._process.pid) == worker._process.pid != os.getpgid(0)
    os.kill(worker._process.pid, signal.SIGINT)
    assert Done() == last(worker, TRIAL)


PARENT = """
import os, sys
from pathlib import Path
from tests.measure.test_worker_process import opening, preparing, last, spec, WARM_UP
from tokbench.measure.worker_process import ProcessWorker
worker = ProcessWorker(Path(sys.argv[1]) / "worker.log", os.environ, 1)
cell = spec("hang", rows=2)
last(worker, opening(cell)), last(worker, preparing(cell))
print(worker._process.pid, flush=True)
last(worker, WARM_UP)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child notices at its next word to the parent")
def test_no_child_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / name) for name in ("src", "tests", "."))}
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, cwd=root) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert ([child], []) == (gone, alive)


def test_the_childs_environment_is_passive_and_quiet() -> None:
    environ = worker_environment({"PATH": "/bin", "OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "64"}, threads=3)
    assert ("passive", "30000", "3", "false", "/bin") == (
        environ["OMP_WAIT_POLICY"],
        environ["GOMP_SPINCOUNT"],
        environ["OMP_NUM_THREADS"],
        environ["TOKENIZERS_PARALLELISM"],
        environ["PATH"],
    )


def test_the_users_own_allocator_settings_stay() -> None:
    name = "PYTORCH_CUDA_ALLOC_CONF"
    assert "expandable_segments:True" == worker_environment({}, 1)[name]
    assert "max_split_size_mb:64" == worker_environment({name: "max_split_size_mb:64"}, 1)[name]


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "CEREBRAS_API_KEY",
        "OPENAI_KEY",
        "db_password",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "NETRC_AUTH",
    ],
)
def test_no_secret_is_inherited(name: str) -> None:
    assert {"PATH": "/bin", "TOKENIZERS_PARALLELISM": "true"} == safe_environment(
        {name: "s3cret", "PATH": "/bin", "TOKENIZERS_PARALLELISM": "true"}
    )


def test_closing_an_idle_child_is_a_request(open_worker: OpenWorker) -> None:
    worker = ready(open_worker(), spec())
    assert Done() == last(worker, CloseGroup())
    worker.close()
    assert 0 == worker._process.returncode
