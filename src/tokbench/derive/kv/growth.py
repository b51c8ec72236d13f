"""How prefill's time and memory grow from one prompt length to the next, beside the operations that are counted."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tokbench.derive.bounds.points import alike_but_for, value_of
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.kv.found import GrowthRow
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.derive.metrics.roofline import prefill_flops

KERNEL = "kernel"
"""The label of cells that were made to tell one attention kernel from another by how it grows."""
MIN_POINTS = 2


def find_growth(results: Results) -> Iterator[GrowthRow]:
    """Cells with a label `kernel` that differ in the prompt's length alone, shortest first; at least two lengths."""
    cells = [cell for cell in results.cells if KERNEL in cell.labels and cell.conditions.prompt_tokens]
    for group in alike_but_for(cells, "workload", "prompt_tokens"):
        known = [cell for cell in group if value_of(cell, "ttft_s")]
        known.sort(key=lambda cell: cell.conditions.prompt_tokens or 0)
        if len({cell.conditions.prompt_tokens for cell in known}) < MIN_POINTS:
            continue
        before: CellResult | None = None
        for cell in known:
            yield _row(cell, before, results)
            before = cell


def _row(cell: CellResult, before: CellResult | None, results: Results) -> GrowthRow:
    seconds, extra = value_of(cell, "ttft_s"), value_of(cell, "prefill_extra_bytes")
    assert seconds is not None and cell.conditions.prompt_tokens is not None  # chosen above
    exponents: tuple[float | None, float | None, float | None] = (None, None, None)
    if before is not None:
        exponents = (
            _exponent(cell, before, seconds, value_of(before, "ttft_s")),
            _exponent(cell, before, _flops(cell, results), _flops(before, results)),
            _exponent(cell, before, extra, value_of(before, "prefill_extra_bytes")),
        )
    return GrowthRow(
        cell=cell,
        kernel=cell.labels[KERNEL],
        prompt_tokens=cell.conditions.prompt_tokens,
        prefill_s=seconds,
        extra_bytes=extra,
        time_exponent=exponents[0],
        predicted_time_exponent=exponents[1],
        memory_exponent=exponents[2],
    )


def _exponent(cell: CellResult, before: CellResult, now: float | None, then: float | None) -> float | None:
    lengths = cell.conditions.prompt_tokens, before.conditions.prompt_tokens
    if not now or not then or now <= 0 or then <= 0 or not lengths[0] or not lengths[1]:
        return None
    return math.log(now / then) / math.log(lengths[0] / lengths[1])


def _flops(cell: CellResult, results: Results) -> float | None:
    try:
        return prefill_flops(CellContext(cell.record, results.run))
    except UndefinedError:
        return None
