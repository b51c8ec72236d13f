"""Stamps of finished steps: host clock where the device is the host, device events on a GPU, window edges elsewhere.

A device event is mapped onto the host's monotonic clock by an anchor taken with the device idle; how far the last
event lies from the host's own stamp at the closing anchor is kept as the clock error.
"""

from __future__ import annotations

import time
from typing import Any, Literal, Protocol

import torch


class StepClock(Protocol):
    """Stamps the steps of one window."""

    stamped_by: Literal["host", "device_event"]
    error_s: float | None

    def begin(self) -> None:
        """Start a window; the device is idle."""

    def mark(self) -> None:
        """The work launched so far is one step further."""

    def finish(self) -> list[int]:
        """Wait until all is finished; one host time per mark, or a single one for all of them."""

    def sync(self) -> int:
        """Wait until the device is idle; the host clock then."""


class HostClock:
    """The device is the host: a step is finished when its call returns."""

    stamped_by: Literal["host", "device_event"] = "host"
    error_s: float | None = None

    def __init__(self) -> None:
        self._stamps: list[int] = []

    def begin(self) -> None:
        """Forget earlier stamps."""
        self._stamps = []

    def mark(self) -> None:
        """Read the clock."""
        self._stamps.append(time.monotonic_ns())

    def finish(self) -> list[int]:
        """All stamps."""
        return self._stamps

    def sync(self) -> int:
        """Nothing is in flight."""
        return time.monotonic_ns()


class EventClock:
    """A CUDA or HIP device: an event per step, read only when the window is over."""

    stamped_by: Literal["host", "device_event"] = "device_event"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._anchor_at_ns = 0
        self._pool: list[Any] = []
        self._used = 0
        self.error_s: float | None = None

    def _next_event(self) -> Any:
        if self._used == len(self._pool):
            self._pool.append(torch.cuda.Event(enable_timing=True))
        self._used += 1
        return self._pool[self._used - 1]

    def begin(self) -> None:
        """Take the opening anchor: host time, then an event on the idle device."""
        self._used = 0
        event = self._next_event()
        self._anchor_at_ns = time.monotonic_ns()
        event.record()

    def mark(self) -> None:
        """Record an event behind the work launched so far."""
        self._next_event().record()

    def finish(self) -> list[int]:
        """Wait, map every event, keep the residual at the closing anchor."""
        torch.cuda.synchronize(self._device)
        closed_at_ns = time.monotonic_ns()
        first, *others = self._pool[: self._used]
        stamps = [self._anchor_at_ns + round(first.elapsed_time(event) * 1e6) for event in others]
        self.error_s = abs(closed_at_ns - stamps[-1]) * 1e-9 if stamps else None
        return stamps

    def sync(self) -> int:
        """Wait for the device."""
        torch.cuda.synchronize(self._device)
        return time.monotonic_ns()


class CoarseClock:
    """A device without usable events (mps): one stamp for all steps of a window, taken when they are finished."""

    stamped_by: Literal["host", "device_event"] = "host"
    error_s: float | None = None

    def begin(self) -> None:
        """Nothing to open."""

    def mark(self) -> None:
        """Steps are not told apart."""

    def finish(self) -> list[int]:
        """One stamp."""
        return [self.sync()]

    def sync(self) -> int:
        """Wait for the device."""
        torch.mps.synchronize()
        return time.monotonic_ns()


def open_clock(device: torch.device) -> StepClock:
    """The best clock that a device has."""
    if device.type == "cuda":
        return EventClock(device)
    return CoarseClock() if device.type == "mps" else HostClock()
