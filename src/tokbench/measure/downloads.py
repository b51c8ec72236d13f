"""What every way of fetching weights shares: hashes, locks, room on the disk, and progress in words.

It fetches nothing itself, and it never decides what counts as complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tokbench.errors import PlugError
from tokbench.units import BYTES, BYTES_PER_S, format_value

Report = Callable[[str], None]
"""Takes one line of progress; may be called from a second thread while a download runs."""

SPARE_RATIO = 1.05
"""Free space asked for per byte to be written: index files, the file system's own blocks."""


def seconds_text(duration_s: float) -> str:
    """Say a waiting time, in minutes from two minutes on."""
    return f"{duration_s / 60:.0f} min" if duration_s >= 120 else f"{duration_s:.0f} s"


def sha256_of(path: Path) -> str:
    """Hash one file without holding it in memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def free_bytes_at(folder: Path) -> int:
    """Free bytes on the disk that will hold `folder`, which need not exist yet."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free


def require_disk(needed_bytes: int, free_bytes: int, folder: Path) -> None:
    """Refuse a download that cannot fit.

    Raises: PlugError when fewer bytes are free than the download needs with its spare.
    """
    asked_bytes = int(needed_bytes * SPARE_RATIO)
    if free_bytes < asked_bytes:
        raise PlugError(
            f"not enough disk for {folder}: {format_value(asked_bytes, BYTES)} are needed, "
            f"{format_value(free_bytes, BYTES)} are free",
            fix="free some space, or point HF_HOME (hub) or TOKBENCH_CACHE (packages) at a larger disk",
        )


def folder_bytes(folder: Path) -> int:
    """Bytes really written under `folder`; files reserved but not yet filled count for what they hold."""
    total = 0
    for path in folder.rglob("*"):
        # Files vanish between listing and stat while a downloader renames its partial ones.
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            if path.is_file() and not path.is_symlink():
                total += min(stat.st_size, stat.st_blocks * 512)
    return total


def progress_line(done_bytes: int, total_bytes: int, rate_bytes_per_s: float) -> str:
    """Word one line of progress with the time left at the rate measured so far."""
    line = f"  {format_value(done_bytes, BYTES)} of {format_value(total_bytes, BYTES)}"
    if rate_bytes_per_s <= 0:
        return f"{line}, nothing arriving"
    left_s = (total_bytes - done_bytes) / rate_bytes_per_s
    return f"{line}, {format_value(rate_bytes_per_s, BYTES_PER_S)}, about {seconds_text(left_s)} left"


@contextlib.contextmanager
def watched(folder: Path, total_bytes: int, report: Report, *, every_s: float = 5.0) -> Iterator[None]:
    """Report size, rate and time left every few seconds while something else fills `folder`."""
    is_over = threading.Event()
    started_bytes, started_s = folder_bytes(folder), time.monotonic()

    def watch() -> None:
        while not is_over.wait(every_s):
            new_bytes = folder_bytes(folder) - started_bytes
            rate = new_bytes / (time.monotonic() - started_s)
            report(progress_line(min(new_bytes, total_bytes), total_bytes, rate))

    watcher = threading.Thread(target=watch, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


@contextlib.contextmanager
def locked(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another process that holds it; a dead process holds nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another tokbench process that prepares {path.stem}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
