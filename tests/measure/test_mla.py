"""DeepSeek-V3's attention three ways on its tiny shape: the same tokens, other caches, and clear refusals."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure import latent  # noqa: E402
from tokbench.measure.engines.transformers import attention, mla  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import find_model  # noqa: E402
from tokbench.record.spec import EngineSpec  # noqa: E402

MODES = ("eager", "compiled")
PROMPTS = (12, 300)
"""One that tiny-deepseek could absorb in one pass, and one whose cache is longer than a piece."""
ROW_BYTES = {"mla_expanded": 3 * 4 * (24 + 16) * 4, "mla_latent": 3 * (32 + 8) * 4, "mla_absorbed": 3 * (32 + 8) * 4}
"""Layers, heads and widths of tiny-deepseek in float32."""


def _open(way: str | None, mode: str, prompt: int = 12, output: int = 24) -> TransformersEngine:
    engine = TransformersEngine(request("tiny-deepseek", mode, attention=way))
    engine.prepare(work(rows=2, prompt_tokens=prompt, output_tokens=output))
    return engine


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", attention.LATENT_WAYS)
def test_tokens_are_those_of_generate(way: str, mode: str) -> None:
    engine = _open(way, mode)
    found = engine.check_identity(24)
    assert found is not None and (24, None) == (found.tokens_compared, found.first_divergence)
    assert type(engine.model.model.layers[0].self_attn) is mla.WAYS[way]  # the check put back what it took off
    assert way == engine.facts.attention_kernel


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("way", ["mla_expanded", "mla_absorbed"])
def test_every_row_decodes_as_with_transformers_own_attention(way: str, prompt: int) -> None:
    theirs = run(_open(None, "eager", prompt), 23)
    for mode in MODES:
        assert theirs == run(_open(way, mode, prompt), 23), mode
    assert len(set(theirs[0])) > 5 and theirs[0] != theirs[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", attention.LATENT_WAYS)
def test_the_cache_holds_what_its_way_needs(way: str, mode: str) -> None:
    engine = TransformersEngine(request("tiny-deepseek", mode, attention=way))
    prepared = engine.prepare(work(rows=3))
    assert prepared.cache_rows is not None
    assert 3 * prepared.cache_rows * ROW_BYTES[way] == prepared.kv_bytes_allocated


@pytest.mark.parametrize("chunk", [8, 32])
def test_chunks_are_absorbed_as_far_as_it_pays(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(_open(None, "eager", 96), 23)
    passes: list[int] = []
    honest = mla.attend_latents

    def heard(layer: object, new: mla.Projected, *rest: object) -> object:
        passes.append(new.query.shape[2])
        return honest(layer, new, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(mla, "attend_latents", heard)
    engine = TransformersEngine(
        request("tiny-deepseek", "eager", attention="mla_absorbed", options={"prefill_chunk": chunk})
    )
    engine.prepare(work(prompt_tokens=96))
    passes.clear()
    assert plain == run(engine, 23)
    layers, absorbed_chunks = 3, 11 if chunk == 8 else 0  # the first has no mask; from 32 tokens on expanding is less
    assert [chunk] * absorbed_chunks * layers == [tokens for tokens in passes if tokens > 1]
    assert 23 * layers == passes.count(1)


@pytest.mark.parametrize("cached", [256, 700, 768])
def test_attention_over_latents_against_float64(cached: int) -> None:
    """Weights so large that attention is far from even: tokens of random weights would hide a wrong scale."""
    layer = TransformersEngine(request("tiny-deepseek")).model.model.layers[0].self_attn
    torch.manual_seed(1)
    layer.kv_b_proj.weight.data.normal_()
    rows, heads, nope, rope, rank = 2, 4, 16, 8, 32
    new = mla.Projected(
        *(torch.randn(shape) for shape in ((rows, heads, 2, nope), (rows, heads, 2, rope))), *[None] * 2
    )
    latents, keys = torch.randn(rows, 1, cached, rank), torch.randn(rows, 1, cached, rope)
    mask = torch.rand(rows, 1, 2, cached) > 0.3
    found = mla.attend_latents(layer, new, latents, keys, mask)
    wide = (latents[:, 0].double() @ layer.kv_b_proj.weight.double().T).view(rows, cached, heads, -1).transpose(1, 2)
    scores = new.query.double() @ wide[..., :nope].transpose(2, 3) + new.rotated_query.double() @ keys.double().mT
    shares = torch.softmax((scores * layer.scaling).masked_fill(~mask, float("-inf")), -1)
    assert shares.max() > 0.2
    torch.testing.assert_close(found.double(), shares @ wide[..., nope:], rtol=2e-5, atol=2e-5)


def test_a_model_without_latent_attention_is_refused() -> None:
    with pytest.raises(PlugError, match="mla_absorbed is for DeepSeek-V3's latent attention") as refused:
        TransformersEngine(request("tiny-llama", attention="mla_absorbed"))
    assert refused.value.fix is not None and "leave engine.attention out" in refused.value.fix


def test_the_plan_refuses_it_before_any_device_is_touched() -> None:
    assert latent.WAYS == tuple(dict.fromkeys(latent.WAYS)) and set(latent.WAYS) == set(attention.LATENT_WAYS)
    spec = EngineSpec(kind="transformers", mode="eager", attention="mla_expanded")
    latent.check_latent(spec, "kv-mla", find_model("kv-mla").config)
    latent.check_latent(EngineSpec(kind="transformers", mode="eager"), "tiny-llama", find_model("tiny-llama").config)
    with pytest.raises(PlugError, match="mla_expanded is for .* and tiny-llama has none of it"):
        latent.check_latent(spec, "tiny-llama", find_model("tiny-llama").config)


def test_the_identity_check_finds_a_wrong_absorption(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = mla.attend_latents

    def off(layer: object, new: mla.Projected, *rest: object) -> object:
        return honest(layer, new, *rest).neg() * 50  # type: ignore[arg-type,attr-defined]

    monkeypatch.setattr(mla, "attend_latents", off)
    found = _open("mla_absorbed", "eager").check_identity(24)
    assert found is not None and found.first_divergence is not None
