"""Rank 0's side of a split model: starts the other ranks, tells them every call, hears how they fare. Measures nothing.

A rank that fails or dies ends the group with an error, also where rank 0 waits for it in a collective.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import cast

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers.rank_calls import (
    Answer,
    Call,
    Seat,
    backend_of,
    join,
    leave,
    open_store,
    rank_environment,
)
from tokbench.measure.failures import failed_by
from tokbench.measure.messages import Failed

COMMAND = (sys.executable, "-m", "tokbench.measure.engines.transformers.ranks")
GRACE_S = 10.0
"""How long after a failure the other ranks may take to see it, and a rank may take to leave."""
SKEW_S = 600.0
"""How long after one rank another may finish the same call: loading from a cold disk differs by minutes."""


class Follower:
    """One process of the group, as rank 0 sees it. Its output goes where rank 0's goes: the worker's log."""

    def __init__(self, seat: Seat) -> None:
        ours, theirs = Pipe()
        self.rank = seat.rank
        device = seat.request.devices[seat.rank]
        self.name = f"rank {seat.rank} ({device})"
        self.connection: Connection = ours
        self.process = subprocess.Popen(
            [*COMMAND, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **rank_environment(device, seat.rank, len(seat.request.devices), seat.port)},
        )
        theirs.close()
        self.tell(seat)

    def tell(self, what: Seat | Call) -> None:
        """Send; a process that is gone is heard of by the listener."""
        with contextlib.suppress(OSError):
            self.connection.send(what)

    def leave(self) -> None:
        """Wait for the process's end, then make it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        self.kill()
        self.process.wait()

    def kill(self) -> None:
        """End the process, whatever it is in."""
        if self.process.poll() is None:
            self.process.kill()

    def death(self) -> Failed:
        """What became of a process that is gone."""
        try:
            code = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return Failed(cause="crashed", text=f"{self.name} fell silent")
        if code == -signal.SIGKILL:
            return Failed(cause="killed", text=f"{self.name} was killed (signal 9), as happens when memory runs out")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Failed(cause="crashed", text=f"{self.name} died: {how}")


