"""What the harness itself costs: run with `pytest benchmarks`. No bound is asserted here; figures go into reports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.records import million_token_record
from tokbench.cli.reporting import write_run_report
from tokbench.measure.engines import CellWork, EngineRequest, load_plug
from tokbench.measure.load import run_static_batch
from tokbench.record.observations import Event
from tokbench.record.spec import EngineSpec, ModelSpec
from tokbench.record.store import RunWriter

STEPS = 1000


@pytest.fixture
def fake_events() -> Iterator[list[Event]]:
    """Events of one scripted trial of a thousand tokens."""
    yield run_fake_trial()


def run_fake_trial() -> list[Event]:
    """One trial of the fake engine: what is left when the model costs nothing is the harness."""
    request = EngineRequest(
        model=ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32"),
        engine=EngineSpec(kind="fake"),
        device="cpu",
        model_name="fake",
        config_json=None,
        weights_folder=None,
        threads=1,
        seed=1,
    )
    engine = load_plug("fake").open_engine(request)
    work = CellWork(((1,) * 16,), STEPS + 1)
    engine.prepare(work)  # type: ignore[union-attr]
    return list(run_static_batch(engine, work, "trial", keep_tokens=False))  # type: ignore[arg-type]


def test_a_trial_of_a_thousand_tokens(benchmark: BenchmarkFixture) -> None:
    """Harness and scripted engine together: an upper bound of the cost per trial and per token."""
    events = benchmark(run_fake_trial)
    benchmark.extra_info["tokens"] = STEPS
    assert len(events) == 6


def test_recording_a_trial(benchmark: BenchmarkFixture, fake_events: list[Event], tmp_path: Path) -> None:
    """Serialise, append and fsync one trial of a thousand tokens."""
    writer = RunWriter(tmp_path)

    def record() -> None:
        for event in fake_events:
            writer.append(event)
        writer.sync()

    benchmark(record)
    writer.close()
    assert (tmp_path / "events.jsonl").stat().st_size > 0


def test_help(benchmark: BenchmarkFixture) -> None:
    """`tokbench --help` as a user starts it: a new process each time."""
    command = [sys.executable, "-m", "tokbench", "--help"]
    result = benchmark(lambda: subprocess.run(command, check=True, capture_output=True))
    assert b"report" in result.stdout


@pytest.mark.parametrize("with_figures", [False, True])
def test_report_of_a_million_tokens(benchmark: BenchmarkFixture, tmp_path: Path, with_figures: bool) -> None:
    """100 cells, a million tokens: from the record on disk to the report on disk."""
    run = tmp_path / "run"
    tokens = million_token_record(run)
    benchmark.extra_info["tokens"] = tokens
    benchmark.pedantic(
        lambda: write_run_report([run], tmp_path / "report", ("cerebras", "groq"), with_figures=with_figures),
        rounds=3,
        warmup_rounds=1,
    )
    assert (tmp_path / "report" / "report.md").is_file()
