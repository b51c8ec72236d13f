"""What every experiment plug must do, by name: a new file under experiments/ is found here, and needs options below.

One that works on a model itself is no matter of the scripted engine: it must refuse that one, and is held by a test
file of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from scripted_measure import engine_request, work
from tokbench.errors import PlugError, SpecError
from tokbench.measure import experiments
from tokbench.measure.engines.fake import FakeStepEngine, open_engine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import (
    CellSpec,
    EngineSpec,
    ExperimentSpec,
    ModelSpec,
    Option,
    StaticBatchLoad,
    WorkloadSpec,
)

OPTIONS: dict[str, dict[str, Option]] = {"fake": {"steps": 4}}
"""Options that make one repetition short."""
HELD_BY = {
    "answers": "test_experiment_answers.py",
    "assisted": "test_assisted.py",
    "nll": "test_experiment_nll.py",
    "link": "test_links.py",
    "lossless": "test_lossless.py",
    "round_parts": "test_round_parts.py",
    "verify_cost": "test_verify_cost.py",
}
"""Experiments that need a real model, or more processes than one, with the file that tests them on such."""
KINDS = [kind for kind in experiments.names() if kind not in HELD_BY]
WORK = work(rows=2, prompt_tokens=10, output_tokens=9)


def engine() -> FakeStepEngine:
    opened = open_engine(engine_request(step_s=0.01))
    assert isinstance(opened, FakeStepEngine)
    opened.prepare(WORK)
    return opened


def points(kind: str, **options: Option) -> list[ExperimentPoint]:
    spec = ExperimentSpec(kind=kind, options=options or OPTIONS[kind])
    return list(experiments.load_plug(kind).run(engine(), WORK, spec, "t"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_plug_has_options_here_and_a_description(kind: str) -> None:
    assert kind in OPTIONS, f"add options for experiments/{kind} to this file"
    assert experiments.load_plug(kind).DESCRIPTION.strip()


@pytest.mark.parametrize("kind", HELD_BY)
def test_what_needs_a_model_says_so_and_has_tests_of_its_own(kind: str) -> None:
    plug = experiments.load_plug(kind)
    assert plug.DESCRIPTION.strip()
    assert (Path(__file__).parent / HELD_BY[kind]).is_file()
    with pytest.raises((PlugError, SpecError)) as refused:
        list(plug.run(engine(), WORK, ExperimentSpec(kind=kind, options={}), "t"))
    assert refused.value.fix
    with pytest.raises(PlugError, match="no_such_option"):
        list(plug.run(engine(), WORK, ExperimentSpec(kind=kind, options={"no_such_option": 1}), "t"))


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_named_windows_of_the_trial(kind: str) -> None:
    found = points(kind)
    assert found
    assert {("t", kind)} == {(point.trial_id, point.experiment) for point in found}
    assert len({point.window_id for point in found}) == len(found)
    assert len({tuple(sorted(point.settings.items())) for point in found}) == len(found)
    assert all(point.window_id.startswith("t/experiment/") and point.settings for point in found)
    assert all(point.duration_s > 0 and point.stamped_by == "script" for point in found)


@pytest.mark.parametrize("kind", KINDS)
def test_repeating_gives_the_same_settings(kind: str) -> None:
    assert [point.settings for point in points(kind)] == [point.settings for point in points(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_refused(kind: str) -> None:
    with pytest.raises(PlugError, match="no_such_option"):
        points(kind, no_such_option=1)


@pytest.mark.parametrize("kind", ["answers", "nll"])
def test_what_reads_options_by_itself_refuses_them_before_a_device_is_touched(kind: str) -> None:
    plug = experiments.load_plug(kind)
    assert isinstance(plug, experiments.CheckedPlug)
    task: dict[str, Option] = {"task": "clock"} if kind == "answers" else {}
    experiments.check_experiment(cell(kind, task))
    with pytest.raises(PlugError, match="no_such_option"):
        experiments.check_experiment(cell(kind, {**task, "no_such_option": 1}))
    with pytest.raises(PlugError, match="random weights have none"):
        experiments.check_experiment(cell(kind, task, weights="random"))


def cell(kind: str, options: dict[str, Option], weights: Literal["pretrained", "random"] = "pretrained") -> CellSpec:
    """A cell that a plan would ask about."""
    return CellSpec(
        model=ModelSpec(source="shape:tiny-llama", weights=weights),
        engine=EngineSpec(kind="transformers", mode="eager"),
        workload=WorkloadSpec(prompt_tokens=8, output_tokens=4),
        load=StaticBatchLoad(static_batch=1),
        experiment=ExperimentSpec(kind=kind, options=options),
    )


def test_a_cell_without_an_experiment_has_nothing_to_refuse() -> None:
    experiments.check_experiment(cell("no such kind", {}).model_copy(update={"experiment": "none"}))


def test_an_unknown_experiment_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlugError, match="there is no experiment 'fakes'") as refused:
        experiments.load_plug("fakes")
    assert "did you mean `fake`?" in str(refused.value.fix)


def test_the_fake_times_one_two_and_four_steps() -> None:
    assert [(1, 0.01), (2, 0.02), (4, 0.04)] == [
        (point.settings["steps"], pytest.approx(point.duration_s)) for point in points("fake")
    ]


def test_the_fake_stops_where_the_output_ends() -> None:
    assert [1, 2, 4, 8] == [point.settings["steps"] for point in points("fake", steps=64)]
