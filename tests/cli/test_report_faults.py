"""A fault of a report's own costs the report: the run goes on, its record ends, and one message tells the fault."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tokbench.cli import reporting, running
from tokbench.errors import ExitCode, RecordError
from tokbench.record.run import read_run

CONFIG = """
name: faulty
model: {source: "fake:scripted", weights: random}
engine: {kind: fake, options: {step_s: 0.001}}
workload: {prompt_tokens: 16, output_tokens: 16}
stop: {min_repetitions: 2, max_repetitions: 2, blocks: 2, sentinel: false}
energy: off
"""


def broken(*arguments: object, **options: object) -> object:
    raise KeyError("a metric that\nnobody has")


def measure(folder: Path, *, with_report: bool = True) -> tuple[ExitCode, str]:
    config = folder / "faulty.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    console = Console(file=io.StringIO(), width=400)
    request = running.RunRequest(config, folder / "RUN", (), False, None, False, with_report)
    code = running.run(request, console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_a_live_report_that_fails_is_told_in_a_line_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A section that raised KeyError ended a measurement of hours."""
    monkeypatch.setattr(running, "write_run_report", broken)
    code, said = measure(tmp_path)
    assert ExitCode.OK == code
    lines = [line for line in said.splitlines() if "no report after this block" in line]
    assert 1 == len(lines), said
    assert "KeyError: 'a metric that\\nnobody has' (test_report_faults.py:" in lines[0]
    assert f"tokbench report {tmp_path / 'RUN'} shows where" in lines[0]
    ended = read_run(tmp_path / "RUN").ended
    assert ended is not None
    assert "complete" == ended.reason
    assert (tmp_path / "RUN" / "report.md").exists()


def test_a_last_report_that_fails_is_a_message_that_names_the_whole_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "write_report", broken)
    with pytest.raises(RecordError, match="the report was not written: KeyError") as told:
        measure(tmp_path)
    assert "the record is whole" in (told.value.fix or "")
    assert read_run(tmp_path / "RUN").ended is not None


def test_an_error_that_the_user_can_mend_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> object:
        raise RecordError("no space left")

    monkeypatch.setattr(reporting, "write_report", full)
    with pytest.raises(RecordError, match="^no space left$"):
        measure(tmp_path)
