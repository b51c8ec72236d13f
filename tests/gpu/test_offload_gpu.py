"""Experts in pinned host memory: copied as they are selected, and the tokens are those of experts on the device."""

from __future__ import annotations

import gc

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or HIP device"),
]

from tiny_engines import request, run, work  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.engines.transformers.offload import HostWeight, OffloadedExperts  # noqa: E402

GPU = "cuda:0"


def opened(share: float, dtype: str = "float32") -> TransformersEngine:
    return TransformersEngine(
        request("tiny-qwen3-moe", "eager", dtype=dtype, device=GPU, options={"resident_experts": share})
    )


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_offloaded_experts_are_pinned_and_make_the_same_tokens(share: float) -> None:
    whole, offloaded = opened(1.0), opened(share)
    try:
        kept = [weight for weight in offloaded.model.parameters() if isinstance(weight, HostWeight)]
        assert kept != []
        assert all(weight.device.type == "cpu" and weight.is_pinned() for weight in kept)
        for engine in (whole, offloaded):
            engine.prepare(work())
        assert run(whole, 23) == run(offloaded, 23)
        assert whole.model_facts == offloaded.model_facts
    finally:
        whole.close()
        offloaded.close()
        gc.collect()


def test_the_device_holds_the_resident_experts_alone() -> None:
    held = {}
    for share in (1.0, 0.25):
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        engine = opened(share, "bfloat16")
        gc.collect()
        held[share] = torch.cuda.memory_allocated() - before
        experts = engine.model_facts.expert_bytes
        engine.close()
    assert experts is not None
    assert held[1.0] - held[0.25] == pytest.approx(0.75 * experts, rel=0.05)


def test_bytes_copied_are_those_of_the_missed_experts() -> None:
    engine = opened(0.25)
    try:
        engine.prepare(work(rows=1))
        layers = engine.touch_experts()
        (module, *_) = [found for found in engine.model.modules() if isinstance(found, OffloadedExperts)]
        assert layers != []
        assert all(count % module.expert_bytes == 0 for layer in layers for count in layer.copied_bytes)
    finally:
        engine.close()
