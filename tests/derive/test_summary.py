"""summary.json keeps the shape that docs/summary-json.md promises."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from builders import Script
from report_builders import FIGURES, VENDORS, rich_script
from tokbench.derive.bounds import find_bounds
from tokbench.derive.evaluate import evaluate
from tokbench.derive.metrics import catalog
from tokbench.derive.standing import take_standing
from tokbench.derive.summary import dump_summary, summarise_results
from tokbench.record.facts import Conditions

ESTIMATE_KEYS = {"value", "low", "high", "n", "unit", "statistic", "blocks", "sd_within", "sd_between", "basis"}
DOC = (Path(__file__).parents[2] / "docs" / "summary-json.md").read_text(encoding="utf-8")


def summary_of(script: Script, folder: Path, runs: int = 1) -> dict[str, Any]:
    results = [evaluate(script.run(folder / str(index)), f"run-{index}") for index in range(runs)]
    standing = take_standing(results, FIGURES, VENDORS)
    text = dump_summary(summarise_results(results, standing.beside, [find_bounds(item) for item in results]))
    loaded = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the summary"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    return summary_of(rich_script(), tmp_path)


def keys_in_doc(heading: str) -> set[str]:
    """The keys that a section of the document names in backticks, in its tables' first column or its text."""
    section = DOC.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"`([a-z_0-9]+)`", section))


def test_top_level(summary: dict[str, Any]) -> None:
    assert set(summary) == {"schema", "run", "cells", "published", "decision", "claims"}
    assert (summary["schema"], summary["decision"], summary["claims"]) == (1, [], [])
    assert set(re.findall(r"^\| `(\w+)`", DOC.split("## run")[0], re.MULTILINE)) == set(summary)


def test_run(summary: dict[str, Any]) -> None:
    run = summary["run"]
    assert set(run) <= keys_in_doc("run")
    assert (run["name"], run["seed"], run["ended"], run["merged_with"]) == ("run-0", 7, "complete", [])
    ceiling = run["ceilings"]["bfloat16"]
    assert (ceiling["read_bytes_per_s"], ceiling["matmul_flops_per_s"]) == (2e12, 5e14)
    assert [model["load_s"] for model in run["models"]] == [12.5, 12.5]


def test_cells(summary: dict[str, Any]) -> None:
    assert [cell["status"] for cell in summary["cells"]] == ["ok", "ok", "ok", "ok", "oom", "skipped"]
    for cell in summary["cells"]:
        assert set(cell) <= keys_in_doc("cells")
        assert set(cell["conditions"]) == {field for field in Conditions.__dataclass_fields__}
        assert set(cell["metrics"]) == set(catalog())
        assert cell["validity"]["verdict"] in ("valid", "suspect", "invalid")


def test_bounds(summary: dict[str, Any]) -> None:
    bounds = [cell["bound"] for cell in summary["cells"]]
    assert ["missing" in bound for bound in bounds] == [False] * 4 + [True] * 2
    first = bounds[0]
    assert set(first) == {"kind", "memory_share", "compute_share", "host_share", "rest_s", "sentence"}
    assert first["rest_s"] == pytest.approx(0.0204 * (1 - first["memory_share"]), rel=0.01)
    assert [cell["repeats"] for cell in summary["cells"]] == [[]] * 6


def test_limits(summary: dict[str, Any]) -> None:
    limits = summary["run"]["limits"]
    assert set(limits) == {"fits", "unfitted", "depths", "contexts", "prefills", "choices"}
    assert limits["fits"] == [] and len(limits["unfitted"]) > 0


def test_metrics_are_values_or_reasons(summary: dict[str, Any]) -> None:
    for cell in summary["cells"]:
        for value in cell["metrics"].values():
            if "missing" in value:
                assert value == {"missing": value["missing"]} and value["missing"]
            else:
                assert set(value) == ESTIMATE_KEYS <= keys_in_doc("cells")
                assert math.isfinite(value["value"])


def test_spread_and_processes_of_a_metric(summary: dict[str, Any]) -> None:
    cell = summary["cells"][0]
    value = cell["metrics"]["decode_tokens_per_s"]
    assert (value["n"], value["blocks"], value["basis"]) == (6, 3, "blocks")
    assert 0 < value["sd_within"] < value["sd_between"]
    assert cell["tables"]["processes"] == [0, 0, 1, 1, 2, 2]
    assert cell["metrics"]["weight_bytes"]["basis"] == "none"


