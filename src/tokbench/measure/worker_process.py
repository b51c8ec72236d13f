"""The parent's end of a worker: starts the child, sends commands, waits without spinning, sees how it died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Protocol

import psutil

from tokbench.measure.messages import REPLY_ADAPTER, CloseGroup, Command, Failed, Reply
from tokbench.measure.worker import WorkerSession

GRACE_S = 10.0


class Worker(Protocol):
    """What the runner needs of a worker, in a child process or in this one."""

    worker_id: str

    def ask(self, command: Command, limit_s: float) -> Iterator[Reply]:
        """Send a command and yield what comes back, the last being `Done` or `Failed`."""

    def cpu_s(self) -> float | None:
        """CPU seconds that the worker has used; None where it cannot be told."""

    def is_alive(self) -> bool:
        """Whether it can take a command."""

    def close(self) -> None:
        """End it; calling it twice is allowed."""


OpenWorker = Callable[[], Worker]


class ProcessWorker:
    """A worker in a child process of its own session: Ctrl-C reaches the parent alone."""

    def __init__(
        self, log: Path, environ: Mapping[str, str], threads: int, python: Path = Path(sys.executable)
    ) -> None:
        ours, theirs = Pipe()
        self._connection: Connection = ours
        self._is_busy = False
        self.worker_id = f"{os.getpid()}-{time.monotonic_ns()}"
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [str(python), "-m", "tokbench.measure.worker", str(theirs.fileno()), self.worker_id],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=worker_environment(environ, threads),
                start_new_session=True,
            )
        theirs.close()
        self._log = log
        self._ps = psutil.Process(self._process.pid)
        self._family = {self._ps.pid: self._ps}
        self._known_cpu_s: dict[int, float] = {}
        """By process; what one that has ended used stays in the sum."""

    def ask(self, command: Command, limit_s: float) -> Iterator[Reply]:
        """Send a command; a child that dies or takes too long becomes a `Failed`."""
        deadline = time.monotonic() + limit_s
        self._is_busy = True
        try:
            self._connection.send_bytes(command.model_dump_json().encode())
            while True:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    self._kill()
                    yield Failed(cause="timeout", text=f"took longer than {limit_s:.0f} s and was ended")
                    return
                reply = REPLY_ADAPTER.validate_json(self._connection.recv_bytes())
                if reply.message != "event":
                    self._is_busy = False
                    yield reply
                    return
                yield reply
        except (EOFError, OSError):
            yield self._death()
        finally:
            self._meet_family()

    def _meet_family(self) -> None:
        """Know the processes that the child has started by now: the ranks of a split model, a compiler's workers."""
        with contextlib.suppress(psutil.Error):
            for process in self._ps.children(recursive=True):
                self._family.setdefault(process.pid, process)

    def _death(self) -> Failed:
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait()
        self._kill()  # what it started may outlive it
        tail = self._log_tail()
        if code == -signal.SIGKILL:
            return Failed(
                cause="killed",
                text="the worker was killed (signal 9); most often the kernel does so when memory runs out",
                traceback=tail,
            )
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Failed(cause="crashed", text=f"the worker died: {name}", traceback=tail)

    def _log_tail(self) -> str | None:
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()[-4000:].decode("utf-8", "replace") or None
        return None

    def cpu_s(self) -> float | None:
        """User and system seconds of the child and of the processes that it has started."""
        for pid, process in list(self._family.items()):  # a sampler asks beside the runner
            try:
                times = process.cpu_times()
            except psutil.Error:
                if process is self._ps:
                    return None
                continue
            self._known_cpu_s[pid] = float(times.user + times.system)
        return sum(self._known_cpu_s.values())

    def is_alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ask the child to leave, then make it; one that is in the middle of a command could not hear, and is ended."""
        if self.is_alive() and not self._is_busy:
            with contextlib.suppress(OSError):
                self._connection.send_bytes(CloseGroup().model_dump_json().encode())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        if self.is_alive():
            self._kill()
            self._process.wait()
        self._connection.close()


def worker_environment(environ: Mapping[str, str], threads: int) -> dict[str, str]:
    """The child's environment: OpenMP waits briefly, allocators and compile cache as stated in the record.

    A thread that sleeps at every barrier loses 12 % of a decode's bandwidth, one that never sleeps loses 85 % to a
    foreign busy loop; libgomp's spin is bounded to some 100 us, other OpenMP libraries do not spin.
    Source: docs/design/cpu-limit.md (2026-11-22); shared/facts/engines.md, Contention.
    """
    ours = {
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "30000",
        "THP_MEM_ALLOC_ENABLE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
    preset = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    return {**preset, **environ, **ours}


class LocalWorker:
    """A worker in this process: for tests on a scripted clock. A crash of it is a crash of the caller."""

    def __init__(self, worker_id: str = "local") -> None:
        self.worker_id = worker_id
        self._session = WorkerSession(worker_id)

    def ask(self, command: Command, limit_s: float) -> Iterator[Reply]:
        """Carry out the command at once."""
        yield from self._session.answer(command)

    def cpu_s(self) -> float | None:
        """Not told apart from the caller's."""
        return None

    def is_alive(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Let go of the engine."""
        self._session.close()
