"""Builds a record of a hundred cells and a million tokens on a scripted clock, through the ordinary writer."""

from __future__ import annotations

import time
from pathlib import Path

from tokbench.record.observations import (
    SCHEMA_VERSION,
    CellPlanned,
    RunEnded,
    RunStarted,
    StepTrace,
    TrialFinished,
    TrialStarted,
    WindowClosed,
    WindowOpened,
)
from tokbench.record.spec import CellSpec, EngineSpec, ModelSpec, StaticBatchLoad, WorkloadSpec
from tokbench.record.store import RunWriter, create_run
from tokbench.record.sweep import Cell, make_cell

CELLS, TRIALS, STEPS = 100, 10, 1000


def million_token_record(folder: Path) -> int:
    """Write the record; the number of tokens in it."""
    create_run(folder, "name: million\n")
    writer = RunWriter(folder)
    writer.append(
        RunStarted(
            schema_version=SCHEMA_VERSION,
            tokbench_version="0.0.0",
            config_sha256="0" * 64,
            seed=1,
            at_ns=0,
            utc="2026-01-01T00:00:00+00:00",
        )
    )
    order = 0
    for number in range(CELLS):
        cell = _cell(number)
        writer.append(
            CellPlanned(cell_id=cell.cell_id, pair_key=cell.pair_key, group=cell.group, resolved=cell.resolved_json())
        )
        for repetition in range(TRIALS):
            _write_trial(writer, cell, repetition, order)
            order += 1
    writer.append(RunEnded(reason="complete", at_ns=time.monotonic_ns()))
    writer.close()
    return CELLS * TRIALS * STEPS


def _cell(number: int) -> Cell:
    return make_cell(
        CellSpec(
            model=ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32"),
            engine=EngineSpec(kind="fake", mode="default"),
            workload=WorkloadSpec(prompt_tokens=16 + number, output_tokens=STEPS + 1),
            load=StaticBatchLoad(static_batch=1),
        )
    )


def _write_trial(writer: RunWriter, cell: Cell, repetition: int, order: int) -> None:
    trial_id = f"{cell.cell_id}-{order}"
    start = 1_000_000_000 * (order + 1)
    writer.append(
        TrialStarted(
            trial_id=trial_id,
            cell_id=cell.cell_id,
            repetition=repetition,
            block=repetition,
            order=order,
            worker_id="w",
            at_ns=start,
        )
    )
    for kind, steps in (("prefill", 1), ("decode", STEPS)):
        window_id = f"{trial_id}/{kind}"
        stamps = tuple(start + 900_000 * (index + 1) + (index * 7919 + order) % 997 for index in range(steps))
        writer.append(WindowOpened(trial_id=trial_id, window_id=window_id, kind=kind, at_ns=start))  # type: ignore[arg-type]
        writer.append(
            StepTrace(
                trial_id=trial_id,
                window_id=window_id,
                start_at_ns=start,
                step_at_ns=stamps,
                tokens_per_row=(1,) * steps,
                rows=1,
                context_tokens=16,
                stamped_by="script",
                clock_error_s=None,
            )
        )
        writer.append(WindowClosed(trial_id=trial_id, window_id=window_id, at_ns=stamps[-1]))
        start = stamps[-1]
    writer.append(TrialFinished(trial_id=trial_id, at_ns=start))