def test_why_a_cell_got_no_more_repetitions(summary: dict[str, Any]) -> None:
    stopped = [cell["stopped_by"] for cell in summary["cells"]]
    assert stopped[4:] == [None, None]
    assert set(stopped[0]) == {"by", "rel_ci", "half_width"} <= keys_in_doc("cells")
    assert (stopped[0]["by"], stopped[0]["rel_ci"]) == ("rel_ci", 0.05)
    assert stopped[0]["half_width"] == pytest.approx(0.0485, abs=1e-4)


def test_blocks_and_drift(summary: dict[str, Any], tmp_path: Path) -> None:
    sentinel = summary["run"]["sentinel"]
    assert {*sentinel, *sentinel["blocks"][0]} <= keys_in_doc("run")
    assert (len(sentinel["blocks"]), sentinel["limit"]) == (6, 0.03)
    first = sentinel["blocks"][0]
    assert (first["sentinel"], first["is_fresh"], first["is_one_process"]) == (
        summary["cells"][0]["cell_id"],
        True,
        True,
    )
    assert first["ratio"] == pytest.approx(1 / 1.01)
    assert sentinel["run_ratio"] == pytest.approx(1 / 1.06)
    assert summary["run"]["stop"]["rel_ci"] == 0.05
    old = Script()
    old.trial(old.cell())
    run = summary_of(old, tmp_path / "old")["run"]
    assert (run["sentinel"], run["stop"]) == ({"missing": "the record holds no blocks"}, None)


def test_figures_without_disturbed_repetitions_stand_beside_those_with_them(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for step_s, is_steady in ((0.01, True), (0.02, False), (0.01, True)):
        script.trial(cell_id, step_s=step_s, is_steady=is_steady, worker=f"worker-{step_s}-{is_steady}")
    (cell,) = summary_of(script, tmp_path / "disturbed")["cells"]
    without = cell["without_disturbed"]
    assert (without["left_out"], without["why"]) == (1, ["UNSTEADY"])
    assert (cell["metrics"]["decode_tokens_per_s"]["n"], without["decode_tokens_per_s"]["n"]) == (3, 2)
    assert without["decode_tokens_per_s"]["value"] == pytest.approx(100.0)
    clean = summary_of(rich_script(), tmp_path / "clean")["cells"][0]
    assert clean["without_disturbed"] == {"left_out": 0, "why": []}


def test_a_value_by_hand(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    (cell,) = summary_of(script, tmp_path)["cells"]
    value = cell["metrics"]["decode_tokens_per_s"]
    assert value["value"] == pytest.approx(100.0)
    assert (value["n"], value["unit"], value["statistic"]) == (3, "tokens/s", "geometric_mean")
    assert cell["tables"]["repetitions"]["decode_tokens_per_s"] == pytest.approx([100.0] * 3)


def test_published(summary: dict[str, Any]) -> None:
    compared = [row for row in summary["published"] if "missing" not in row]
    absent = [row for row in summary["published"] if "missing" in row]
    assert compared and absent
    for row in compared:
        assert set(row) <= keys_in_doc("published")
        assert sum(row["counts"].values()) == len(row["differences"]) == len(Conditions.__dataclass_fields__)
        assert row["is_like_for_like"] == (row["unlike"] == [])
    cerebras = next(row for row in compared if row["vendor"] == "cerebras")
    assert cerebras["theirs"]["value"] == 2200.0
    ratio = cerebras["ours_over_theirs"]
    assert ratio["low"] < ratio["value"] < ratio["high"]
    assert ratio["value"] == pytest.approx(cerebras["ours"]["value"] / 2200.0)


def test_missing_facts_have_reasons(tmp_path: Path) -> None:
    script = Script(device=None)
    script.skip(script.cell(), "skipped", "no device")
    run = summary_of(script, tmp_path)["run"]
    assert run["device"] == {"missing": "the record holds no facts of a device"}
    assert (run["ceilings"], run["ended"]) == ({}, None)


def test_it_is_deterministic(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        results = [evaluate(rich_script().run(tmp_path / name), "run")]
        beside = take_standing(results, FIGURES, VENDORS).beside
        texts.append(dump_summary(summarise_results(results, beside, [find_bounds(item) for item in results])))
    assert texts[0] == texts[1]


def test_nothing_infinite_is_written() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        dump_summary({"value": math.inf})


def test_several_runs_are_merged(tmp_path: Path) -> None:
    summary = summary_of(rich_script(), tmp_path, runs=2)
    assert [item["name"] for item in summary["run"]["merged_with"]] == ["run-1"]
    assert {cell["run"] for cell in summary["cells"]} == {"run-0", "run-1"}
