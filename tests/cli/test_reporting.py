"""Records to reports: runs are told apart by their names, so no two may share one."""

from __future__ import annotations

from pathlib import Path

from builders import Script
from tokbench.cli.reporting import load_results, name_runs
from tokbench.derive.pairs import join_machines
from tokbench.derive.standing import take_standing


def write_record(folder: Path, step_s: float) -> Path:
    script = Script()
    script.trial(script.cell(), step_s=step_s)
    return script.write(folder)


def test_two_runs_of_one_basename_are_two_runs(tmp_path: Path) -> None:
    folders = [write_record(tmp_path / name / "record", step_s) for name, step_s in (("h100", 0.01), ("a100", 0.02))]
    results = load_results(folders)
    assert [item.name for item in results] == ["h100/record", "a100/record"]
    (row,) = join_machines(results)
    assert [cell is not None and cell.run_name for cell in row.cells] == ["h100/record", "a100/record"]
    assert len(take_standing(results, [], ()).champions) == 2


def test_a_name_is_the_folder_then_its_parent_then_a_number() -> None:
    folders = [Path(text) for text in ("/a/one", "/a/record", "/b/record", "/x/b/record", "/b/record")]
    assert name_runs(folders) == ["one", "a/record", "b/record", "b/record-2", "b/record-3"]
