"""`tokbench claims --run`: a plan with reasons, the runs, the verdicts; finished records are taken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from tokbench.cli import claim_running
from tokbench.cli.more import register
from tokbench.errors import NotFetchedError, RecordError, SpecError
from tokbench.record.store import EVENTS_FILE

app = typer.Typer()
register(app)

CLAIM = """
- id: {name}
  topic: latency
  priority: 1
  document: mine.txt
  statement: "A step takes longer than a millisecond."
  statement_zh: "一步超过一毫秒。"
  attributed_to: "Me"
  kind: local
  quantities: {{bound: {{value: 1, unit: ms}}}}
  inputs:
    step: {{measured: {{select: {{weights: scripted, label.claim: {name}}}, metric: TPOT}}}}
    bound: {{quantity: bound}}
  supports_if: "step > bound"
  refutes_if: "step < bound"
  needs: "{needs}"
  against: {{en: "On other devices it is shorter.", zh: "在其他设备上更短。"}}
  rules_before: {{supports_if: "a", refutes_if: "b", why: "c"}}
"""
CONFIG = """
name: {name}
model: {{source: "fake:scripted", weights: random}}
engine: {{kind: fake, options: {{step_s: {step_s}}}}}
workload: {{prompt_tokens: 16, output_tokens: 16}}
stop: {{min_repetitions: 2, max_repetitions: 2, blocks: 1, sentinel: false}}
budget: {{total: {total}}}
energy: off
labels: {{claim: {name}}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two configs that run, one that this machine lacks a device for, and claims on all of them."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, step_s in (("slow", 0.01), ("quick", 0.0001)):
        (folder / f"{name}.yaml").write_text(CONFIG.format(name=name, step_s=step_s, total="60s"), encoding="utf-8")
    absent = CONFIG.format(name="absent", step_s=0.001, total="60s").replace("kind: fake", "kind: fakes")
    (folder / "absent.yaml").write_text(absent, encoding="utf-8")
    rows = [CLAIM.format(name=name, needs=f"tokbench run configs/{name}.yaml") for name in ("slow", "quick", "absent")]
    rows.append(
        CLAIM.format(name="nowhere", needs="tokbench run configs/nowhere.yaml && tokbench run configs/slow.yaml")
    )
    large = CONFIG.format(name="large", step_s=0.001, total="60s")
    (folder / "large-h200.yaml").write_text(large, encoding="utf-8")
    rows.append(CLAIM.format(name="large", needs="tokbench run configs/large-h200.yaml"))
    (tmp_path / "mine.yaml").write_text("claims:" + "".join(rows), encoding="utf-8")
    return tmp_path


def claims(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["claims", "--file", "mine.yaml", "--run", *arguments])


def test_without_a_word_nothing_is_run_and_the_plan_says_what_could_be(here: Path) -> None:
    output = claims().output
    assert (
        "configs/slow.yaml: to be run: 1 cells, at most 1 min, into runs/claims/slow\n  feeds slow, nowhere" in output
    )
    assert "configs/nowhere.yaml: cannot run here: there is no such config here" in output
    assert "configs/absent.yaml: cannot run here: engine.kind: there is no engine 'fakes'" in output
    assert "configs/large-h200.yaml: cannot run here: made for a large GPU" in output
    assert "2 of 5 configs to run here, at most 2 min in all" in output
    assert "nothing was run: add --yes" in output
    assert not (here / "runs").exists()


def test_what_can_be_run_is_run_and_judged_and_taken_the_second_time(here: Path) -> None:
    result = claims("--yes", "--out", "kept")
    assert 0 == result.exit_code, result.output
    assert "slow\tlatency\tsupported" in result.output
    assert "quick\tlatency\trefuted" in result.output
    assert "absent\tlatency\tuntested" in result.output
    written = (here / "kept" / "slow" / EVENTS_FILE).read_bytes()
    again = claims("--yes", "--out", "kept")
    assert "configs/slow.yaml: taken: kept/slow" in again.output
    assert "0 of 5 configs to run here" in again.output
    assert "slow\tlatency\tsupported" in again.output
    assert written == (here / "kept" / "slow" / EVENTS_FILE).read_bytes()


def test_a_record_that_did_not_end_is_resumed(here: Path) -> None:
    assert 0 == claims("--yes", "--out", "kept").exit_code
    file = here / "kept" / "slow" / EVENTS_FILE
    whole = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in whole if '"run_ended"' not in line), encoding="utf-8")
    result = claims("--yes", "--out", "kept")
    assert "configs/slow.yaml: to be resumed: 1 cells" in result.output
    assert "slow\tlatency\tsupported" in result.output
    assert "run_ended" in file.read_text(encoding="utf-8")


def test_a_record_of_another_config_is_not_mixed_in(here: Path) -> None:
    claims("--yes", "--out", "kept")
    config = here / "configs" / "slow.yaml"
    config.write_text(CONFIG.format(name="slow", step_s=0.02, total="60s"), encoding="utf-8")
    error = claims("--out", "kept").exception
    assert isinstance(error, RecordError)
    assert "made with another slow.yaml" in str(error)


def test_only_what_is_asked_for_is_run(here: Path) -> None:
    result = claims("--yes", "--explain", "quick", "--out", "kept")
    assert ["quick"] == [folder.name for folder in (here / "kept").iterdir()]
    assert "quick: refuted" in result.output


def test_options_of_a_run_without_a_run_are_refused(here: Path) -> None:
    error = CliRunner().invoke(app, ["claims", "--yes"]).exception
    assert isinstance(error, SpecError)


def test_weights_that_a_run_would_fetch_keep_no_config_from_running(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan fetches nothing: of a GPU with a network it was said that precision-quality-h200 cannot run there."""

    def bind(*_: object) -> None:
        raise NotFetchedError("`hf:nobody/nothing` is not on this disk")

    monkeypatch.setattr(claim_running, "bind", bind)
    output = claims().output
    assert "configs/slow.yaml: to be run: weights to be fetched first, at most 1 min" in output
    assert "configs/large-h200.yaml: cannot run here: made for a large GPU" in output


@pytest.mark.parametrize("as_json", [True, False])
def test_the_question_never_stands_in_the_json(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    asked = []

    def confirm(text: str, *, err: bool) -> bool:
        asked.append(err)
        return False

    monkeypatch.setattr(typer, "confirm", confirm)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    step = claim_running.Step(Path("a.yaml"), ("claim",), Path("out"), 1, 60.0)
    assert not claim_running.is_agreed([step], Console(stderr=as_json), is_said=False)
    assert [as_json] == asked
