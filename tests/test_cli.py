"""The command line through its real `main()`: one clear message, the documented exit code, no traceback, no loss."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tokbench.cli import app, running
from tokbench.measure.probe import Probe, probe
from tokbench.record.observations import MeterAbsent, RunEnded
from tokbench.record.run import read_run
from tokbench.record.store import RunWriter, read_events, read_header

ROOT = Path(__file__).resolve().parents[1]
FAKE = str(ROOT / "configs" / "fake.yaml")
CONFIG = """\
name: a
model: {source: 'shape:tiny-llama', weights: random, dtype: float32}
engine: {kind: fake}
workload: {prompt_tokens: 16, output_tokens: 4}
load: {static_batch: [1, 2]}
stop: {min_repetitions: 2, max_repetitions: 2}
energy: off
"""
REAL = ("--set", "engine={kind: transformers, mode: eager}", "--set", "device=cpu")


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Here:
    """A fresh working folder with a small config; commands are typed in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.config = folder / "c.yaml"
        self.config.write_text(CONFIG, encoding="utf-8")
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.chdir(folder)

    def type(self, *arguments: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["tokbench", *arguments])
        self._capsys.readouterr()
        code = app.main()
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Ended(code, said.out, said.err)

    def refused(self, code: int, *arguments: str) -> str:
        """The one message of a command that must not work."""
        before = snapshot(self.folder)
        ended = self.type(*arguments)
        assert code == ended.code, ended
        assert 1 == ended.err.count("tokbench: error: "), ended.err
        assert "\n  fix: " in ended.err or code == 5, ended.err
        assert before == snapshot(self.folder), "a refused command leaves nothing behind"
        return ended.err.partition("tokbench: error: ")[2].rstrip()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def found() -> Probe:
    """What the real probe finds on this machine; it takes seconds, so it is asked once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUDA_VISIBLE_DEVICES", "")
        return probe()


@pytest.fixture
def without_gpu(found: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "probe", lambda: found)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(tmp_path, monkeypatch, capsys)


def typed(*arguments: str, folder: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    environment = {**os.environ, **(environ or {})}
    command = [sys.executable, "-m", "tokbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("code", "override", "expected"),
    [
        (2, "enginee.kind=fake", "--set enginee.kind: enginee: unknown key\n  fix: did you mean `engine`?"),
        (2, "load.static_batch=two", "--set load.static_batch: should be a whole number, not 'two'"),
        (2, "load.static_batch=[]", "--set load.static_batch: the list is empty: there is nothing to sweep"),
        (2, "load.static_batch=-1", "--set load.static_batch: should be greater than 0, not -1"),
        (2, "exclude=[{engine.kind: fake}]", "--set exclude: the sweep is empty: every point is excluded"),
        (2, "device=[cuda:0, cpu]", "--set device: a model cannot be split over devices of different kinds"),
        (2, "compare.published=[grok]", "names the vendor 'grok'\n  fix: did you mean `groq`?"),
        (2, "workload={kind: jsonl, path: none.jsonl}", "--set workload: workload.path: there is no file 'none.jsonl'"),
        (2, "engine.options.api_key=hush", "--set engine.options.api_key: a secret does not belong in a config"),
        (3, "engine.kind=fak", "engine.kind: there is no engine 'fak'\n  fix: did you mean `fake`?"),
        (3, "engine.mode=defalt", "engine 'fake' has no mode 'defalt'\n  fix: did you mean `default`?"),
        (3, "energy.meters=[fak]", "energy.meters: there is no meter 'fak'\n  fix: did you mean `fake`?"),
        (3, "experiment={kind: fak}", "there is no experiment 'fak'\n  fix: did you mean `fake`?"),
    ],
)
def test_what_a_config_may_not_say(here: Here, command: str, code: int, override: str, expected: str) -> None:
    assert expected in here.refused(code, command, "c.yaml", "--set", override)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("device=cuda", "no GPU"),
        ("device=cuda:7", "no GPU"),
        ("device=rocm", "device: rocm, but the installed torch"),
        ("device=mps", "no mps device here; there is cpu"),
        ("device=gpu", "unknown device 'gpu'\n  fix: use auto, cuda, cuda:N"),
    ],
)
def test_a_device_that_is_not_here(here: Here, override: str, expected: str) -> None:
    assert expected in here.refused(3, "run", "c.yaml", *REAL, "--set", override)


@pytest.mark.usefixtures("without_gpu")
def test_a_model_that_cannot_fit(here: Here) -> None:
    said = here.refused(3, "run", "c.yaml", *REAL, "--set", "model.source=shape:DeepSeek-V3")
    assert "no cell of this config fits: the smallest needs" in said
    assert "fix: a smaller model or dtype" in said


@pytest.mark.usefixtures("without_gpu")
def test_a_model_that_nobody_knows_names_those_that_are_near(here: Here) -> None:
    said = here.refused(2, "run", "c.yaml", *REAL, "--set", "model.source=shape:tiny-lama")
    assert "unknown model 'tiny-lama'" in said
    assert "tiny-llama" in said


@pytest.mark.usefixtures("without_gpu")
def test_a_model_source_of_no_known_form(here: Here) -> None:
    said = here.refused(2, "run", "c.yaml", *REAL, "--set", "model.source=meta-llama/Llama-3.1-8B")
    assert "is no source of a model" in said
    assert "perhaps `hf:meta-llama/Llama-3.1-8B`" in said


@pytest.mark.usefixtures("without_gpu")
def test_a_model_of_the_hub_without_the_hub_names_every_way_out(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = here.folder / "hf"
    cache.mkdir()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setenv("TOKBENCH_CACHE", str(here.folder / "cache"))
    said = here.refused(
        3, "run", "c.yaml", *REAL, "--set", "model={source: 'hf:meta-llama/Llama-3.1-8B-Instruct', dtype: bfloat16}"
    )
    assert "HF_HUB_OFFLINE forbids fetching it" in said
    for way in ("unset HF_HUB_OFFLINE", "model.source=path:DIR", "model.weights=random"):
        assert way in said


def test_a_config_that_is_missing_a_folder_or_no_yaml(here: Here) -> None:
    assert "none.yaml: no such file" in here.refused(2, "run", "none.yaml")
    assert ".: this is a folder, not a config file" in here.refused(2, "run", ".")
    here.config.write_text("name: a\n\tmodel: b\n", encoding="utf-8")
    assert "c.yaml:2: not valid YAML" in here.refused(2, "run", "c.yaml")
    here.config.write_text("a: &a [*a]\n", encoding="utf-8")
    assert "c.yaml:1: the file grows without bound" in here.refused(2, "run", "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("runn",), "No such command 'runn'. Did you mean 'run'?\n  fix: tokbench --help"),
        (("run", "--resum", "x"), "No such option: --resum"),
        (("run", "--out"), "Option '--out' requires an argument"),
        (("plan",), "Missing argument"),
        (("plan", "a.yaml", "b.yaml"), "unexpected extra argument"),
        (("run",), "no config named\n  fix: tokbench run configs/smoke.yaml, or --resume RUN"),
        (("report",), "no run named"),
        (("run", "c.yaml", "--set", "nothing"), "--set 'nothing' is not KEY=VALUE"),
        (("run", "--resume", "x", "--out", "y"), "--resume names the folder already"),
        (("report", "x", "--vendor", "cerebra"), "names the vendor 'cerebra'\n  fix: did you mean `cerebras`?"),
    ],
)
def test_a_command_line_that_cannot_be_read(here: Here, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in here.refused(2, *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("report", "."), ".: no record here (events.jsonl is missing)"),
        (("report", "none"), "none: no record here"),
        (("report", "c.yaml"), "c.yaml:1: not an event"),
        (("report", "--latest"), "runs: no run here"),
        (("run", "--resume", "."), ".: no record here"),
        (("run", "--resume", "none"), "none: no record here"),
        (("run", "c.yaml", "--out", "."), ".: there is already something here"),
        (("run", "c.yaml", "--out", "c.yaml"), "c.yaml: there is already something here"),
        (("run", "c.yaml", "--out", "c.yaml/run"), "is not a folder"),
        (("run", "c.yaml", "--out", "a" * 300), "File name too long"),
    ],
)
def test_a_record_that_is_not_there_or_in_the_way(here: Here, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in here.refused(4, *arguments)


def test_a_folder_in_the_way_is_told_before_a_device_is_looked_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "probe", lambda: pytest.fail("a device was looked for"))
    assert "there is already something here" in here.refused(4, "run", "c.yaml", *REAL, "--out", ".")
    assert "names the vendor" in here.refused(2, "run", "c.yaml", *REAL, "--set", "compare.published=[x]")
    assert "has no mode 'x'" in here.refused(3, "run", "c.yaml", *REAL, "--set", "engine.mode=x")


@pytest.mark.slow
def test_a_run_from_its_config_to_its_report(here: Here) -> None:
    ended = here.type("run", FAKE, "--out", "run")
    assert (0, "") == (ended.code, ended.err)
    assert "Report: run/report.md" in ended.out
    run = here.folder / "run"
    files = {path.name for path in run.iterdir()}
    assert {"config.yaml", "events.jsonl", "report.md", "report.html", "summary.json", "cells.csv"} <= files
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert 8 == len(summary["cells"])
    assert {"ok"} == {cell["status"] for cell in summary["cells"]}
    rates = [cell["metrics"]["decode_tokens_per_s"]["value"] for cell in summary["cells"]]
    assert all(98 < rate < 102 for rate in rates), "the script makes a token every 10 ms"

    assert "run: there is already something here" in here.refused(4, "run", FAKE, "--out", "run")
    assert "the config has changed since this run began" in here.refused(
        4, "run", FAKE, "--resume", "run", "--set", "seed=7"
    )
    assert "a resumed run keeps its config" in here.refused(2, "run", "--resume", "run", "--set", "seed=7")

    before = snapshot(run)
    trials = {cell.cell_id: len(cell.trials) for cell in read_run(run).cells.values()}
    assert 0 == here.type("run", "--resume", "run").code
    after = read_run(run)
    assert trials == {cell.cell_id: len(cell.trials) for cell in after.cells.values()}
    assert (run / "events.jsonl").read_bytes().startswith(before["events.jsonl"])
    again = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["cells"] == again["cells"]

    assert 0 == here.type("report", "run", "--out", "second", "--no-figures").code
    assert again["cells"] == json.loads((here.folder / "second" / "summary.json").read_text(encoding="utf-8"))["cells"]


@pytest.mark.slow
def test_a_config_is_stored_as_it_was_read(here: Here) -> None:
    """YAML 1.1 writes the text `1e3` bare, and 1.2 reads a number: the run could not be resumed."""
    odd = ("--set", "labels={a: '1e3', b: 'off', c: '010'}")
    assert 0 == here.type("run", "c.yaml", "--out", "run", "--no-report", *odd).code
    assert 0 == here.type("run", "--resume", "run", "--no-report").code


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_and_finished(here: Here) -> None:
    assert 0 == here.type("run", "c.yaml", "--out", "run", "--no-report").code
    path = here.folder / "run" / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    finished = next(i for i, line in enumerate(lines) if b'"event":"trial_finished"' in line)
    path.write_bytes(b"".join(lines[: finished + 1]) + lines[finished + 1][:20])
    assert 0 == here.type("run", "--resume", "run", "--no-report").code
    assert [2, 2] == [len(cell.good_trials()) for cell in read_run(here.folder / "run").cells.values()]


@pytest.mark.slow
def test_a_failing_engine_ends_with_1_and_stands_in_the_report(here: Here) -> None:
    ended = here.type("run", "c.yaml", "--out", "run", "--set", "engine.options.fail_at_rows=2")
    assert 1 == ended.code
    summary = json.loads((here.folder / "run" / "summary.json").read_text(encoding="utf-8"))
    by_batch = {cell["conditions"]["static_batch"]: cell["status"] for cell in summary["cells"]}
    assert {1: "ok", 2: "failed"} == by_batch
    report = (here.folder / "run" / "report.md").read_text(encoding="utf-8")
    assert "scripted: the engine failed" in report
    failed = [trial.failed for cell in read_run(here.folder / "run").cells.values() for trial in cell.trials]
    assert any(item is not None and item.traceback and "RuntimeError" in item.traceback for item in failed)


@pytest.mark.slow
def test_an_option_that_the_engine_does_not_know(here: Here) -> None:
    ended = here.type("run", "c.yaml", "--out", "run", "--set", "engine.options.stp_s=1")
    assert 3 == ended.code
    assert 1 == ended.err.count("tokbench: error: ")
    assert "engine.options.stp_s" in ended.err
    assert "options of the fake engine: " in ended.err


MARKER = "hf_" + "MarkerThatMustNeverBeKept" + "0" * 9


@pytest.mark.slow
def test_no_secret_reaches_a_file_of_the_run(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, MARKER)
    ended = here.type("run", "c.yaml", "--out", "run", "--set", "engine.options.fail_at_rows=2")
    assert 1 == ended.code
    assert MARKER not in ended.out + ended.err
    assert [] == [name for name, content in snapshot(here.folder).items() if MARKER.encode() in content]


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(here: Here) -> None:
    said = here.refused(2, "run", "c.yaml", "--set", f"labels.who={MARKER}")
    assert MARKER not in said


@pytest.mark.slow
def test_a_full_disk_ends_with_4_and_what_was_written_stays_valid(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    calls: list[int] = []

    def fill(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fill)
        ended = here.type("run", "c.yaml", "--out", "run")
    assert 4 == ended.code
    assert 1 == ended.err.count("tokbench: error: "), ended.err
    assert "the record cannot be written: No space left on device" in ended.err
    assert "tokbench run --resume run" in ended.err
    assert 0 == here.type("run", "--resume", "run", "--no-report").code


def test_a_row_of_published_figures_that_is_wrong_ends_with_5(here: Here) -> None:
    writer = RunWriter(ready(here.folder / "run"))
    writer.append(RunEnded(reason="complete", at_ns=9))
    writer.close()
    own = here.folder / "own"
    own.mkdir()
    (own / "a.yaml").write_text("figures:\n  - id: x\n    vendor: me\n", encoding="utf-8")
    said = here.refused(5, "report", "run", "--published", "own")
    assert "a.yaml, row x, field " in said


def ready(folder: Path) -> Path:
    """A folder with the beginning of a record."""
    from builders import Script

    return Script().write(folder)


def test_a_record_of_another_version_ends_with_4(here: Here) -> None:
    path = ready(here.folder / "run") / "events.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"schema_version":1', '"schema_version":2'), encoding="utf-8"
    )
    assert "schema version 2, this tokbench reads 1" in here.refused(4, "report", "run")


def test_a_record_that_was_edited_ends_with_4_and_the_line(here: Here) -> None:
    path = ready(here.folder / "run") / "events.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"event":"run_ended","reason":"complete","at_ns":"soon"}\n')
    number = len(path.read_text(encoding="utf-8").splitlines())
    assert f"events.jsonl:{number}: not an event: " in here.refused(4, "report", "run")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help"), ("--version",)])
def test_help_is_an_answer(here: Here, arguments: tuple[str, ...]) -> None:
    ended = here.type(*arguments)
    assert (0 if arguments else 2) == ended.code
    assert ended.out + ended.err
    assert "error" not in ended.err


@pytest.mark.parametrize("command", ["metrics", "engines", "meters"])
def test_lists_are_lists(here: Here, command: str) -> None:
    rows = json.loads(here.type(command, "--json").out)
    assert rows
    plain = here.type(command)
    assert (0, len(rows)) == (plain.code, len(plain.out.splitlines()))


def test_a_plan_measures_nothing_and_writes_nothing(here: Here) -> None:
    before = snapshot(here.folder)
    plan = json.loads(here.type("plan", "c.yaml", "--json").out)
    assert [1, 2] == [cell["spec"]["load"]["static_batch"] for cell in plan["cells"]]
    assert before == snapshot(here.folder)


def test_a_run_that_is_interrupted_before_it_begins(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.cli import planning
    from tokbench.errors import Terminated

    for interrupt, code, word in ((KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")):

        def stop(*arguments: object, raised: type[BaseException] = interrupt, **options: object) -> None:
            raise raised

        monkeypatch.setattr(planning, "show_plan", stop)
        ended = here.type("plan", "c.yaml")
        assert (code, f"tokbench: {word}\n") == (ended.code, ended.err)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tokbench", "metrics"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert (0, b"") == (process.returncode, said)


@pytest.mark.slow
def test_a_run_goes_on_when_its_reader_goes_away(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "tokbench", "run", "c.yaml", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert (0, b"") == (process.returncode, said)
    assert [2, 2] == [len(cell.good_trials()) for cell in read_run(tmp_path / "run").cells.values()]
    assert (tmp_path / "run" / "report.md").exists()


def test_a_real_process_ends_with_the_documented_code(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.replace("engine: {kind: fake}", "engine: {kind: fake}\nstopp: 1"), "utf-8")
    ended = typed("run", "c.yaml", folder=tmp_path)
    expected = "tokbench: error: c.yaml:4: stopp: unknown key\n  fix: did you mean `stop`?\n"
    assert (2, "", expected) == (ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_run_that_is_stopped_keeps_its_record_and_its_report(
    tmp_path: Path, number: signal.Signals, code: int, reason: str
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG + "budget: {total: 60s}\n", encoding="utf-8")
    hang = ("--set", "engine.options={fail_at_rows: 2, fail: hang}")
    command = [sys.executable, "-m", "tokbench", "run", "c.yaml", "--out", "run", *hang]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    events = tmp_path / "run" / "events.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (events.exists() and b"trial_finished" in events.read_bytes()):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert code == process.returncode, out + err
    assert "Traceback" not in out + err
    ended = [event for event in read_events(tmp_path / "run") if isinstance(event, RunEnded)]
    assert [reason] == [event.reason for event in ended]
    assert read_header(tmp_path / "run").seed == 1
    assert (tmp_path / "run" / "report.md").exists()
    assert "tokbench run --resume run" in out


def test_what_a_meter_lacks_is_in_the_record(here: Here) -> None:
    assert 0 == here.type("run", "c.yaml", "--out", "run", "--no-report").code
    absent = [event for event in read_events(here.folder / "run") if isinstance(event, MeterAbsent)]
    assert [("all", "the config says energy: off")] == [(event.meter, event.reason) for event in absent]
