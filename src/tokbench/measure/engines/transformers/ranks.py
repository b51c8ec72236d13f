"""Every rank of a split model but the first: does what rank 0 does, on a device of its own, until that is gone.

Run as `python -m tokbench.measure.engines.transformers.ranks FD`. It measures nothing: stamps are rank 0's.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines.transformers.rank_calls import Answer, Call, Seat, join, open_store, own_request
from tokbench.measure.failures import failed_by

if TYPE_CHECKING:
    from tokbench.measure.engines.transformers.engine import TransformersEngine
    from tokbench.measure.engines.transformers.links import Link

GONE = (EOFError, BrokenPipeError, ConnectionResetError)
"""How it looks when rank 0 is no more."""


class _LastWords:
    """Tells rank 0 what this process failed with, and ends it at once: rank 0's collectives end with it."""

    def __init__(self, connection: Connection, rank: int) -> None:
        self._connection, self._rank = connection, rank

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, GONE):
            traceback.print_exception(error)
            with contextlib.suppress(OSError):
                self._connection.send(Answer(self._rank, failed_by(error)))
            os._exit(1)


def _follow(connection: Connection, seat: Seat) -> None:
    """Do what rank 0 does until it says close or is gone."""
    from tokbench.measure.engines.transformers import links
    from tokbench.measure.engines.transformers.engine import TransformersEngine

    store = open_store(len(seat.request.devices), seat.port, is_leader=False)
    request = own_request(seat.request, seat.rank)
    connection.send(Answer(seat.rank))  # it is there
    join(request, seat.rank, store)
    engine = TransformersEngine(links.loaded_request(request))
    link, _ = links.install(engine.model, request, seat.rank)
    connection.send(Answer(seat.rank, model_facts=engine.model_facts))
    while (call := connection.recv()).name != "close":
        try:
            own = _carry_out(engine, call, seat.rank) if link is None else _cross(engine, call, seat.rank, link)
            connection.send(own)
        except (TrialError, PlugError) as refusal:  # rank 0 refuses alike, or ends this process
            connection.send(Answer(seat.rank, failed_by(refusal)))


def _cross(engine: TransformersEngine, call: Call, rank: int, link: Link) -> Answer:
    """One call on this rank's part, or on the link before it."""
    from tokbench.measure.engines.transformers import links

    match call.name:
        case "link":
            link.set(*call.delay)
        case "exchange":
            links.exchange_alone(link, rank, call.number)
        case _:
            if call.name == "decode":
                link.forget()
            return _carry_out(engine, call, rank)
    return Answer(rank)


def _carry_out(engine: TransformersEngine, call: Call, rank: int) -> Answer:
    """One call on this rank's part."""
    answer = Answer(rank)
    match call.name:
        case "prepare":
            assert call.work is not None
            answer = answer._replace(kv_bytes=engine.prepare(call.work).kv_bytes_allocated)
        case "prefill":
            engine.prefill()
        case "decode":
            engine.decode(call.number)
        case "rewind":
            engine.rewind(call.number)
        case "identity":
            engine.check_identity(call.number)
        case "repeat":
            engine.check_repeat(call.number)
        case "tokens":
            answer = answer._replace(tokens=engine.output_tokens())
        case "memory":
            answer = answer._replace(memory=tuple(engine.memory()))
    return answer._replace(graphs_compiled=engine.graphs_compiled)


def _die_with(leader_pid: int) -> None:
    """Ask Linux to end this process with rank 0, even where that is killed in the middle of a collective."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != leader_pid:
            os._exit(1)


def main() -> None:
    """Follow rank 0 over the connection whose file descriptor is the first argument."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(*GONE):
        seat: Seat = connection.recv()
        _die_with(seat.leader_pid)
        with _LastWords(connection, seat.rank):
            _follow(connection, seat)
    os._exit(0)


if __name__ == "__main__":
    main()
