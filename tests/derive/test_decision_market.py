"""Cost, offers and break-even of a decision, by hand; its words and its JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Literal

import pytest

from decision_builders import INCLUDED, decision_of, offer, results_of, row, sweep
from energy_builders import Power, counter_readings, energy_trial, opened, period
from report_builders import golden_report
from scripted_facts import CPU, GPU
from tokbench.derive.bounds import find_bounds
from tokbench.derive.cost.amounts import Joules, Point
from tokbench.derive.decision import Decision, Market, OfferBeside, decide, list_decision
from tokbench.derive.decision.breakeven import BreakEven, Pays, break_even
from tokbench.derive.decision.costs import BoxCost
from tokbench.derive.decision.grades import Weakness
from tokbench.derive.decision.offers import NoOffer, Offer, find_offers, is_on_sale
from tokbench.derive.decision.rents import HourlyPrice, Rent, find_rents, price_of_hour
from tokbench.derive.evaluate import Missing
from tokbench.derive.report.decision_section import decision_sections
from tokbench.derive.report.document import Bullets, Paragraph, Section, Table
from tokbench.derive.report.material import Material
from tokbench.derive.standing import Standing
from tokbench.derive.summary import dump_summary, summarise_results
from tokbench.derive.words import in_language
from tokbench.record.cost import CostSpec
from tokbench.stats import Estimate

TODAY = datetime.date(2026, 11, 22)
SYSTEM = 8 * 5 / 0.66
"""Output tokens/s of the load of 8 that holds 20 tokens/s per user."""


def cost_of_twenty(found: Decision) -> BoxCost:
    cost = found.rows[0].cost
    assert cost is not None
    return cost


def value_of(found: Estimate | Missing) -> float:
    assert isinstance(found, Estimate), found
    return found.value


# --- cost


def test_cost_at_each_utilisation_and_split_by_time(tmp_path: Path) -> None:
    """0.001 USD/s over 60.6 tokens/s used 40 %: 41.25; 0.5 of 0.66 s are prefill, 5 of 100 tokens are output."""
    cost = cost_of_twenty(decision_of(sweep(), tmp_path, prices=INCLUDED))
    assert [0.1, 0.4, 0.8] == [at.utilisation for at in cost.at]
    assert [165.0, 41.25, 20.625] == pytest.approx([value_of(at.output_with_prompts) for at in cost.at])
    at = cost.at[1]
    assert (41.25 * 0.5 / 0.66 * 5 / 100, 41.25 * 0.16 / 0.66) == (
        pytest.approx(value_of(at.input)),
        pytest.approx(value_of(at.output)),
    )
    assert 41.25 * 5 == pytest.approx(100 * value_of(at.input) + 5 * value_of(at.output))


def test_a_published_rent_is_taken_where_no_price_is_stated(tmp_path: Path) -> None:
    """1.8, 3.6 and 7.2 USD: half and twice the middle, at the ends of an exact speed."""
    found = decision_of(sweep(), tmp_path, rents={GPU.name: Rent(1.8, 3.6, 7.2)})
    at = cost_of_twenty(found).at[1].output_with_prompts
    assert isinstance(at, Estimate)
    assert (41.25, 41.25 / 2, 82.5) == (pytest.approx(at.value), pytest.approx(at.low), pytest.approx(at.high))
    assert "interval_arithmetic" == at.statistic


def test_a_rent_is_paid_for_every_device(tmp_path: Path) -> None:
    results = results_of(sweep({1: 0.00625}), tmp_path)
    cell = results.cells[0]
    both = dataclasses.replace(cell, conditions=dataclasses.replace(cell.conditions, device_count=2))
    price = price_of_hour(results.run, both, {GPU.name: Rent(1.0, 2.0, 3.0)})
    assert isinstance(price, HourlyPrice)
    assert (2.0, 4.0, 6.0) == price.usd_per_hour()


def test_without_any_price_the_cost_says_what_to_state(tmp_path: Path) -> None:
    price = cost_of_twenty(decision_of(sweep(), tmp_path)).price
    assert isinstance(price, Missing)
    assert GPU.name in price.reason and "--set cost.usd_per_hour" in price.reason


def test_a_purchase_without_electricity_has_no_cost(tmp_path: Path) -> None:
    prices = CostSpec(purchase_usd=35040.0, lifetime_years=4.0)
    at = cost_of_twenty(decision_of(sweep(), tmp_path, prices=prices)).at[0]
    assert isinstance(at.output_with_prompts, Missing) and "electricity" in at.output_with_prompts.reason


def test_no_cost_of_a_promise_that_does_not_hold(tmp_path: Path) -> None:
    found = decision_of(sweep({1: 0.1}), tmp_path, *offer(), prices=INCLUDED).rows[0]
    assert (None, None) == (found.cost, found.energy)
    (beside,) = found.offers
    assert isinstance(beside, OfferBeside) and isinstance(beside.break_even, Missing)


def test_prices_of_the_package_are_found_by_the_drivers_name(tmp_path: Path) -> None:
    rent = find_rents([results_of(sweep(), tmp_path)])[GPU.name]
    assert rent.low <= rent.mid <= rent.high


@pytest.mark.parametrize(("scope", "is_told"), [("board", True), ("script", False)])
def test_joules_bear_their_scope_and_those_of_a_script_never_count(
    tmp_path: Path, scope: Literal["board", "script"], is_told: bool
) -> None:
    """350 W at 100 steps/s, one token each: 3.5 J."""
    script, power = sweep({1: 0.00625}), Power()
    energy_trial(script, next(iter(script._specs)), power, prefill_s=0.01)
    script.add(opened(scope=scope), period(), *counter_readings(power, 0, script.now_ns))
    found = decision_of(script, tmp_path).rows[0].energy
    assert found is not None
    assert (scope if is_told else None) == found.scope
    assert is_told == isinstance(found.joules, Estimate)
    if isinstance(found.joules, Estimate):
        assert 3.5 == pytest.approx(found.joules.value, rel=0.02)


# --- offers


def test_the_list_price_pays_for_the_prompts_too(tmp_path: Path) -> None:
    """2 USD for a million output tokens and 20 times 0.5 for the 100 prompt tokens of every 5."""
    (beside,) = decision_of(sweep(), tmp_path, *offer()).rows[0].offers
    assert isinstance(beside, OfferBeside)
    assert 12.0 == pytest.approx(value_of(beside.offer.blended))
    assert "same_model" == beside.offer.match


@pytest.mark.parametrize(
    ("changes", "is_sold"),
    [
        ({}, True),
        ({"available_until": "2026-11-01"}, False),
        ({"available_until": "2026-12"}, True),
        ({"available_until": "2026-09"}, True),  # the price was published after the end of an earlier offer
        ({"published": "2024-10"}, False),
        ({"published": "2025"}, True),
        ({"superseded_by": "acme-new"}, False),
        ({"model": None}, False),
    ],
)
def test_what_is_on_sale(changes: dict[str, object], is_sold: bool) -> None:
    price = offer(**changes)[0]
    assert is_sold is is_on_sale(price, [price], TODAY)


def test_an_end_of_the_offer_in_any_row_of_the_model_counts() -> None:
    price = offer()[0]
    gone = row("acme-speed", "decode_tokens_per_s", 900.0, available_until="2026-11-20")
    assert not is_on_sale(price, [price, gone], TODAY)
    assert is_on_sale(price, [price, gone.model_copy(update={"vendor": "other"})], TODAY)


def test_each_vendor_brings_its_nearest_model_and_others_the_cheapest_of_ours(tmp_path: Path) -> None:
    figures = (
        *offer(name="acme", model="big/Model-16B", total_params_b=16.0),
        *[
            item.model_copy(update={"id": f"{item.id}-2", "model": "mid/Model-10B", "total_params_b": 10.0})
            for item in offer()
        ],
        *offer(3.0, name="dear"),
        *offer(1.0, name="cheap"),
        *offer(0.1, name="tiny", model="tiny/Model-8B"),
    )
    workload = decision_of(sweep(), tmp_path).rows[0].workload
    found = find_offers(workload, 8.0, figures, ("acme", "nobody"), TODAY)
    assert ["acme", "nobody", "cheap"] == [item.vendor for item in found]
    assert isinstance(found[0], Offer) and isinstance(found[2], Offer)
    assert ("mid/Model-10B", "same_size_class", 1.25) == (found[0].model, found[0].match, found[0].size_ratio)
    assert isinstance(found[1], NoOffer)
    assert (True, False) == (found[0].is_asked, found[2].is_asked)


@pytest.mark.parametrize(
    ("speed", "ttft", "holds"),
    [(900.0, 0.2, [True, True, True]), (100.0, 0.2, [True, True, False]), (900.0, 1.5, [False] * 3)],
)
def test_an_endpoint_holds_by_its_published_speed_and_ttft(
    tmp_path: Path, speed: float, ttft: float, holds: list[bool]
) -> None:
    rows = (row("s", "decode_tokens_per_s", speed), row("t", "ttft_s", ttft))
    found = decision_of(sweep(), tmp_path, *offer(), *rows)
    assert holds == [item.offers[0].holds for item in found.rows if isinstance(item.offers[0], OfferBeside)]


def test_an_endpoint_without_a_published_ttft_is_left_open(tmp_path: Path) -> None:
    found = decision_of(sweep(), tmp_path, *offer(), row("s", "decode_tokens_per_s", 100.0))
    assert [None, None, False] == [
        item.offers[0].holds for item in found.rows if isinstance(item.offers[0], OfferBeside)
    ]


# --- break-even


def even_of(found: Decision) -> BreakEven:
    beside = found.rows[0].offers[0]
    assert isinstance(beside, OfferBeside) and isinstance(beside.break_even, BreakEven), beside
    return beside.break_even


def test_break_even_of_a_rent_by_hand(tmp_path: Path) -> None:
    """86.4 USD a day over 12 USD for a million: 7.2e6 tokens, 1.375 of what the box makes."""
    even = even_of(decision_of(sweep(), tmp_path, *offer(), prices=INCLUDED))
    assert even.tokens_per_day is not None and even.share_of_box is not None
    assert 7.2e6 == pytest.approx(even.tokens_per_day.value)
    assert 7.2e6 / (86400 * SYSTEM) == pytest.approx(even.share_of_box.value)
    assert Pays.NO is even.pays


def test_break_even_that_can_be_reached(tmp_path: Path) -> None:
    """0.36 USD an hour: a tenth of it."""
    prices = INCLUDED.model_copy(update={"usd_per_hour": 0.36})
    even = even_of(decision_of(sweep(), tmp_path, *offer(), prices=prices))
    assert even.share_of_box is not None
    assert (0.1375, Pays.YES) == (pytest.approx(even.share_of_box.value), even.pays)


def test_a_rent_range_that_straddles_the_box_shows_nothing(tmp_path: Path) -> None:
    even = even_of(decision_of(sweep(), tmp_path, *offer(), rents={GPU.name: Rent(0.36, 1.8, 3.6)}))
    assert even.share_of_box is not None
    assert (0.1375, 0.6875, 1.375) == pytest.approx(
        (even.share_of_box.low, even.share_of_box.value, even.share_of_box.high)
    )
    assert Pays.NOT_SHOWN is even.pays


def test_break_even_with_electricity_paid_apart(tmp_path: Path) -> None:
    """k = 1.25e-7 USD/J: (86.4 + k 20 W 86400 s) / (12e-6 - k (5 J - 20 W / R))."""
    found = decision_of(sweep(), tmp_path, *offer()).rows[0]
    assert found.answer.cell is not None and isinstance(found.offers[0], OfferBeside)
    prices = CostSpec(usd_per_hour=3.6, usd_per_kwh=0.36, pue=1.25, host_overhead=(1.0, 1.0))
    point = Point(prices, SYSTEM, Joules(5.0, 20.0, "board"))
    cost = BoxCost(HourlyPrice("rent_stated", prices, prices, prices), point, (point,), ())
    even = break_even(found.answer.cell, cost, found.offers[0].offer)
    assert isinstance(even, BreakEven) and even.tokens_per_day is not None
    expected = (86.4 + 1.25e-7 * 20 * 86400) / (12e-6 - 1.25e-7 * (5 - 20 / SYSTEM))
    assert expected == pytest.approx(even.tokens_per_day.value)


def test_electricity_above_the_list_price_never_pays(tmp_path: Path) -> None:
    found = decision_of(sweep(), tmp_path, *offer()).rows[0]
    assert found.answer.cell is not None and isinstance(found.offers[0], OfferBeside)
    prices = CostSpec(usd_per_hour=3.6, usd_per_kwh=0.36, pue=1.25, host_overhead=(1.0, 1.0))
    point = Point(prices, SYSTEM, Joules(500.0, 20.0, "board"))
    cost = BoxCost(HourlyPrice("rent_stated", prices, prices, prices), point, (point,), ())
    even = break_even(found.answer.cell, cost, found.offers[0].offer)
    assert BreakEven(None, None, Pays.NO) == even


def test_no_break_even_with_a_model_of_another_size(tmp_path: Path) -> None:
    figures = offer(model="big/Model-70B", total_params_b=70.0)
    (beside,) = decision_of(sweep(), tmp_path, *figures, prices=INCLUDED).rows[0].offers
    assert isinstance(beside, OfferBeside)
    assert isinstance(beside.break_even, Missing) and "another size" in beside.break_even.reason


def test_an_old_second_hand_price_lowers_the_grade_of_a_break_even(tmp_path: Path) -> None:
    fresh = offer(precision="bf16", speculation="none")
    old = offer(precision="bf16", speculation="none", published="2025-06", is_primary=False)
    grades = []
    for name, figures in (("fresh", fresh), ("old", old)):
        (beside,) = decision_of(sweep(), tmp_path / name, *figures, prices=INCLUDED).rows[0].offers
        assert isinstance(beside, OfferBeside)
        grades.append((beside.grade, beside.weaknesses))
    assert [
        ("C", (Weakness.ONE_SOURCE,)),
        ("D", (Weakness.OLD_PRICE, Weakness.SECOND_HAND, Weakness.ONE_SOURCE)),
    ] == grades


# --- words and JSON


def sections_of(found: Decision) -> list[Section]:
    material = Material((), Standing(None, None, (), ()), (), (), (), (), decision=found)
    return decision_sections(material)


def text_of(section: Section) -> str:
    parts = []
    for block in section.blocks:
        if isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Bullets):
            parts += [item.lead + item.text for item in block.items]
    return "\n".join(parts)


def test_random_weights_leave_a_decision_without_a_table_or_a_number(tmp_path: Path) -> None:
    found = decision_of(sweep(weights="random"), tmp_path, *offer(), prices=INCLUDED)
    (section,) = sections_of(found)
    assert not any(isinstance(block, Table) for block in section.blocks)
    assert "No decision" in text_of(section) and "5 with random weights" in text_of(section)
    assert {"5"} == {sign for sign in text_of(section) if sign.isdigit()}
    assert [] == list_decision(found)


def test_the_lead_says_each_promise_and_its_bound(tmp_path: Path) -> None:
    text = text_of(sections_of(decision_of(sweep(), tmp_path, *offer(), prices=INCLUDED))[0])
    assert "20 tokens/s per user, TTFT p95 of at most 1 s: 8 users at once, 60.6 tokens/s for the box" in text
    assert "with 16 users the speed is too low" in text
    assert "upper bound without queueing" in text
    assert "on a CPU" not in text


def test_an_accelerator_without_an_answer_is_not_said_to_be_none(tmp_path: Path) -> None:
    (table,) = sections_of(decision_of(sweep({8: 0.04}), tmp_path))[1].blocks
    assert isinstance(table, Table)
    column = [one.title for one in table.columns].index("Harness efficiency")
    unmeasured = [row[column].note for row in table.rows if row[2].text == "not measured at this load"]
    assert ["no load was measured that could hold the promise"] * 2 == unmeasured


def test_a_small_model_on_a_cpu_is_labelled(tmp_path: Path) -> None:
    found = decision_of(sweep(device=CPU, parameters=135_000_000), tmp_path)
    assert "on a CPU shows how the decision is made" in text_of(sections_of(found)[0])
    assert [None] * 3 == [item.harness for item in found.rows]


def test_what_cannot_be_met_is_said_with_the_ceiling(tmp_path: Path) -> None:
    text = text_of(sections_of(decision_of(sweep({1: 0.04}), tmp_path))[0])
    assert "200 tokens/s per user, TTFT p95 of at most 1 s: cannot be met on this hardware. One user gets 25.0" in text


def test_the_decision_is_worded_in_chinese(tmp_path: Path) -> None:
    found = decision_of(sweep(), tmp_path, *offer(), prices=INCLUDED)
    with in_language("zh"):
        section = sections_of(found)[0]
    assert "对采购意味着什么" == section.title
    assert "8 个用户同时使用" in text_of(section)


def test_summary_json_holds_the_decision(tmp_path: Path) -> None:
    results = results_of(sweep(), tmp_path, INCLUDED)
    found = decide([results], Market(offer(), ("acme", "nobody"), {}))
    text = dump_summary(summarise_results([results], [], [find_bounds(results)], found))
    first = json.loads(text)["decision"][0]
    assert ("held", True, 8, {"users": 16, "why": "speed"}) == (
        first["outcome"],
        first["is_upper_bound"],
        first["users"],
        first["limit"],
    )
    assert 41.25 == pytest.approx(first["cost"]["at"][1]["usd_per_million_output_tokens_with_prompts"]["value"])
    assert {"vendor": "nobody", "missing": "no price of Nobody is known"} == first["offers"][1]
    even = first["offers"][0]["break_even"]
    assert (7.2e6, "no") == (pytest.approx(even["output_tokens_per_day"]["value"]), even["pays"])
    assert {"field", "ours", "theirs", "agreement"} == set(first["offers"][0]["differences"][0])


def test_every_key_of_the_decision_is_documented(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "design" / "decision.md").read_text(encoding="utf-8")
    (first, *_) = list_decision(decision_of(sweep(), tmp_path, *offer(), prices=INCLUDED))
    assert isinstance(first, dict)
    keys: set[str] = set()
    pending: list[object] = [first]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            keys |= set(item) - {"n", "blocks", "basis", "field", "ours", "theirs", "agreement"}
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    assert {"outcome", "break_even", "utilisation"} <= keys
    assert set() == {key for key in keys if f"`{key}`" not in page}


def test_the_report_opens_with_the_decision_before_its_tables_of_detail() -> None:
    report = golden_report()
    places = [report.index(title) for title in ("## What it means for a purchase", "## Conditions")]
    assert sorted(places) == places
