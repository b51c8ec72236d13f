"""The same question with more and more thinking tokens ahead of its answer: seconds, joules, money and cache.

Cells say by a label how many of their output tokens count as thinking; a token costs the same either way.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from tokbench import arithmetic
from tokbench.derive.bounds.points import Line, alike_but_for, value_of
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.kv.ways import cache_dtype, has_expanded_cache
from tokbench.derive.words import t
from tokbench.errors import SpecError
from tokbench.record.catalog import shape_from_config
from tokbench.stats import Estimate

THINKING_TOKENS = "thinking_tokens"
"""The label that tells how many of the output tokens are thinking."""
MIN_POINTS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Thought:
    """One budget of thinking ahead of the answer."""

    cell: CellResult
    thinking_tokens: int
    answer_tokens: int
    seconds: Estimate | Missing
    joules: float | Missing
    """Of prompt and output tokens, idle power included."""
    usd: float | Missing
    kv_bytes: float | Missing
    """Of the whole sequence at its end, at the bytes per token that the cache object has."""
    predicted_s: float | None
    """The first token and the time per token of the least budget, for all tokens of this one."""
    predicted_kv_bytes: float | None
    """The same by the closed form; None where the model's shape has none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Thinking:
    """Budgets of one question on one model and engine, smallest first."""

    run_name: str
    thoughts: tuple[Thought, ...]
    exponent: float | None
    """Slope of log seconds over log output tokens; None with fewer than three budgets."""
    exponent_interval: tuple[float, float] | None
    """95 % t interval of that line, over budgets; the spread of repetitions within one is not in it."""


def find_thinking(results: Results) -> tuple[Thinking, ...]:
    """Every question of a run that was worked on with two budgets or more."""
    labelled = [cell for cell in results.cells if cell.status == "ok" and budget_of(cell) is not None]
    groups = alike_but_for(labelled, "workload", "output_tokens")
    return tuple(_thinking(results, group) for group in groups if len({budget_of(cell) for cell in group}) > 1)


def budget_of(cell: CellResult) -> int | None:
    """How many output tokens the config calls thinking; None where it says no number that they could be."""
    said = cell.labels.get(THINKING_TOKENS, "")
    is_told = said.isdecimal() and int(said) < cell.record.spec.workload.output_tokens
    return int(said) if is_told else None


def _thinking(results: Results, cells: Sequence[CellResult]) -> Thinking:
    ordered = sorted(cells, key=lambda cell: budget_of(cell) or 0)
    thoughts = [_thought(results, cell, ordered[0]) for cell in ordered]
    points = [
        (math.log(thought.thinking_tokens + thought.answer_tokens), math.log(thought.seconds.value))
        for thought in thoughts
        if isinstance(thought.seconds, Estimate)
    ]
    is_enough = len({x for x, _ in points}) >= MIN_POINTS
    line = Line([x for x, _ in points], [y for _, y in points]) if is_enough else None
    intervals = None if line is None else line.intervals()
    return Thinking(
        run_name=results.name,
        thoughts=tuple(thoughts),
        exponent=None if line is None else line.slope,
        exponent_interval=None if intervals is None else intervals[1],
    )


def _thought(results: Results, cell: CellResult, least: CellResult) -> Thought:
    output, thinking = cell.record.spec.workload.output_tokens, budget_of(cell) or 0
    seconds = cell.metrics["e2e_latency_s"]
    return Thought(
        cell=cell,
        thinking_tokens=thinking,
        answer_tokens=output - thinking,
        seconds=seconds,
        joules=_joules(cell),
        usd=_scaled(cell, "usd_per_million_output_tokens", output / 1e6),
        kv_bytes=_scaled(cell, "kv_bytes_per_token", _context(cell)),
        predicted_s=_predicted_s(cell, least),
        predicted_kv_bytes=_predicted_kv(results, cell),
    )


def _predicted_s(cell: CellResult, least: CellResult) -> float | None:
    first_s, each_s = value_of(least, "ttft_s"), value_of(least, "tpot_s")
    if cell is least or first_s is None or each_s is None:
        return None
    return first_s + each_s * (cell.record.spec.workload.output_tokens - 1)


def _joules(cell: CellResult) -> float | Missing:
    """Joules of the prompt's tokens and of the output tokens after the first, which the prefill makes."""
    prompt, output = cell.conditions.prompt_tokens, cell.record.spec.workload.output_tokens
    if prompt is None:
        return Missing(t("the config does not fix the prompt's length"))
    parts = [
        _scaled(cell, "energy_j_per_prompt_token", float(prompt)),
        _scaled(cell, "energy_j_per_output_token", float(output - 1)),
    ]
    missing = next((part for part in parts if isinstance(part, Missing)), None)
    return missing or math.fsum(part for part in parts if not isinstance(part, Missing))


def _scaled(cell: CellResult, name: str, factor: float) -> float | Missing:
    found = cell.metrics[name]
    return found.value * factor if isinstance(found, Estimate) else found


def _context(cell: CellResult) -> int:
    """Tokens in the cache when the last one is made: the last one itself is not in it."""
    return (cell.conditions.prompt_tokens or 0) + cell.record.spec.workload.output_tokens - 1


def _predicted_kv(results: Results, cell: CellResult) -> float | None:
    model, device = cell.record.model, results.run.device
    if model is None or model.config_json is None or device is None:
        return None
    try:
        shape = shape_from_config(json.loads(model.config_json), model.name)
        dtype = cache_dtype(cell.record, device.kind)
        return arithmetic.kv_cache_bytes(shape, _context(cell), dtype, has_expanded_cache(cell.record))
    except (SpecError, ValueError):
        return None


def factor_of(thinking: Thinking, name: str) -> float | None:
    """A metric with the largest budget over that with the least; None where one is missing."""
    ends = [value_of(thought.cell, name) for thought in (thinking.thoughts[0], thinking.thoughts[-1])]
    return None if ends[0] is None or ends[1] is None else ends[1] / ends[0]
