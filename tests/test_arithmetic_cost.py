"""Closed forms of cost, by hand."""

from __future__ import annotations

import pytest

from tokbench.arithmetic.cost import (
    grid_kwh,
    hardware_usd_per_token,
    metered_j_per_token,
    purchase_usd_per_hour,
    request_j_per_output_token,
)


def test_purchase_over_the_hours_of_its_life() -> None:
    assert purchase_usd_per_hour(35_040, 4) == pytest.approx(1.0)
    assert purchase_usd_per_hour(35_040, 4, overhead=0.5) == pytest.approx(1.5)


def test_hardware_is_paid_by_the_busy_hours() -> None:
    assert hardware_usd_per_token(3.6, 100, 1.0) == pytest.approx(1e-5)
    assert hardware_usd_per_token(3.6, 100, 0.1) == pytest.approx(1e-4)


def test_idle_hours_are_spread_over_the_tokens() -> None:
    """In an hour at 0.25: 900 s * 10 tokens/s at 7 J, and 2700 s at 50 W."""
    joules, tokens = 9000 * 7 + 2700 * 50, 9000
    assert metered_j_per_token(7, 50, 10, 0.25) == pytest.approx(joules / tokens)
    assert metered_j_per_token(7, 50, 10, 1.0) == pytest.approx(7.0)


def test_a_request_is_its_prefill_and_the_tokens_after_the_first() -> None:
    assert request_j_per_output_token(2.0, 0.1, 100, 5) == pytest.approx((4 * 2.0 + 10.0) / 5)


def test_kilowatt_hours_at_the_buildings_meter() -> None:
    assert grid_kwh(1.8e6, pue=1.5, host_factor=2.0) == pytest.approx(1.5)


@pytest.mark.parametrize("utilisation", [0.0, -0.1, 1.01])
def test_a_utilisation_is_a_share(utilisation: float) -> None:
    with pytest.raises(ValueError, match="utilisation"):
        hardware_usd_per_token(1, 1, utilisation)
    with pytest.raises(ValueError, match="utilisation"):
        metered_j_per_token(1, 1, 1, utilisation)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no price per token"):
        hardware_usd_per_token(1, 0, 0.4)
    with pytest.raises(ValueError, match="above 0"):
        purchase_usd_per_hour(1, 0)
    with pytest.raises(ValueError, match="would lower"):
        purchase_usd_per_hour(1, 1, -0.5)
    with pytest.raises(ValueError, match="no less than its part"):
        grid_kwh(1, 0.9, 1.0)
    with pytest.raises(ValueError, match="a prompt token"):
        request_j_per_output_token(1, 1, 0, 5)
