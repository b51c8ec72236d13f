"""Negative log-likelihoods of a cell chunk by chunk, and the cell that they are set beside. Says nothing of answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from tokbench.arithmetic import precision_on
from tokbench.derive.repetitions import UndefinedError, finished_trials
from tokbench.derive.words import t
from tokbench.record.facts import DeviceFacts
from tokbench.record.run import CellRecord, Run, Trial

UNQUANTISED = ("float32", "bfloat16", "float16")
"""The widest first: it holds every value of the others but a few of the smallest and largest."""
NATIVE_DTYPE = "native_dtype"
"""The label that tells in which type the weights were published."""

QUANTISED = "int8"
"""Any type that is: all of them are computed with in the same one."""

Cell = TypeVar("Cell")


class Chunk(NamedTuple):
    """One chunk of one frozen text."""

    text: str
    sha256: str
    place: int
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
            text, sha256, place = (point.settings[name] for name in ("text", "sha256", "chunk"))
            chunk = Chunk(str(text), str(sha256), int(place), int(point.values["tokens"]))
            listed.append((chunk, float(point.values["nats"])))
    return listed


def find_reference(run: Run, cell: CellRecord) -> CellRecord:
    """The cell of the same weights before they were quantised that read the same text, in the same mode where it can.

    Formula: of the unquantised cells, the one in the type that quantised weights are computed with on this device, else
    in the type that label.native_dtype names, else the widest.

    Raises:
        UndefinedError: the run has none.
    """
    alike: dict[str, CellRecord] = {}
    for other in run.cells.values():
        dtype, mode = other.spec.model.dtype, other.spec.engine.mode
        is_alike = dtype in UNQUANTISED and other.good_trials() and _reads(other) == _reads(cell)
        if is_alike and (dtype not in alike or mode == cell.spec.engine.mode):
            alike[dtype] = other
    found = first_unquantised(alike, cell, run.device)
    if found is None:
        raise UndefinedError(t("the run has no cell of the same weights unquantised"))
    return found


def first_unquantised(by_dtype: Mapping[str, Cell], cell: CellRecord, device: DeviceFacts | None) -> Cell | None:
    """Of several unquantised types, the one that stands for the weights: only their rounding shall differ."""
    computed = None if device is None else precision_on(QUANTISED, device.kind).activations
    wanted = (computed, cell.spec.labels.get(NATIVE_DTYPE), *UNQUANTISED)
    return next((by_dtype[dtype] for dtype in wanted if dtype in UNQUANTISED and dtype in by_dtype), None)


def _reads(cell: CellRecord) -> tuple[object, ...]:
    """What has to be alike for two cells to foresee the same text with the same weights; length and load do not."""
    spec = cell.spec
    return spec.model.model_dump(exclude={"dtype"}), spec.experiment, spec.engine.kind, spec.device, spec.hardware


def is_native(cell: CellRecord) -> bool:
    """Whether the weights were published unquantised: only then a loss from quantising them says what that costs.

    The config's word, unless the record knows better: weights that were dequantised from a file never are.
    """
    note = cell.model.note if cell.model is not None else None
    is_told = cell.spec.labels.get(NATIVE_DTYPE) in UNQUANTISED and cell.spec.model.weights == "pretrained"
    return is_told and (note is None or "dequantised" not in note)
