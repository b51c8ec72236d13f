"""Distinct experts under routing of a known law: by hand, by enumeration, and at the ends of each law."""

from __future__ import annotations

import itertools

import pytest

from tokbench.arithmetic import count_parameters, expected_distinct_experts
from tokbench.arithmetic.experts import correlated_distinct_experts, selection_chances, zipf_distinct_experts
from tokbench.errors import SpecError
from tokbench.record.catalog import find_model, shape_from_config


def chances_by_enumeration(experts: int, count: int, exponent: float) -> list[float]:
    """Every order in which `count` experts can be drawn, with its probability."""
    weights = [(rank + 1) ** -exponent for rank in range(experts)]
    chances = [0.0] * experts
    for order in itertools.permutations(range(experts), count):
        probability, left = 1.0, sum(weights)
        for expert in order:
            probability *= weights[expert] / left
            left -= weights[expert]
        for expert in order:
            chances[expert] += probability
    return chances


@pytest.mark.parametrize(("experts", "count", "exponent"), [(4, 1, 1.0), (5, 2, 1.0), (6, 3, 0.5), (5, 4, 2.0)])
def test_chances_are_those_of_every_order_of_drawing(experts: int, count: int, exponent: float) -> None:
    expected = chances_by_enumeration(experts, count, exponent)
    assert expected == pytest.approx(selection_chances(experts, count, exponent), abs=1e-6)


def test_an_exponent_of_nought_is_even_routing() -> None:
    assert zipf_distinct_experts(32, 4, 8, 0.0) == pytest.approx(expected_distinct_experts(32, 4, 8), rel=1e-6)
    assert [1.0, 1.0, 1.0] == selection_chances(3, 3, 1.0)


def test_skew_touches_fewer_experts() -> None:
    even, half, whole = (zipf_distinct_experts(128, 8, 16, exponent) for exponent in (0.0, 0.5, 1.0))
    assert whole < half < even


def test_tokens_that_are_alike_touch_what_one_of_them_does() -> None:
    assert 4.0 == pytest.approx(correlated_distinct_experts(32, 4, 64, 1.0))
    assert correlated_distinct_experts(32, 4, 64, 0.0) == pytest.approx(expected_distinct_experts(32, 4, 64))
    # Two rows: the second draws with probability 0.75, and half of the two that it takes are new in the mean.
    assert 2 + 0.75 * (2 * 2 / 4) == pytest.approx(correlated_distinct_experts(4, 2, 2, 0.25))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="probability"):
        correlated_distinct_experts(8, 2, 2, 1.5)
    with pytest.raises(ValueError, match="only 8 experts"):
        selection_chances(8, 9, 1.0)
    with pytest.raises(ValueError, match="rows"):
        zipf_distinct_experts(8, 2, 0, 1.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_experts_per_tok": 33}, "33 experts per token, but there are only 32"),
        ({"num_experts_per_tok": 0}, "experts_per_token must be at least 1"),
        ({"num_attention_heads": 9}, "9 query heads do not divide over 8 kv heads"),
        ({"moe_intermediate_size": -1}, "moe_intermediate_size must be a whole number"),
    ],
)
def test_a_shape_that_contradicts_itself_is_refused(change: dict[str, int], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        shape_from_config({**find_model("cpu-moe").config, **change}, "cpu-moe")


TRIPLES = (
    ("cpu-moe", "cpu-dense-active", "cpu-dense-total"),
    ("Qwen3-30B-A3B", "qwen3-30b-dense-active", "qwen3-30b-dense-total"),
)


@pytest.mark.parametrize("names", TRIPLES, ids=lambda names: names[0])
def test_a_triple_differs_in_its_feed_forward_alone(names: tuple[str, str, str]) -> None:
    moe, active, total = (find_model(name).shape for name in names)
    counts = [count_parameters(shape) for shape in (moe, active, total)]
    assert moe.experts is not None

    assert 1 == len({(c.attention, c.input_embedding, c.head, c.norms) for c in counts})
    assert counts[0].experts == counts[2].feed_forward_dense
    assert counts[0].read_per_token - counts[0].router == counts[1].read_per_token
    ratio = counts[2].read_per_token / counts[0].read_per_token
    assert {"cpu-moe": 6.24, "Qwen3-30B-A3B": 9.93}[names[0]] == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize(
    "names", [("cpu-moe-8x1", "cpu-moe", "cpu-moe-128x16"), ("qwen3-30b-16x1", "qwen3-30b-64x4", "Qwen3-30B-A3B")]
)
def test_grain_changes_neither_bytes_nor_the_share_at_work(names: tuple[str, ...]) -> None:
    counts = [count_parameters(find_model(name).shape) for name in names]
    assert 1 == len({(c.experts, c.active - c.router) for c in counts})
