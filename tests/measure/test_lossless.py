"""The experiment `lossless`: what it compares and counts, on an engine that makes the tokens it is told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from scripted_measure import engine_request, work
from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, Prepared, Step
from tokbench.measure.engines.fake import FakeScript, FakeStepEngine
from tokbench.measure.experiments import lossless
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import ExperimentSpec, Option, SpeculationSpec

DRAFTING = SpeculationSpec(method="early_exit", gamma=3)
WORK = dataclasses.replace(work(rows=3, prompt_tokens=10, output_tokens=6), speculation=DRAFTING)


class ToldEngine(FakeStepEngine):
    """Makes 10, 11, 12 … in every row; what it is told to change, it changes."""

    def __init__(self) -> None:
        super().__init__(engine_request(), FakeScript(step_s=0.01))
        self.prepared: list[CellWork] = []
        self.greedy: dict[str, dict[int, tuple[int, ...]]] = {}
        """By kind of work (plain, lossless, top3, batch), the tokens of a row from its first on."""
        self.drawn: dict[str, list[tuple[int, int]]] = {}
        """By kind of work, what each decode draws behind the first token, over and over."""
        self._draws = 0

    @property
    def _kind(self) -> str:
        asked = self.prepared[-1]
        if asked.speculation is not None:
            return asked.speculation.accept
        return "batch" if asked.rows > 3 and not asked.temperature else "plain"

    def prepare(self, work: CellWork) -> Prepared:
        self.prepared.append(work)
        self._draws = 0
        return super().prepare(dataclasses.replace(work, speculation=None))

    def decode(self, steps: int) -> Iterator[Step]:
        self._draws += 1
        return super().decode(steps)

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        asked = self.prepared[-1]
        if asked.temperature:
            told = self.drawn[self._kind]
            return tuple((10 + row % 2, *told[self._draws % len(told)]) for row in range(asked.rows))
        plain = tuple(range(10, 10 + asked.output_tokens))
        told_rows = self.greedy.get(self._kind, {})
        return tuple((*told_rows.get(row, ()), *plain)[: asked.output_tokens] for row in range(asked.rows))


def run(engine: ToldEngine, asked: CellWork = WORK, **options: Option) -> list[ExperimentPoint]:
    options.setdefault("draws", 0)
    return list(lossless.run(engine, asked, ExperimentSpec(kind="lossless", options=options), "t"))


def matched(points: list[ExperimentPoint], check: str) -> list[int | float]:
    return [point.values["matched"] for point in points if point.settings["check"] == check]


def test_the_same_tokens_agree_to_the_end() -> None:
    points = run(ToldEngine())
    assert [6, 6, 6] == matched(points, "greedy") == matched(points, "lossy") == matched(points, "batch")
    assert {6} == {point.values["compared"] for point in points}
    assert [0, 1, 2] == [point.settings["row"] for point in points if point.settings["check"] == "greedy"]


def test_each_check_tells_where_a_row_first_differs() -> None:
    engine = ToldEngine()
    engine.greedy = {"lossless": {1: (10, 11, 99)}, "top3": {0: (98,)}, "batch": {2: (10, 97)}}
    points = run(engine)
    assert [6, 2, 6] == matched(points, "greedy")
    assert [0, 6, 6] == matched(points, "lossy")
    assert [6, 6, 1] == matched(points, "batch")
    assert not any("top2_gap" in point.values for point in points)  # a script has no logits


def test_work_is_that_of_the_cell_but_for_what_is_compared() -> None:
    engine = ToldEngine()
    points = run(engine, dataclasses.replace(WORK, temperature=0.7), control_rows=5)
    plain, drafted, lossy, batch, last = engine.prepared
    assert (None, 0.0, 3) == (plain.speculation, plain.temperature, plain.rows)
    assert (DRAFTING, 0.0) == (drafted.speculation, drafted.temperature)
    assert lossy.speculation == SpeculationSpec(method="early_exit", gamma=3, accept="top3")
    assert (None, (*WORK.prompts, *WORK.prompts[:2])) == (batch.speculation, batch.prompts)
    assert last == dataclasses.replace(WORK, temperature=0.7)  # the engine ends as it was found
    assert {5} == {point.settings["rows"] for point in points if point.settings["check"] == "batch"}


def test_a_generation_is_timed_without_its_preparation() -> None:
    [first, *_] = run(ToldEngine())
    assert pytest.approx(0.0001 * 10 * 3 + 5 * 0.01) == first.duration_s
    assert "script" == first.stamped_by


def test_draws_are_counted_under_their_first_token() -> None:
    engine = ToldEngine()
    engine.drawn = {"plain": [(1, 2)], "lossless": [(1, 2), (1, 3)], "top3": [(9, 9)]}
    points = [point for point in run(engine, draws=8, draw_rows=2) if point.settings["check"] == "sampled"]
    assert ["plain", "speculative", "lossy"] == [point.settings["arm"] for point in points]
    assert [
        {"10 1 2": 4, "11 1 2": 4},
        {"10 1 2": 2, "10 1 3": 2, "11 1 2": 2, "11 1 3": 2},
        {"10 9 9": 4, "11 9 9": 4},
    ] == [point.values for point in points]


def drawing_engine() -> ToldEngine:
    engine = ToldEngine()
    engine.drawn = {kind: [(1, 2)] for kind in ("plain", "lossless", "top3")}
    return engine


def test_draws_begin_behind_the_first_prompts_at_the_temperature() -> None:
    engine = drawing_engine()
    points = run(engine, draws=3, draw_rows=2, prefixes=2, temperature=0.5)
    drawn = [asked for asked in engine.prepared if asked.temperature]
    first, second, _ = WORK.prompts
    assert [(first, first, second, second)] * 3 == [asked.prompts for asked in drawn]
    assert [(3, 0.5)] * 3 == [(asked.output_tokens, asked.temperature) for asked in drawn]
    assert [None, 2, 2] == [asked.speculation and asked.speculation.gamma for asked in drawn]  # no third is counted
    counted = [point for point in points if point.settings["check"] == "sampled"]
    assert [0, 1] * 3 == [point.settings["row"] for point in counted]
    assert [asked.seed for asked in drawn for _ in range(2)] == [point.settings["seed"] for point in counted]
    assert [4] * 6 == [sum(point.values.values()) for point in counted]
    assert 6 == len({point.window_id for point in counted})


def test_every_repetition_and_arm_draws_from_a_seed_of_its_own() -> None:
    """Where the same prompts come round again the same random numbers would count the same draws twice."""
    seeds = set()
    for trial_id in ("cell-1", "cell-2"):
        engine = drawing_engine()
        list(lossless.run(engine, WORK, ExperimentSpec(kind="lossless", options={"draws": 2}), trial_id))
        seeds |= {asked.seed for asked in engine.prepared if asked.temperature}
    assert 6 == len(seeds)


def test_another_batch_can_be_left_out() -> None:
    points = run(ToldEngine(), control_rows=0)
    assert {"greedy", "lossy"} == {point.settings["check"] for point in points}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speculation": None}, "the cell has none"),
        ({"speculation": SpeculationSpec(method="replay")}, "its tokens are not the model's"),
        ({"speculation": SpeculationSpec(method="mtp", accept="top3")}, "lossy from the outset"),
    ],
    ids=["none", "replay", "lossy"],
)
def test_a_cell_that_cannot_be_lossless_is_refused(changes: dict[str, SpeculationSpec | None], message: str) -> None:
    with pytest.raises(PlugError, match=message) as refused:
        run(ToldEngine(), dataclasses.replace(WORK, **changes))
    assert refused.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draw": 4}, "unknown draw"),
        ({"draws": -1}, "draws: -1 is no whole number from 0 on"),
        ({"draw_rows": 0}, "draw_rows: 0"),
        ({"draw_rows": "8"}, "draw_rows: '8'"),
        ({"temperature": 0.0}, "temperature: draws need a number above 0"),
        ({"control_rows": 3}, "control_rows: 3 is no larger than the cell's own static batch"),
        ({"control_rows": -1}, "control_rows: -1 is no whole number from 0 on"),
        ({"prefixes": 4}, "prefixes: the cell has 3 prompts at a time, not 4"),
    ],
)
def test_a_wrong_option_is_refused_with_a_way_out(options: dict[str, Option], message: str) -> None:
    with pytest.raises(PlugError, match=message) as refused:
        run(ToldEngine(), **options)
    assert refused.value.fix
