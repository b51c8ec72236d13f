"""Where the parts of a round end: host times where the device is the host, device events on a GPU. No extra waiting."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Cuts(Protocol):
    """Cuts of one window."""

    def reserve(self, most: int) -> None:
        """Make ready for so many cuts; never in a window."""

    def begin(self) -> None:
        """Forget earlier cuts and take the first."""

    def cut(self) -> None:
        """What was launched so far ends here."""

    def seconds(self) -> list[float]:
        """Between each cut and the next; everything is finished."""


class HostCuts:
    """For a CPU, where a call that returned is finished work, and for a device without usable events."""

    def __init__(self, sync: Callable[[], int]) -> None:
        self._sync = sync
        self.at_ns: list[int] = []

    def reserve(self, most: int) -> None:
        """Nothing to make."""

    def begin(self) -> None:
        """Take the first cut."""
        self.at_ns = [self._sync()]

    def cut(self) -> None:
        """Host time with the device idle."""
        self.at_ns.append(self._sync())

    def seconds(self) -> list[float]:
        """Differences of host times."""
        return [(after - before) * 1e-9 for before, after in itertools.pairwise(self.at_ns)]


class EventCuts:
    """For CUDA and HIP: an event per cut, read when the window is over."""

    def __init__(self) -> None:
        self._pool: list[Any] = []
        self._used = 0

    def reserve(self, most: int) -> None:
        """Make events."""
        while len(self._pool) < most:
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # the driver makes it at its first record
            self._pool.append(event)

    def begin(self) -> None:
        """Record the first event."""
        self._used = 0
        self.cut()

    def cut(self) -> None:
        """Record an event."""
        self._pool[self._used].record()
        self._used += 1

    def seconds(self) -> list[float]:
        """What the device took between events."""
        used = self._pool[: self._used]
        return [before.elapsed_time(after) * 1e-3 for before, after in itertools.pairwise(used)]


def open_cuts(device: torch.device, sync: Callable[[], int]) -> HostCuts | EventCuts:
    """The cuts that suit a device; `sync` waits for it and tells the host time."""
    return EventCuts() if device.type == "cuda" else HostCuts(sync)
