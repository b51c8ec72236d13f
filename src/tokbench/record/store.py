"""Where a record is kept: one folder, one append-only file, one writing thread. Never rewrites a line.

RUN/config.yaml    the config as resolved: overrides applied
RUN/events.jsonl   one event a line; the first is `run_started`
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from tokbench.errors import RecordError
from tokbench.record.observations import EVENT_ADAPTER, SCHEMA_VERSION, Event, RunStarted

EVENTS_FILE = "events.jsonl"
CONFIG_FILE = "config.yaml"


class RunWriter:
    """Appends events to one run's file from one thread; `sync` returns when all so far are on disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS_FILE
        try:
            _end_torn_line(self._path)
            self._file: IO[bytes] = self._path.open("ab")
        except OSError as error:
            raise _cannot_write(self._path, error) from None
        self._queue: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._fault: OSError | None = None
        self._thread = threading.Thread(target=self._write, name="record", daemon=True)
        self._thread.start()

    def append(self, event: Event) -> None:
        """Hand an event to the writing thread.

        Raises:
            RecordError: an earlier write failed (disk full, folder gone).
        """
        self._raise_fault()
        self._queue.put(event.model_dump_json(exclude_defaults=False).encode() + b"\n")

    def sync(self) -> None:
        """Wait until everything handed over is flushed and fsynced.

        Raises:
            RecordError: it could not be written.
        """
        done = threading.Event()
        self._queue.put(done)
        done.wait()
        self._raise_fault()

    def close(self) -> None:
        """Write what is left and close the file; a fault is raised once."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
            self._file.close()
        self._raise_fault()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise _cannot_write(self._path, self._fault)

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item, bytes):
                    if self._fault is None:
                        self._file.write(item)
                elif self._fault is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            except OSError as error:
                self._fault = error
            finally:
                if isinstance(item, threading.Event):
                    item.set()
        with contextlib.suppress(OSError):
            self._file.flush()
            os.fsync(self._file.fileno())


def _cannot_write(path: Path, error: OSError) -> RecordError:
    return RecordError(
        f"{path}: the record cannot be written: {error.strerror or error}",
        fix="free disk space or give another --out; what was written stays valid: `tokbench run --resume RUN`",
    )


def _end_torn_line(path: Path) -> None:
    """Close a last line that a crash left open, so that the next event begins a line of its own."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def create_run(folder: Path, config_text: str) -> None:
    """Make the folder of a new run.

    Raises:
        RecordError: it exists and holds something, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecordError(
            f"{folder}: there is already something here",
            fix="give another --out, or `--resume` to finish that run",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(config_text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from None


def read_events(folder: Path) -> Iterator[Event]:
    """Yield the events of a run in order; a torn line (crash in mid-write) is passed over.

    Raises:
        RecordError: no record here, a foreign schema version, or a line that is JSON but no event.
    """
    path = folder / EVENTS_FILE if folder.is_dir() else folder
    if not path.is_file():
        raise RecordError(
            f"{folder}: no record here ({EVENTS_FILE} is missing)", fix="name a run folder, e.g. runs/NAME"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                event = EVENT_ADAPTER.validate_json(line)
            except ValidationError as error:
                if _is_torn(line):
                    continue
                raise _bad_line(path, number, line, error) from None
            yield event


def _is_torn(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _bad_line(path: Path, number: int, line: bytes, error: ValidationError) -> RecordError:
    version = json.loads(line).get("schema_version") if number == 1 else None
    if version is not None and version != SCHEMA_VERSION:
        return RecordError(
            f"{path}: schema version {version}, this tokbench reads {SCHEMA_VERSION}",
            fix="use the tokbench version that wrote it",
        )
    first = error.errors(include_url=False)[0]
    return RecordError(f"{path}:{number}: not an event: {first['msg']}", fix="the file was edited; restore it")


def read_header(folder: Path) -> RunStarted:
    """The first line of a record.

    Raises:
        RecordError: there is none.
    """
    for event in read_events(folder):
        if isinstance(event, RunStarted):
            if event.schema_version != SCHEMA_VERSION:
                raise RecordError(
                    f"{folder}: schema version {event.schema_version}, this tokbench reads {SCHEMA_VERSION}",
                    fix="use the tokbench version that wrote it",
                )
            return event
        break
    raise RecordError(f"{folder}: the record has no first line", fix="start the run anew with another --out")
