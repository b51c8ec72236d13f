"""What a run tells while it goes on. The runner speaks to this; how it is shown is the roof's business."""

from __future__ import annotations

from typing import Protocol

from tokbench.record.spec import CellSpec


class Progress(Protocol):
    """Hears of a run's progress; nothing here may take long."""

    def note(self, text: str) -> None:
        """One plain sentence."""

    def open_group(self, text: str) -> None:
        """Weights are being loaded or a worker is being replaced."""

    def begin_cell(self, number: int, cells: int, block: int, spec: CellSpec) -> None:
        """A cell's turn has come."""

    def end_trial(self, spec: CellSpec, rate: float | None, repetitions: int) -> None:
        """A repetition is finished, at so many tokens per second and user."""

    def end_block(self, block: int, left_s: float) -> None:
        """All cells had their turn; the record is on disk."""


class Silent:
    """Tells nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def open_group(self, text: str) -> None:
        """Nothing."""

    def begin_cell(self, number: int, cells: int, block: int, spec: CellSpec) -> None:
        """Nothing."""

    def end_trial(self, spec: CellSpec, rate: float | None, repetitions: int) -> None:
        """Nothing."""

    def end_block(self, block: int, left_s: float) -> None:
        """Nothing."""
