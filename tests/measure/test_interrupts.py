"""`tokbench run` as a process: lost children, Ctrl-C, SIGTERM, SIGKILL, a full disk. Nothing measured is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tokbench.cli.reporting import write_run_report
from tokbench.record.run import Run, read_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
ROOT = Path(__file__).parents[2]
CONFIG = """\
name: interrupted
model: {{source: "shape:tiny-llama", weights: random, dtype: float32}}
engine: {{kind: fake, options: {{step_s: 0.01, jitter: 0.02, fail: {fail}, fail_at_rows: {fail_at_rows}}}}}
workload: {{kind: synthetic, prompt_tokens: 16, output_tokens: 32}}
load: {{kind: static_batch, static_batch: [1, 2, 4]}}
stop: {{rel_ci: 1.0e-9, min_repetitions: 3, max_repetitions: {repetitions}, blocks: 1, sentinel: false}}
budget: {{total: 300s, trial: 2s}}
energy: "off"
"""
NEVER, MANY = 9, 60
"""Rows at which no batch fails; repetitions that take some seconds."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the program; whatever is left of it is ended after the test."""
    begun: list[psutil.Process] = []

    def begin(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, *(["-c", code] if code else ["-m", "tokbench"]), "run", *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
        )
        begun.append(psutil.Process(process.pid))
        return process

    yield begin
    for process in begun:
        if process.is_running():
            process.kill()


Start = Callable[..., "subprocess.Popen[str]"]


def write_config(folder: Path, fail: str = "engine", fail_at_rows: int = NEVER, repetitions: int = 3) -> str:
    path = folder / "asked.yaml"
    path.write_text(CONFIG.format(fail=fail, fail_at_rows=fail_at_rows, repetitions=repetitions), encoding="utf-8")
    return str(path)


def wait_for(text: str, count: int, events: Path, process: subprocess.Popen[str]) -> None:
    """Wait until an event has been written so often."""
    deadline = time.monotonic() + 60
    while not events.exists() or events.read_text(encoding="utf-8").count(f'"event":"{text}"') < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {count} x {text} within a minute"
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in out + err, out + err
    return process.returncode, out, err


