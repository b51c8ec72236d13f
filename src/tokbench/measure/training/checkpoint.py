"""Where a training stands, kept beside its result, so that the same command goes on after a stop."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

KEPT_EVERY = 50
"""Steps."""


class Checkpoint(NamedTuple):
    """One file; what belongs to another training is left alone until it is written over."""

    folder: Path
    belongs_to: str
    """Recipe, text and weights that decide every step, as one text."""
    name: str = "training.pt"

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    def read(self) -> dict[str, Any] | None:
        """What was kept last; None where there is nothing of this training."""
        if not zipfile.is_zipfile(self.path):  # none, or a file that torch never wrote
            return None
        try:
            kept = torch.load(str(self.path), map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError):  # another archive
            return None
        if not isinstance(kept, dict) or kept.get("belongs_to") != self.belongs_to:
            return None
        return kept

    def keep(self, state: dict[str, Any]) -> None:
        """Write tensors and plain values over what was kept before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(f".{os.getpid()}")
        torch.save({**state, "belongs_to": self.belongs_to}, str(beside))
        beside.replace(self.path)

    def clear(self) -> None:
        """Forget it: the training is done."""
        self.path.unlink(missing_ok=True)
