"""How time grows with depth, context and prompt: cells that differ in one number alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from tokbench.derive import wording
from tokbench.derive.bounds.found import ContextCost, DepthFloor, PrefillCurve
from tokbench.derive.bounds.points import Line, alike_but_for, step_s, value_of
from tokbench.derive.evaluate import CellResult
from tokbench.record.depth import layers_of

MIN_POINTS = 3
OCTAVE = math.log(2) - 1e-9
CAP_LAYERS = (32, 80, 126)
"""Layers of Llama-3.1-8B, -70B and -405B."""


def find_depths(cells: Sequence[CellResult]) -> Iterator[DepthFloor]:
    """Seconds per decoder layer and the speed that it caps. Source: shared/data/experiments.md, HA3 and A3."""
    for group in alike_but_for(cells, "model", "layers"):
        known = [(_layers(cell), step_s(cell), cell) for cell in group]
        rows = [
            (layers, seconds, cell) for layers, seconds, cell in known if layers is not None and seconds is not None
        ]
        rows.sort(key=lambda row: row[0])
        if len({row[0] for row in rows}) < MIN_POINTS:
            continue
        line = Line([row[0] for row in rows], [row[1] for row in rows])
        shares = [_byte_share(cell, seconds) for _, seconds, cell in rows]
        known_shares = [share for share in shares if share is not None]
        last = rows[-1][2]
        if line.slope > 0:
            yield DepthFloor(
                run_name=last.run_name,
                mode=last.conditions.mode or "",
                model=_name_at_any_depth(last, rows[-1][0]),
                layers=tuple(row[0] for row in rows),
                step_s=tuple(row[1] for row in rows),
                s_per_layer=line.slope,
                t0_s=line.intercept,
                r_squared=line.r_squared,
                largest_byte_share=max(known_shares) if len(known_shares) == len(shares) else None,
                caps_tokens_per_s=tuple((layers, 1 / (layers * line.slope)) for layers in CAP_LAYERS),
            )


def _name_at_any_depth(cell: CellResult, layers: int) -> str:
    """The model with the label of its weights, without the number of layers that it was cut to."""
    name = wording.short_model(cell.conditions.model).replace(f", {layers} layers", "")
    return wording.say_labelled(name, wording.label_of(cell))


def _layers(cell: CellResult) -> int | None:
    model = cell.record.model
    return None if model is None or model.config_json is None else layers_of(json.loads(model.config_json))


def _byte_share(cell: CellResult, seconds: float) -> float | None:
    size, rate = value_of(cell, "bytes_read_per_step"), value_of(cell, "read_bytes_per_s")
    return None if size is None or rate is None else size / rate / seconds


def find_contexts(cells: Sequence[CellResult]) -> Iterator[ContextCost]:
    """What one more token of context adds to a step, beside what reading its keys and values has to."""
    for group in _by_prompt(cells):
        rows = [
            (cell.conditions.context_tokens or _context(cell), seconds, cell)
            for cell in group
            if (seconds := step_s(cell))
        ]
        if len(rows) < MIN_POINTS:
            continue
        cell = rows[-1][2]
        batch = cell.conditions.static_batch or 1
        yield ContextCost(
            run_name=cell.run_name,
            mode=cell.conditions.mode or "",
            model=wording.say_model(cell),
            static_batch=batch,
            contexts=tuple(row[0] for row in rows),
            step_s=tuple(row[1] for row in rows),
            s_per_token=Line([row[0] for row in rows], [row[1] for row in rows]).slope,
            roofline_s_per_token=_roofline_slope(rows[0][2], cell, rows[-1][0] - rows[0][0]),
        )


def _roofline_slope(shortest: CellResult, longest: CellResult, tokens: int) -> float | None:
    """Seconds per token of context that the bytes between two cells take at the read ceiling."""
    rate = value_of(longest, "read_bytes_per_s")
    sizes = [value_of(cell, "bytes_read_per_step") for cell in (shortest, longest)]
    if rate is None or sizes[0] is None or sizes[1] is None or tokens <= 0:
        return None
    return (sizes[1] - sizes[0]) / tokens / rate


def find_prefills(cells: Sequence[CellResult]) -> Iterator[PrefillCurve]:
    """The exponent of prefill time over prompt length."""
    for group in _by_prompt(cells):
        rows = [
            (cell.conditions.prompt_tokens or 0, seconds, cell)
            for cell in group
            if (seconds := value_of(cell, "ttft_s"))
        ]
        if len(rows) < MIN_POINTS:
            continue
        cell = rows[-1][2]
        logs = [(math.log(tokens), math.log(seconds)) for tokens, seconds, _ in rows]
        last_x, last_y = logs[-1]
        before = next((log for log in reversed(logs) if log[0] <= last_x - OCTAVE), None)
        yield PrefillCurve(
            run_name=cell.run_name,
            mode=cell.conditions.mode or "",
            model=wording.say_model(cell),
            static_batch=cell.conditions.static_batch or 1,
            prompts=tuple(row[0] for row in rows),
            seconds=tuple(row[1] for row in rows),
            exponent=Line([x for x, _ in logs], [y for _, y in logs]).slope,
            last_exponent=None if before is None else (last_y - before[1]) / (last_x - before[0]),
            used_ratio=tuple(value_of(row[2], "prefill_flops_used_ratio") for row in rows),
        )


def _by_prompt(cells: Sequence[CellResult]) -> Iterator[list[CellResult]]:
    """Static batches that differ in the prompt's length alone, shortest first; at least three lengths."""
    known = [cell for cell in cells if cell.conditions.prompt_tokens and cell.conditions.static_batch]
    for group in alike_but_for(known, "workload", "prompt_tokens"):
        if len({cell.conditions.prompt_tokens for cell in group}) >= MIN_POINTS:
            yield sorted(group, key=lambda cell: cell.conditions.prompt_tokens or 0)


def _context(cell: CellResult) -> int:
    """Mean real context of the decode window."""
    return (cell.conditions.prompt_tokens or 0) + cell.record.spec.workload.output_tokens // 2
