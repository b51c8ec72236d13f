"""`tokbench report RUN --set cost.…`: another price, for this report alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders import Script
from tokbench.cli.app import main


def write_record(folder: Path) -> Path:
    """Two rows of 5 tokens in a second, at a stated rent."""
    script = Script()
    cell_id = script.cell(static_batch=2)
    for _ in range(3):
        script.trial(cell_id, step_s=0.125, prefill_s=0.5)
    script.write(folder)
    text = "name: script\nmodel: {source: hf:a/b}\nengine: {kind: fake}\ncost: {usd_per_hour: 3.6}\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder


def report(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tokbench", "report", "--no-figures", *arguments])
    return main()


def test_another_price_changes_the_report_and_not_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_record(tmp_path / "run")
    before = (run / "config.yaml").read_bytes()
    assert 0 == report(monkeypatch, str(run))
    stated = (run / "report.md").read_text(encoding="utf-8")
    assert "| 1,000 | 250 | 125 |" in stated and "--set changed prices" not in stated
    assert 0 == report(monkeypatch, str(run), "--set", "cost.usd_per_hour=7.2")
    changed = (run / "report.md").read_text(encoding="utf-8")
    assert "| 2,000 | 500 | 250 |" in changed
    assert "--set changed prices for this report alone, not in the record: run." in changed
    assert before == (run / "config.yaml").read_bytes()


def test_a_report_changes_nothing_but_prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_record(tmp_path / "run")
    assert 2 == report(monkeypatch, str(run), "--set", "model.dtype=float32")
    assert "prices alone" in capsys.readouterr().err
