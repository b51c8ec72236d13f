"""The experiment `verify_cost` on tiny random models: its passes read what they say, and leave the engine as it was."""

from __future__ import annotations

import collections
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.experiments import verify_cost  # noqa: E402
from tokbench.record.observations import ExperimentPoint  # noqa: E402
from tokbench.record.spec import ExperimentSpec, Option  # noqa: E402

WORK = work(rows=2, prompt_tokens=40, output_tokens=8)
QUICK: dict[str, Option] = {"m": "1,2,8", "windows": 2, "passes": 3, "compile_backend": "eager"}


def opened(shape: str, mode: str = "eager") -> TransformersEngine:
    engine = TransformersEngine(request(shape, mode))
    engine.prepare(WORK)
    return engine


def points(engine: TransformersEngine, **options: Option) -> list[ExperimentPoint]:
    spec = ExperimentSpec(kind="verify_cost", options={**QUICK, **options})
    return list(verify_cost.run(engine, WORK, spec, "t"))


def test_windows_of_all_m_take_turns() -> None:
    found = points(opened("tiny-llama"))
    assert [(1, 0), (2, 0), (8, 0), (1, 1), (2, 1), (8, 1)] == [
        (point.settings["m"], point.settings["window"]) for point in found
    ]
    assert len({point.window_id for point in found}) == len(found)
    assert all({"passes": 3} == point.values and point.duration_s > 0 for point in found)
    assert {(2, 32, "none", "host")} == {
        (point.settings["rows"], point.settings["context"], point.settings["graph"], point.stamped_by)
        for point in found
    }


@pytest.mark.parametrize("shape", ["tiny-qwen3-moe", "tiny-deepseek"])
def test_distinct_experts_are_those_that_the_passes_select(shape: str) -> None:
    engine = opened(shape)
    found = {point.settings["m"]: point.values for point in points(engine, windows=1)}
    experts = engine.model.config.num_experts_per_tok
    routed = {values["routed_layers"] for values in found.values()}
    assert 1 == len(routed) and min(routed) > 0
    sums = [found[m]["distinct_experts_sum"] for m in (1, 2, 8)]
    assert sums == sorted(sums) and sums[0] < sums[-1]
    assert experts * min(routed) <= sums[0] <= 2 * experts * min(routed)  # two rows of one token each


def test_a_pass_reads_the_prompts_own_tokens_at_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened("tiny-llama")
    seen: list[tuple[int, int, Any]] = []
    honest = verify_cost._forward

    def watch(model: Any, ids: Any, positions: Any, cache: Any, logits: int) -> Any:
        held = int(cache.get_seq_length())
        result = honest(model, ids, positions, cache, logits)
        seen.append((held, ids.shape[1], result))
        assert ids.tolist() == [list(row[held : held + ids.shape[1]]) for row in WORK.prompts]
        assert [list(range(held, held + ids.shape[1]))] * 2 == positions.tolist()
        return result

    monkeypatch.setattr(verify_cost, "_forward", watch)
    points(engine)
    assert (0, 32) == seen[0][:2]
    assert {(32, 1), (32, 2), (32, 8)} == {(held, tokens) for held, tokens, _ in seen[1:]}
    counted = collections.Counter(tokens for _, tokens, _ in seen[1:])
    assert {1: 10, 2: 10, 8: 10} == counted  # counted once, warmed once, two windows of one untimed and three passes
    with torch.inference_mode():
        whole = engine.model(input_ids=torch.tensor(WORK.prompts), use_cache=False).logits
    last = next(result for _, tokens, result in reversed(seen) if tokens == 8)
    assert torch.allclose(whole[:, 32:], last, atol=1e-4)


def test_compiled_passes_say_so() -> None:
    found = points(opened("tiny-llama", "compiled"), m="1,2", windows=1)
    assert ["compiled", "compiled"] == [point.settings["graph"] for point in found]


def test_the_engine_goes_on_as_if_nothing_had_been() -> None:
    engine = opened("tiny-qwen3-moe")
    before = run(engine, 7)
    points(engine, windows=1)
    assert before == run(engine, 7)
    assert not any(module._forward_pre_hooks for module in engine.model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": "1,two"}, "m: numbers with commas"),
        ({"m": "2,4"}, "set against that of 1 token"),
        ({"m": "1"}, "set against that of 1 token"),
        ({"m": "1,40"}, "40 tokens leave nothing of the prompt"),
        ({"passes": 0}, "passes: 0 is no whole number"),
        ({"windows": "3"}, "windows: '3' is no whole number"),
        ({"pass": 1}, "unknown pass"),
        ({"capture": "no"}, "capture: 'no' is neither"),
    ],
)
def test_a_wrong_option_is_refused_with_a_way_out(options: dict[str, Option], message: str) -> None:
    with pytest.raises(PlugError, match=message) as refused:
        verify_cost._read({**QUICK, **options}, WORK)
    assert refused.value.fix


def test_sliding_windows_are_refused() -> None:
    with pytest.raises(PlugError, match="sliding windows"):
        points(opened("tiny-gpt-oss"))
