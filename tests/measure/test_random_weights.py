"""Random weights: the numbers that a seed gives, whatever the cores, and the one stretch of memory that they lie in."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request  # noqa: E402
from tokbench.measure.engines.transformers import loading, streamed  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402

WIDTH = 1536
"""Of a square weight: nine pieces."""


class Weights(torch.nn.Module):
    """A matrix of several pieces, one of a part of a piece, and a norm; empty, as a model is before it is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Parameter(torch.full((WIDTH, WIDTH), torch.nan))
        self.narrow = torch.nn.Parameter(torch.full((7, 33), torch.nan))
        self.norm = torch.nn.Parameter(torch.full((64,), torch.nan))


def drawn(seed: int, threads: int) -> Weights:
    found, before = Weights(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loading.draw_weights(found, seed)
    finally:
        torch.set_num_threads(before)
    return found


def same(one: Any, other: Any) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]


def test_a_seed_gives_the_same_numbers_on_any_number_of_cores() -> None:
    assert [True, True, True] == same(drawn(3, threads=1), drawn(3, threads=4))


def test_another_seed_gives_other_numbers() -> None:
    assert [False, False, True] == same(drawn(3, threads=1), drawn(4, threads=1))


def test_a_weight_by_itself_is_the_one_in_the_model() -> None:
    """Quantised models are drawn layer by layer, and must be the full ones of the same seed."""
    alone = torch.empty(WIDTH, WIDTH)
    loading.draw_weight(3, "wide", alone)
    assert torch.equal(drawn(3, threads=1).wide, alone)


def test_pieces_are_drawn_apart_and_norms_are_ones() -> None:
    found = drawn(1, threads=2)
    pieces = found.wide.detach().reshape(-1).split(loading.PIECE)
    assert 9 == len(pieces)
    assert 9 == len({tuple(piece[:4].tolist()) for piece in pieces})
    assert torch.equal(torch.ones(64), found.norm)


def test_numbers_have_the_spread_that_was_asked_for() -> None:
    """2.4 million numbers: the standard error of their mean is 1.3e-5, of their deviation 9.2e-6."""
    wide = drawn(2, threads=2).wide.detach().double()
    assert pytest.approx(0.0, abs=6e-5) == wide.mean().item()
    assert pytest.approx(loading.RANDOM_SCALE, abs=5e-5) == wide.std().item()


def test_weights_are_drawn_where_they_stay() -> None:
    """They were drawn one by one, then copied side by side: every page was got twice."""
    model = Weights()
    streamed.allocate_in_large_pages(model)
    loading.draw_weights(model, 1)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    stretch = streamed.move_to_large_pages(model)
    assert stretch is not None
    assert places == [parameter.data_ptr() for parameter in model.parameters()]
    assert stretch.data_ptr() == places[0]
    assert stretch.numel() == sum(-(-p.numel() * 4 // 64) * 64 for p in model.parameters())


def test_weights_that_lie_apart_are_moved_as_they_are() -> None:
    model = Weights()
    streamed.allocate_in_large_pages(model)
    loading.draw_weights(model, 1)
    model.narrow = torch.nn.Parameter(model.narrow.detach().clone())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    stretch = streamed.move_to_large_pages(model)
    assert stretch is not None
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert {stretch.data_ptr()} == storages
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(("share", "is_in_place"), [(1.0, True), (0.5, False)])
def test_experts_that_move_away_leave_no_pages_behind(
    monkeypatch: pytest.MonkeyPatch, share: float, is_in_place: bool
) -> None:
    asked = []
    monkeypatch.setattr(streamed, "allocate_in_large_pages", asked.append)
    TransformersEngine(request("tiny-qwen3-moe", "eager", options={"resident_experts": share})).close()
    assert is_in_place == bool(asked)


TIED: dict[str, object] = {"tie_word_embeddings": True, "vocab_size": 16384}
"""Large enough for large pages: a tied matrix must have one place there."""


def test_a_tied_head_is_the_embedding_and_every_weight_is_drawn() -> None:
    model = loading.load_model(request(overrides=TIED))
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding
    weights = dict(model.named_parameters())
    assert {embedding.untyped_storage().data_ptr()} == {w.untyped_storage().data_ptr() for w in weights.values()}
    for name, weight in weights.items():
        spread = 0.0 if "norm" in name else loading.RANDOM_SCALE
        assert pytest.approx(spread, rel=0.1) == weight.double().std().item(), name


def test_quantised_weights_are_rounded_from_the_same_numbers() -> None:
    """What is set beside each other must differ in its rounding alone."""
    pytest.importorskip("torchao")
    wide, narrow = (loading.load_model(request(dtype=dtype, overrides=TIED)) for dtype in ("float32", "int8"))
    assert torch.equal(wide.get_input_embeddings().weight, narrow.get_input_embeddings().weight)
    ours, theirs = (model.model.layers[-1].mlp.down_proj.weight for model in (wide, narrow))
    assert theirs.dequantize().sub(ours).abs().max() < 4 * loading.RANDOM_SCALE / 100
