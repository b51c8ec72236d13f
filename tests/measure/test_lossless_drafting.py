"""The experiment `lossless` on the real loop and a tiny model: the same comes out, and the lossy control is found."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.derive.lossless import g_test  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.experiments import lossless  # noqa: E402
from tokbench.record.observations import ExperimentPoint  # noqa: E402
from tokbench.record.spec import ExperimentSpec, Option, SpeculationSpec  # noqa: E402

WORK = work(rows=3, prompt_tokens=24, output_tokens=20)
PROMPTS = tuple(tuple(token % 16 for token in row) for row in WORK.prompts)
"""Few tokens that come again, so that a look-up in the prompt finds something."""
EARLY_EXIT = SpeculationSpec(method="early_exit", gamma=2, options={"layers": 1})
LOOKUP = SpeculationSpec(method="prompt_lookup", gamma=3)
OPTIONS: dict[str, Option] = {"draws": 1000, "draw_rows": 50, "temperature": 0.05}
"""So cold that a random model prefers few tokens: its logits lie within some hundredths."""


def points(speculation: SpeculationSpec, **options: Option) -> list[ExperimentPoint]:
    engine = TransformersEngine(request("tiny-llama", overrides={"vocab_size": 64}))
    asked = dataclasses.replace(WORK, prompts=PROMPTS, speculation=speculation, seed=11)
    engine.prepare(asked)
    before = run(engine, asked.output_tokens - 1)
    spec = ExperimentSpec(kind="lossless", options={**OPTIONS, **options})
    found = list(lossless.run(engine, asked, spec, "t"))
    assert before == run(engine, asked.output_tokens - 1)
    engine.close()
    return found


def parted(found: list[ExperimentPoint], check: str) -> list[ExperimentPoint]:
    of_check = [point for point in found if point.settings["check"] == check]
    assert 3 == len(of_check) and {20} == {point.values["compared"] for point in of_check}
    return [point for point in of_check if point.values["matched"] < 20]


@pytest.mark.parametrize("speculation", [EARLY_EXIT, LOOKUP], ids=["early exit", "prompt lookup"])
def test_a_lossless_rule_changes_nothing_and_a_lossy_one_is_found(speculation: SpeculationSpec) -> None:
    found = points(speculation, draws=0)
    assert [] == parted(found, "greedy") == parted(found, "batch")
    lossy = parted(found, "lossy")
    assert lossy and all(point.values["top2_gap"] > 1e-4 for point in lossy)


def test_draws_follow_one_distribution_and_those_of_the_lossy_rule_another() -> None:
    found = {point.settings.get("arm"): point.values for point in points(EARLY_EXIT)}
    drafted, lossy = (g_test(found["plain"], found[arm]) for arm in ("speculative", "lossy"))
    assert drafted is not None and lossy is not None
    assert drafted.p_value > 0.001 > lossy.p_value
    assert drafted.draws > 300 and drafted.degrees > 2
