"""transformers' assisted generation beside our rounds: the same tokens and, for the same drafts, the same counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from scripted_measure import engine_request  # noqa: E402
from tiny_engines import request, work  # noqa: E402
from tokbench.errors import PlugError, TrialError  # noqa: E402
from tokbench.measure.engines import CellWork, DraftModel  # noqa: E402
from tokbench.measure.engines.fake import open_engine  # noqa: E402
from tokbench.measure.engines.transformers import assisted  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.experiments import load_plug  # noqa: E402
from tokbench.measure.experiments.assisted import METHODS  # noqa: E402
from tokbench.record.observations import ExperimentPoint  # noqa: E402
from tokbench.record.spec import ExperimentSpec, ModelSpec, SpeculationSpec  # noqa: E402

WORK = work(rows=2, prompt_tokens=12, output_tokens=24)
SPEC = ExperimentSpec(kind="assisted")


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    opened = TransformersEngine(request())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def draft(engine: TransformersEngine, tmp_path_factory: pytest.TempPathFactory) -> DraftModel:
    """The target with noise on its head: it drafts what the target says, but not always."""
    folder: Path = tmp_path_factory.mktemp("draft")
    engine.model.save_pretrained(str(folder))
    from safetensors.torch import load_file, save_file
    from transformers import GenerationConfig

    tensors = load_file(str(folder / "model.safetensors"))
    noise = torch.Generator().manual_seed(1)
    norm = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = norm + 0.3 * torch.randn(norm.shape, generator=noise)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    # as some weights bring advice: our loop heeds none, nor may transformers
    advice = GenerationConfig(suppress_tokens=list(range(0, engine.vocabulary, 2)))
    advice.save_pretrained(str(folder))
    model = ModelSpec(source=f"path:{folder}", dtype="float32")
    return DraftModel(model, "noisy", (folder / "config.json").read_text(encoding="utf-8"), folder)


def works(draft: DraftModel, gamma: int) -> dict[str, CellWork]:
    specs = {
        "draft_model": SpeculationSpec(method="draft_model", gamma=gamma, draft=draft.model),
        "early_exit": SpeculationSpec(method="early_exit", gamma=gamma, options={"layers": 1}),
        "prompt_lookup": SpeculationSpec(method="prompt_lookup", gamma=gamma),
    }
    return {
        name: dataclasses.replace(WORK, speculation=spec, draft=draft if name == "draft_model" else None)
        for name, spec in specs.items()
    }


def points(engine: Any, wanted: CellWork) -> list[ExperimentPoint]:
    engine.prepare(wanted)
    return [
        point for point in load_plug("assisted").run(engine, wanted, SPEC, "t") if isinstance(point, ExperimentPoint)
    ]


@pytest.mark.parametrize("gamma", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_both_make_the_same_tokens(engine: TransformersEngine, draft: DraftModel, method: str, gamma: int) -> None:
    found = points(engine, works(draft, gamma)[method])
    assert [("tokbench", 0), ("transformers", 0), ("tokbench", 1), ("transformers", 1)] == [
        (point.settings["implementation"], point.settings["row"]) for point in found
    ]
    assert {WORK.output_tokens} == {point.values["same_tokens"] for point in found}
    assert all(point.duration_s > 0 for point in found)
    for point in found:
        assert point.values["emitted"] == point.values["accepted"] + point.values["rounds"]


@pytest.mark.parametrize("gamma", [1, 3])
@pytest.mark.parametrize("method", ["draft_model", "early_exit"])
def test_the_same_drafts_give_the_same_counts(
    engine: TransformersEngine, draft: DraftModel, method: str, gamma: int
) -> None:
    found = points(engine, works(draft, gamma)[method])
    counts = [{name: point.values[name] for name in ("rounds", "drafted", "accepted")} for point in found]
    assert counts[0] == counts[1]
    assert counts[2] == counts[3]
    assert all(each["drafted"] == gamma * each["rounds"] for each in counts)
    if method == "draft_model":
        assert all(0 < each["accepted"] < each["drafted"] for each in counts)


def test_gamma_is_set_where_it_is_heeded_and_put_back(engine: TransformersEngine, draft: DraftModel) -> None:
    config = engine.model.generation_config
    before = (config.num_assistant_tokens, config.num_assistant_tokens_schedule, config.assistant_confidence_threshold)
    points(engine, works(draft, 3)["early_exit"])
    after = (config.num_assistant_tokens, config.num_assistant_tokens_schedule, config.assistant_confidence_threshold)
    assert before == after
    assert "_get_candidate_generator" not in vars(engine.model)


def test_a_gamma_that_is_not_honoured_is_no_result() -> None:
    spec = SpeculationSpec(method="early_exit", gamma=4, options={"layers": 1})
    done = assisted.Assisted(tuple(range(6)), (4, 2), (2, 2), 0.1)
    assisted._check(done, 6, spec)  # the last round has room for two drafts
    with pytest.raises(TrialError, match="drafted 3 tokens, not 4"):
        assisted._check(done._replace(drafted=(3, 2)), 6, spec)
    with pytest.raises(TrialError, match="drafted 5 tokens, not 4"):
        assisted._check(done._replace(drafted=(5, 2)), 6, spec)


def test_counts_that_do_not_add_up_are_no_result() -> None:
    spec = SpeculationSpec(method="prompt_lookup", gamma=4)
    with pytest.raises(TrialError, match="counts and tokens differ"):
        assisted._check(assisted.Assisted(tuple(range(6)), (4, 2), (2, 1), 0.1), 6, spec)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"speculation": None}, "needs a way of drafting"),
        ({"speculation": SpeculationSpec(method="mtp")}, "nothing like 'mtp'"),
        ({"speculation": SpeculationSpec(method="prompt_lookup"), "temperature": 0.7}, "likeliest tokens"),
        ({"speculation": SpeculationSpec(method="prompt_lookup", accept="top3")}, "without loss"),
    ],
)
def test_what_transformers_cannot_do_is_refused(engine: TransformersEngine, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PlugError, match=said):
        list(load_plug("assisted").run(engine, dataclasses.replace(WORK, **changed), SPEC, "t"))


def test_an_engine_without_a_model_and_an_unknown_option_are_refused(engine: TransformersEngine) -> None:
    with pytest.raises(PlugError, match="shows its PyTorch model"):
        list(load_plug("assisted").run(open_engine(engine_request(step_s=0.01)), WORK, SPEC, "t"))
    with pytest.raises(PlugError, match="unknown steps"):
        list(load_plug("assisted").run(engine, WORK, ExperimentSpec(kind="assisted", options={"steps": 1}), "t"))
