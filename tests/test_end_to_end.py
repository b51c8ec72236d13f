"""`tokbench run` from the command line to the report, with a real engine in a real child process on the CPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tokbench.cli.app import main
from tokbench.measure import crew
from tokbench.measure.models import cache_folder

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["stop.rel_ci=9.0", "stop.min_repetitions=2", "stop.max_repetitions=2", "stop.warmup_cap=0.5s", "energy=off"]
QUICK += ["stop.sentinel=false"]  # whether a real cell is cheap enough to be one depends on the machine
KERNELS = {"eager": "sdpa", "compiled": "inline_gqa"}
TINY = """
name: tiny
model: {source: "shape:tiny-llama", weights: random, dtype: float32}
engine:
  - {kind: transformers, mode: eager, threads: 1}
  - {kind: transformers, mode: compiled, threads: 1, options: {compile_backend: eager}}
device: cpu
workload: {kind: synthetic, prompt_tokens: 16, output_tokens: 8}
load: {kind: static_batch, static_batch: [1, 2]}
budget: {total: 120s}
"""


def tokbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of one call; the child finds tokbench where this process does."""
    paths = [str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setattr(sys, "argv", ["tokbench", *arguments])
    monkeypatch.setattr(crew, "CEILING_BUDGET_S", 0.1)
    return main()


def measure(monkeypatch: pytest.MonkeyPatch, config: Path, out: Path, *overrides: str) -> dict[str, Any]:
    """The summary of a run that ends well."""
    settings = [word for override in (*QUICK, *overrides) for word in ("--set", override)]
    assert tokbench(monkeypatch, "run", str(config), "--out", str(out), *settings) == 0
    assert (out / "report.md").read_text(encoding="utf-8").startswith("# ")
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event.get("event") == kind]


def test_a_tiny_random_model_in_both_modes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, out = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(TINY, encoding="utf-8")
    summary = measure(monkeypatch, config, out)
    seen = {}
    for cell in summary["cells"]:
        conditions = cell["conditions"]
        assert cell["status"] == "ok"
        assert cell["metrics"]["decode_tokens_per_s"]["value"] > 0
        assert cell["metrics"]["weight_bytes"]["value"] == 139584 * 4
        assert cell["metrics"]["kv_bytes_per_token"]["value"] == 2 * 2 * 2 * 16 * 4
        assert cell["metrics"]["peak_memory_bytes"]["value"] > 50 << 20
        assert conditions["weights"] == "random"
        seen[conditions["mode"], conditions["static_batch"]] = conditions["attention_kernel"]
    assert seen == {(mode, rows): kernel for mode, kernel in KERNELS.items() for rows in (1, 2)}
    checks = events(out, "identity_checked")
    assert [None, None] == [check["first_divergence"] for check in checks]
    assert {prepared["engine"]["cuda_graphs"] for prepared in events(out, "cell_prepared")} == {False}
    notes = {note for prepared in events(out, "cell_prepared") for note in prepared["engine"]["notes"]}
    assert notes == {"prefill: not compiled", "compile backend eager: no code was generated"}
    assert len(events(out, "trial_finished")) == 4 * 2
    assert {event["cause"] for event in events(out, "trial_failed")} == set()


@pytest.mark.model
def test_a_real_small_model_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not any((cache_folder(os.environ) / "converted").glob("*")):
        pytest.skip("the demo model is not here: scripts/demo fetches it")
    settings = [
        "engine={kind: transformers, mode: eager}",
        "workload.prompt_tokens=16",
        "workload.output_tokens=6",
        "load.static_batch=1",
        "exclude=[]",
    ]
    summary = measure(monkeypatch, ROOT / "configs" / "smoke.yaml", tmp_path / "run", *settings)
    (cell,) = summary["cells"]
    assert ("ok", "pretrained") == (cell["status"], cell["conditions"]["weights"])
    assert cell["metrics"]["decode_tokens_per_s"]["value"] > 0
    assert cell["metrics"]["weight_bytes"]["value"] == pytest.approx(134_515_008 * 4, rel=0.001)
    (check,) = events(tmp_path / "run", "identity_checked")
    assert check["first_divergence"] is None
