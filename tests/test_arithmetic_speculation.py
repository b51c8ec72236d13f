"""Speculative decoding in closed form: NVIDIA's published pair, and the acceptance that a speed-up needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.arithmetic import bytes_read_per_step, implied_alpha, precision_on, speculative_speedup
from tokbench.record.catalog import find_model


def test_the_pair_of_one_h200_is_predicted() -> None:
    """Llama-3.3-70B in fp8 with a draft of 1B in bf16: published 181.74 over 51.14 tokens/s, 3.55.

    The draft cost 0.036 is rounded: 3.52 with it, 3.53 with that of the two models' bytes.
    """
    assert 3.53 == pytest.approx(speculative_speedup(0.85, 5, 0.036), rel=0.005)
    target, draft = find_model("Llama-3.3-70B-Instruct").shape, find_model("Llama-3.2-1B-Instruct").shape
    read = [
        bytes_read_per_step(shape, precision_on(dtype, "cuda"), 1, 128).total
        for shape, dtype in ((draft, "bfloat16"), (target, "fp8"))
    ]
    assert 0.036 == pytest.approx(read[0] / read[1], abs=0.002)
    assert 3.53 == pytest.approx(speculative_speedup(0.85, 5, read[0] / read[1]), abs=0.03)
    assert abs(speculative_speedup(0.85, 5, 0.036) / (181.74 / 51.14) - 1) < 0.02


@pytest.mark.parametrize(("gamma", "alpha"), [(6, 0.98), (8, 0.92), (12, 0.88)])
def test_what_six_and_two_thirds_needs_of_free_drafts(gamma: int, alpha: float) -> None:
    found = implied_alpha(1665 / 250, gamma)
    assert found is not None and alpha == round(found, 2)


def test_more_than_all_drafts_give_cannot_be_had() -> None:
    assert implied_alpha(6.66, 5) is None
    assert implied_alpha(6.0, 5) == 1.0
    assert implied_alpha(1.9, 1, 0.1) is None


def test_less_than_no_draft_gives_needs_none() -> None:
    assert 0.0 == implied_alpha(0.5, 4, 0.25)
    assert 0.0 == implied_alpha(0.4, 4, 0.25)


@given(st.floats(0.01, 0.99), st.integers(1, 12), st.floats(0.0, 0.5), st.floats(0.8, 3.0))
def test_it_is_the_inverse_of_the_speed_up(alpha: float, gamma: int, draft: float, verify: float) -> None:
    speedup = speculative_speedup(alpha, gamma, draft, verify)
    assert alpha == pytest.approx(implied_alpha(speedup, gamma, draft, verify), abs=1e-4)


@pytest.mark.parametrize("fields", [{"draft_cost_ratio": -0.1}, {"verify_cost_ratio": 0.0}, {"gamma": -1}])
def test_a_cost_that_is_none_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="."):
        implied_alpha(2.0, **{"gamma": 4, **fields})  # type: ignore[arg-type]
