"""Rounds of drafting on a GPU: every pass is a captured graph, no round waits, and the tokens are the plain loop's."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or HIP device"),
]

from tiny_engines import request, run, work  # noqa: E402
from tokbench.measure.engines import CellWork, DraftModel  # noqa: E402
from tokbench.measure.engines.transformers.drafting.model_drafter import ModelDrafter  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import find_model  # noqa: E402
from tokbench.record.spec import ModelSpec, SpeculationSpec  # noqa: E402

GPU = "cuda:0"
GAMMA, OUTPUT = 3, 24
OPTIONS: dict[str, dict[str, object]] = {"early_exit": {"layers": 1}, "replay": {"alpha": 0.6}}
Open = Callable[..., TransformersEngine]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Compiled engines in float32 on the GPU, closed after the test."""
    made: list[TransformersEngine] = []

    def get(shape: str = "tiny-llama", mode: str = "compiled") -> TransformersEngine:
        options = {"coordinate_descent": False} if mode == "compiled" else {}
        made.append(TransformersEngine(request(shape, mode, dtype="float32", device=GPU, options=options)))
        return made[-1]

    yield get
    for engine in made:
        engine.close()
    gc.collect()
    torch.cuda.empty_cache()


def drafting(method: str, shape: str = "tiny-llama", rows: int = 2, temperature: float = 0.0) -> CellWork:
    """Work with a method; where it needs a model, one of the target's shape."""
    spec = {"method": method, "gamma": GAMMA, "options": OPTIONS.get(method, {})}
    model = ModelSpec(source=f"shape:{shape}", weights="random", dtype="float32")
    draft = DraftModel(model, shape, json.dumps(find_model(shape).config), None)
    return dataclasses.replace(
        work(rows=rows, output_tokens=OUTPUT),
        temperature=temperature,
        speculation=SpeculationSpec.model_validate(spec),
        draft=draft if method in ("draft_model", "replay") else None,
    )


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen3-moe", "tiny-deepseek"])
@pytest.mark.parametrize("method", ["draft_model", "prompt_lookup", "early_exit"])
def test_verification_is_captured_and_the_tokens_are_the_plain_loops(opened: Open, shape: str, method: str) -> None:
    engine, plain = opened(shape), opened(shape, "eager")
    plain.prepare(work(output_tokens=OUTPUT))
    engine.prepare(drafting(method, shape))
    assert engine.facts.cuda_graphs is True, engine.facts.notes
    assert [note for note in engine.facts.notes if "no device graph" in note] == []
    assert run(plain, OUTPUT - 1) == run(engine, OUTPUT - 1)


def test_both_passes_of_a_draft_are_captured(opened: Open) -> None:
    engine = opened()
    engine.prepare(drafting("replay"))
    assert engine.rounds is not None
    drafter = engine.rounds._drafter
    assert isinstance(drafter, ModelDrafter)
    assert (True, True) == (drafter._first.is_captured, drafter._next.is_captured), engine.facts.notes


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("method", ["replay", "prompt_lookup"])
def test_no_round_waits_for_the_device(opened: Open, method: str, temperature: float) -> None:
    engine = opened()
    engine.prepare(drafting(method, temperature=temperature))
    engine.rewind(0)
    engine.prefill()
    rounds = engine.rounds
    assert rounds is not None
    with torch.inference_mode():
        rounds._aim(OUTPUT - 1)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(4):
                rounds._timed_round(engine._clock)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_numbers_drawn_between_captured_passes_are_new_in_each_repetition_and_follow_from_the_seed(
    opened: Open,
) -> None:
    engine = opened()
    engine.prepare(drafting("draft_model", temperature=0.9))
    found = []
    for repetition in (0, 1, 0):
        engine.draw_from(repetition)
        found.append(run(engine, OUTPUT - 1))
    assert found[0] == found[2] != found[1]


def test_a_replay_accepts_what_its_trace_says_and_events_stamp_every_part(opened: Open) -> None:
    engine = opened()
    asked = drafting("replay")
    engine.prepare(asked)
    engine.rewind(0)
    engine.prefill()
    rounds = [step.round for step in engine.decode(OUTPUT - 1) if step.round is not None]
    assert (OUTPUT - 1,) * 2 == tuple(sum(found.emitted[row] for found in rounds) for row in range(2))
    assert {GAMMA} == {drafted for found in rounds for drafted in found.drafted if drafted}
    assert all(found.draft_s is not None and found.draft_s > 0 for found in rounds)
    assert all(found.verify_s is not None and found.verify_s > 0 for found in rounds)


@pytest.mark.parametrize("part", ["plain", "draft", "verify"])
def test_the_parts_of_a_round_run_alone(opened: Open, part: str) -> None:
    engine = opened()
    engine.prepare(drafting("replay"))
    engine.rewind(0)
    engine.prefill()
    assert engine.rounds is not None
    graphs = engine.graphs_compiled
    assert engine.rounds.time_part(part, 4) > 0
    assert part == "plain" or graphs == engine.graphs_compiled
