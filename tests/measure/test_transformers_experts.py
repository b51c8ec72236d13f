"""Routed experts in the transformers engine: kernels against float64, drawn routing against its law, offloading."""

from __future__ import annotations

import errno
import math
import os
import random
import statistics
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import QUICK, request, run, work  # noqa: E402
from tokbench.arithmetic import expected_distinct_experts  # noqa: E402
from tokbench.arithmetic.experts import correlated_distinct_experts, zipf_distinct_experts  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure import load  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.engines.transformers.experts_drawn import TABLE_ROWS, draw_table, list_experts  # noqa: E402
from tokbench.measure.engines.transformers.offload import OffloadedExperts  # noqa: E402
from tokbench.measure.engines.transformers.options import Options, read_options  # noqa: E402
from tokbench.record.observations import ExpertTouches  # noqa: E402

MOE = "tiny-qwen3-moe"
SHAPES = (MOE, "tiny-deepseek", "tiny-gpt-oss")
WITHIN_ERRORS = 4.5
"""A mean of the right law lies further off than this once in 150,000 times."""


def engine(shape: str = MOE, mode: str = "eager", rows: int = 4, **options: object) -> TransformersEngine:
    found = TransformersEngine(request(shape, mode, options={**(QUICK if mode == "compiled" else {}), **options}))
    found.prepare(work(rows))
    return found


def qwen_experts(dtype: torch.dtype, experts: int = 16, width: int = 48, hidden: int = 64) -> Any:
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

    config = Qwen3MoeConfig(hidden_size=hidden, num_experts=experts, moe_intermediate_size=width)
    config._experts_implementation = "grouped_mm"
    module = Qwen3MoeExperts(config).requires_grad_(False)
    for weight in module.parameters():
        weight.normal_(0.0, 0.1)
    return module.to(dtype)


