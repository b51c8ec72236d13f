"""How time grows with layers, with context and with the prompt: cells that are equal in everything else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.limits.alike import (
    groups_alike,
    layers_of_cell,
    measured_steps,
    step_of,
    without_layers,
    without_prompt,
)
from tokbench.derive.limits.lines import MIN_POINTS, Line, fit_line, inverse, scaled
from tokbench.derive.pairs import paired_ratio
from tokbench.derive.standing import estimate_of
from tokbench.stats import Estimate

CAP_LAYERS = (32, 80, 126)
"""Of Llama 3.1 8B, 70B and 405B. Source: shared/facts/formulas.md 4.2."""
NEAR_ZERO_SHARE = 0.2
"""Reading takes less than this share of the step: the slope over layers is then that of everything but reading."""


@dataclasses.dataclass(frozen=True, slots=True)
class DepthSweep:
    """Step time over the number of layers."""

    cells: tuple[CellResult, ...]
    layers: tuple[int, ...]
    layer_s: Estimate | Missing
    """Seconds that one more layer takes."""
    r_squared: float | None
    caps: dict[int, Estimate]
    """Layers -> tokens/s per user that no decoder of so many such layers exceeds: 1 / (layers * layer_s)."""
    largest_read_ratio: float | None
    """Largest share of a step that its bytes take at the read ceiling; None where not known."""

    @property
    def is_near_zero_bytes(self) -> bool:
        """Whether reading hardly counts, so that the slope is a floor whatever the memory's rate."""
        return self.largest_read_ratio is not None and self.largest_read_ratio < NEAR_ZERO_SHARE


@dataclasses.dataclass(frozen=True, slots=True)
class ContextSweep:
    """Step time over the tokens in the cache."""

    cells: tuple[CellResult, ...]
    context_tokens: tuple[int, ...]
    """Mean context of each cell's decode window: prompt_tokens + output_tokens // 2."""
    token_s: Estimate | Missing
    """Seconds of a step for each token of context, all rows of the batch having it."""
    r_squared: float | None
    roofline_token_s: float | Missing
    """The same if only the cache's bytes counted: bytes per token of context / measured read ceiling."""
    ratio: Estimate | Missing
    """token_s over roofline_token_s."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrefillSweep:
    """Prefill time over the prompt length, as a power: time ~ prompt_tokens ** exponent."""

    cells: tuple[CellResult, ...]
    prompt_tokens: tuple[int, ...]
    exponent: Estimate | Missing
    """Of all lengths: the slope of log(time) over log(tokens)."""
    r_squared: float | None
    last_from_tokens: int | None
    """Where the last segment begins: the longest prompt of at most half the last one's length."""
    last_exponent: Estimate | Missing
    """Of the last segment alone; its interval is that of the repetitions, paired by block."""


def depth_sweeps(results: Results) -> tuple[DepthSweep, ...]:
    """Cells that differ in the number of layers."""
    cells = [cell for cell in measured_steps(results.cells) if layers_of_cell(cell) is not None]
    found = (_by_axis(group, _layers) for group in groups_alike(cells, without_layers))
    return tuple(_depth(group) for group in found if len(group) > 1)


def context_sweeps(results: Results) -> tuple[ContextSweep, ...]:
    """Cells that differ in the prompt length, seen from their decode."""
    return tuple(_context(group) for group in _prompt_groups(measured_steps(results.cells)))


def prefill_sweeps(results: Results) -> tuple[PrefillSweep, ...]:
    """Cells that differ in the prompt length, seen from their prefill."""
    timed = [
        cell
        for cell in results.cells
        if cell.conditions.static_batch is not None and estimate_of(cell, "ttft_s") is not None
    ]
    return tuple(_prefill(group) for group in _prompt_groups(timed))


def _layers(cell: CellResult) -> int:
    layers = layers_of_cell(cell)
    assert layers is not None
    return layers


def _prompt(cell: CellResult) -> int:
    prompt = cell.conditions.prompt_tokens
    assert prompt is not None
    return prompt


def _mean_context(cell: CellResult) -> int:
    return _prompt(cell) + cell.record.spec.workload.output_tokens // 2


def _prompt_groups(cells: Sequence[CellResult]) -> list[list[CellResult]]:
    fixed = [cell for cell in cells if cell.conditions.prompt_tokens is not None]
    groups = [_by_axis(group, _prompt) for group in groups_alike(fixed, without_prompt)]
    return [group for group in groups if len(group) > 1]


def _by_axis(cells: Sequence[CellResult], axis: Callable[[CellResult], int]) -> list[CellResult]:
    """One cell per value, in its order."""
    return sorted({axis(cell): cell for cell in cells}.values(), key=axis)


