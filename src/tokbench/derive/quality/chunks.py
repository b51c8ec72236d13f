"""Negative log-likelihoods of a cell chunk by chunk, and the cell that they are set beside. Says nothing of answers."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from tokbench.derive.repetitions import UndefinedError, finished_trials
from tokbench.derive.words import t
from tokbench.record.run import CellRecord, Run, Trial

UNQUANTISED = ("float32", "bfloat16", "float16")
"""The widest first: where the weights' own type is not told, it stands for them best."""
NATIVE_DTYPE = "native_dtype"
"""The label that tells in which type the weights were published."""


class Chunk(NamedTuple):
    """One chunk of one frozen text."""

    text: str
    sha256: str
    index: int
    tokens: int
    """Those that were foreseen: all but the chunk's first."""


def has_chunks(cell: CellRecord) -> bool:
    """Whether the cell read a text."""
    return cell.spec.experiment != "none" and cell.spec.experiment.kind == "nll"


def nats_by_chunk(cell: CellRecord) -> dict[Chunk, float]:
    """Nats per token of each chunk, the mean of the repetitions.

    Raises:
        UndefinedError: the cell reads no text, or no repetition came to its end.
    """
    if not has_chunks(cell):
        raise UndefinedError(t("the cell has no experiment nll"))
    found: dict[Chunk, list[float]] = {}
    for trial in finished_trials(cell):
        for chunk, nats in _chunks(trial):
            found.setdefault(chunk, []).append(nats / chunk.tokens)
    if not found:
        raise UndefinedError(t("the experiment read no chunk to its end"))
    return {chunk: statistics.fmean(values) for chunk, values in found.items()}


def _chunks(trial: Trial) -> list[tuple[Chunk, float]]:
    listed = []
    for point in trial.points:
        if point.experiment == "nll":
            text, sha256, index = (point.settings[name] for name in ("text", "sha256", "chunk"))
            chunk = Chunk(str(text), str(sha256), int(index), int(point.values["tokens"]))
            listed.append((chunk, float(point.values["nats"])))
    return listed


def find_reference(run: Run, cell: CellRecord) -> CellRecord:
    """The cell of the same weights before they were quantised, alike in everything but the type of its weights.

    Formula: of the unquantised cells, the one in the type that label.native_dtype names, else the widest.

    Raises:
        UndefinedError: the run has none.
    """
    alike = {
        other.spec.model.dtype: other
        for other in run.cells.values()
        if other.spec.model.dtype in UNQUANTISED and other.good_trials() and _alike(other) == _alike(cell)
    }
    native = cell.spec.labels.get(NATIVE_DTYPE)
    for dtype in (native, *UNQUANTISED):
        if dtype in alike:
            return alike[dtype]
    raise UndefinedError(t("the run has no cell of the same weights unquantised"))


def _alike(cell: CellRecord) -> dict[str, object]:
    tree: dict[str, object] = cell.spec.model_dump(mode="json", exclude={"labels": True, "model": {"dtype"}})
    return tree


def is_native(cell: CellRecord) -> bool:
    """Whether the weights were published unquantised: only then a loss from quantising them says what that costs."""
    return cell.spec.labels.get(NATIVE_DTYPE) in UNQUANTISED and cell.spec.model.weights == "pretrained"