class Group:
    """All ranks but the first, and what they last said."""

    def __init__(self, request: EngineRequest) -> None:
        ranks = len(request.devices)
        self._device = request.device
        os.environ.update(rank_environment(request.device, 0, ranks, 0))
        self._store = open_store(ranks, 0, is_leader=True)
        os.environ["MASTER_PORT"] = str(self._store.port)
        seats = [Seat(request, rank, self._store.port, os.getpid()) for rank in range(1, ranks)]
        self._followers = [Follower(seat) for seat in seats]
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._is_own_done = threading.Event()
        self.is_over = False
        self._listener = threading.Thread(target=self._listen, name="ranks", daemon=True)
        self._listener.start()

    @contextlib.contextmanager
    def joined(self, request: EngineRequest) -> Iterator[list[Answer]]:
        """Join, and load in the block while the other ranks do the same; their answers are there behind it.

        Raises:
            TrialError, PlugError: as `together`.
        """
        with _Step(self):
            pass  # every rank says that it is there: a rendezvous with one that died would not end
        with _Step(self) as answers:
            join(request, 0, self._store)
            yield answers

    @contextlib.contextmanager
    def together(self, call: Call) -> Iterator[list[Answer]]:
        """Let every rank carry out `call` while the block does so here; their answers are there behind it.

        Raises:
            TrialError: a rank failed, died or did not keep up; the group is over then. Where all ranks refuse alike,
                that refusal is raised and the group goes on.
        """
        if self.is_over:
            raise TrialError("the processes that held the model have ended", cause="engine")
        with _Step(self) as answers:
            for follower in self._followers:
                follower.tell(call)
            yield answers

    def begin_step(self) -> None:
        """Rank 0 is at work, and may wait for the others in a collective."""
        self._is_own_done.clear()

    def end_step(self, own: BaseException | None) -> list[Answer]:
        """Rank 0 is done, or failed with `own`: hear the others.

        Raises:
            TrialError, PlugError: as `together`; nothing where `own` stands, to be raised by the caller.
        """
        self._is_own_done.set()
        if own is not None and not isinstance(own, Exception):
            return []
        answers = self._collect(SKEW_S if own is None else GRACE_S)
        is_whole = len(answers) == len(self._followers)
        if own is None and is_whole and all(answer.failure is None for answer in answers):
            return answers
        if own is not None and is_whole and _is_refused_by_all(own, answers):
            return answers
        self.end()
        cause = self._cause(own, answers)
        if cause is not own:
            raise cause from own
        return answers

    def _collect(self, limit_s: float) -> list[Answer]:
        """The first answer of every rank, as far as they come in time; a failure shortens the time for the others."""
        found: dict[int, Answer] = {}
        with contextlib.suppress(queue.Empty):
            while len(found) < len(self._followers):
                answer = self._answers.get(timeout=limit_s)
                found.setdefault(answer.rank, answer)
                if answer.failure is not None:
                    limit_s = GRACE_S
        return [found[rank] for rank in sorted(found)]

    def _cause(self, own: Exception | None, answers: list[Answer]) -> Exception:
        """The error that tells most: memory that ran out, then what a rank said, then that it died."""
        failures = [(answer, answer.failure) for answer in answers if answer.failure is not None]
        failures.sort(key=lambda pair: (pair[1].cause != "oom", pair[0].is_dead))
        if own is not None:
            mine = failed_by(own)
            if not failures or mine.cause == "oom" or mine.is_refusal or mine.text == failures[0][1].text:
                return own
        if not failures:
            return TrialError(f"a rank did not finish within {SKEW_S:.0f} s of rank 0", cause="timeout")
        answer, failure = failures[0]
        text = failure.text if answer.is_dead else f"{self._followers[answer.rank - 1].name}: {failure.text}"
        return PlugError(text, fix=failure.fix) if failure.is_refusal else TrialError(text, cause=failure.cause)

    def _listen(self) -> None:
        """Hear the ranks; where rank 0 waits in a collective for one that will not come, let that collective end."""
        listening = {follower.connection: follower for follower in self._followers}
        while listening:
            for connection in cast(list[Connection], wait(list(listening))):
                answer = self._hear(listening[connection])
                if answer.is_dead:
                    del listening[connection]
                if self.is_over:
                    continue
                self._answers.put(answer)
                if not self._is_own_done.wait(SKEW_S if answer.failure is None else GRACE_S):
                    self._break_off()

    def _hear(self, follower: Follower) -> Answer:
        try:
            return cast(Answer, follower.connection.recv())
        except (EOFError, OSError):
            return Answer(follower.rank, follower.death(), is_dead=True)

    def _break_off(self) -> None:
        """Kill the other ranks, so that rank 0's collective fails; one of nccl has to be aborted here too."""
        for follower in self._followers:
            follower.kill()
        if backend_of(self._device) == "nccl":
            leave()

    def end(self) -> None:
        """Kill the other ranks."""
        self._stop(is_asked=False)

    def close(self) -> None:
        """Let the other ranks leave, then make them; calling it twice is allowed."""
        self._stop(is_asked=True)

    def _stop(self, *, is_asked: bool) -> None:
        if self.is_over:
            return
        self.is_over = True
        for follower in self._followers:
            if is_asked:
                follower.tell(Call("close"))
            else:
                follower.kill()
        for follower in self._followers:
            follower.leave()
        self._listener.join(GRACE_S)
        leave()


class _Step:
    """One step of all ranks: the block is rank 0's part; the others' answers are in the list behind it."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._answers: list[Answer] = []

    def __enter__(self) -> list[Answer]:
        self._group.begin_step()
        return self._answers

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._answers += self._group.end_step(error)


def _is_refused_by_all(own: Exception, answers: list[Answer]) -> bool:
    """Whether every rank refused a call in the same words, before it began: nothing is out of step."""
    texts = {None if answer.failure is None else answer.failure.text for answer in answers}
    return isinstance(own, TrialError | PlugError) and texts == {own.message}
