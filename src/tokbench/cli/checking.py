"""`tokbench check`: the verdict on every cell of a record, its reasons, and what to do about each."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import typer

from tokbench.cli.reporting import load_results
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.remedy import Advice, advise, is_all_valid
from tokbench.derive.wording import say_cell
from tokbench.errors import ExitCode


def show_check(run: Path, *, as_json: bool) -> ExitCode:
    """Print the verdicts; the exit code is 0 only where every cell is valid.

    Raises:
        RecordError: the record cannot be read.
    """
    (results,) = load_results([run])
    if as_json:
        typer.echo(json.dumps(_plain(results), indent=2))
    else:
        _print(results)
    return ExitCode.OK if is_all_valid(results) else ExitCode.TRIALS_FAILED


def _plain(results: Results) -> dict[str, Any]:
    return {
        "run": results.name,
        "is_all_valid": is_all_valid(results),
        "cells": [
            {
                "cell_id": cell.cell_id,
                "cell": say_cell(cell),
                "status": cell.status,
                "verdict": cell.validity.verdict,
                "disturbed_repetitions": cell.undisturbed.left_out,
                "reasons": [dataclasses.asdict(item) for item in advise(cell)],
            }
            for cell in results.cells
        ],
    }


def _print(results: Results) -> None:
    """A table of cells, then each code and each way to end once, with what it means and what to do."""
    legend: dict[tuple[str, str], Advice] = {}
    for cell in results.cells:
        advice = advise(cell)
        legend |= {(item.code, item.meaning): item for item in advice}
        codes = ", ".join(item.code for item in advice) or "no reason against it"
        typer.echo(f"{cell.cell_id}  {cell.validity.verdict:<7}  {codes}")
        typer.echo(f"{'':23}{say_cell(cell)}")
    for item in legend.values():
        typer.echo(f"\n{item.code} ({item.weight}): {item.meaning}")
        if item.criterion is not None:
            typer.echo(f"  where: {item.criterion}")
        typer.echo(f"  to do: {item.remedy}")
    if legend:
        typer.echo()
    typer.echo(_say_total(results.cells))


def _say_total(cells: tuple[CellResult, ...]) -> str:
    if not cells:
        return "no cell stands in this record: nothing was planned"
    verdicts = [cell.validity.verdict for cell in cells]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("valid", "suspect", "invalid"))
    return f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}: {counts}"