def check_no_orphans(found: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(found, timeout=10)
    assert [] == alive


def good(run: Run) -> list[int]:
    return [len(cell.good_trials()) for cell in run.cells.values()]


@pytest.mark.parametrize(
    ("fail", "cause", "tries"),
    [
        ("oom", "oom", 1),
        ("segfault", "crashed", 2),
        ("kill", "killed", 2),
        ("hang", "timeout", 2),
        ("engine", "engine", 2),
    ],
)
def test_a_child_that_fails_costs_one_trial_each_time(
    tmp_path: Path, start: Start, fail: str, cause: str, tries: int
) -> None:
    code, out, _ = end(start(write_config(tmp_path, fail, fail_at_rows=4), "--out", "RUN", "--no-report"))
    assert 1 == code
    run = read_run(tmp_path / "RUN")
    assert [3, 3, 0] == good(run)
    *_, lost = run.cells.values()
    assert [cause] * tries == [trial.failed.cause for trial in lost.trials if trial.failed is not None]
    workers = {trial.started.worker_id for cell in run.cells.values() for trial in cell.trials}
    assert tries == len(workers)  # a fresh one after each failure, where there was still something to do
    assert run.ended is not None and run.ended.reason == "complete"
    message = lost.trials[-1].failed.message if lost.trials[-1].failed else ""
    assert f"{cause}: {message}" in out
    report = write_run_report([tmp_path / "RUN"], tmp_path / "report", (), with_figures=False).markdown
    assert message.split(";")[0] in report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_in_mid_run_leaves_a_report_and_resume_finishes(
    tmp_path: Path, start: Start, number: int, code: int, reason: str
) -> None:
    process = start(write_config(tmp_path, repetitions=MANY), "--out", "RUN")
    wait_for("trial_finished", 10, tmp_path / "RUN" / "events.jsonl", process)
    found = children(process)
    assert 1 == len(found)
    process.send_signal(number)
    said = end(process)
    assert code == said[0]
    assert "tokbench run --resume RUN" in said[1]
    check_no_orphans(found)
    before = read_run(tmp_path / "RUN")
    assert before.ended is not None and before.ended.reason == reason
    assert "tokens/s" in (tmp_path / "RUN" / "report.md").read_text(encoding="utf-8")
    assert sum(good(before)) >= 10
    check_resumes(tmp_path, start, before)


def check_resumes(tmp_path: Path, start: Start, before: Run) -> None:
    """`--resume` brings every cell to its repetitions and measures none of them twice."""
    done = {trial.started.trial_id for cell in before.cells.values() for trial in cell.good_trials()}
    assert (0, "") == end(start("--resume", "RUN", "--no-report"))[::2]
    run = read_run(tmp_path / "RUN")
    assert [MANY] * 3 == good(run)
    finished = [trial.started.trial_id for cell in run.cells.values() for trial in cell.good_trials()]
    assert len(finished) == len(set(finished))
    assert done < set(finished)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child notices at its next word to the parent")
def test_a_parent_that_was_killed_leaves_no_child_and_a_record_that_can_be_finished(
    tmp_path: Path, start: Start
) -> None:
    process = start(write_config(tmp_path, repetitions=MANY), "--out", "RUN")
    wait_for("trial_finished", 10, tmp_path / "RUN" / "events.jsonl", process)
    found = children(process)
    process.kill()
    assert -signal.SIGKILL == end(process)[0]
    check_no_orphans(found)
    before = read_run(tmp_path / "RUN")
    assert before.ended is None
    assert sum(good(before)) >= 10
    check_resumes(tmp_path, start, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_child_hangs_ends_at_once(tmp_path: Path, start: Start, number: int, code: int) -> None:
    config = write_config(tmp_path, "hang", fail_at_rows=1)
    process = start(config, "--out", "RUN", "--set", "budget.trial=600")
    wait_for("trial_started", 1, tmp_path / "RUN" / "events.jsonl", process)
    found, begun = children(process), time.monotonic()
    process.send_signal(number)
    assert code == end(process)[0]
    assert time.monotonic() - begun < 20
    check_no_orphans(found)
    assert "report" in (tmp_path / "RUN" / "report.md").read_text(encoding="utf-8").lower()


PROBING = """
import sys, time
from tokbench.cli import app, running
def probe(*ignored):
    print("probing", flush=True)
    time.sleep(60)
running.place_for = probe
sys.exit(app.main())
"""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_before_there_is_a_record(tmp_path: Path, start: Start, number: int, code: int, word: str) -> None:
    process = start(write_config(tmp_path), "--out", "RUN", code=PROBING)
    assert process.stdout is not None
    assert "probing\n" == process.stdout.readline()
    process.send_signal(number)
    ended, _, err = end(process)
    assert code == ended
    assert [f"tokbench: {word}"] == [line.split(";")[0] for line in err.splitlines()]
    assert not (tmp_path / "RUN").exists()


FULL = """
import resource, sys
from tokbench.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
sys.exit(app.main())
"""
"""No file may grow beyond so many bytes: it fails as a full disk does."""


def test_a_full_disk_ends_with_one_message_and_what_was_recorded_stays(tmp_path: Path, start: Start) -> None:
    process = start(write_config(tmp_path, repetitions=MANY), "--out", "RUN", "--no-report", code=FULL.format(40_000))
    code, _, err = end(process)
    assert 4 == code
    assert 1 == err.count("tokbench: error:")
    assert "RUN/events.jsonl: the record cannot be written: File too large" in err
    assert "tokbench run --resume" in err
    before = read_run(tmp_path / "RUN")
    assert sum(good(before)) > 5
    check_resumes(tmp_path, start, before)


def test_a_report_that_cannot_be_written_leaves_a_whole_record(tmp_path: Path, start: Start) -> None:
    code, _, err = end(start(write_config(tmp_path), "--out", "RUN", code=FULL.format(100_000)))
    assert 4 == code
    assert "the report cannot be written: File too large" in err
    assert [3, 3, 3] == good(read_run(tmp_path / "RUN"))


def test_a_changed_config_is_refused_and_an_unchanged_one_goes_on(tmp_path: Path, start: Start) -> None:
    config = write_config(tmp_path)
    assert 0 == end(start(config, "--out", "RUN", "--no-report"))[0]
    lines = (tmp_path / "RUN" / "events.jsonl").read_bytes()
    changed = write_config(tmp_path, repetitions=4)
    code, _, err = end(start(changed, "--resume", "RUN"))
    assert (4, True) == (code, "the config has changed" in err)
    assert lines == (tmp_path / "RUN" / "events.jsonl").read_bytes()
    assert 0 == end(start(write_config(tmp_path), "--resume", "RUN", "--no-report"))[0]
    assert lines == (tmp_path / "RUN" / "events.jsonl").read_bytes()[: len(lines)]  # append-only


def test_a_meter_that_cannot_be_had_is_refused_before_there_is_a_record(tmp_path: Path, start: Start) -> None:
    code, _, err = end(start(write_config(tmp_path), "--out", "RUN", "--set", "energy.meters=[sundial]"))
    assert code in (2, 3)
    assert "sundial" in err
    assert not (tmp_path / "RUN").exists()
