"""Bytes in use and at peak in this process: the allocator's on a GPU, resident ones elsewhere. Allocates nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tokbench.measure.engines import MemoryNow

PROC = Path("/proc/self")


def reset_peaks(device: str, proc: Path = PROC) -> None:
    """Let peaks count from now on, as far as the device and the system can.

    Source: proc_pid_clear_refs(5): 5 sets the peak resident set (VmHWM) to the present one.
    """
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(torch.device(device))
        return
    with contextlib.suppress(OSError):
        (proc / "clear_refs").write_text("5")


def read_memory(device: str, proc: Path = PROC) -> list[MemoryNow]:
    """Readings of this process; empty where the system does not tell."""
    if device != "cpu":
        import torch

        on = torch.device(device)
        return [
            MemoryNow("allocator_peak", torch.cuda.max_memory_allocated(on)),
            MemoryNow("allocator_steady", torch.cuda.memory_allocated(on)),
            MemoryNow("allocator_reserved", torch.cuda.max_memory_reserved(on)),
        ]
    sources = {"VmHWM": "rss_peak", "VmRSS": "rss_steady"}
    with contextlib.suppress(OSError):
        lines = [line.partition(":") for line in (proc / "status").read_text().splitlines()]
        return [MemoryNow(sources[key], int(text.split()[0]) * 1024) for key, _, text in lines if key in sources]
    return []
