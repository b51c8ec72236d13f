"""A powercap tree that another process keeps counting, through the real command line: joules per token, or a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE_W, DRAM_W = 30.0, 6.0
DRIVER = """
import os, pathlib, sys, time
root, record, goes = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "goes"
zones = {
    "intel-rapl:0": ("package-0", 30.0, 80_000_000),
    "intel-rapl:0:0": ("core", 20.0, 80_000_000),
    "intel-rapl:0:1": ("dram", 6.0, 70_000_000),
    "intel-rapl:1": ("psys", 55.0, 80_000_000),
}
begun, last, late, before = time.monotonic(), None, 0.0, 0.0
while True:
    seconds = time.monotonic() - begun
    # The prefill's window is written when it is over: the decode's begins.
    if goes and record.exists() and "energy_prefill" in record.read_text("utf-8"):
        (root / "intel-rapl:0" / "energy_uj").unlink()
        break
    if (ticks := int(seconds / 0.05)) != last:
        late, before, last = max(late, seconds - before), seconds, ticks
        for name, (label, watts, range_uj) in zones.items():
            folder = root / name
            if not folder.exists():
                folder.mkdir(parents=True)
                (folder / "name").write_text(label)
                (folder / "max_energy_range_uj").write_text(str(range_uj))
            (folder / "fresh").write_text(str(int((65 + ticks * 0.05 * watts) * 1e6) % (range_uj + 1)))
            os.replace(folder / "fresh", folder / "energy_uj")
        (root / "late").write_text(str(late))
        if ticks == 0:
            print("counting", flush=True)
    time.sleep(0.002)
"""
CONFIG = """\
name: metered
model: {source: "shape:tiny-llama", weights: random, dtype: float32}
engine: {kind: fake, options: {paced: true, step_s: 0.01}}
workload: {kind: synthetic, prompt_tokens: 100, output_tokens: 32}
load: {kind: static_batch, static_batch: 2}
stop: {min_repetitions: 1, max_repetitions: 1, blocks: 1, warmup_cap: 1s}
budget: {total: 60s}
compare: {published: []}
"""


@pytest.fixture
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    root = tmp_path / "powercap"
    command = [sys.executable, "-c", DRIVER, str(root), str(tmp_path / "RUN" / "events.jsonl"), request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the tree is there
    yield root
    process.kill()
    process.communicate()


def summarised(folder: Path, tree: Path) -> dict[str, Any]:
    (folder / "c.yaml").write_text(CONFIG + f"energy: {{meters: [rapl], rapl: {{root: {tree}}}}}\n", encoding="utf-8")
    command = [sys.executable, "-m", "tokbench", "run", "c.yaml", "--out", "RUN"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    (cell,) = json.loads((folder / "RUN" / "summary.json").read_text("utf-8"))["cells"]
    assert isinstance(cell, dict)
    return cell


@pytest.mark.parametrize("tree", ["stays"], indirect=True)
def test_package_and_memory_add_up_across_their_wraps(tmp_path: Path, tree: Path) -> None:
    cell = summarised(tmp_path, tree)
    (row,) = [row for row in cell["energy"]["rows"] if row["is_headline"]]
    assert ("node part", ["package-0", "package-0/dram"]) == (row["scope"], row["domains"])
    output, late_s = row["output"], float((tree / "late").read_text() or "0")
    if late_s > 0.1 and ("missing" in output or "missing" in row["idle"]):
        pytest.skip(f"the process that counts was held up for {late_s:.2f} s")
    assert output["mean_w"] == pytest.approx(PACKAGE_W + DRAM_W, rel=0.03)
    assert row["idle"]["mean_w"] == pytest.approx(PACKAGE_W + DRAM_W, rel=0.03)
    per_token = cell["metrics"]["energy_j_per_output_token"]["value"]
    assert per_token == pytest.approx(output["mean_w"] * output["seconds"] / output["tokens"])
    assert per_token == pytest.approx((PACKAGE_W + DRAM_W) * 0.01 / 2, rel=0.15)  # two rows, and sleeps wake late


@pytest.mark.parametrize("tree", ["goes"], indirect=True)
def test_a_counter_that_goes_away_leaves_the_speed_and_a_reason(tmp_path: Path, tree: Path) -> None:
    metrics = summarised(tmp_path, tree)["metrics"]
    assert "value" in metrics["decode_tokens_per_s"]
    for name in ("energy_j", "energy_j_per_output_token", "mean_power_w", "output_tokens_per_j"):
        assert "it could be read no longer: [Errno 2]" in metrics[name]["missing"]
