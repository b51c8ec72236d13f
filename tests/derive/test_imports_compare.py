"""`tokbench import` as it is typed, and imported.json as a side of `tokbench compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from builders import Script
from scripted_facts import LLAMA_8B
from tokbench.cli.more import register
from tokbench.derive.compare.result import Asked, Compared, Verdict, compare_sides
from tokbench.derive.compare.sides import read_side
from tokbench.derive.imported import estimate_of, read_given
from tokbench.derive.imports import read_imported
from tokbench.derive.kept_imports import FILE_NAME, dump
from tokbench.errors import SpecError
from tokbench.stats import Estimate

DATA = Path(__file__).parents[1] / "data" / "imports"
BENCH, SERVE = DATA / "llama_bench.json", DATA / "vllm_serve.json"
OURS = (f"model={LLAMA_8B}", "precision=bf16", "weights=pretrained")
app = typer.Typer()
register(app)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def record(folder: Path, prompt_tokens: int = 64, output_tokens: int = 16) -> Path:
    script = Script()
    cell_id = script.cell(prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    for number in range(3):
        script.trial(cell_id, step_s=0.05, worker=f"worker-{number}")
    path: Path = script.write(folder)
    return path


def kept(folder: Path, source: Path = BENCH, given: tuple[str, ...] = OURS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    path.write_text(dump(read_imported(source, given=read_given(given)), source), encoding="utf-8")
    return path


def compared(a: Path, b: Path, **asked: Any) -> Compared:
    return compare_sides(read_side(a), read_side(b), Asked(**asked))


@pytest.mark.parametrize("path", sorted(DATA.iterdir()), ids=lambda path: path.name)
def test_what_is_kept_is_read_as_it_was(tmp_path: Path, path: Path) -> None:
    imported = read_imported(path)
    assert imported == read_imported(kept(tmp_path, path, ()))


def test_a_kept_file_holds_every_field_of_its_page(tmp_path: Path) -> None:
    plain = json.loads(kept(tmp_path).read_text(encoding="utf-8"))
    assert {"schema", "written_by", "tool", "source", "cells"} == plain.keys()
    assert "llama_bench.json" == plain["source"]["file"] and 64 == len(plain["source"]["sha256"])
    cell = plain["cells"][1]
    assert {"value": LLAMA_8B, "stated_by": "user"} == cell["conditions"]["model"]
    assert {"value": 64, "stated_by": "file"} == cell["conditions"]["prompt_tokens"]
    decode = cell["metrics"]["decode_tokens_per_s"]
    assert ([11.4191, 8.90317, 5.09897], "tokens/s", "higher", 3) == tuple(
        decode[name] for name in ("values", "unit", "better", "n")
    )
    assert decode["low"] < decode["value"] < decode["high"]
    assert "ttft_s" in cell["missing"]
    page = (Path(__file__).parents[2] / "docs" / "design" / "imports.md").read_text(encoding="utf-8")
    keys = {*plain, *cell, *decode, *plain["source"], "stated_by"}
    assert [] == [key for key in sorted(keys) if f'"{key}"' not in page]


def test_a_run_beside_llama_bench_is_divided_where_all_conditions_agree(tmp_path: Path) -> None:
    result = compared(record(tmp_path / "run"), kept(tmp_path))
    assert Verdict.PASSED is result.verdict
    (pair,) = result.pairs
    assert (LLAMA_8B, "64 + 16 tokens") == tuple(pair.match.b.key.rsplit(", ", 1))
    assert () == pair.refused
    rows = {row.metric: row for row in pair.rows}
    decode = rows["decode_tokens_per_s"]
    assert isinstance(decode.ratio, Estimate) and isinstance(decode.b, Estimate)
    expected = estimate_of(next(m for m in read_imported(BENCH).cells[1].metrics if m.name == "decode_tokens_per_s"))
    assert expected.value / 20 == pytest.approx(decode.ratio.value)
    assert ("repetitions", 3, 3) == (decode.basis, decode.n_a, decode.n_b)
    assert "llama-bench stamps no single token" in str(rows["ttft_s"].ratio)
    assert 3 == len(result.only_b)
    fields = {row.field for row in pair.match.differences}
    assert {"engine", "hardware", "measured_by"} <= fields


@pytest.mark.parametrize(
    ("given", "unlike"),
    [
        (OURS[:2], "weights differs: pretrained in A, None in B"),
        (("weights=pretrained", "precision=bf16"), "model differs"),
        (("weights=pretrained", OURS[0]), "precision differs: bf16 in A, Q4_1 in B"),
    ],
)
def test_what_is_not_alike_or_not_stated_is_refused(tmp_path: Path, given: tuple[str, ...], unlike: str) -> None:
    run, file = record(tmp_path / "run"), kept(tmp_path, given=given)
    result = compared(run, file)
    assert Verdict.UNLIKE is result.verdict
    (pair,) = result.pairs
    assert () == pair.rows
    assert any(unlike in reason for reason in pair.refused), pair.refused
    assert compared(run, file, is_forced=True).pairs[0].rows


def test_another_prompt_is_no_partner(tmp_path: Path) -> None:
    result = compared(record(tmp_path / "run", prompt_tokens=63), kept(tmp_path))
    assert Verdict.UNLIKE is result.verdict
    assert (0, 1, 4) == (sum(len(pair.rows) for pair in result.pairs), len(result.only_a), len(result.only_b))


def test_one_request_at_a_time_is_a_batch_of_one(tmp_path: Path) -> None:
    side = read_side(kept(tmp_path))
    assert all("static_batch" in cell.free for cell in side.cells)
    (serve,) = read_side(kept(tmp_path / "serve", SERVE, ())).cells
    assert frozenset() == serve.free  # two at a time: a batch and requests are not the same


def test_a_file_beside_itself_and_with_other_threads() -> None:
    result = compared(BENCH, BENCH)
    assert (Verdict.PASSED, 4) == (result.verdict, len(result.pairs))
    ratios = [row.ratio for pair in result.pairs for row in pair.rows if isinstance(row.ratio, Estimate)]
    assert (6, {1.0}) == (len(ratios), {round(ratio.value, 9) for ratio in ratios})
    threads = compared(DATA / "llama_bench.jsonl", DATA / "llama_bench.jsonl")
    assert ["1", "1", "2", "2"] == sorted(pair.match.a.settings["n_threads"] for pair in threads.pairs)
    assert all(pair.match.a.settings == pair.match.b.settings for pair in threads.pairs)


def test_tools_without_a_metric_in_common_are_refused() -> None:
    with pytest.raises(SpecError, match="they share no metric"):
        compared(BENCH, DATA.parent / "pytest_benchmark.json")


def test_a_percentile_that_one_side_lacks_is_said(tmp_path: Path) -> None:
    row = json.loads(SERVE.read_text(encoding="utf-8"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({name: value for name, value in row.items() if "ttft" not in name}), encoding="utf-8")
    (shown,) = compared(SERVE, other, metrics=("ttft_s.p99",)).pairs[0].rows
    assert "B: not in B" == getattr(shown.ratio, "reason", None)


def test_the_command_prints_conditions_values_and_reasons() -> None:
    done = invoke("import", str(BENCH), "--given", "weights=pretrained")
    assert 0 == done.exit_code, done.output
    for text in (
        "cells of llama-bench: 4",
        "stated by you (--given): weights pretrained",
        "not stated: mode",
        "llama-bench stamps no single token",
        "repetitions inside one process",
    ):
        assert text in done.stdout
    assert any(line.split()[:2] == ["decode_tokens_per_s", "8.03"] for line in done.stdout.splitlines())


def test_the_command_writes_what_json_prints(tmp_path: Path) -> None:
    done = invoke("import", str(SERVE), "--kind", "vllm-serve", "--out", str(tmp_path / "a" / "b"), "--json")
    assert 0 == done.exit_code, done.output
    path = tmp_path / "a" / "b" / FILE_NAME
    assert done.stdout == path.read_text(encoding="utf-8")
    assert str(tmp_path) not in done.stdout
    again = invoke("import", str(path))
    assert 0 == again.exit_code and "cells of vllm-serve: 1" in again.stdout
    assert isinstance(invoke("import", str(path), "--given", "model=a").exception, SpecError)
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    assert "--out" in str(invoke("import", str(SERVE), "--out", str(blocked)).exception)


def test_a_terminal_obeys_no_character_of_a_file(tmp_path: Path) -> None:
    row = {**json.loads(SERVE.read_text(encoding="utf-8")), "label": "\x1b[31mred", "model_id": "a\x1b[2Jb"}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(row), encoding="utf-8")
    done = invoke("import", str(path))
    assert 0 == done.exit_code and "\x1b" not in done.stdout


def test_lines_of_events_are_a_record_and_lines_of_a_tool_are_not(tmp_path: Path) -> None:
    assert "tokbench" == read_side(record(tmp_path / "run") / "events.jsonl").kind
    assert "llama-bench" == read_side(DATA / "llama_bench.jsonl").kind
