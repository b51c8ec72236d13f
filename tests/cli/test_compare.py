"""`tokbench compare` as it is typed: exit codes, forms, one clear message; on records that the real program made."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from builders import Script
from tokbench.cli import app as program
from tokbench.cli import comparing
from tokbench.cli.more import register
from tokbench.derive.compare.pages import DRIFT
from tokbench.errors import SpecError

app = typer.Typer()
register(app)
BOUND = ("--fail-on", "decode_tokens_per_s:-3%")
CONFIG = """\
name: compared
model: {source: 'shape:tiny-llama', weights: random, dtype: float32}
engine: {kind: fake, options: {step_s: 0.01, prefill_s_per_token: 0.0001}}
workload: {prompt_tokens: 16, output_tokens: 8}
stop: {min_repetitions: 3, max_repetitions: 3}
energy: off
"""


def record(folder: Path, step_s: float = 0.01, prompt_tokens: int = 100) -> str:
    script = Script()
    cell_id = script.cell(prompt_tokens=prompt_tokens)
    for number in range(3):
        script.trial(cell_id, step_s=step_s, worker=f"worker-{number}")
    return str(script.write(folder))


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """A record, and one that decodes at 80 % of its speed."""
    return record(tmp_path / "a"), record(tmp_path / "b", 0.0125)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


def typed(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the real `main`, which turns errors into codes."""
    monkeypatch.setattr(sys, "argv", ["tokbench", "compare", *arguments])
    return program.main()


def decode_row(shown: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("decode_tokens_per_s  ")]
    return [part.strip() for part in line.split("  ") if part.strip()]


def test_what_is_printed_into_a_pipe(two: tuple[str, str]) -> None:
    result = invoke(*two, *BOUND)
    assert 1 == result.exit_code
    assert "Broken: decode_tokens_per_s:-3% (1 of 1 pairs)." in result.stdout
    assert decode_row(result.stdout) == [
        "decode_tokens_per_s",
        "100 tokens/s",
        "80.0 tokens/s",
        "0.8000 (-20.0 %)",
        "0.8000 to 0.8000",
        "slower",
        "3 and 3 blocks",
        "-3% broken",
    ]
    assert DRIFT in result.stdout
    assert "\x1b" not in result.stdout


def test_a_record_beside_itself(two: tuple[str, str]) -> None:
    result = invoke(two[0], two[0], *BOUND, "--strict")
    assert 0 == result.exit_code
    assert "1 bound held in every pair." in result.stdout
    assert "no difference shown" == decode_row(result.stdout)[5]
    assert "slower" not in result.stdout and "faster" not in result.stdout


