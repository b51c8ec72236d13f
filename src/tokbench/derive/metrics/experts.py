"""Mixtures of experts: how many experts a step touches, and what keeping some of them in the host's memory costs."""

from __future__ import annotations

import statistics

from tokbench.arithmetic import expected_distinct_experts
from tokbench.derive.experts.touches import (
    copied_per_step,
    experts_of,
    mean_distinct,
    resident_share,
    rows_of_step,
    touched_trials,
    without_offloading,
)
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import decode_rates
from tokbench.derive.words import mark, t
from tokbench.record.run import CellRecord
from tokbench.units import BYTES, RATIO, Better


@metric(RATIO, Better.NEITHER, mark("Distinct experts"), order=70, is_exact=True)
def distinct_experts(context: CellContext) -> Values:
    """Distinct experts of a layer that one decode step selects.

    Formula: mean over layers with routed experts and decode steps of the number of different experts that the batch's
    tokens select, counted in a decode like the measured one, outside its windows; of the last repetition looked at.
    """
    return [mean_distinct(trial.experts) for trial in touched_trials(context.cell)]


@metric(RATIO, Better.NEITHER, mark("Distinct experts, even routing"), order=71, is_exact=True)
def predicted_distinct_experts(context: CellContext) -> Values:
    """The same if each token selected its experts evenly and by itself.

    Formula: E * (1 - (1 - k / E) ** static_batch), with E experts a layer and k of them per token. Skewed or alike
    selections lie below.
    """
    experts = experts_of(context.cell)
    rows = rows_of_step(context.cell.spec)
    return [expected_distinct_experts(experts.experts, experts.experts_per_token, rows)]


@metric(BYTES, Better.LOWER, mark("Experts copied per step"), order=72, is_exact=True)
def copied_expert_bytes(context: CellContext) -> Values:
    """Bytes of experts that a decode step copies from the host's memory to the device.

    Formula: mean over decode steps of the sum over layers of the bytes of selected experts that were not resident; in
    the same decode as distinct_experts.
    """
    if resident_share(context.cell.spec) == 1.0:
        raise UndefinedError(t("all experts lie on the device"))
    steps = [copied_per_step(trial.experts) for trial in touched_trials(context.cell)]
    if not all(steps):
        raise UndefinedError(t("the engine does not tell which experts it copied"))
    return [statistics.fmean(copied) for copied in steps]


@metric(RATIO, Better.HIGHER, mark("Speed kept with experts in host memory"), order=73)
def offload_kept_ratio(context: CellContext) -> Values:
    """Decode speed with a share of the experts in the host's memory over that with all of them on the device.

    Formula: decode_tokens_per_s / geometric mean of the decode_tokens_per_s of the same cell of the same run without
    engine.options.resident_experts. The spread of the divisor is left out of the interval.
    """
    rates, base = decode_rates(context.cell), decode_rates(_with_all_resident(context))
    return [rate / statistics.geometric_mean(base) for rate in rates]


def _with_all_resident(context: CellContext) -> CellRecord:
    """The cell of the run that differs in where the experts lie, and in nothing else."""
    spec = context.cell.spec
    if resident_share(spec) == 1.0:
        raise UndefinedError(t("all experts lie on the device"))
    wanted = without_offloading(spec)
    for cell in context.run.cells.values():
        if resident_share(cell.spec) == 1.0 and without_offloading(cell.spec) == wanted and cell.good_trials():
            return cell
    raise UndefinedError(t("the same cell with all experts on the device was not measured in this run"))
