"""`tokbench run` as a process, three blocks of it: worker processes that differ, and a record that shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tokbench.record.run import CellRecord, Run, Trial, read_run
from tokbench.record.timings import decode_rate_per_row

ROOT = Path(__file__).parents[2]
CONFIG = """\
name: fresh
seed: 3
model: {source: "shape:tiny-llama", weights: random, dtype: float32}
engine: {kind: fake, options: {step_s: 0.01, process_offset: 0.3}}
workload: {kind: synthetic, prompt_tokens: 16, output_tokens: 8}
load: {kind: static_batch, static_batch: [1, 2, 4, 8, 16]}
stop: {rel_ci: 0.02, min_repetitions: 5, max_repetitions: 5}
budget: {total: 300s, cold: 300s}
energy: off
compare: {published: []}
"""


def measured(folder: Path, *arguments: str) -> tuple[Run, str]:
    (folder / "asked.yaml").write_text(CONFIG, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "tokbench", "run", *arguments, "--no-report"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return read_run(folder / "RUN"), ended.stdout


def by_worker(cell: CellRecord) -> dict[str, list[float]]:
    """Decode rates of the cell's repetitions, process by process."""
    rates: dict[str, list[float]] = {}
    for trial in cell.good_trials():
        rates.setdefault(trial.started.worker_id, []).append(rate(trial))
    return rates


def rate(trial: Trial) -> float:
    (window,) = trial.of_kind("decode")
    found = decode_rate_per_row(window.steps)
    assert found is not None
    return found


def test_three_blocks_run_in_three_worker_processes_and_show_what_differs(tmp_path: Path) -> None:
    run, said = measured(tmp_path, "asked.yaml", "--out", "RUN")
    assert run.header.stop is not None and (3, True) == (run.header.stop.blocks, run.header.stop.sentinel)
    assert [(0, True), (1, True), (2, True)] == [(block.block, block.is_fresh) for block in run.blocks]
    assert [5] * 3 == [len(set(block.order)) for block in run.blocks]
    for cell in run.cells.values():
        rates = by_worker(cell)
        assert [2, 2, 1] == [len(values) for values in rates.values()]
        assert all(max(values) == min(values) for values in rates.values())  # nothing varies within a process
        assert 3 == len({values[0] for values in rates.values()})  # and one is not like another
    watching = [trial for cell in run.cells.values() for trial in cell.sentinels()]
    assert {block.sentinel for block in run.blocks} - {None} == {trial.started.cell_id for trial in watching}
    assert [0, 0] == [trial.started.block for trial in watching if trial.started.block == 0]
    for text in ("block 0: fresh workers", "block 1: fresh workers", "block 2: fresh workers"):
        assert text in said


def test_a_resumed_run_counts_the_processes_of_its_record(tmp_path: Path) -> None:
    measured(tmp_path, "asked.yaml", "--out", "RUN")
    events = tmp_path / "RUN" / "events.jsonl"
    lines = events.read_text(encoding="utf-8").splitlines(keepends=True)
    second = next(number for number, line in enumerate(lines) if '"event":"block_started","block":2' in line)
    events.write_text("".join(lines[:second]), encoding="utf-8")
    before = read_run(tmp_path / "RUN")
    assert [4] * 5 == [len(cell.good_trials()) for cell in before.cells.values()]
    run, _ = measured(tmp_path, "--resume", "RUN")
    for cell_id, cell in run.cells.items():
        earlier, now = by_worker(before.cells[cell_id]), by_worker(cell)
        assert earlier == {worker: now[worker] for worker in earlier}
        assert [2, 2, 1] == [len(values) for values in now.values()]
    assert [0, 1, 2] == [block.block for block in run.blocks]
