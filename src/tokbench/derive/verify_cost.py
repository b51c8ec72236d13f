"""What the points of the experiment `verify_cost` say: v(m), the time of a pass over m tokens per row over that of one.

The prediction is a roofline: operations, and bytes with the experts that even routing selects for all tokens of a pass.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokbench import arithmetic
from tokbench.arithmetic import Ceilings, ModelShape, Precision, precision_on
from tokbench.derive.cell_shape import shape_of_cell
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.derive.speculation.passes import points_of, seconds_by_m
from tokbench.derive.words import t
from tokbench.record.run import Trial
from tokbench.stats import Estimate, estimate_blocks
from tokbench.units import RATIO, SECONDS


@dataclasses.dataclass(frozen=True, slots=True)
class PassCost:
    """Passes over m tokens per row in one cell."""

    m: int
    seconds: Estimate
    """Of one pass."""
    cost: Estimate
    """v(m), paired within each repetition."""
    predicted: float | Missing
    predicted_bytes: float | Missing
    """The same from bytes alone: what v(m) would be if operations took no time."""
    distinct: float | None
    """Experts that a layer really read, on average; None for a dense model."""
    predicted_distinct: float | None

    @property
    def residual(self) -> float | None:
        """Measured over predicted."""
        return None if isinstance(self.predicted, Missing) else self.cost.value / self.predicted


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyCurve:
    """v(m) of one cell, from m = 1 on."""

    cell: CellResult
    rows: int
    context_tokens: int
    """Tokens of each row in the cache before the pass."""
    experts: int | None
    """Of a layer; None for a dense model."""
    graph: str
    """Whether passes were captured by the device, compiled, or neither."""
    passes: tuple[PassCost, ...]


def find_curves(results: Results) -> tuple[VerifyCurve, ...]:
    """The curve of every cell of a run that has such points."""
    found = (_curve(results, cell) for cell in results.cells)
    return tuple(curve for curve in found if curve is not None)


def _curve(results: Results, cell: CellResult) -> VerifyCurve | None:
    trials = [trial for trial in cell.record.good_trials() if points_of(trial)]
    if not trials:
        return None
    first = points_of(trials[0])[0]
    rows, context_tokens = int(first.settings["rows"]), int(first.settings["context"])
    form = _closed_form(results, cell)
    by_trial = [(trial.started.worker_id, seconds_by_m(points_of(trial))) for trial in trials]
    return VerifyCurve(
        cell=cell,
        rows=rows,
        context_tokens=context_tokens,
        experts=form.shape.experts.experts if isinstance(form, ClosedForm) and form.shape.experts else None,
        graph=str(first.settings["graph"]),
        passes=tuple(
            _pass_cost(m, by_trial, trials, Prediction(cell, form, rows, context_tokens)) for m in by_trial[0][1]
        ),
    )


def _closed_form(results: Results, cell: CellResult) -> ClosedForm | Missing:
    device = results.run.device
    try:
        shape = shape_of_cell(CellContext(cell.record, results.run))
        return ClosedForm(shape, precision_on(cell.record.spec.model.dtype, device.kind if device else "unknown"))
    except (UndefinedError, ValueError) as undefined:
        return Missing(str(undefined))


def _pass_cost(
    m: int, by_trial: Sequence[tuple[str, Mapping[int, float]]], trials: Sequence[Trial], prediction: Prediction
) -> PassCost:
    seconds: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for worker, times in by_trial:
        seconds.setdefault(worker, []).append(times[m])
        ratios.setdefault(worker, []).append(times[m] / times[1])
    cost = estimate_blocks(list(ratios.values()), RATIO.symbol)
    return PassCost(
        m=m,
        seconds=estimate_blocks(list(seconds.values()), SECONDS.symbol),
        cost=cost,
        predicted=prediction.roofline(m),
        predicted_bytes=prediction.by_bytes(m),
        distinct=_distinct(m, trials),
        predicted_distinct=prediction.distinct(m),
    )


def _distinct(m: int, trials: Sequence[Trial]) -> float | None:
    """Mean over layers and repetitions."""
    counted = [
        point.values["distinct_experts_sum"] / point.values["routed_layers"]
        for trial in trials
        for point in points_of(trial)
        if point.settings["m"] == m and point.values.get("routed_layers")
    ]
    return statistics.fmean(counted) if counted else None


class ClosedForm(NamedTuple):
    """What the closed forms need to know of a model."""

    shape: ModelShape
    precision: Precision


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What closed forms say of the passes of one cell."""

    cell: CellResult
    form: ClosedForm | Missing
    rows: int
    context_tokens: int

    def distinct(self, m: int) -> float | None:
        """Distinct experts of a layer that even routing selects for all tokens of the pass; None for a dense model."""
        if isinstance(self.form, Missing) or (experts := self.form.shape.experts) is None:
            return None
        return arithmetic.expected_distinct_experts(experts.experts, experts.experts_per_token, self.rows * m)

    def by_bytes(self, m: int) -> float | Missing:
        """Bytes of a pass over m tokens per row over those of one token: the cache is read once a row."""
        if isinstance(self.form, Missing):
            return self.form
        return self._bytes(self.form, m) / self._bytes(self.form, 1)

    def roofline(self, m: int) -> float | Missing:
        """The slower of both ceilings, for m tokens per row over that for one.

        Formula: roofline_step_s(bytes(m), rows·m·flops per token) / roofline_step_s(bytes(1), rows·flops per token).
        """
        ceilings = self._ceilings()
        if isinstance(self.form, Missing):
            return self.form
        if isinstance(ceilings, Missing):
            return ceilings
        return self._roofline_s(self.form, m, ceilings) / self._roofline_s(self.form, 1, ceilings)

    def _roofline_s(self, form: ClosedForm, m: int, ceilings: Ceilings) -> float:
        flops = self.rows * m * arithmetic.flops_per_token(form.shape, self.context_tokens + m)
        return arithmetic.roofline_step_s(self._bytes(form, m), flops, ceilings)

    def _bytes(self, form: ClosedForm, m: int) -> float:
        context = self.context_tokens + m
        return arithmetic.bytes_read_per_step(
            form.shape, form.precision, self.rows, context, distinct_experts=self.distinct(m)
        ).total

    def _ceilings(self) -> Ceilings | Missing:
        read, matmul = (self.cell.metrics[name] for name in ("read_bytes_per_s", "matmul_flops_per_s"))
        if isinstance(read, Missing):
            return read
        if isinstance(matmul, Missing):
            return Missing(t("no matrix-multiply ceiling: from where on a pass computes all the time is not known"))
        return Ceilings(read.value, matmul.value)
