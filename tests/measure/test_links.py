"""Two CPU processes with a link between them: the tokens of one, and a delay that is really waited for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines.fake import open_engine as open_fake  # noqa: E402
from tokbench.measure.engines.transformers import open_engine  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.engines.transformers.split_engine import LinkedEngine  # noqa: E402
from tokbench.measure.experiments import link as experiment  # noqa: E402
from tokbench.record.spec import ExperimentSpec  # noqa: E402

LAYERS, HIDDEN, VOCABULARY, ROWS = 2, 64, 512, 2
DELAY_S = 0.004


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama as files, so that one process and two read the same weights."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tokbench.record.catalog import find_model

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("weights")
    AutoModelForCausalLM.from_config(LlamaConfig(**find_model("tiny-llama").config)).save_pretrained(place)
    return place


@contextlib.contextmanager
def linked(folder: Path, cut: str) -> Iterator[LinkedEngine]:
    before = dict(os.environ)
    engine = open_engine(request(folder=folder, options={"cut": cut}))
    assert isinstance(engine, LinkedEngine)
    try:
        engine.prepare(work(rows=ROWS))
        yield engine
    finally:
        engine.close()
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("cut", ["tensor", "pipeline"])
def test_two_processes_over_a_link(folder: Path, cut: str) -> None:
    """One pair of processes for all of it: tokens, counts, and each exchange's wait."""
    alone = TransformersEngine(request(folder=folder))
    alone.prepare(work(rows=ROWS))
    with linked(folder, cut) as engine:
        assert run(alone, 23) == run(engine, 23)
        found = engine.check_identity(24)
        assert found is not None and found.first_divergence is None
        engine.set_link(DELAY_S, 1e12)
        assert run(alone, 23) == run(engine, 23)
        engine.set_link(0.0, float("inf"))
        spec = ExperimentSpec(kind="link", options={"latency_us": DELAY_S * 1e6, "gb_per_s": 1e3, "steps": 4})
        points = list(experiment.run(engine, work(rows=ROWS), spec, "t"))
        told = run(engine, 23)
        facts, model_facts = engine.facts, engine.model_facts
    assert run(alone, 23) == told
    assert alone.model_facts.parameters == model_facts.parameters
    per_step = {"tensor": 2 * LAYERS + 2, "pipeline": 2}[cut]
    values = [point.values for point in points]
    assert [4 * per_step] * 5 == [value["exchanges"] for value in values]
    if cut == "pipeline":  # states to one side in float32, a token of 64 bits back, each row
        assert {4 * ROWS * (4 * HIDDEN + 8)} == {value["sent_bytes"] for value in values}
        assert any("layers 1 to 1 in process 0, 2 to 2 in process 1" in note for note in facts.notes)
    times = {name: [p.duration_s for p in points if p.settings["link"] == name] for name in ("free", "delayed")}
    waited = sum(times["delayed"]) - sum(times["free"])
    assert 2 * 4 * per_step * DELAY_S * 0.6 < waited


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "compiled", "options": {"cut": "tensor"}}, "cannot be compiled"),
        ({"dtype": "int8", "options": {"cut": "pipeline"}}, "int8 are not cut"),
        ({"options": {"cut": "halves"}}, "there is no 'halves'"),
    ],
)
def test_what_cannot_be_cut_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlugError, match=message):
        open_engine(request(**changes))  # type: ignore[arg-type]


def test_the_experiment_needs_a_link() -> None:
    from scripted_measure import engine_request

    engine = open_fake(engine_request())
    with pytest.raises(PlugError, match="two processes hold") as refused:
        list(experiment.run(engine, work(), ExperimentSpec(kind="link"), "t"))  # type: ignore[arg-type]
    assert "cut: tensor" in str(refused.value.fix)


@pytest.mark.parametrize(("options", "message"), [({"late": 1}, "late"), ({"latency_us": 0}, "no number above 0")])
def test_options_are_checked(options: dict[str, str | int | float | bool], message: str) -> None:
    with pytest.raises(PlugError, match=message):
        list(experiment.run(None, work(), ExperimentSpec(kind="link", options=options), "t"))  # type: ignore[arg-type]