def test_a_terminal_gets_a_table(two: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(
        comparing,
        "RunConsole",
        lambda **options: Console(**options, file=shown, force_terminal=True, width=160, color_system=None),
    )
    invoke(*two)
    assert "─" in shown.getvalue()
    assert "0.8000" in shown.getvalue()


def test_events_of_a_run_are_the_run(two: tuple[str, str]) -> None:
    assert 0 == invoke(f"{two[0]}/events.jsonl", two[1]).exit_code


def test_only_the_metrics_asked_for(two: tuple[str, str]) -> None:
    plain = json.loads(invoke(*two, "--metric", "tpot_s", "--metric", "ttft_s", "--json").stdout)
    assert ["tpot_s", "ttft_s"] == [row["metric"] for row in plain["pairs"][0]["rows"]]


def test_markdown_to_a_file_and_json_to_the_pipe(two: tuple[str, str], tmp_path: Path) -> None:
    target = tmp_path / "compare.md"
    result = invoke(*two, *BOUND, "--json", "--markdown", str(target))
    assert (1, "broken") == (result.exit_code, json.loads(result.stdout)["verdict"])
    text = target.read_text(encoding="utf-8")
    assert (
        "| decode_tokens_per_s | 100 tokens/s | 80.0 tokens/s | 0.8000 (-20.0 %) | 0.8000 to 0.8000 | slower |" in text
    )
    assert text == invoke(*two, *BOUND, "--markdown", "-").stdout


def test_exit_codes(two: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = record(tmp_path / "other", prompt_tokens=200)
    broken = tmp_path / "broken.json"
    broken.write_text('{"benchmarks": [', encoding="utf-8")
    for code, arguments in (
        (0, (*two,)),
        (0, (two[0], other, "--force")),
        (1, (*two, *BOUND)),
        (2, (*two, "--fail-on", "decode_tokens_per_s:+3%")),
        (2, (*two, "--json", "--markdown", "-")),
        (2, (two[0],)),
        (2, (*two, "--by", "engine.mode=eager,compiled")),
        (2, (*two, "--markdown", str(tmp_path / "none" / "x.md"))),
        (4, (two[0], str(tmp_path / "none"))),
        (5, (str(broken), two[0])),
        (6, (two[0], other)),
    ):
        assert code == typed(*arguments, monkeypatch=monkeypatch), arguments


def test_corrupted_json_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"benchmarks": [', encoding="utf-8")
    assert 5 == typed(str(broken), str(broken), monkeypatch=monkeypatch)
    said = capsys.readouterr()
    assert "" == said.out
    expected = f"tokbench: error: {broken}: not JSON: line 1, column 17: Expecting value\n  fix: write the file anew\n"
    assert expected == said.err


def test_what_cannot_be_told_passes_unless_strict(tmp_path: Path) -> None:
    sides = []
    for name in "ab":
        script = Script()
        cell_id = script.cell()
        for number, step_s in enumerate((0.0099, 0.01, 0.0101)):
            script.trial(cell_id, step_s=step_s, worker=f"worker-{number}")
        sides.append(str(script.write(tmp_path / name)))
    bound = ("--fail-on", "decode_tokens_per_s:-1%")
    lenient = invoke(*sides, *bound)
    assert 0 == lenient.exit_code
    assert "No bound is shown to be broken, but: 1 of 1 bounded values cannot be told." in lenient.stdout
    assert 7 == invoke(*sides, *bound, "--strict").exit_code


def test_cells_of_one_run_are_paired_by_its_blocks(tmp_path: Path) -> None:
    """Drift of a factor from block to block is under both: the ratio has no spread."""
    script = Script()
    eager, compiled = script.cell(), script.cell(mode="compiled")
    alone = script.cell(static_batch=4)
    for number, drift in enumerate((1.0, 1.5, 3.0)):
        for cell_id, step_s in ((eager, 0.02), (compiled, 0.01)):
            script.trial(cell_id, step_s=step_s * drift, worker=f"worker-{number}-{cell_id}")
    script.trial(alone)
    run = str(script.write(tmp_path))
    plain = json.loads(invoke(run, "--by", "engine.mode=eager,compiled", "--json").stdout)
    (pair,) = plain["pairs"]
    row = next(row for row in pair["rows"] if row["metric"] == "decode_tokens_per_s")
    assert ("paired blocks", 3, "faster") == (row["basis"], row["n_a"], row["outcome"])
    assert (pytest.approx(2.0),) * 3 == tuple(row["ratio"][key] for key in ("value", "low", "high"))
    assert ["mode"] == [item["field"] for item in pair["differences"]]
    assert [4] == [int(item["name"].partition("static batch ")[2][0]) for item in plain["only_a"]]
    assert plain["notes"][0].startswith("A and B are cells of one run and paired")


@pytest.mark.parametrize(
    ("by", "message", "fix"),
    [
        ("engine.mode", "is not a key and two values", "--by engine.mode=eager,compiled"),
        ("engine.mode=eager", "is not a key and two values", "--by engine.mode=eager,compiled"),
        ("engine.mod=eager,compiled", "'engine.mod'", "did you mean `engine.mode`?"),
        ("engine.mode=eager,compild", "no cell with engine.mode 'compild'", "did you mean `compiled`?"),
        ("model.dtype=float32,int8", "no key of an engine", "engine.mode"),
    ],
)
def test_a_way_to_cut_that_is_none(tmp_path: Path, by: str, message: str, fix: str) -> None:
    script = Script()
    for mode in ("eager", "compiled"):
        script.trial(script.cell(mode=mode))
    error = invoke(str(script.write(tmp_path)), "--by", by).exception
    assert isinstance(error, SpecError)
    assert message in error.message
    assert fix in str(error.fix)


def test_a_reader_that_goes_away_costs_no_exit_code(two: tuple[str, str]) -> None:
    """As in `| head -0` under pipefail: rich alone would end with 1, which means a broken bound."""
    command = [sys.executable, "-m", "tokbench", "compare", *two]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert 0 == process.returncode


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs of the program itself with its scripted engine; the second steps 5 % slower."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "c.yaml").write_text(CONFIG, encoding="utf-8")
    runs = []
    for step_s in (0.01, 0.0105):
        run = str(folder / f"run-{step_s}")
        run_program(
            "run", str(folder / "c.yaml"), "--out", run, "--no-report", "--set", f"engine.options.step_s={step_s}"
        )
        runs.append(run)
    return runs


def run_program(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["tokbench", *arguments])
        assert 0 == program.main()


def rows(arguments: Sequence[str]) -> dict[str, dict[str, object]]:
    plain = json.loads(invoke(*arguments, "--force", "--json").stdout)
    return {row["metric"]: row for row in plain["pairs"][0]["rows"]}


def test_real_runs_of_the_scripted_engine(real: list[str]) -> None:
    row = rows([*real, *BOUND])["decode_tokens_per_s"]
    assert {"value": pytest.approx(1 / 1.05), "low": pytest.approx(1 / 1.05), "high": pytest.approx(1 / 1.05)} == {
        key: row["ratio"][key]  # type: ignore[index]
        for key in ("value", "low", "high")
    }
    assert ("slower", "broken") == (row["outcome"], row["bound"]["held"])  # type: ignore[index]
    assert "no difference shown" == rows([real[0], real[0]])["decode_tokens_per_s"]["outcome"]
    shown = invoke(*real, "--force").stdout
    assert "engine.options.step_s 0.01 → 0.0105" in shown
