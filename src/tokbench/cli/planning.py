"""`tokbench plan`: what a config would run here. Fetches no weights and touches no device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from tokbench.cli.console import say_cell
from tokbench.cli.fetching import resolver
from tokbench.cli.naming import check_names
from tokbench.cli.running import QUICK, place_for
from tokbench.measure.plan import Plan, PlannedCell, bind
from tokbench.record.sweep import read_config
from tokbench.units import BYTES, TOKENS_PER_S, format_value


def show_plan(config: Path, overrides: tuple[str, ...], *, quick: bool, allow_busy: bool, as_json: bool) -> None:
    """Print the plan of a config."""
    console = Console(stderr=True, soft_wrap=True)
    read = read_config(config, (*(QUICK if quick else ()), *overrides))
    check_names(read)
    place = place_for(read, allow_busy, console)
    plan = bind(read, place, resolver(console, download=False))
    if as_json:
        typer.echo(json.dumps(_plain(plan), indent=2))
    else:
        _print(plan)


def _plain(plan: Plan) -> dict[str, Any]:
    return {
        "device": plan.device.model_dump(mode="json"),
        "device_choice": plan.device_choice,
        "usable_memory_bytes": plan.usable_memory_bytes,
        "is_interleaved": plan.is_interleaved,
        "expected_s": plan.expected_s(plan.config.run.stop.min_repetitions),
        "budget_s": plan.config.run.budget.total,
        "blocks": plan.config.run.stop.blocks,
        "loads": _loads(plan),
        "expected_block_s": plan.expected_s(1),
        "cells": [_plain_cell(cell) for cell in plan.cells()],
    }


def _plain_cell(planned: PlannedCell) -> dict[str, Any]:
    return {
        "cell_id": planned.cell.cell_id,
        "pair_key": planned.cell.pair_key,
        "spec": planned.cell.spec.model_dump(mode="json"),
        "predicted_memory_bytes": planned.predicted_memory_bytes,
        "roofline_decode_tokens_per_s": planned.roofline_decode_tokens_per_s,
        "expected_trial_s": planned.expected_trial_s,
        "refusal": planned.refusal,
    }


def _print(plan: Plan) -> None:
    typer.echo(f"device: {plan.device.name} ({plan.device_choice})")
    if plan.usable_memory_bytes is not None:
        typer.echo(f"memory that can be used: {format_value(plan.usable_memory_bytes, BYTES)}")
    for group in plan.groups:
        name = group.model.name if group.model is not None else group.spec.model.source
        spec = group.spec
        typer.echo(f"\n{name}, weights {spec.model.weights}, {spec.model.dtype}, {spec.engine.kind} {spec.engine.mode}")
        if group.model is not None and group.model.note:
            typer.echo(f"  note: {group.model.note}")
        for cell in group.cells:
            typer.echo(f"  {cell.cell.cell_id}  {say_cell(cell.cell.spec)}: {_prediction(cell)}")
    repetitions = plan.config.run.stop.min_repetitions
    expected = plan.expected_s(repetitions)
    if expected is not None:
        typer.echo(
            f"\n{len(plan.cells())} cells, about {expected:.0f} s for {repetitions} repetitions each without loading"
            f"{_besides(plan)}; the budget is {plan.config.run.budget.total:.0f} s"
        )
    typer.echo(_blocks(plan))
    if not plan.is_interleaved:
        typer.echo("the groups do not fit in memory together: they are measured apart (not interleaved)")


def _besides(plan: Plan) -> str:
    """What the expected time leaves out."""
    specs = [cell.cell.spec for cell in plan.cells() if cell.refusal is None]
    experiments = sum(spec.experiment != "none" for spec in specs)
    drafting = sum(spec.speculation != "none" for spec in specs)
    also = ["compiling"]
    if experiments:
        also.append(f"the experiments of {experiments} cells")
    if drafting:
        also.append(f"what drafts cost or save in {drafting} cells")
    return f", {', '.join(also[:-1])} and {also[-1]}" if also[1:] else " and compiling"


def _loads(plan: Plan) -> int:
    """How often weights are loaded until every cell was in as many worker processes as asked for."""
    return plan.config.run.stop.blocks * sum(not group.is_refused() for group in plan.groups)


def _blocks(plan: Plan) -> str:
    """The blocks, and what each costs beside the repetitions."""
    run, groups = plan.config.run, [group for group in plan.groups if not group.is_refused()]
    if run.stop.blocks == 1:
        return "one block at least, all later ones in the same worker processes: no spread between processes is told"
    compiled = sum(len(group.cells) for group in groups if group.spec.engine.mode == "compiled")
    each = f"loading {len(groups)} x weights" + (f" and compiling {compiled} cells" if compiled else "")
    once_s = plan.expected_s(1)
    decoding = "" if once_s is None else f", about {once_s:.0f} s for one repetition of every cell beside it"
    on_top = f" (up to {run.budget.cold:.0f} s of it in all on top of the budget)" if run.budget.cold else ""
    return (
        f"{run.stop.blocks} blocks at least, each in fresh worker processes: {each} each time{on_top}{decoding}; "
        "a block that the budget cannot pay that for keeps its workers, and the record says so"
    )


def _prediction(cell: PlannedCell) -> str:
    parts = []
    if cell.predicted_memory_bytes is not None:
        parts.append(f"memory {format_value(cell.predicted_memory_bytes, BYTES)}")
    if cell.roofline_decode_tokens_per_s is not None:
        parts.append(f"ceiling {format_value(cell.roofline_decode_tokens_per_s, TOKENS_PER_S)} per user (datasheet)")
    else:
        parts.append("no datasheet ceiling: measured in the run")
    if cell.expected_trial_s is not None:
        parts.append(f"about {cell.expected_trial_s:.2g} s a repetition")
    return f"DOES NOT FIT: {cell.refusal}" if cell.refusal is not None else ", ".join(parts)
