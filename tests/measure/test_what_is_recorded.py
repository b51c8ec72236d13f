"""From an engine's word to the record and its summary: memory that ran out, steady memory, and repeatability."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripted_measure import config_text, fake_plan, rows_of, stage
from tokbench.derive.evaluate import evaluate
from tokbench.derive.report.write import write_report
from tokbench.measure.messages import PrepareCell
from tokbench.measure.runner import Outcome
from tokbench.record.run import CellRecord, Run
from tokbench.record.store import read_events

WEIGHT_BYTES, KV_BYTES_PER_TOKEN, TOKENS = 1_000_000, 1_000, 16 + 8


def bytes_of(rows: int) -> int:
    """What the fake says that a cell of `config_text` takes."""
    return WEIGHT_BYTES + KV_BYTES_PER_TOKEN * TOKENS * rows


def by_rows(run: Run) -> dict[int, CellRecord]:
    return {rows_of(cell.spec.load): cell for cell in run.cells.values()}


@pytest.mark.parametrize("fail_in", ["prepare", "prefill"])
def test_a_batch_that_does_not_fit_is_a_row_with_its_peak_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_in: str
) -> None:
    options = f"{{step_s: 0.01, fail: oom, fail_at_rows: 2, fail_in: {fail_in}}}"
    text = config_text(load="{static_batch: [1, 2, 3]}", options=options)
    made = stage(tmp_path / "run", monkeypatch)
    assert Outcome("complete", 2, 2) == made.run(fake_plan(tmp_path / "asked", text))
    record = made.read()
    cells = by_rows(record)
    assert [3, 0, 0] == [len(cells[rows].good_trials()) for rows in (1, 2, 3)]
    trial_id = cells[2].trials[0].started.trial_id if fail_in == "prefill" else None
    readings = [*cells[2].memory, *cells[2].trials[0].memory]
    assert [(trial_id, "script", bytes_of(2))] == [(r.trial_id, r.source, r.value_bytes) for r in readings]
    kinds = [event.event for event in read_events(made.folder) if getattr(event, "cell_id", None) == cells[2].cell_id]
    assert kinds.index("memory_reading") < kinds.index("trial_failed") < kinds.index("cell_skipped")

    paths = write_report([evaluate(record, "scripted")], (), tmp_path / "report", vendors=())
    summary = json.loads((paths.markdown.parent / "summary.json").read_text(encoding="utf-8"))
    peaks = [(cell["status"], cell["metrics"]["peak_memory_bytes"]["value"]) for cell in summary["cells"]]
    assert [("ok", bytes_of(1)), ("oom", bytes_of(2)), ("oom", bytes_of(3))] == peaks


def test_memory_in_use_is_read_when_warm_and_after_each_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage(tmp_path / "run", monkeypatch)
    made.run(fake_plan(tmp_path / "asked", config_text(load="{static_batch: 1}")))
    (cell,) = made.read().cells.values()
    steady = [[r.value_bytes for r in trial.memory if r.source == "script_steady"] for trial in cell.trials]
    assert [[bytes_of(1)] * 2, [bytes_of(1)], [bytes_of(1)]] == steady  # the first came after the warm-up
    (result,) = evaluate(made.read(), "scripted").cells
    assert bytes_of(1) == getattr(result.metrics["steady_memory_bytes"], "value", None)


def asked_to_repeat(heard: list[object]) -> list[tuple[str, bool]]:
    return [(command.cell_id, command.check_repeat) for command in heard if isinstance(command, PrepareCell)]


def test_repeatability_is_checked_once_a_cell_where_the_switch_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config_text().replace("kind: fake,", "kind: fake, check_repeat: true,")
    plan = fake_plan(tmp_path / "asked", text)
    made = stage(tmp_path / "run", monkeypatch, {"trial": 10.0})  # too long to be repeated in one visit
    made.run(plan)
    asked = asked_to_repeat([*made.heard])
    assert 6 == len(asked)
    assert [(cell.cell.cell_id, True) for cell in plan.cells()] == asked[:2]
    assert {False} == {check for _, check in asked[2:]}
    run = made.read()
    assert [["itself", "alone"]] * 2 == [[r.against for r in cell.repeats] for cell in run.cells.values()]
    again = stage(tmp_path / "run", monkeypatch, {"trial": 10.0})
    again.run(fake_plan(tmp_path / "again", text.replace("max_repetitions: 5", "max_repetitions: 9")), run)
    assert not any(check for _, check in asked_to_repeat([*again.heard]))


def test_repeatability_is_not_checked_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(tmp_path / "run", monkeypatch)
    made.run(fake_plan(tmp_path / "asked"))
    assert [[], []] == [cell.repeats for cell in made.read().cells.values()]
