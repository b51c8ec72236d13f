"""The one error tree of tokbench, with the exit code each branch ends in.

    TokbenchError
    ├── SpecError    2  what the user asked for cannot be read: file, line, key, what to do
    ├── PlugError    3  unknown plug, missing package (names the extra), no such device, busy device
    │   └── NotFetchedError  a plan fetches nothing, and knows no shape of a model that a run would fetch
    ├── TrialError   1  a trial failed: recorded, the run goes on, and ends with 1
    ├── RecordError  4  a run cannot be read, written or extended
    └── DataError    5  a data row is wrong: file, row, field

`tokbench compare` alone ends with 6 where a pair is not like for like, and with 7 (--strict) where nobody can tell.
Ctrl-C ends with 130 and SIGTERM with 143, after the record has been closed and the report written.
Every message says what is wrong, where, and what to do; none holds a secret.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the process ends with; part of the public interface."""

    OK = 0
    TRIALS_FAILED = 1
    SPEC = 2
    PLUG = 3
    RECORD = 4
    DATA = 5
    UNLIKE = 6
    CANNOT_TELL = 7
    INTERRUPTED = 130
    TERMINATED = 143


class TokbenchError(Exception):
    """A fault that the user can act on; printed as one message, without a traceback."""

    exit_code: ExitCode = ExitCode.TRIALS_FAILED

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def where(self) -> str:
        """The place of the fault, or an empty string."""
        return ""

    def __str__(self) -> str:
        place = self.where()
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class SpecError(TokbenchError):
    """The config or the command line asks for something that cannot be."""

    exit_code = ExitCode.SPEC

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.file = file
        self.line = line
        self.key = key

    def where(self) -> str:
        place = self.file or ""
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        return f"{place}: {self.key}" if place and self.key else place or (self.key or "")


class PlugError(TokbenchError):
    """An engine, meter, experiment or device is unknown, missing or not usable here."""

    exit_code = ExitCode.PLUG


class NotFetchedError(PlugError):
    """Of a model that is not on this disk nothing is known before a run fetches it."""


class TrialError(TokbenchError):
    """A trial failed; `cause` is one of `oom`, `timeout`, `killed`, `crashed`, `engine`."""

    exit_code = ExitCode.TRIALS_FAILED

    def __init__(self, message: str, *, cause: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.cause = cause


class RecordError(TokbenchError):
    """A run folder cannot be read, written or extended."""

    exit_code = ExitCode.RECORD


class DataError(TokbenchError):
    """A row in a data file is wrong."""

    exit_code = ExitCode.DATA

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        row: str | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.file = file
        self.row = row
        self.field = field

    def where(self) -> str:
        parts = [self.file, f"row {self.row}" if self.row else None, f"field {self.field}" if self.field else None]
        return ", ".join(part for part in parts if part)


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler wants the machine back; ends as cleanly as Ctrl-C."""
