"""DeepSeek-V3's attention three ways on a GPU: captured graphs that make the tokens of transformers' own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or HIP device"),
]

from tiny_engines import request, run, work  # noqa: E402
from tokbench.measure.engines.transformers import attention  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402

GPU = "cuda:0"


@pytest.mark.parametrize("way", attention.LATENT_WAYS)
def test_every_way_is_captured_and_makes_the_tokens_of_transformers_own(way: str) -> None:
    found = {}
    for mode, kernel in (("eager", None), ("eager", way), ("compiled", way)):
        options = {"coordinate_descent": False} if mode == "compiled" else {}
        engine = TransformersEngine(
            request("tiny-deepseek", mode, dtype="float32", device=GPU, attention=kernel, options=options)
        )
        engine.prepare(work(prompt_tokens=300))
        found[mode, kernel] = run(engine, 23)
        if mode == "compiled":
            assert engine.facts.cuda_graphs is True, engine.facts.notes
        engine.close()
    assert found["eager", None] == found["eager", way] == found["compiled", way]


@pytest.mark.parametrize("way", attention.LATENT_WAYS)
def test_a_prefill_holds_no_score_of_every_pair_of_tokens(way: str) -> None:
    """Four heads at 8,192 tokens: one layer's scores in bfloat16 would be 537 MB, in float32 twice that."""
    long = {"max_position_embeddings": 16384}
    engine = TransformersEngine(
        request("tiny-deepseek", "eager", dtype="bfloat16", device=GPU, attention=way, overrides=long)
    )
    engine.prepare(work(rows=1, prompt_tokens=8192, output_tokens=4))
    engine.rewind(0)
    engine.prefill()
    (peak,) = (reading.value_bytes for reading in engine.memory() if reading.source == "allocator_peak")
    assert peak < 400_000_000
    engine.close()
