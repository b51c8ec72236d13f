"""The experiment `round_parts` on tiny random models: the cell's own passes, each alone, and nothing moved by them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines import CellWork  # noqa: E402
from tokbench.measure.engines.transformers.drafting.passes import Pass  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.engines.transformers.loops import CompiledLoop, EagerLoop  # noqa: E402
from tokbench.measure.experiments import round_parts  # noqa: E402
from tokbench.record.observations import ExperimentPoint  # noqa: E402
from tokbench.record.spec import CellSpec, EngineSpec, ExperimentSpec, ModelSpec, Option, SpeculationSpec  # noqa: E402

GAMMA, PROMPT, OUTPUT = 3, 12, 16
PLAIN = work(rows=2, prompt_tokens=PROMPT, output_tokens=OUTPUT)
METHODS: dict[str, dict[str, Option]] = {"prompt_lookup": {}, "early_exit": {"layers": 1}}


def drafting(method: str, temperature: float = 0.0) -> CellWork:
    spec = SpeculationSpec(method=method, gamma=GAMMA, options=METHODS[method])
    return dataclasses.replace(PLAIN, speculation=spec, temperature=temperature)


def points(engine: TransformersEngine, asked: CellWork, **options: Option) -> list[ExperimentPoint]:
    spec = ExperimentSpec(kind="round_parts", options={"windows": 2, "passes": 3, **options})
    return list(round_parts.run(engine, asked, spec, "t"))


def test_windows_of_all_parts_take_turns_and_say_how_many_tokens_they_read() -> None:
    engine, asked = TransformersEngine(request("tiny-llama", "eager")), drafting("prompt_lookup")
    engine.prepare(asked)
    found = points(engine, asked)
    parts = [("plain", 1), ("draft", GAMMA), ("verify", GAMMA + 1)]
    assert [(*part, window) for window in range(2) for part in parts] == [
        (point.settings["part"], point.settings["tokens"], point.settings["window"]) for point in found
    ]
    assert 6 == len({point.window_id for point in found})
    assert all({"passes": 3} == point.values and point.duration_s > 0 for point in found)
    assert {(2, PROMPT)} == {(point.settings["rows"], point.settings["context"]) for point in found}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("method", METHODS)
def test_rounds_and_tokens_are_those_without_the_experiment(method: str, mode: str) -> None:
    engine, asked = TransformersEngine(request("tiny-llama", mode)), drafting(method)
    engine.prepare(PLAIN)
    plain = run(engine, OUTPUT - 1)
    engine.prepare(asked)
    before = run(engine, OUTPUT - 1)
    points(engine, asked)
    assert plain == before == run(engine, OUTPUT - 1)


def test_nothing_is_compiled_where_the_plain_cell_was_prepared_before() -> None:
    engine, asked = TransformersEngine(request("tiny-llama", "compiled")), drafting("prompt_lookup")
    engine.prepare(PLAIN)
    engine.prepare(asked)
    before = engine.graphs_compiled
    points(engine, asked)
    assert before == engine.graphs_compiled


def test_each_window_runs_its_own_part_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drafter has one pass here, so that a pass of either kind is a call."""
    engine, asked = TransformersEngine(request("tiny-llama", "eager")), drafting("prompt_lookup")
    engine.prepare(asked)
    seen: list[str] = []
    honest, step = Pass.__call__, EagerLoop.step

    def told(self: Pass) -> None:
        seen.append(self._step.__name__)
        honest(self)

    def stepped(self: EagerLoop) -> None:
        seen.append("plain")
        step(self)

    monkeypatch.setattr(Pass, "__call__", told)
    monkeypatch.setattr(EagerLoop, "step", stepped)
    points(engine, asked)
    windows = [(name, len(list(calls))) for name, calls in itertools.groupby(seen)]
    assert [("plain", 4), ("look_up", 4), ("verify", 4)] * 2 == windows  # one ahead of each three is not timed
    assert {"plain": 8, "look_up": 8, "verify": 8} == collections.Counter(seen)


def test_a_drawn_cell_draws_what_it_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = TransformersEngine(request("tiny-llama", "eager")), drafting("early_exit", temperature=1.0)
    engine.prepare(asked)
    engine.draw_from(1)
    before = run(engine, OUTPUT - 1)
    points(engine, asked)
    engine.draw_from(1)
    assert before == run(engine, OUTPUT - 1)


def test_the_plain_loop_goes_with_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = TransformersEngine(request("tiny-llama", "compiled")), drafting("prompt_lookup")
    engine.prepare(asked)
    points(engine, asked)
    closed: list[CompiledLoop] = []

    def told(self: CompiledLoop) -> None:
        closed.append(self)

    monkeypatch.setattr(CompiledLoop, "close", told)
    engine.prepare(PLAIN)
    assert 1 == len(closed)


def test_a_cell_without_drafts_is_refused() -> None:
    engine = TransformersEngine(request("tiny-llama", "eager"))
    engine.prepare(PLAIN)
    with pytest.raises(PlugError, match="rounds of a cell that drafts") as refused:
        points(engine, PLAIN)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passes": 0}, "passes: 0 is no whole number"),
        ({"windows": "3"}, "windows: '3' is no whole number"),
        ({"m": 1}, "unknown m"),
        ({"passes": OUTPUT}, "16 plain steps do not fit"),
    ],
)
def test_a_wrong_option_is_refused_with_a_way_out(options: dict[str, Option], message: str) -> None:
    with pytest.raises(PlugError, match=message) as refused:
        round_parts._read(options, OUTPUT)
    assert refused.value.fix


def test_a_plan_refuses_what_a_trial_would() -> None:
    drafting_cell = CellSpec(
        model=ModelSpec(source="shape:tiny-llama", weights="random"),
        engine=EngineSpec(kind="transformers"),
        speculation=SpeculationSpec(method="prompt_lookup", gamma=GAMMA),
    )
    experiment = ExperimentSpec(kind="round_parts")
    round_parts.check(experiment, drafting_cell)
    with pytest.raises(PlugError, match="rounds of a cell that drafts"):
        round_parts.check(experiment, drafting_cell.model_copy(update={"speculation": "none"}))
    with pytest.raises(PlugError, match="do not fit"):
        round_parts.check(ExperimentSpec(kind="round_parts", options={"passes": 10_000}), drafting_cell)


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    torch._dynamo.reset()
