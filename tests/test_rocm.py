"""The ROCm path from a faked torch to the report, without a device: facts, choice, plan, runner, report.

It holds the words and the wiring together; that a real AMD device does what this fake does is shown nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripted_facts import HOST
from tokbench.derive.evaluate import evaluate
from tokbench.derive.report.limits_section import AMD_FIRST, NO_AMD
from tokbench.derive.report.write import write_report
from tokbench.errors import PlugError
from tokbench.measure.choice import DeviceChoice, choose_device, torch_device
from tokbench.measure.device import read_torch_module
from tokbench.measure.models import ResolvedModel
from tokbench.measure.plan import Place, bind
from tokbench.measure.progress import Silent
from tokbench.measure.runner import Outcome, Runner
from tokbench.measure.worker_process import LocalWorker
from tokbench.record.observations import SCHEMA_VERSION, RunStarted
from tokbench.record.run import Run, read_run
from tokbench.record.spec import ModelSpec
from tokbench.record.store import RunWriter, create_run
from tokbench.record.sweep import read_config

GIB = 2**30
CONFIG = """name: rocm
model: {source: "shape:tiny-llama", weights: random, dtype: float32}
engine: {kind: fake}
device: auto
workload: {kind: synthetic, prompt_tokens: 16, output_tokens: 8}
load: {kind: static_batch, static_batch: [1, 2]}
stop: {rel_ci: 0.5, min_repetitions: 3, max_repetitions: 3}
budget: {total: 60s}
energy: off
"""


def hip_torch(free_bytes: int = 190 * GIB) -> Any:
    """A torch built for ROCm 7.2 with one MI300X: HIP devices answer under the name cuda, and nvml knows none."""
    card = SimpleNamespace(
        name="AMD Instinct MI300X",
        uuid="18c8b3f5-a0d1-e2f4-0000-000000000000",
        total_memory=192 * GIB,
        multi_processor_count=304,
        gcnArchName="gfx942:sramecc+:xnack-",
        major=9,
        minor=4,
    )
    return SimpleNamespace(
        __version__="2.13.0+rocm7.2",
        version=SimpleNamespace(cuda=None, hip="7.2.1"),
        cuda=SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_device_properties=lambda index: card,
            mem_get_info=lambda index: (free_bytes, card.total_memory),
        ),
        backends=SimpleNamespace(),
    )


def chosen(request: str, root: Path) -> DeviceChoice:
    reading = read_torch_module(hip_torch(), root)
    return choose_device(request, reading.devices, False, reading.build)


def no_model(spec: ModelSpec) -> ResolvedModel:
    raise AssertionError(f"the fake engine needs no model, and {spec.source} was asked for")


def measure(choice: DeviceChoice, folder: Path) -> tuple[Outcome, Run]:
    """Run the config on the chosen device with workers in this process, and read the record back."""
    folder.mkdir()
    config_file = folder / "asked.yaml"
    config_file.write_text(CONFIG, encoding="utf-8")
    config = read_config(config_file)
    place = Place(HOST, choice.device, choice.why, torch_device(choice.device), 32 * GIB)
    plan = bind(config, place, no_model)
    run_folder = folder / "run"
    create_run(run_folder, CONFIG)
    writer = RunWriter(run_folder)
    writer.append(
        RunStarted(
            schema_version=SCHEMA_VERSION,
            tokbench_version="0.1.0",
            config_sha256=config.sha256(),
            seed=config.run.seed,
            at_ns=0,
            utc="2026-11-21T12:00:00+00:00",
            command=("tokbench", "run", "asked.yaml"),
        )
    )
    outcome = Runner(plan, writer, lambda group: LocalWorker(), Silent(), lambda: None).run()
    writer.close()
    return outcome, read_run(run_folder)


@pytest.mark.parametrize("request_", ["auto", "rocm", "rocm:0", "cuda"])
def test_an_amd_card_is_chosen_by_every_name_that_means_it(request_: str, tmp_path: Path) -> None:
    choice = chosen(request_, tmp_path)
    assert ("rocm", "AMD Instinct MI300X", "gfx942") == (
        choice.device.kind,
        choice.device.name,
        choice.device.compute_capability,
    )
    assert "this torch is built for ROCm and calls its devices cuda" in choice.why
    assert "cuda:0" == torch_device(choice.device)


def test_a_torch_built_for_cuda_is_refused_for_rocm(tmp_path: Path) -> None:
    torch = hip_torch()
    torch.version = SimpleNamespace(cuda="13.0", hip=None)
    reading = read_torch_module(torch, tmp_path)
    with pytest.raises(PlugError, match="the installed torch is built for CUDA"):
        choose_device("rocm", reading.devices, False, reading.build)


@pytest.mark.parametrize("request_", ["auto", "rocm"])
def test_from_hip_torch_to_the_report(request_: str, tmp_path: Path) -> None:
    outcome, run = measure(chosen(request_, tmp_path), tmp_path / "place")
    assert ("complete", 0, 0) == (outcome.reason, outcome.failed_trials, outcome.lost_cells)
    assert run.device is not None
    assert ("rocm", "AMD Instinct MI300X", "7.2.1") == (run.device.kind, run.device.name, run.device.runtime_version)
    results = evaluate(run, "rocm")
    assert ["rocm", "rocm"] == [cell.record.spec.device for cell in results.cells]
    assert {"AMD Instinct MI300X"} == {cell.conditions.hardware for cell in results.cells}

    paths = write_report([results], (), tmp_path / "report", vendors=("cerebras", "groq"), with_figures=False)
    report = paths.markdown.read_text(encoding="utf-8")
    assert "| Name | AMD Instinct MI300X |" in report
    assert "| Kind | rocm |" in report
    assert "gfx942" in report
    # The sentence of every other report would be false in this very one; this one says the same of what came before.
    assert AMD_FIRST in report
    assert NO_AMD not in report
    assert "without any at hand" in AMD_FIRST and "AMD hardware" in AMD_FIRST
    hardware = {cell["conditions"]["hardware"] for cell in json.loads(paths.summary.read_text())["cells"]}
    assert {"AMD Instinct MI300X"} == hardware


def test_a_report_from_other_hardware_says_that_amd_was_never_tried() -> None:
    assert NO_AMD.startswith("tokbench has never been run on AMD hardware")
