"""Drawn tokens and traces: every repetition of a cell has its own, whenever it is visited; who draws none says so."""

from __future__ import annotations

from typing import Any

import pytest

from scripted_facts import HOST
from tokbench.errors import PlugError
from tokbench.measure.drawing import begin_draws, check_draws
from tokbench.measure.engines import fake
from tokbench.measure.messages import Done, OpenGroup, PrepareCell, RunTrial
from tokbench.measure.worker import WorkerSession
from tokbench.record.spec import CellSpec


def cell(
    kind: str = "transformers", mode: str = "eager", temperature: float = 0.7, speculation: Any = "none"
) -> CellSpec:
    return CellSpec.model_validate(
        {
            "model": {"source": "shape:tiny-llama", "weights": "random", "dtype": "float32"},
            "engine": {"kind": kind, "mode": mode},
            "workload": {"prompt_tokens": 10, "output_tokens": 5, "temperature": temperature},
            "load": {"kind": "static_batch", "static_batch": 2},
            "speculation": speculation,
        }
    )


@pytest.mark.parametrize("kind", ["openvino", "llama_cpp", "vllm", "jax", "mlx", "tinygrad"])
def test_an_engine_that_takes_the_likeliest_token_refuses_a_temperature(kind: str) -> None:
    with pytest.raises(PlugError, match=f"engine '{kind}' in mode 'default' takes the likeliest token"):
        check_draws(cell(kind, "default"))
    check_draws(cell(kind, "default", temperature=0.0))


def test_requests_are_not_drawn_either() -> None:
    with pytest.raises(PlugError, match="in mode 'continuous' takes the likeliest token"):
        check_draws(cell(mode="continuous"))


def test_a_lossy_rule_is_no_way_of_sampling() -> None:
    lossy = {"method": "prompt_lookup", "accept": "top3"}
    with pytest.raises(PlugError, match="'top3' is lossy"):
        check_draws(cell(speculation=lossy))
    check_draws(cell(speculation=lossy, temperature=0.0))
    check_draws(cell(speculation={"method": "prompt_lookup"}))


def test_an_engine_that_draws_nothing_is_left_alone() -> None:
    begin_draws(object(), 3)  # type: ignore[arg-type]


def test_a_trial_tells_the_engine_which_repetition_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Drawing(fake.FakeStepEngine):
        def draw_from(self, repetition: int) -> None:
            told.append(repetition)

    monkeypatch.setattr(fake, "FakeStepEngine", Drawing)
    session, spec = WorkerSession("w"), cell("fake", "default")
    opening = OpenGroup(
        group="g",
        spec=spec,
        device="cpu",
        model_name="tiny-llama",
        config_json=None,
        weights_folder=None,
        revision=None,
        sha256=None,
        note=None,
        threads=HOST.usable_cores,
        seed=1,
    )
    commands = [opening, PrepareCell(cell_id="c", spec=spec, seed=1, check_identity=False)]
    commands += [RunTrial(trial_id=f"t{number}", keep_tokens=False, seed=1, repetition=number) for number in (0, 4)]
    for command in commands:
        assert isinstance(list(session.answer(command))[-1], Done)
    assert [0, 4] == told
