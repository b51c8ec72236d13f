"""`tokbench check`: verdict, reasons and remedies per cell, and the exit code that a script can rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import typer
from typer.testing import CliRunner, Result

from builders import Script
from scripted_facts import GPU
from tokbench.cli.more import register
from tokbench.derive.codes import CRITERIA, Code
from tokbench.derive.evaluate import Status
from tokbench.derive.remedy import REMEDIES, STATUS_REMEDIES
from tokbench.errors import RecordError

app = typer.Typer()
register(app)
CELL = "Llama-3.1-8B-Instruct, bf16, fake eager, static batch 1, 100 prompt + 5 output tokens"


def check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["check", str(folder), *options])


def clean(script: Script, trials: int = 3) -> str:
    cell_id = script.cell()
    for index in range(trials):
        script.trial(cell_id, worker=f"worker-{index}")
    return cell_id


def test_every_code_and_every_status_without_a_number_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Code)
    assert set(STATUS_REMEDIES) == set(get_args(Status)) - {"ok"}
    assert all(text.endswith(".") for text in (*REMEDIES.values(), *STATUS_REMEDIES.values()))


def test_all_valid_ends_with_0(tmp_path: Path) -> None:
    script = Script()
    cell_id = clean(script)
    result = check(script.write(tmp_path / "run"))
    assert (result.stdout.splitlines(), result.exit_code) == (
        [f"{cell_id}  valid    no reason against it", f"{'':23}{CELL}", "1 cell: 1 valid, 0 suspect, 0 invalid"],
        0,
    )


def test_a_suspect_cell_ends_with_1_and_says_what_to_do(tmp_path: Path) -> None:
    script = Script()
    cell_id = clean(script, trials=2)
    result = check(script.write(tmp_path / "run"))
    assert (result.stdout.splitlines(), result.exit_code) == (
        [
            f"{cell_id}  suspect  TOO_FEW_REPETITIONS, SHARED_PROCESS",
            f"{'':23}{CELL}",
            "",
            "TOO_FEW_REPETITIONS (suspect): too few repetitions",
            f"  where: {CRITERIA[Code.TOO_FEW_REPETITIONS]}",
            f"  to do: {REMEDIES[Code.TOO_FEW_REPETITIONS]}",
            "",
            f"SHARED_PROCESS (note): {Code.SHARED_PROCESS.value}",
            f"  where: {CRITERIA[Code.SHARED_PROCESS]}",
            f"  to do: {REMEDIES[Code.SHARED_PROCESS]}",
            "",
            "1 cell: 0 valid, 1 suspect, 0 invalid",
        ],
        1,
    )


def test_a_note_is_told_and_leaves_the_cell_valid(tmp_path: Path) -> None:
    script = Script(device=GPU.model_copy(update={"foreign_processes": None}))
    clean(script)
    result = check(script.write(tmp_path / "run"))
    assert 0 == result.exit_code
    assert "\nFOREIGN_UNKNOWN (note): " in result.stdout


def test_a_code_of_several_cells_is_explained_once(tmp_path: Path) -> None:
    script = Script()
    for rows in (1, 2, 3):
        script.trial(script.cell(static_batch=rows))
    text = check(script.write(tmp_path / "run")).stdout
    assert (3, 1) == (text.count("  suspect  TOO_FEW_REPETITIONS,"), text.count("\nTOO_FEW_REPETITIONS (suspect)"))


def test_cells_without_a_number_tell_their_end(tmp_path: Path) -> None:
    script = Script()
    clean(script)
    large, late = script.cell(static_batch=64), script.cell(static_batch=65)
    script.fail(large, "oom", "CUDA out of memory")
    script.skip(late, "skipped", "the budget was used up")
    unreached = script.cell(static_batch=66)
    result = check(script.write(tmp_path / "run"), "--json")
    answer = json.loads(result.stdout)
    assert (1, "run", False) == (result.exit_code, answer["run"], answer["is_all_valid"])
    reasons = {cell["cell_id"]: cell["reasons"] for cell in answer["cells"]}
    assert {
        "code": "oom",
        "meaning": "CUDA out of memory",
        "weight": "invalid",
        "remedy": STATUS_REMEDIES["oom"],
        "criterion": None,
    } == reasons[large][0]
    assert ("skipped", "planned") == (reasons[late][0]["code"], reasons[unreached][0]["code"])
    assert [0, 0, 0, 0] == [cell["disturbed_repetitions"] for cell in answer["cells"]]
    assert ["valid", "invalid", "invalid", "invalid"] == [cell["verdict"] for cell in answer["cells"]]


def test_a_record_without_cells_proves_nothing(tmp_path: Path) -> None:
    result = check(Script().write(tmp_path / "run"))
    assert ("no cell stands in this record: nothing was planned\n", 1) == (result.stdout, result.exit_code)


def test_no_record_is_a_record_error(tmp_path: Path) -> None:
    assert isinstance(check(tmp_path / "none").exception, RecordError)
