"""What a run tells while it goes on. The runner speaks to this; how it is shown is the roof's business."""

from __future__ import annotations

from typing import Protocol

from tokbench.measure.plan import PlannedCell


class Progress(Protocol):
    """Hears of a run's progress; nothing here may take long."""

    def note(self, text: str) -> None:
        """One plain sentence."""

    def open_group(self, text: str) -> None:
        """Weights are being loaded or a worker is being replaced."""

    def begin_cell(self, number: int, cells: int, block: int, cell: PlannedCell) -> None:
        """A cell's turn has come."""

    def end_trial(self, cell: PlannedCell, rate: float | None, repetitions: int) -> None:
        """A repetition is finished, at so many tokens per second and user."""

    def expect(self, eta_s: float) -> None:
        """Seconds until the end, roughly."""

    def know_ceiling(self, dtype: str, read_bytes_per_s: float) -> None:
        """The device's read ceiling was measured."""

    def end_block(self, block: int, left_s: float) -> None:
        """All cells had their turn; the record is on disk."""


class Silent:
    """Tells nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def open_group(self, text: str) -> None:
        """Nothing."""

    def begin_cell(self, number: int, cells: int, block: int, cell: PlannedCell) -> None:
        """Nothing."""

    def end_trial(self, cell: PlannedCell, rate: float | None, repetitions: int) -> None:
        """Nothing."""

    def expect(self, eta_s: float) -> None:
        """Nothing."""

    def know_ceiling(self, dtype: str, read_bytes_per_s: float) -> None:
        """Nothing."""

    def end_block(self, block: int, left_s: float) -> None:
        """Nothing."""
