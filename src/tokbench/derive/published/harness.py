"""Harness efficiency: what we reach on a device over the best that anybody published for it with the same model.

It tells how much of a gap to another machine is this harness and not the device. Never of another device or model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokbench.derive.published.beside import (
    PER_STREAM_METRICS,
    Absence,
    Comparison,
    Measured,
    NoComparison,
    compare_one,
)
from tokbench.derive.published.periods import TAILS
from tokbench.derive.published.rows import METRIC_UNITS, PublishedFigure
from tokbench.derive.published.systems import (
    PER_DEVICE,
    device_of,
    generation_of,
    is_per_device,
    is_same_model,
    is_same_width,
)

SYSTEM: Final = "output_tokens_per_s"
ANYBODY: Final = "anybody"
"""Stands for the vendor where no figure was found: every one is asked for, vendor, MLPerf and public engines alike."""


def find_harness_efficiency(ours: Measured, figures: Sequence[PublishedFigure]) -> Comparison | NoComparison:
    """Set a speed of ours beside the best published for the same device and model.

    The quotient `ours_over_theirs` is the efficiency; its interval is ours alone, the best having none. Of as many
    devices as ours, or published as one device's share; where there is no such figure, one device's share of a larger
    system beside ours. Figures that state another precision, speculation or load than ours are asked only where there
    are no others; what then differs stands in the comparison.
    """
    device = None if ours.conditions.hardware is None else device_of(ours.conditions.hardware)
    of_metric = [figure for figure in figures if figure.metric in ours.counterparts and _is_current(figure)]
    here = [figure for figure in of_metric if device is not None and generation_of(figure) == device]
    if not here:
        return NoComparison(ANYBODY, ours.metric, Absence.DEVICE)
    of_model = [figure for figure in here if _is_of_our_kind(ours, figure)]
    same = [figure for figure in of_model if is_per_device(figure) or figure.devices == ours.conditions.device_count]
    same = same or [share for figure in of_model if (share := _share_of(figure)) is not None]
    if not same or ours.conditions.device_count is None:
        return NoComparison(ANYBODY, ours.metric, Absence.DEVICE_MODEL)
    if PER_STREAM_METRICS.intersection(ours.counterparts) and _streams(ours) != 1:
        return NoComparison(ANYBODY, ours.metric, Absence.LOAD)
    alike = [figure for figure in same if not _is_stated_otherwise(ours, figure)]
    compared = [compare_one(ours, figure, "same_model", ()) for figure in alike or same]
    return min(compared, key=lambda one: (one.ours_over_theirs, one.theirs.id))


def _is_of_our_kind(ours: Measured, figure: PublishedFigure) -> bool:
    """The same model, and one stream where the metric is of one."""
    is_loaded = figure.metric in PER_STREAM_METRICS and figure.concurrency != 1
    return is_same_model(ours.conditions.model, figure.model) and not is_loaded


def _is_current(figure: PublishedFigure) -> bool:
    return figure.statistic not in TAILS and figure.superseded_by is None


def _share_of(figure: PublishedFigure) -> PublishedFigure | None:
    """One device's share of a system's speed, as a figure that says what it was computed from."""
    if figure.metric != SYSTEM or figure.devices is None:
        return None
    unit = METRIC_UNITS[PER_DEVICE].symbol
    share = {"metric": PER_DEVICE, "unit": unit, "value": figure.value / figure.devices, "derived_from": (figure.id,)}
    return figure.model_copy(update={**share, "id": f"{figure.id}.share", "value_low": None, "value_high": None})


def _is_stated_otherwise(ours: Measured, figure: PublishedFigure) -> bool:
    mine = ours.conditions
    is_other_width = figure.precision is not None and not is_same_width(mine.precision, figure.precision)
    is_other_method = figure.speculation is not None and (figure.speculation == "none") != (mine.speculation == "none")
    is_other_load = figure.concurrency is not None and figure.concurrency != _streams(ours)
    return is_other_width or is_other_method or is_other_load


def _streams(ours: Measured) -> int | None:
    mine = ours.conditions
    return mine.static_batch if mine.concurrency is None else mine.concurrency