def _too_few(count: int, what: str) -> Missing:
    return Missing(f"{count} {what}: a slope needs {MIN_POINTS}")


def _depth(cells: Sequence[CellResult]) -> DepthSweep:
    layers = tuple(_layers(cell) for cell in cells)
    shares = [_read_share(cell) for cell in cells]
    known = [share for share in shares if share is not None]
    largest = max(known) if len(known) == len(cells) else None
    if len(layers) < MIN_POINTS:
        return DepthSweep(tuple(cells), layers, _too_few(len(layers), "numbers of layers"), None, {}, largest)
    line = fit_line(layers, [step_of(cell) for cell in cells], units=("s", "s"), is_relative=True)
    if line.slope.value <= 0:
        missing = Missing("steps do not grow with the layers")
        return DepthSweep(tuple(cells), layers, missing, line.r_squared, {}, largest)
    caps = {depth: inverse(line.slope, "tokens/s", 1 / depth) for depth in CAP_LAYERS}
    return DepthSweep(tuple(cells), layers, line.slope, line.r_squared, caps, largest)


def _read_share(cell: CellResult) -> float | None:
    """Share of the step that its bytes would take from memory; from a cache they take less."""
    size, ceiling = estimate_of(cell, "bytes_read_per_step"), estimate_of(cell, "read_bytes_per_s")
    return None if size is None or ceiling is None else size.value / ceiling.value / step_of(cell)


def _context(cells: Sequence[CellResult]) -> ContextSweep:
    tokens = tuple(_mean_context(cell) for cell in cells)
    roofline_s = _roofline_token_s(cells, tokens)
    if len(tokens) < MIN_POINTS:
        missing = _too_few(len(tokens), "prompt lengths")
        return ContextSweep(tuple(cells), tokens, missing, None, roofline_s, missing)
    line = fit_line(tokens, [step_of(cell) for cell in cells], units=("s", "s"), is_relative=True)
    return ContextSweep(tuple(cells), tokens, line.slope, line.r_squared, roofline_s, _over_roofline(line, roofline_s))


def _over_roofline(line: Line, roofline_s: float | Missing) -> Estimate | Missing:
    if isinstance(roofline_s, Missing):
        return roofline_s
    return scaled(line.slope, "", 1 / roofline_s)


def _roofline_token_s(cells: Sequence[CellResult], tokens: Sequence[int]) -> float | Missing:
    """Bytes that the longest context reads beyond the shortest, for each token between, at the read ceiling."""
    first, last = cells[0], cells[-1]
    least, most = first.metrics["bytes_read_per_step"], last.metrics["bytes_read_per_step"]
    ceiling = last.metrics["read_bytes_per_s"]
    if isinstance(least, Missing):
        return least
    if isinstance(most, Missing):
        return most
    if isinstance(ceiling, Missing):
        return ceiling
    grown = (most.value - least.value) / (tokens[-1] - tokens[0])
    return grown / ceiling.value if grown > 0 else Missing("the cache does not grow with the context")


def _prefill(cells: Sequence[CellResult]) -> PrefillSweep:
    tokens = tuple(_prompt(cell) for cell in cells)
    halves = [cell for cell in cells if 2 * _prompt(cell) <= tokens[-1]]
    last: Estimate | Missing = Missing("no prompt of at most half the longest")
    start_tokens = None
    if halves:
        last, start_tokens = _exponent_between(halves[-1], cells[-1]), _prompt(halves[-1])
    if len(tokens) < MIN_POINTS:
        missing = _too_few(len(tokens), "prompt lengths")
        return PrefillSweep(tuple(cells), tokens, missing, None, start_tokens, last)
    seconds = [value.value for cell in cells if (value := estimate_of(cell, "ttft_s")) is not None]
    logs = [math.log(count) for count in tokens], [math.log(value) for value in seconds]
    line = fit_line(*logs, units=("", ""), is_relative=False)
    return PrefillSweep(tuple(cells), tokens, line.slope, line.r_squared, start_tokens, last)


def _exponent_between(start: CellResult, end: CellResult) -> Estimate | Missing:
    """log(time ratio) / log(length ratio) of two cells; without an interval where no block holds both."""
    span = math.log(_prompt(end) / _prompt(start))
    ratio = paired_ratio(end, start, "ttft_s")
    if isinstance(ratio, Estimate) and ratio.low is not None and ratio.high is not None:
        logs = (math.log(ratio.value) / span, math.log(ratio.low) / span, math.log(ratio.high) / span)
        return Estimate(*logs, ratio.n, "", "paired_log_ratio")
    first, last = estimate_of(start, "ttft_s"), estimate_of(end, "ttft_s")
    if first is None or last is None:
        return Missing("a prefill time is missing")
    return Estimate(math.log(last.value / first.value) / span, None, None, 1, "", "log_ratio")
