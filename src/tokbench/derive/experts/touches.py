"""What a record says of a cell's experts: those of its shape, those that its steps touched, those that were copied."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokbench.arithmetic import ExpertShape, ModelShape
from tokbench.derive.repetitions import UndefinedError, finished_trials
from tokbench.derive.words import t
from tokbench.errors import TokbenchError
from tokbench.record.catalog import shape_from_config
from tokbench.record.probes import ExpertTouches
from tokbench.record.run import CellRecord, Trial
from tokbench.record.spec import CellSpec

RESIDENT = "resident_experts"
ROUTING, SKEW = "routing", "routing_skew"


class Routing(NamedTuple):
    """How a cell's tokens found their experts."""

    kind: str
    """`own`: by the model's routers; else the law that selections were drawn from."""
    skew: float


def shape_of(cell: CellRecord) -> ModelShape:
    """The sizes of the cell's model.

    Raises:
        UndefinedError: the record does not hold them.
    """
    if cell.model is None or cell.model.config_json is None:
        raise UndefinedError(t("the record does not hold the model's config"))
    try:
        return shape_from_config(json.loads(cell.model.config_json), cell.model.name)
    except TokbenchError as error:
        raise UndefinedError(t("the model's shape is not known: {fault}", fault=error.message)) from None


def experts_of(cell: CellRecord) -> ExpertShape:
    """The routed experts of the cell's model.

    Raises:
        UndefinedError: it has none.
    """
    found = shape_of(cell).experts
    if found is None:
        raise UndefinedError(t("the model has no routed experts"))
    return found


def rows_of_step(spec: CellSpec) -> int:
    """Tokens of one decode step.

    Raises:
        UndefinedError: requests come and go.
    """
    if spec.load.kind != "static_batch":
        raise UndefinedError(t("requests come and go: how many tokens a step has is not fixed"))
    return spec.load.static_batch


def routing_of(spec: CellSpec) -> Routing:
    """How tokens find their experts in such a cell."""
    options = spec.engine.options
    return Routing(str(options.get(ROUTING, "own")), float(options.get(SKEW, 0.0)))


def resident_share(spec: CellSpec) -> float:
    """The share of each layer's experts that lies on the device."""
    return float(spec.engine.options.get(RESIDENT, 1.0))


def without_offloading(spec: CellSpec) -> CellSpec:
    """The same cell with all experts on the device, labels left out."""
    options: Mapping[str, str | int | float | bool] = spec.engine.options
    kept = {key: value for key, value in options.items() if key != RESIDENT}
    return spec.model_copy(update={"engine": spec.engine.model_copy(update={"options": kept}), "labels": {}})


def touched_trials(cell: CellRecord) -> list[Trial]:
    """The finished repetitions whose selections were looked at.

    Raises:
        UndefinedError: none was.
    """
    experts_of(cell)
    found = [trial for trial in finished_trials(cell) if trial.experts]
    if not found:
        raise UndefinedError(t("no step of this cell was looked at for the experts that it selects"))
    return found


def mean_distinct(touches: Sequence[ExpertTouches]) -> float:
    """Distinct experts of a layer and step, on average over both."""
    return statistics.fmean(count for layer in touches for count in layer.distinct)


def copied_per_step(touches: Sequence[ExpertTouches]) -> list[int]:
    """Bytes of experts that each step copied, all layers together; empty where none is ever copied."""
    layers = [layer.copied_bytes for layer in touches if layer.copied_bytes]
    return [sum(step) for step in zip(*layers, strict=True)]
