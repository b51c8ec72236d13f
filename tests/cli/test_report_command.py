"""`tokbench report`: a baseline, a language, vendors, tables of all cells, and what is told when something is gone."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from builders import Script
from report_builders import FIGURES
from tokbench.cli.app import main
from tokbench.cli.reporting import default_vendors, load_results
from tokbench.derive.report.cells_file import COLUMNS


def write_record(folder: Path, step_s: float = 0.01, **cell: object) -> Path:
    script = Script()
    cell_id = script.cell(**cell)  # type: ignore[arg-type]
    for worker in ("one", "two", "three"):
        script.trial(cell_id, step_s=step_s, worker=worker)
    script.end()
    return script.write(folder)


def report(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tokbench", "report", "--no-figures", *map(str, arguments)])
    return main()


def test_each_cell_stands_beside_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the speed of the baseline, as `tokbench compare` finds it."""
    old, new = write_record(tmp_path / "old", 0.02), write_record(tmp_path / "new", 0.01)
    assert 0 == report(monkeypatch, new, "--baseline", old)
    text = (new / "report.md").read_text(encoding="utf-8")
    part = text.split("## new beside the baseline old\n", 1)[1].split("\n## ", 1)[0]
    assert part.lstrip().startswith(
        "Cells that are like for like with one of the baseline: 1; that have a partner which"
    )
    (row,) = [line for line in part.splitlines() if "| Decode speed per user |" in line]
    assert "| 50.0 tokens/s | 100 tokens/s | 2.00 (2.00 – 2.00), n 6 | faster |" in row
    assert "measured at different times" in part
    assert not (old / "report.md").exists()


def test_a_baseline_that_is_not_alike_is_refused_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_record(tmp_path / "old", 0.02, weights="random")
    new = write_record(tmp_path / "new", 0.01)
    assert 0 == report(monkeypatch, new, "--baseline", old)
    part = (new / "report.md").read_text(encoding="utf-8").split("beside the baseline old\n", 1)[1].split("\n## ", 1)[0]
    assert "weights" in part and "2.00 (2.00" not in part


def test_a_baseline_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_record(tmp_path / "run")
    assert 4 == report(monkeypatch, run, "--baseline", tmp_path / "none")
    assert "no record here" in capsys.readouterr().err
    assert not (run / "report.md").exists()


def test_a_chinese_report_has_english_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_record(tmp_path / "run")
    assert 0 == report(monkeypatch, run, "--lang", "zh")
    page, text = ((run / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert '<html lang="zh">' in page and ">目录<" in page
    assert "## 一分钟速览" in text and "解码" in text
    for name in ("summary.json", "cells.csv"):
        data = (run / name).read_text(encoding="utf-8")
        assert not any("\u4e00" <= char <= "\u9fff" for char in data), name
    assert 0 == report(monkeypatch, run)
    assert '<html lang="en">' in (run / "report.html").read_text(encoding="utf-8")


def test_an_unknown_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_record(tmp_path / "run")
    assert 2 == report(monkeypatch, run, "--lang", "fr")
    assert "unknown language 'fr'" in capsys.readouterr().err
    assert not (run / "report.md").exists()


def test_the_parquet_holds_what_the_csv_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run = write_record(tmp_path / "run")
    assert 0 == report(monkeypatch, run)
    table = parquet.read_table(run / "cells.parquet")
    with (run / "cells.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(table.column_names) == COLUMNS and table.num_rows == len(rows) > 10
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["value"], types["n"], types["metric"]) == ("double", "int64", "string")
    for row, plain in zip(rows, table.to_pylist(), strict=True):
        assert {name: "" if value is None else str(value) for name, value in plain.items()} == row


def test_without_pyarrow_the_report_is_whole_and_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_record(tmp_path / "run")
    (run / "cells.parquet").write_bytes(b"of an earlier report")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 0 == report(monkeypatch, run)
    assert "pip install 'tokbench[parquet]'" in capsys.readouterr().out
    assert not (run / "cells.parquet").exists()
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["cells"]


def test_the_rest_are_those_who_publish_a_speed_of_the_model(tmp_path: Path) -> None:
    results = load_results([write_record(tmp_path / "run")])
    other = FIGURES[0].model_copy(update={"vendor": "sambanova"})
    price = FIGURES[0].model_copy(update={"vendor": "nebius", "metric": "price_usd_per_million_output_tokens"})
    larger = FIGURES[0].model_copy(update={"vendor": "amd", "model": "meta-llama/Llama-3.1-405B"})
    assert default_vendors(results, (*FIGURES, other, price, larger)) == ("cerebras", "groq", "sambanova")


def test_no_run_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == report(monkeypatch)
    assert "no run named" in capsys.readouterr().err


def test_claims_are_judged_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_record(tmp_path / "run")
    assert 0 == report(monkeypatch, run)
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["claims"] == []
    assert "## What was claimed" not in (run / "report.md").read_text(encoding="utf-8")
    assert 0 == report(monkeypatch, run, "--claims")
    listed = json.loads((run / "summary.json").read_text(encoding="utf-8"))["claims"]
    part = (run / "report.md").read_text(encoding="utf-8").split("## What was claimed\n", 1)[1]
    assert len(listed) > 3 and all(f"| {claim['id']} |" in part for claim in listed)
