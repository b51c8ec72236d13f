"""Where a report is written beside a run: whatever goes wrong in it is one message, and the record stands.

A section or a metric that fails is a fault of ours, told by name and line; `tokbench report RUN` shows its traceback.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from tokbench.errors import RecordError, TokbenchError

LONGEST = 200


@contextlib.contextmanager
def as_record_errors(folder: Path) -> Iterator[None]:
    """Let every fault inside be one that the command line tells in a message.

    Raises:
        RecordError: a fault that the user cannot act on. TokbenchError: another, as it came.
    """
    try:
        yield
    except TokbenchError:
        raise
    except Exception as error:  # a section's or a metric's own: the measurement must outlive it
        fix = f"tokbench report {folder} shows where; the record is whole"
        raise RecordError(f"{folder}: the report was not written: {_say(error)}", fix=fix) from error


def in_one_line(error: TokbenchError) -> str:
    """A message without its line breaks."""
    return " ".join(str(error).split())


def _say(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}{place}"
