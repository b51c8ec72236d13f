"""pytest-benchmark's JSON as a side of a comparison. Version 5.3.1 wrote tests/data/pytest_benchmark.json."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tokbench.derive.compare.result import Asked, Compared, Verdict, compare_sides
from tokbench.derive.compare.sides import read_side
from tokbench.derive.imports import load_plug, names
from tokbench.errors import DataError, SpecError
from tokbench.stats import Estimate

FILE = Path(__file__).parents[1] / "data" / "pytest_benchmark.json"
ORIGINAL: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


def altered(folder: Path, name: str = "b.json", **changes: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps({**copy.deepcopy(ORIGINAL), **changes}), encoding="utf-8")
    return path


def scaled(factor: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = copy.deepcopy(ORIGINAL["benchmarks"])
    for item in found:
        item["stats"]["data"] = [value * factor for value in item["stats"]["data"]]
        item["stats"]["median"] *= factor
    return found


def compared(a: Path, b: Path, *fail_on: str, force: bool = False) -> Compared:
    return compare_sides(read_side(a), read_side(b), Asked(fail_on=fail_on, is_forced=force))


def test_rounds_are_values_in_seconds_per_call() -> None:
    side = read_side(FILE)
    assert ("pytest-benchmark", 2) == (side.kind, len(side.cells))
    ten, hundred = side.cells
    assert "test_small.py::test_sum[10]" == ten.key
    assert (tuple(ORIGINAL["benchmarks"][0]["stats"]["data"]),) == ten.samples["call_s"].blocks
    assert 12 == len(hundred.samples["call_s"].blocks[0])


def test_a_file_beside_itself_shows_no_difference() -> None:
    result = compared(FILE, FILE)
    assert Verdict.PASSED is result.verdict
    assert {("repetitions", 12, 12)} == {(row.basis, row.n_a, row.n_b) for pair in result.pairs for row in pair.rows}
    assert "no difference shown" == result.pairs[0].rows[0].outcome


def test_twice_as_slow(tmp_path: Path) -> None:
    result = compared(FILE, altered(tmp_path, benchmarks=scaled(2.0)), "call_s:+50%")
    assert Verdict.BROKEN is result.verdict
    for pair in result.pairs:
        (row,) = pair.rows
        assert isinstance(row.ratio, Estimate)
        assert ("slower", pytest.approx(2.0)) == (row.outcome, row.ratio.value)


def test_aggregates_have_no_interval_and_say_so(tmp_path: Path) -> None:
    benchmarks = scaled(2.0)
    for item in benchmarks:
        del item["stats"]["data"]
    (row, *_), *_ = (pair.rows for pair in compared(FILE, altered(tmp_path, benchmarks=benchmarks)).pairs)
    assert isinstance(row.ratio, Estimate) and isinstance(row.b, Estimate)
    assert (None, None, "none", "median") == (row.ratio.low, row.ratio.high, row.basis, row.b.statistic)
    assert "cannot tell: the file holds aggregates, not the values behind them" == row.outcome


def test_machines_are_conditions_and_the_timer_decides(tmp_path: Path) -> None:
    machine = copy.deepcopy(ORIGINAL["machine_info"])
    machine["python_version"] = "3.12.0"
    machine["cpu"]["brand_raw"] = "Another CPU"
    (pair, _) = compared(FILE, altered(tmp_path, machine_info=machine)).pairs
    assert {"hardware", "python"} == {row.field for row in pair.match.differences}
    assert () == pair.refused
    benchmarks = scaled(1.0)
    for item in benchmarks:
        item["options"]["timer"] = "process_time"
    refused = compared(FILE, altered(tmp_path, benchmarks=benchmarks))
    assert Verdict.UNLIKE is refused.verdict
    assert ("timer differs: perf_counter in A, process_time in B",) == refused.pairs[0].refused


def test_a_renamed_benchmark_has_no_partner_unless_forced(tmp_path: Path) -> None:
    benchmarks = scaled(1.0)
    benchmarks[1]["fullname"] = "test_small.py::renamed"
    b = altered(tmp_path, benchmarks=benchmarks)
    result = compared(FILE, b)
    assert (1, 1, 1) == (len(result.pairs), len(result.only_a), len(result.only_b))
    forced = compared(FILE, b, force=True)
    assert (2, ("benchmark",)) == (len(forced.pairs), forced.pairs[1].match.unlike)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"machine_info": ', ": not JSON: line 1, column 18: Expecting value"),
        ("[1]", "not an object with keys"),
        ('{"a": 1}', "not the results of a tool that is known here"),
        ('{"machine_info": {}, "benchmarks": [{}], "version": "5"}', ", field benchmarks.0.fullname: Field required"),
        ('{"machine_info": {}, "benchmarks": [], "version": 5}', ", field version: Input should be a valid string"),
        ("[" * 100_000, "not JSON"),
        ("\udcff", "not UTF-8 text"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(DataError) as caught:
        read_side(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert caught.value.fix


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 3, field fullname: .* stands in it twice"):
        read_side(altered(tmp_path, benchmarks=[*scaled(1.0), *scaled(1.0)]))


def test_tokbenchs_own_summary_names_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('{"schema": 1, "run": {}, "cells": []}', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_side(path)
    assert f"name the run folder that it lies in: {tmp_path}" in str(caught.value.fix)


def test_two_kinds_share_no_metric() -> None:
    record = Path(__file__).parents[1] / "golden" / "run"
    with pytest.raises(SpecError, match="they share no metric"):
        compared(FILE, record)


def test_the_socket_lists_its_folder() -> None:
    assert ["llama_bench", "pytest_benchmark", "vllm_latency", "vllm_serve"] == names()
    assert [name.replace("_", "-") for name in names()] == [load_plug(name).TOOL for name in names()]
