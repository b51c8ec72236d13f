"""What scripts/gpu_check.sh would measure on an H200: every step is read, bound, and reckoned to end in time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gpu_reckoning import H200, reckon_s
from scripted_facts import CPU, HOST
from tokbench.arithmetic import speculative_speedup
from tokbench.measure import plan as plan_module
from tokbench.measure.engines import EngineDescription, check_plug
from tokbench.measure.models import ResolvedModel, parse_source, resolve_model
from tokbench.measure.plan import Place, Plan, bind
from tokbench.record.facts import DeviceFacts
from tokbench.record.spec import EngineSpec, ModelSpec
from tokbench.record.sweep import read_config

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"
CALL_S, PACK_S = 570, 20
"""What one call may take, of the ten minutes that a machine allows, and what it keeps for its end."""
STEP_MAX_S = 510
FIRST_CALLS = (("doctor", "first", "energy"), ("speculation70b", "claims"), ("moe_triple",))
"""As the head of the script says."""


class Step(NamedTuple):
    """One line of `--commands`."""

    name: str
    config: Path
    settings: tuple[str, ...]


def said(*arguments: str, **environment: str) -> list[str]:
    environ = {**os.environ, **environment}
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, check=True, env=environ
    ).stdout.splitlines()


def steps(**environment: str) -> Iterator[Step]:
    for line in said("--commands", **environment):
        name, config, *settings = line.split("\t")
        yield Step(name, ROOT / config, tuple(settings))


STEPS = tuple(steps())
TINY_STEPS = tuple(steps(GPU_CHECK_TINY="1"))
LIMITS_S = {name: int(seconds) for name, seconds in (line.split() for line in said("--list"))}


def planned(step: Step, monkeypatch: pytest.MonkeyPatch, device: DeviceFacts = H200) -> Plan:
    """The step's plan on an H200 with nothing on it, or on a CPU; packages that are not here do not matter."""
    monkeypatch.setattr(plan_module, "check_plug", _plug)
    place = Place(HOST, device, "described", "cuda:0" if device is H200 else "cpu", 16 << 30)
    return bind(read_config(step.config, step.settings), place, resolve)


def _plug(spec: EngineSpec) -> EngineDescription:
    return check_plug(spec.model_copy(update={"kind": "fake", "mode": "default"}))


def resolve(spec: ModelSpec) -> ResolvedModel:
    """A row of data/models.yaml; nothing is fetched."""
    return resolve_model(
        parse_source(spec.source),
        spec.weights,
        spec.dtype,
        cache=Path("nowhere"),
        environ={},
        report=lambda text: None,
        download=False,
    )


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_is_read_fits_into_memory_and_ends_within_its_seconds(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(step, monkeypatch)
    assert [cell.refusal for cell in plan.cells() if cell.refusal is not None] == []
    assert reckon_s(plan) <= LIMITS_S[step.name] <= STEP_MAX_S


@pytest.mark.parametrize("step", TINY_STEPS, ids=lambda step: step.name)
def test_a_step_can_be_tried_out_on_a_cpu(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(step, monkeypatch, CPU)
    cells = plan.cells()
    assert [cell.refusal for cell in cells if cell.refusal is not None] == []
    assert all((cell.predicted_memory_bytes or 0) < 2e9 for cell in cells)
    assert {cell.cell.spec.workload.output_tokens for cell in cells} <= {8, 16}


def test_every_step_that_measures_is_among_those() -> None:
    assert {"doctor", "first", "tests", "quick"} == set(LIMITS_S) - {step.name for step in STEPS}


@pytest.mark.parametrize("call", FIRST_CALLS, ids=" ".join)
def test_the_first_calls_end_in_time_and_stand_first(call: tuple[str, ...]) -> None:
    install_s = 15 if call == FIRST_CALLS[0] else 3
    assert install_s + sum(LIMITS_S[name] for name in call) + PACK_S <= CALL_S
    assert " ".join(("$OUT", *call, "")) in SCRIPT.read_text(encoding="utf-8")
    named = [name for names in FIRST_CALLS for name in names]
    assert named == list(LIMITS_S)[: len(named)]


def test_the_70b_pair_and_its_acceptance_are_those_that_a_vendor_published(monkeypatch: pytest.MonkeyPatch) -> None:
    (step,) = (step for step in STEPS if step.name == "speculation70b")
    plain, drafting = (cell.cell.spec for cell in planned(step, monkeypatch).cells())
    assert "none" == plain.speculation != drafting.speculation
    assert drafting.speculation != "none" and drafting.speculation.draft is not None
    assert ("shape:Llama-3.3-70B-Instruct", "shape:Llama-3.2-1B-Instruct") == (
        drafting.model.source,
        drafting.speculation.draft.source,
    )
    assert (5, {"alpha": 0.85}) == (drafting.speculation.gamma, drafting.speculation.options)
    assert 3.52 == pytest.approx(speculative_speedup(0.85, 5, 0.036), abs=0.005)


def test_a_limit_that_is_asked_for_leaves_time_to_close_the_record() -> None:
    (line,) = said("--commands", "energy:200")
    assert "budget.total=140s" in line.split("\t")


def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help-me"]])
def test_without_a_folder_it_says_how_it_is_called(arguments: list[str]) -> None:
    found = called(*arguments)
    assert 2 == found.returncode
    assert found.stderr.startswith("usage: ")


def test_an_unknown_step_is_refused(tmp_path: Path) -> None:
    found = called(tmp_path / "out", "llama9b")
    assert 2 == found.returncode
    assert "no step 'llama9b'" in found.stderr


def test_seconds_that_are_none_are_refused_before_anything_runs(tmp_path: Path) -> None:
    """`energy:soon` ended the call in its midst: "soon: unbound variable"."""
    found = called(tmp_path / "out", "energy:soon")
    assert 2 == found.returncode
    assert "energy:soon: behind the colon stand seconds" in found.stderr
    assert not (tmp_path / "out").exists()


def test_seconds_that_leave_nothing_to_measure_in_are_refused() -> None:
    found = called("--commands", "energy:60")
    assert 2 == found.returncode
    assert "60 s are too few" in found.stderr


def test_a_step_that_lacks_a_package_does_not_count_as_complete(tmp_path: Path) -> None:
    """It ended with 0 and was skipped from then on, though nothing was measured."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    command = f"source scripts/gpu_check_steps; python='{python}' TINY= is_dry=; step_precision"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert 3 == found.returncode
    assert "torchao is not carried" in found.stdout
