"""Which cells are alike in everything but one thing: what a sweep over that thing is made of. Computes no metric."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tokbench.derive.evaluate import CellResult
from tokbench.derive.standing import estimate_of
from tokbench.record.depth import layers_of
from tokbench.record.spec import CellSpec

Blank = Callable[[CellSpec], CellSpec]
"""Takes out of a cell what is allowed to differ."""


def measured_steps(cells: Sequence[CellResult]) -> list[CellResult]:
    """Cells whose steps mean one thing: static batches without speculation, that have a decode speed."""
    return [
        cell
        for cell in cells
        if cell.conditions.static_batch is not None
        and cell.conditions.speculation == "none"
        and estimate_of(cell, "tpot_s") is not None
    ]


def step_of(cell: CellResult) -> float:
    """Seconds of one decode step: every row of a static batch gets one token from it (1 / decode_tokens_per_s).

    Raises:
        ValueError: the cell has no decode speed; see `measured_steps`.
    """
    value = estimate_of(cell, "tpot_s")
    if value is None:
        raise ValueError(f"cell {cell.cell_id} has no decode speed")
    return value.value


def groups_alike(cells: Sequence[CellResult], blank: Blank) -> list[list[CellResult]]:
    """Cells that are equal once `blank` has taken out what may differ, in the order of the config."""
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        key = _without_checks(blank(cell.record.spec)).model_dump_json(exclude={"labels"})
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def _without_checks(spec: CellSpec) -> CellSpec:
    """Without what is looked at beside the windows and changes no time."""
    engine = spec.engine.model_copy(update={"check_tokens": 0, "check_repeat": False})
    return spec.model_copy(update={"engine": engine})


def without_layers(spec: CellSpec) -> CellSpec:
    """Leaves the number of layers free."""
    return spec.model_copy(update={"model": spec.model.model_copy(update={"layers": None})})


def without_prompt(spec: CellSpec) -> CellSpec:
    """Leaves the prompt length free."""
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={"prompt_tokens": None})})


def without_mode(spec: CellSpec) -> CellSpec:
    """Leaves the engine's mode free."""
    return spec.model_copy(update={"engine": spec.engine.model_copy(update={"mode": ""})})


def without_options(spec: CellSpec) -> CellSpec:
    """Leaves kernels and options of the engine free."""
    free: dict[str, object] = {"attention": None, "experts": None, "options": {}}
    return spec.model_copy(update={"engine": spec.engine.model_copy(update=free)})


def without_dtype(spec: CellSpec) -> CellSpec:
    """Leaves the type of the weights free."""
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "float32"})})


def layers_of_cell(cell: CellResult) -> int | None:
    """Decoder layers that ran; None where the record does not hold them."""
    asked, model = cell.record.spec.model.layers, cell.record.model
    if asked is not None or model is None or model.config_json is None:
        return asked
    return layers_of(json.loads(model.config_json))


def variant_of(cell: CellResult) -> str:
    """The kernels and options of an engine in a few words: what was asked for, else what ran."""
    engine, ran = cell.record.spec.engine, cell.record.engine
    attention = engine.attention or (ran.attention_kernel if ran is not None else None)
    parts = [f"attention {attention}"] if attention else []
    parts += [f"experts {engine.experts}"] if engine.experts else []
    parts += [f"{key} {_say(value)}" for key, value in sorted(engine.options.items())]
    return ", ".join(parts) or "as the engine chooses"


def _say(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
