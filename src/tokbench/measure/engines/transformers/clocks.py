"""Stamps of finished steps: host clock where the device is the host, device events on a GPU, window edges elsewhere.

A device event is mapped onto the host's monotonic clock by an anchor taken with the device idle; how far the last
event lies from the host's own stamp at the closing anchor is kept as the clock error.
"""

from __future__ import annotations

import time
from typing import Any, Literal, Protocol

import torch

from tokbench.measure.engines import Anchor

REBASE_MS = 4000.0
"""`elapsed_time` is a 32-bit float of milliseconds: beyond 4 s it is coarser than 0.25 µs, so the zero moves on."""


class StepClock(Protocol):
    """Stamps the steps of one window."""

    stamped_by: Literal["host", "device_event"]
    error_s: float | None
    launched_at_ns: int | None
    """When all work of the last window was launched; None where the device does not run apart."""

    def reserve(self, marks: int) -> None:
        """Make ready for windows of at most `marks` marks; never in a window."""

    def begin(self) -> None:
        """Start a window; the device is idle."""

    def mark(self) -> None:
        """The work launched so far is one step further."""

    def finish(self) -> list[int]:
        """Wait until all is finished; one host time per mark, or a single one for all of them."""

    def anchors(self) -> list[Anchor]:
        """The anchors of the last window; empty on one clock."""

    def sync(self) -> int:
        """Wait until the device is idle; the host clock then."""


class HostClock:
    """The device is the host: a step is finished when its call returns."""

    stamped_by: Literal["host", "device_event"] = "host"
    error_s: float | None = None
    launched_at_ns: int | None = None

    def __init__(self) -> None:
        self._stamps: list[int] = []

    def reserve(self, marks: int) -> None:
        """Nothing to make."""

    def begin(self) -> None:
        """Forget earlier stamps."""
        self._stamps = []

    def mark(self) -> None:
        """Read the clock."""
        self._stamps.append(time.monotonic_ns())

    def finish(self) -> list[int]:
        """All stamps."""
        return self._stamps

    def anchors(self) -> list[Anchor]:
        """One clock."""
        return []

    def sync(self) -> int:
        """Nothing is in flight."""
        return time.monotonic_ns()


class EventClock:
    """A CUDA or HIP device: an event per step, read only when the window is over."""

    stamped_by: Literal["host", "device_event"] = "device_event"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: list[Any] = []
        self._used = 0
        self._anchors: list[Anchor] = []
        self.error_s: float | None = None
        self.launched_at_ns: int | None = None

    def reserve(self, marks: int) -> None:
        """Make an event per mark and two for the anchors."""
        while len(self._pool) < marks + 2:
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # the driver makes it at its first record
            self._pool.append(event)
        torch.cuda.synchronize(self._device)

    def begin(self) -> None:
        """Take the opening anchor: host time, then an event on the idle device, which the window does not wait for."""
        before_at_ns = time.monotonic_ns()
        self._pool[0].record()
        self._anchors = [Anchor(before_at_ns, time.monotonic_ns(), "open: the event was launched, not waited for")]
        self._used = 1

    def mark(self) -> None:
        """Record an event behind the work launched so far."""
        self._pool[self._used].record()
        self._used += 1

    def finish(self) -> list[int]:
        """Wait, take the closing anchor, map every event, keep the residual of the last one."""
        self.launched_at_ns = time.monotonic_ns()
        torch.cuda.synchronize(self._device)
        closed_at_ns = time.monotonic_ns()
        self._pool[self._used].record()
        torch.cuda.synchronize(self._device)
        self._anchors.append(Anchor(closed_at_ns, time.monotonic_ns(), "close"))
        zero, zero_at_ns = self._pool[0], self._anchors[0].before_at_ns
        stamps: list[int] = []
        for event in self._pool[1 : self._used]:
            since_ms = zero.elapsed_time(event)
            stamps.append(zero_at_ns + round(since_ms * 1e6))
            if since_ms > REBASE_MS:
                zero, zero_at_ns = event, stamps[-1]
        self.error_s = abs(closed_at_ns - stamps[-1]) * 1e-9 if stamps else None
        return stamps

    def anchors(self) -> list[Anchor]:
        """Opening and closing."""
        return list(self._anchors)

    def sync(self) -> int:
        """Wait for the device."""
        torch.cuda.synchronize(self._device)
        return time.monotonic_ns()


class CoarseClock:
    """A device without usable events (mps): one stamp for all steps of a window, taken when they are finished."""

    stamped_by: Literal["host", "device_event"] = "host"
    error_s: float | None = None
    launched_at_ns: int | None = None

    def reserve(self, marks: int) -> None:
        """Nothing to make."""

    def begin(self) -> None:
        """Nothing to open."""

    def mark(self) -> None:
        """Steps are not told apart."""

    def finish(self) -> list[int]:
        """One stamp."""
        return [self.sync()]

    def anchors(self) -> list[Anchor]:
        """One clock."""
        return []

    def sync(self) -> int:
        """Wait for the device."""
        torch.mps.synchronize()
        return time.monotonic_ns()


def open_clock(device: torch.device) -> StepClock:
    """The best clock that a device has."""
    if device.type == "cuda":
        return EventClock(device)
    return CoarseClock() if device.type == "mps" else HostClock()
