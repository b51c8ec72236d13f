"""Bad files for `tokbench import`: one DataError that names file, row and field, and says what to do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokbench.derive import kept_imports
from tokbench.derive.imports import read_imported
from tokbench.errors import DataError, SpecError

DATA = Path(__file__).parents[1] / "data" / "imports"
BENCH, LATENCY, SERVE, DETAILED = (
    json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("llama_bench", "vllm_latency", "vllm_serve", "vllm_serve_detailed")
)


def refused(path: Path, kind: str | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        read_imported(path, kind)
    assert caught.value.file == str(path)
    assert caught.value.fix
    return caught.value


def written(folder: Path, text: str) -> Path:
    path = folder / "x.json"
    path.write_text(text, encoding="utf-8")
    return path


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("text", "row", "message"),
    [
        ("", None, "not JSON: line 1, column 1"),
        ("[]", None, "not an object with keys, nor a list of such"),
        ('"text"', None, "not an object with keys"),
        ("[[1]]", None, "not an object with keys"),
        ('[{"model_type": "a"},', None, "not JSON: line 1"),
        ('{"a": 1}\n{"a": ', "2", "not JSON: line 2, column 7"),
        ('{"a": 1}\n[2]', "2", "not an object with keys"),
        ('{"a": 1}', None, "not the results of a tool that is known here"),
        ('{"results": {"tokens_per_second": 12}}', None, "not the results of a tool that is known here"),
    ],
)
def test_what_no_tool_wrote(tmp_path: Path, text: str, row: str | None, message: str) -> None:
    error = refused(written(tmp_path, text))
    assert message in error.message
    assert row == error.row


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "none.json").message
    assert "cannot be read: Is a directory" in refused(tmp_path).message


def test_a_torn_file_of_llama_bench(tmp_path: Path) -> None:
    text = (DATA / "llama_bench.json").read_text(encoding="utf-8")
    assert "not JSON" in refused(written(tmp_path, text[: len(text) // 2])).message
    lines = (DATA / "llama_bench.jsonl").read_text(encoding="utf-8")
    assert "4" == refused(written(tmp_path, lines.rstrip()[:-40])).row


Change = Callable[[list[dict[str, Any]]], None]


@pytest.mark.parametrize(
    ("change", "row", "field", "message"),
    [
        (lambda rows: rows[1].pop("samples_ns"), "2", "samples_ns", "Field required"),
        (lambda rows: rows[1].update(samples_ns=[], samples_ts=[]), "2", "samples_ns", "at least 1 item"),
        (lambda rows: rows[0].update(samples_ns=[0, 1, 1]), "1", "samples_ns.0", "greater than 0"),
        (lambda rows: rows[2]["samples_ts"].append(1.0), "3", "samples_ts", "the rates are not those of 80 tokens"),
        (lambda rows: rows[2]["samples_ts"].__setitem__(0, 99.0), "3", "samples_ts", "the rates are not those"),
        (lambda rows: rows[0].update(n_prompt=0), "1", "n_gen", "neither a prompt nor tokens to make"),
        (lambda rows: rows[0].update(n_prompt="64"), "1", "n_prompt", "valid integer"),
        (lambda rows: rows[0].update(model_filename=""), "1", "model_filename", "at least 1 character"),
        (lambda rows: rows.append(copy.deepcopy(rows[0])), "7", None, "the test pp64 stands in row 1 already"),
    ],
)
def test_llama_benchs_rows(tmp_path: Path, change: Change, row: str, field: str | None, message: str) -> None:
    rows = copy.deepcopy(BENCH)
    change(rows)
    error = refused(written(tmp_path, json.dumps(rows)))
    assert (row, field) == (error.row, error.field)
    assert message in error.message


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ({**LATENCY, "latencies": []}, "latencies", "at least 1 item"),
        ({**LATENCY, "latencies": [0.0]}, "latencies.0", "greater than 0"),
        ({**LATENCY, "avg_latency": 2.0}, "avg_latency", "not the mean of the latencies"),
        (without(LATENCY, "model_id"), "model_id", "Field required"),
        ({**SERVE, "completed": 0, "request_throughput": 0.0}, "completed", "no request was answered"),
        (without(SERVE, "duration"), "duration", "Field required"),
        ({**SERVE, "max_concurrency": 0}, "max_concurrency", "greater than 0"),
        ({**DETAILED, "ttfts": DETAILED["ttfts"][:3]}, "ttfts", "3 entries, and output_lens has 4"),
    ],
)
def test_vllms_fields(tmp_path: Path, document: dict[str, Any], field: str, message: str) -> None:
    error = refused(written(tmp_path, json.dumps(document)))
    assert (None, field) == (error.row, error.field)
    assert message in error.message


def test_a_row_of_an_appended_file(tmp_path: Path) -> None:
    text = f"{json.dumps(SERVE)}\n{json.dumps({**SERVE, 'completed': 0})}"
    error = refused(written(tmp_path, text))
    assert ("2", "completed") == (error.row, error.field)


def test_not_a_number_is_no_value(tmp_path: Path) -> None:
    error = refused(written(tmp_path, json.dumps({**LATENCY, "latencies": [float("nan")]})))
    assert "latencies.0" == error.field


def test_a_kind_that_the_file_is_not_of(tmp_path: Path) -> None:
    assert "model_filename" == refused(DATA / "vllm_serve.json", "llama-bench").field
    assert "avg_latency" == refused(DATA / "vllm_serve.json", "vllm-latency").field
    with pytest.raises(SpecError, match="'vllm' is no tool whose files are read"):
        read_imported(DATA / "vllm_serve.json", "vllm")


def test_a_kept_file_that_was_altered(tmp_path: Path) -> None:
    source = DATA / "llama_bench.json"
    plain = json.loads(kept_imports.dump(read_imported(source), source))
    plain["schema"] = 9
    assert "schema" == refused(written(tmp_path, json.dumps(plain))).field
    plain["schema"] = 1
    plain["cells"][1]["conditions"]["prompt_tokens"]["value"] = "many"
    error = refused(written(tmp_path, json.dumps(plain)))
    assert ("2", "conditions.prompt_tokens") == (error.row, error.field)
    plain["cells"] = []
    assert "cells" == refused(written(tmp_path, json.dumps(plain))).field
