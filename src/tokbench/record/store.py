"""Where a record is kept: one folder, one append-only file, one writing thread. Never rewrites a line.

RUN/config.yaml    the config as resolved: overrides applied
RUN/events.jsonl   one event a line; the first is `run_started`
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pydantic_core
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
            self._file: IO[bytes] = self._path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _end_torn_line(self._path)
        except BlockingIOError:
            self._file.close()
            raise RecordError(f"{folder}: another tokbench is writing here", fix="wait for it, or end it") from None
        except OSError as error:
            raise _cannot_write(self._path, error) from None
        self._is_closed = False
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
        self._refuse_closed()
        self._queue.put(event.model_dump_json(exclude_defaults=False).encode() + b"\n")

    def sync(self) -> None:
        """Wait until everything handed over is flushed and fsynced.

        Raises:
            RecordError: it could not be written.
        """
        self._refuse_closed()
        done = threading.Event()
        self._queue.put(done)
        done.wait()
        self._raise_fault()

    def close(self) -> None:
        """Write what is left and close the file; closing again does nothing.

        Raises:
            RecordError: it could not be written.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()
        try:
            self._file.close()
        except OSError as error:  # Python flushes once more
            self._fault = self._fault or error
        self._raise_fault()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise RecordError(f"{self._path}: the record is closed", fix="this is a bug of tokbench: report it")

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
                    self._flush()
            except OSError as error:
                self._fault = error
            finally:
                if isinstance(item, threading.Event):
                    item.set()
        try:
            if self._fault is None:
                self._flush()
        except OSError as error:
            self._fault = error

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _cannot_write(path: Path, error: OSError) -> RecordError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        fix = f"free disk space; what was written stays valid: `tokbench run --resume {path.parent}` goes on from there"
    else:
        fix = "give another --out, in a folder that can be written"
    return RecordError(f"{path}: the record cannot be written: {error.strerror or error}", fix=fix)


def _end_torn_line(path: Path) -> None:
    """Close a last line that a crash left open, so that the next event begins a line of its own."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def check_new_run(folder: Path) -> None:
    """See, before anything is fetched or measured, that a new run can be kept here. Writes nothing.

    Raises:
        RecordError: something is there already, or nothing can be written.
    """
    try:
        is_there = folder.is_symlink() or folder.exists()
        if is_there and (not folder.is_dir() or any(folder.iterdir())):
            raise RecordError(
                f"{folder}: there is already something here",
                fix=f"give another --out, or finish that run: `tokbench run --resume {folder}`",
            )
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except OSError as error:
        raise _cannot_write(folder, error) from None
    if not place.is_dir():
        raise RecordError(f"{folder}: cannot be made: {place} is not a folder", fix="give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RecordError(f"{folder}: cannot be made: {place} may not be written", fix="give another --out")


def create_run(folder: Path, config_text: str) -> None:
    """Make the folder of a new run.

    Raises:
        RecordError: it exists and holds something, or cannot be made.
    """
    check_new_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(config_text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder / CONFIG_FILE, error) from None


def read_events(folder: Path) -> Iterator[Event]:
    """Yield the events of a run in order; a torn line (crash in mid-write) is passed over.

    Raises:
        RecordError: no record here, a foreign schema version, or a line that was not written like that.
    """
    path = folder / EVENTS_FILE if folder.is_dir() else folder
    if not path.is_file():
        raise RecordError(
            f"{folder}: no record here ({EVENTS_FILE} is missing)", fix="name a run folder, e.g. runs/NAME"
        )
    try:
        with path.open("rb") as file:
            yield from _parse(path, file)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}", fix="look at its permissions") from None


def _parse(path: Path, file: IO[bytes]) -> Iterator[Event]:
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
    """Whether a line is the beginning of one: a crash cuts it off, or leaves zeros where it was to stand."""
    written = line.strip(b"\0\r\n")
    if not written:
        return True
    try:
        pydantic_core.from_json(written.decode("utf-8", errors="ignore"))
    except ValueError as error:
        return "EOF while parsing" in str(error)
    return written != line.rstrip(b"\r\n")


def _bad_line(path: Path, number: int, line: bytes, error: ValidationError) -> RecordError:
    try:
        value = pydantic_core.from_json(line)
    except ValueError:
        value = None
    version = value.get("schema_version") if isinstance(value, dict) and number == 1 else None
    if version is not None and version != SCHEMA_VERSION:
        return _foreign(path, version)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    detail = f"{where}: {first['msg']}" if where else first["msg"]
    return RecordError(f"{path}:{number}: not an event: {detail}", fix="the file was edited; restore it")


def _foreign(path: Path, version: object) -> RecordError:
    return RecordError(
        f"{path}: schema version {version}, this tokbench reads {SCHEMA_VERSION}",
        fix="use the tokbench version that wrote it",
    )


def read_header(folder: Path) -> RunStarted:
    """The first line of a record.

    Raises:
        RecordError: there is none.
    """
    for event in read_events(folder):
        if isinstance(event, RunStarted):
            if event.schema_version != SCHEMA_VERSION:
                raise _foreign(folder, event.schema_version)
            return event
        break
    raise RecordError(f"{folder}: the record has no first line", fix="start the run anew with another --out")
