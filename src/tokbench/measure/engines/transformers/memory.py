"""Bytes in use and at peak: the allocator's on a GPU, the process's resident ones elsewhere. Allocates nothing."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import torch

from tokbench.measure.engines import MemoryNow

PROC = Path("/proc/self")


def reset_peaks(device: torch.device, proc: Path = PROC) -> None:
    """Let peaks count from now on, as far as the device and the system can.

    Source: proc_pid_clear_refs(5): 5 sets the peak resident set (VmHWM) to the present one.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        (proc / "clear_refs").write_text("5")


def read_memory(device: torch.device, proc: Path = PROC) -> list[MemoryNow]:
    """Readings of the allocator on a GPU, of the process elsewhere."""
    if device.type == "cuda":
        return [
            MemoryNow("allocator_peak", torch.cuda.max_memory_allocated(device)),
            MemoryNow("allocator_steady", torch.cuda.memory_allocated(device)),
            MemoryNow("allocator_reserved", torch.cuda.max_memory_reserved(device)),
        ]
    peak, steady = _status_bytes("VmHWM", proc), _status_bytes("VmRSS", proc)
    readings = [MemoryNow("rss_peak", _lifetime_peak_bytes() if peak is None else peak)]
    return readings if steady is None else [*readings, MemoryNow("rss_steady", steady)]


def _status_bytes(key: str, proc: Path) -> int | None:
    """One line of the process's status; VmHWM is a peak that can be reset. None where the system has no such file."""
    with contextlib.suppress(OSError):
        for line in (proc / "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def _lifetime_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
