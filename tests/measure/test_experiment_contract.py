"""What every experiment plug must do, by name: a new file under experiments/ is found here, and needs options below.

One that works on a model itself is no matter of the scripted engine: it must refuse that one, and is held by a test
file of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted_measure import engine_request, work
from tokbench.errors import PlugError, SpecError
from tokbench.measure import experiments
from tokbench.measure.engines.fake import FakeStepEngine, open_engine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import (
    CellSpec,
    ExperimentSpec,
    ModelSpec,
    Option,
    SpeculationSpec,
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


DRAFTS = SpeculationSpec(method="prompt_lookup", gamma=2)
RANDOM = ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32")
CELLS: dict[str, dict[str, object]] = {
    "answers": {"options": {"task": "clock"}},
    "assisted": {"speculation": DRAFTS},
    "link": {"engine_options": {"cut": "tensor"}},
    "lossless": {"speculation": DRAFTS},
    "round_parts": {"speculation": DRAFTS, "options": {"passes": 2}},
    "verify_cost": {"options": {"m": "1,2"}},
}
"""What a cell must have for its experiment to be run."""


def cell(kind: str, **changes: object) -> CellSpec:
    """A cell that a plan would ask about."""
    wanted = {**CELLS.get(kind, {}), **changes}
    return CellSpec.model_validate(
        {
            "model": {"source": "shape:tiny-llama", "weights": wanted.get("weights", "pretrained")},
            "engine": {"kind": "transformers", "mode": "eager", "options": wanted.get("engine_options", {})},
            "workload": {"prompt_tokens": 8, "output_tokens": 4, "temperature": wanted.get("temperature", 0.0)},
            "load": wanted.get("load", {"static_batch": 1}),
            "speculation": wanted.get("speculation", "none"),
            "experiment": {"kind": kind, "options": wanted.get("options", {})},
        }
    )


@pytest.mark.parametrize("kind", experiments.names())
def test_every_plug_refuses_unknown_options_before_a_device_is_touched(kind: str) -> None:
    assert isinstance(experiments.load_plug(kind), experiments.CheckedPlug)
    experiments.check_experiment(cell(kind))
    with pytest.raises(PlugError, match="no_such_option") as refused:
        experiments.check_experiment(cell(kind, options={"no_such_option": 1}))
    assert refused.value.fix


@pytest.mark.parametrize("kind", experiments.names())
def test_beside_requests_no_experiment_is_run_and_none_is_left_out_without_a_word(kind: str) -> None:
    """Seen: a cell of requests ran to its end, and of its experiment nothing was told."""
    with pytest.raises(PlugError, match="in a cell with a static batch") as refused:
        experiments.check_experiment(cell(kind, load={"kind": "closed", "concurrency": 1, "requests": 2}))
    assert "static_batch" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("answers", {"weights": "random"}, "random weights have none"),
        ("nll", {"weights": "random"}, "random weights have none"),
        ("fake", {"options": {"steps": "many"}}, "steps: 'many' is no whole number"),
        ("verify_cost", {"options": {"m": "1,8"}}, "8 tokens leave nothing of the prompt"),
        ("verify_cost", {"options": {"m": "2,4"}}, "set against that of 1 token"),
        ("link", {"engine_options": {}}, "two processes hold"),
        ("link", {"options": {"gb_per_s": 0}}, "gb_per_s: 0 is no number above 0"),
        ("link", {"options": {"steps": 0.5}}, "steps: 0.5 is no whole number"),
        ("lossless", {"speculation": "none"}, "the cell has none"),
        ("lossless", {"speculation": SpeculationSpec(method="replay")}, "not the model's"),
        ("lossless", {"options": {"prefixes": 2}}, "1 prompts at a time, not 2"),
        ("lossless", {"options": {"control_rows": 1}}, "no larger than the cell's own static batch"),
        ("assisted", {"speculation": "none"}, "needs a way of drafting"),
        ("assisted", {"speculation": SpeculationSpec(method="mtp")}, "nothing like 'mtp'"),
        ("assisted", {"temperature": 0.5}, "likeliest tokens"),
        ("assisted", {"speculation": SpeculationSpec(method="draft_model", draft=RANDOM)}, "random weights"),
        ("round_parts", {"speculation": "none"}, "a cell that drafts"),
        ("round_parts", {"options": {"passes": 3}}, "3 plain steps do not fit"),
    ],
)
def test_what_a_plug_cannot_do_is_refused_before_a_device_is_touched(
    kind: str, changes: dict[str, object], message: str
) -> None:
    """Each of them was refused at the first repetition, after weights were loaded and code was compiled."""
    with pytest.raises(PlugError, match=message) as refused:
        experiments.check_experiment(cell(kind, **changes))
    assert refused.value.fix


def test_a_prompt_of_unknown_length_is_left_to_the_run() -> None:
    workload = WorkloadSpec(kind="fixed", text="Count to ten.", output_tokens=4)
    asked = cell("verify_cost", options={"m": "1,64"}).model_copy(update={"workload": workload})
    experiments.check_experiment(asked)


def test_a_cell_without_an_experiment_has_nothing_to_refuse() -> None:
    experiments.check_experiment(cell("no such kind").model_copy(update={"experiment": "none"}))


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
