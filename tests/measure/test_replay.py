"""Generated kernels replayed as one call: the same results as the wrapper, and refused where more than kernels ran."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo.utils
from torch.nn.functional import silu

from tiny_engines import request, work
from tokbench.errors import TrialError
from tokbench.measure.engines.transformers import replay
from tokbench.measure.engines.transformers.engine import TransformersEngine
from tokbench.measure.engines.transformers.launches import InductorBackend, Launch


@pytest.fixture(autouse=True)
def uncounted() -> Iterator[None]:
    """Leave no compiled graph behind: other tests of this process count theirs."""
    yield
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def launch_of(step: object, *arguments: torch.Tensor) -> Launch:
    backend = InductorBackend({})
    compiled = torch.compile(step, backend=backend, fullgraph=True, dynamic=False)  # type: ignore[call-overload]
    with torch.inference_mode():
        return backend.hear(lambda: compiled(*arguments))


def advance(state: torch.Tensor, weight: torch.Tensor) -> None:
    hidden = (state * weight).sum(-1)
    state.copy_(silu(hidden) / hidden.abs().sum() + state.mean(0))


def test_a_replay_goes_on_from_the_state_that_the_wrapper_left() -> None:
    state, weight = torch.randn(32), torch.randn(32, 32)
    other = state.clone()
    launch = launch_of(advance, state, weight)  # runs it once
    recorded = replay.record(launch)  # and once more
    recorded()
    recorded()
    for _ in range(4):
        advance(other, weight)
    assert torch.allclose(state, other, atol=1e-6)
    assert recorded.kernels >= 1


def test_the_buffers_of_a_replay_stay_its_own() -> None:
    state, weight = torch.randn(32), torch.randn(32, 32)
    recorded = replay.record(launch_of(advance, state, weight))
    other = state.clone()
    gc.collect()
    filler = [torch.full((32,), float("nan")) for _ in range(1000)]
    recorded()
    advance(other, weight)
    assert torch.allclose(state, other, atol=1e-6)
    assert all(bool(piece.isnan().all()) for piece in filler)


def test_a_step_that_calls_a_library_is_refused_by_name() -> None:
    def multiply(state: torch.Tensor, weight: torch.Tensor) -> None:
        state.copy_(state @ weight)

    launch = launch_of(multiply, torch.randn(64, 64), torch.randn(64, 64))
    with pytest.raises(replay.NotReplayableError, match="mm"):
        replay.record(launch)


def test_recording_leaves_the_wrappers_as_they_were() -> None:
    from torch._inductor.codecache import PyCodeCache

    replay.record(launch_of(advance, torch.randn(32), torch.randn(32, 32)))
    replaced = [
        (module.__name__, name)
        for module in PyCodeCache.modules
        for name, value in vars(module).items()
        if name in ("empty_strided_cpu", "reinterpret_tensor") and not type(value).__name__.startswith("builtin")
    ]
    assert not replaced


def test_a_place_given_back_is_taken_again_unless_a_view_holds_it() -> None:
    arena = replay._Arena()
    first = arena.empty_strided((8,), (1,), torch.float32)
    at = first.data_ptr()
    second = arena.empty_strided((8,), (1,), torch.float32)
    assert second.data_ptr() != at
    del first
    gc.collect()
    assert arena.empty_strided((2, 4), (4, 1), torch.float32).data_ptr() == at


class OnceRight:
    """A recording that does its first step and none after it."""

    kernels = 1

    def __init__(self, launch: Callable[[], object]) -> None:
        self.launch = launch
        self.steps = 0

    def __call__(self) -> None:
        self.steps += 1
        if self.steps == 1:
            self.launch()


def test_a_recording_that_is_right_for_one_step_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"compile_backend": "inductor"}
    engine = TransformersEngine(request("tiny-llama", "compiled", options=options, overrides={"num_hidden_layers": 1}))
    monkeypatch.setattr(replay, "record", OnceRight)
    with pytest.raises(TrialError, match="the replayed kernels do not do what the generated code does"):
        engine.prepare(work(rows=1))