def by_hand(module: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Token by token and expert by expert in float64."""
    gate_up, down = module.gate_up_proj.double(), module.down_proj.double()
    found = torch.zeros(hidden.shape, dtype=torch.float64)
    for token, (experts, shares) in enumerate(zip(chosen.tolist(), weights.double(), strict=True)):
        for expert, share in zip(experts, shares, strict=True):
            gate, up = (gate_up[expert] @ hidden[token].double()).chunk(2)
            found[token] += share * (down[expert] @ (torch.nn.functional.silu(gate) * up))
    return found


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize("way", ["grouped_mm", "batched_mm", "eager", "offloaded, half", "offloaded, one place"])
def test_every_kernel_computes_what_a_loop_in_float64_does(way: str, dtype: torch.dtype, bound: float) -> None:
    seed = random.SystemRandom().randrange(2**32)  # fresh inputs each time; a failure names them
    torch.manual_seed(seed)
    module = qwen_experts(dtype)
    hidden = torch.randn((9, 64)).to(dtype)
    chosen = torch.stack([torch.randperm(16)[:4] for _ in range(9)])
    weights = torch.rand((9, 4)).to(dtype)
    expected = by_hand(module, hidden, chosen, weights)
    if way.startswith("offloaded"):
        module = OffloadedExperts(module, 8 if way.endswith("half") else 1)
    else:
        module.config._experts_implementation = way
    with torch.inference_mode():
        error = (module(hidden, chosen, weights).double() - expected).norm() / expected.norm()

    assert error < bound, f"seed {seed}"


@pytest.mark.parametrize(
    ("options", "law"),
    [
        (Options(routing="uniform"), lambda rows: expected_distinct_experts(32, 4, rows)),
        (Options(routing="zipf", routing_skew=0.5), lambda rows: zipf_distinct_experts(32, 4, rows, 0.5)),
        (Options(routing="zipf", routing_skew=1.0), lambda rows: zipf_distinct_experts(32, 4, rows, 1.0)),
        (Options(routing="correlated", routing_skew=0.6), lambda rows: correlated_distinct_experts(32, 4, rows, 0.6)),
    ],
    ids=["uniform", "zipf 0.5", "zipf 1", "correlated"],
)
@pytest.mark.parametrize("rows", [1, 8, 32])
def test_drawn_tables_follow_their_law(options: Options, law: Any, rows: int) -> None:
    table = draw_table(32, 4, options, torch.Generator().manual_seed(11))
    steps = table.reshape(TABLE_ROWS // rows, -1)
    counts = [float(step.unique().numel()) for step in steps[:2000]]
    error = statistics.stdev(counts) / math.sqrt(len(counts))

    assert abs(statistics.fmean(counts) - law(rows)) <= WITHIN_ERRORS * error + 1e-6
    assert all(len(set(row)) == 4 for row in table[:100].tolist())


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("skew", [0.0, 0.7])
def test_touched_experts_of_drawn_routing_are_within_their_error_of_the_law(mode: str, skew: float) -> None:
    found = TransformersEngine(
        request(
            MOE, mode, options={**(QUICK if mode == "compiled" else {}), "routing": "correlated", "routing_skew": skew}
        )
    )
    found.prepare(work(3, output_tokens=65))
    layers = found.touch_experts()
    counts = [float(count) for layer in layers for count in layer.distinct]
    error = statistics.stdev(counts) / math.sqrt(len(counts))

    assert [64, 64] == [len(layer.distinct) for layer in layers]
    assert abs(statistics.fmean(counts) - correlated_distinct_experts(8, 2, 3, skew)) <= WITHIN_ERRORS * error


def test_both_modes_meet_the_same_drawn_experts() -> None:
    eager, compiled = (engine(mode=mode, routing="zipf", routing_skew=1.0) for mode in ("eager", "compiled"))

    assert run(eager, 23) == run(compiled, 23) == run(compiled, 23)
    assert [layer.distinct for layer in eager.touch_experts()] == [layer.distinct for layer in compiled.touch_experts()]
    assert "routing drawn, not the router's: zipf, skew 1" in eager.facts.notes
    assert run(eager, 23) != run(engine(), 23)


@pytest.mark.parametrize("shape", SHAPES)
def test_touches_are_what_the_experts_are_given(shape: str) -> None:
    """Counted a second time, by hand, from what a hook of this test sees in the measured decode."""
    found = engine(shape, rows=3)
    seen: dict[str, list[int]] = {}
    found.rewind(0)
    found.prefill()
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(len(set(inputs[1].flatten().tolist())))
        )
        for name, module in list_experts(found.model)
    ]
    list(found.decode(23))
    for handle in handles:
        handle.remove()

    assert [tuple(counts) for counts in seen.values()] == [layer.distinct for layer in found.touch_experts()]
    assert all(len(counts) == 23 for counts in seen.values())


@pytest.mark.parametrize("routing", ["own", "uniform"])
def test_looking_leaves_the_cell_as_it_was(routing: str) -> None:
    found = engine(mode="compiled", routing=routing)
    before, graphs = run(found, 23), found.graphs_compiled
    found.touch_experts()

    assert (before, graphs) == (run(found, 23), found.graphs_compiled)


def test_a_dense_model_touches_none() -> None:
    assert [] == engine("tiny-llama").touch_experts()


def test_only_the_first_repetition_is_looked_at() -> None:
    found = engine()
    first, second = (list(load.run_static_batch(found, work(4), "t", is_first)) for is_first in (True, False))
    touches = [event for event in first if isinstance(event, ExpertTouches)]

    assert [0, 1] == [event.layer for event in touches]
    assert (4, 8, 23) == (touches[0].rows, touches[0].experts, len(touches[0].distinct))
    assert not any(isinstance(event, ExpertTouches) for event in second)
    closed = max(index for index, event in enumerate(first) if event.event == "window_closed")
    assert closed < first.index(touches[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_offloaded_experts_make_the_same_tokens(shape: str, share: float) -> None:
    whole, offloaded = engine(shape), engine(shape, resident_experts=share)

    assert run(whole, 23) == run(offloaded, 23)
    assert whole.model_facts == offloaded.model_facts
    assert f"experts resident: {4 if share else 1} of 8" in offloaded.facts.notes[0]


def test_copied_bytes_are_those_of_the_experts_that_were_not_there() -> None:
    layers = engine(rows=1, routing="uniform", resident_experts=0.25).touch_experts()
    one = 3 * 64 * 32 * 4  # gate, up and down of one expert in float32

    assert {0, one, 2 * one} >= {copied for layer in layers for copied in layer.copied_bytes}
    assert all(len(layer.copied_bytes) == len(layer.distinct) for layer in layers)
    share = statistics.fmean(copied for layer in layers for copied in layer.copied_bytes) / (2 * one)
    assert 0.5 < share < 0.95  # two places for two of eight: three in four are missed
    assert () == engine().touch_experts()[0].copied_bytes


def test_the_least_recently_used_expert_gives_way() -> None:
    module = OffloadedExperts(qwen_experts(torch.float32), 2)
    hidden, weights = torch.zeros((1, 64)), torch.ones((1, 1))
    copied = []
    for expert in (0, 1, 0, 2, 0, 1):
        module(hidden, torch.tensor([[expert]]), weights)
        copied.append(module.copied_bytes // module.expert_bytes)

    assert [0, 0, 0, 1, 0, 1] == copied


def test_a_disk_without_room_for_the_experts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped page that cannot be written ends the process by a signal."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PlugError, match="a layer's experts need .* No space left on device") as told:
        engine(resident_experts=0.5)
    assert "TMPDIR" in (told.value.fix or "")


@pytest.mark.parametrize(
    ("shape", "mode", "options", "named"),
    [
        ("tiny-llama", "eager", {"routing": "uniform"}, "engine.options.routing: .*routed experts"),
        ("tiny-llama", "eager", {"resident_experts": 0.5}, "engine.options.resident_experts: .*dense"),
        (MOE, "compiled", {"resident_experts": 0.5, **QUICK}, "cannot wait for experts"),
    ],
)
def test_options_of_experts_that_cannot_be_are_refused(
    shape: str, mode: str, options: dict[str, object], named: str
) -> None:
    with pytest.raises(PlugError, match=named):
        TransformersEngine(request(shape, mode, options=options))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"routing": "zip"}, "there is no 'zip'"),
        ({"routing": "uniform", "routing_skew": 1.0}, "has no skew"),
        ({"routing": "correlated", "routing_skew": 1.5}, "out of range"),
        ({"routing": "zipf", "routing_skew": -1.0}, "out of range"),
        ({"resident_experts": 1.5}, "no share"),
        ({"resident_experts": -0.1}, "no share"),
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(PlugError, match=named):
        read_options(options)


@pytest.mark.parametrize(
    ("mode", "kernel", "is_loop"),
    [
        ("eager", "grouped_mm", False),
        ("eager", "batched_mm", False),
        ("eager", "eager", True),
        ("compiled", "grouped_mm", True),
        ("compiled", "batched_mm", False),
    ],
)
def test_a_loop_over_experts_is_told(mode: str, kernel: str, is_loop: bool) -> None:
    found = TransformersEngine(request(MOE, mode, experts=kernel))
    found.prepare(work(2, output_tokens=4))

    assert kernel == found.facts.experts_kernel
    assert is_loop == any("a loop over experts in Python" in note for note in found.facts.notes)
