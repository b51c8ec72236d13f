"""Facts and prices per hour: every row of the package loads, and a wrong row is named by file, row and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tokbench.derive.published.facts import Amount, amount_of, find_fact, load_facts
from tokbench.derive.published.prices import find_price, load_prices
from tokbench.errors import DataError, ExitCode
from tokbench.record.catalog import load_devices

SOURCE: dict[str, object] = {
    "is_primary": True,
    "published": "2026-05",
    "read_on": "2026-11-22",
    "source_url": "https://example.com/x",
    "source_title": "X",
}
FACT: dict[str, object] = {"id": "a-fact", "topic": "test", "statement": "A is 3 m.", "value": 3, "unit": "m", **SOURCE}
OFFER: dict[str, object] = {"usd_per_hour": 2.5, "provider": "acme", "term": "on-demand", **SOURCE}
PRICE: dict[str, object] = {"device": "NVIDIA H100 SXM", "mid": OFFER}


def write(folder: Path, key: str, *rows: object) -> Path:
    path = folder / f"{key}.yaml"
    path.write_text(yaml.safe_dump({key: list(rows)}), encoding="utf-8")
    return path


def fault(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        load_facts(path) if path.stem == "facts" else load_prices(path)
    assert (str(path), ExitCode.DATA) == (caught.value.file, caught.value.exit_code)
    return caught.value


# --- facts


def test_every_fact_of_the_package_loads_and_is_said_once() -> None:
    facts = load_facts()
    assert 80 <= len(facts)
    assert len(facts) == len({fact.statement for fact in facts})
    assert all("." not in part for fact in facts for part in fact.parts)


def test_facts_by_name_and_part() -> None:
    assert Amount(45200.0 + 1025.0, 46225.0, 46225.0, "mm2") == amount_of("wse3-area.wse3_mm2")
    assert Amount(84.0, 84.0, 84.0, "dies") == amount_of("wse3-cores.dies")
    assert "human" == find_fact("reading-speed").topic


def test_a_range_has_ends_and_no_value() -> None:
    assert Amount(15.0, None, 16.3, "Wh/query") == amount_of("r1-query-wh.out8k")


def test_a_fact_can_be_a_sentence_or_a_truth() -> None:
    assert find_fact("dsv3-fp8-native").value is True
    sentence = find_fact("aa-methodology")
    assert (None, None, {}) == (sentence.value, sentence.unit, sentence.parts)


def test_our_own_arithmetic_is_marked() -> None:
    area = find_fact("wse3-area")
    assert (True, False) == (area.parts["ratio"].derived, area.parts["wse3_mm2"].derived)
    value = area.parts["wse3_mm2"].value, area.parts["h100_mm2"].value
    assert area.parts["ratio"].value == pytest.approx(value[0] / value[1], rel=1e-3)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        ("readingspeed", "no such fact", "nearest: reading-speed"),
        ("reading-speed", "it states no single number", "its parts: wpm, wpm_low"),
        ("reading-speed.wpn", "it has no part 'wpn'", "its parts: wpm, wpm_low"),
        ("words-per-token.low", "it has no part 'low'", "it has no parts"),
        ("dsv3-fp8-native", "it states no single number", "it has no parts"),
    ],
)
def test_a_number_that_no_fact_states(name: str, message: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        amount_of(name)
    assert message in caught.value.message
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"id": "A.b"}, "id", "should match pattern"),
        ({"unit": None}, "unit", "a number and its unit go together"),
        ({"value": None}, "unit", "a number and its unit go together"),
        ({"value": True}, "unit", "a number and its unit go together"),
        ({"parts": {"x": {"value": 1, "unit": "m"}}}, "parts", "one value or named parts"),
        ({"value": [3, 2]}, "value", "a range is written [low, high]"),
        ({"value": None, "unit": None, "parts": {"x": {"value": [2, 2], "unit": "m"}}}, "parts.x.value", "[low, high]"),
        ({"value": None, "unit": None, "parts": {"x": {"value": 1}}}, "parts.x.unit", "Field required"),
        ({"published": "2026-12"}, "published", "later than it was read"),
        ({"read_on": "yesterday"}, "read_on", "should match pattern"),
        ({"source_url": "x"}, "source_url", "should match pattern"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_a_wrong_fact_is_named(tmp_path: Path, changes: dict[str, object], field: str, message: str) -> None:
    error = fault(write(tmp_path, "facts", {**FACT, **changes}))
    assert (str(changes.get("id", "a-fact")), field) == (error.row, error.field)
    assert message in error.message


def test_a_fact_stands_once(tmp_path: Path) -> None:
    assert "stands twice" == fault(write(tmp_path, "facts", FACT, FACT)).message


# --- prices


def test_every_price_of_the_package_loads_and_is_found_by_the_drivers_name() -> None:
    prices = load_prices()
    assert {"NVIDIA H100 SXM", "NVIDIA H200 SXM", "AMD Instinct MI300X"} <= {price.name for price in prices}
    for price in prices:
        bounds = [offer.usd_per_hour for offer in (price.low, price.mid, price.high) if offer is not None]
        assert bounds == sorted(bounds)
    found = find_price("NVIDIA H100 80GB HBM3")
    assert found is not None and "NVIDIA H100 SXM" == found.name


def test_a_price_bears_each_bound_with_its_own_source(tmp_path: Path) -> None:
    low = {**OFFER, "usd_per_hour": 1.5, "term": "spot", "published": "2026-04"}
    (price,) = load_prices(write(tmp_path, "prices", {**PRICE, "low": low}))
    assert price.low is not None and price.high is None
    assert (1.5, "2026-04", 2.5, "2026-05") == (
        price.low.usd_per_hour,
        price.low.published,
        price.mid.usd_per_hour,
        price.mid.published,
    )


def test_a_machine_without_an_accelerator_has_a_price_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, "prices", {"instance": "CPU, 16 vCPU", "mid": OFFER}, PRICE)
    found = find_price("CPU, 16 vCPU", path)
    assert found is not None and ("CPU, 16 vCPU", None) == (found.name, found.device)
    assert find_price("NVIDIA H200", path) is None
    assert find_price("Some Card", path) is None


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"device": "NVIDIA H100 SMX"}, "device", "no device of data/devices.yaml"),
        ({"instance": "CPU"}, "device", "either `device` or `instance`"),
        ({"device": None}, "device", "either `device` or `instance`"),
        ({"mid": None}, "mid", "valid dictionary"),
        ({"low": {**OFFER, "usd_per_hour": 2.51}}, "low.usd_per_hour", "low <= mid <= high is broken: mid is 2.5"),
        ({"high": {**OFFER, "usd_per_hour": 2.49}}, "high.usd_per_hour", "low <= mid <= high is broken: mid is 2.5"),
        ({"mid": {**OFFER, "usd_per_hour": 0}}, "mid.usd_per_hour", "greater than 0"),
        ({"mid": {**OFFER, "provider": "Acme Inc"}}, "mid.provider", "should match pattern"),
        ({"mid": {**OFFER, "term": "weekly"}}, "mid.term", "'on-demand', 'spot' or 'reserved'"),
        ({"mid": {**OFFER, "published": "2027"}}, "mid.published", "later than it was read"),
        ({"mid": {**OFFER, "devices": 0}}, "mid.devices", "greater than 0"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_a_wrong_price_is_named(tmp_path: Path, changes: dict[str, object], field: str, message: str) -> None:
    row = {key: value for key, value in {**PRICE, **changes}.items() if value is not None or key == "mid"}
    error = fault(write(tmp_path, "prices", row))
    assert field == error.field
    assert str(row.get("device", "number 1")) == error.row
    assert message in error.message


def test_a_device_has_one_price_row(tmp_path: Path) -> None:
    assert "stands twice" == fault(write(tmp_path, "prices", PRICE, PRICE)).message


def test_a_sheet_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in fault(tmp_path / "prices.yaml").message


# --- devices


def test_devices_that_people_ask_for_have_rows() -> None:
    names = {row.name for row in load_devices()}
    phones = {"Apple A18 Pro (iPhone 16 Pro)", "Apple A19 Pro (iPhone 17 Pro)", "Qualcomm Snapdragon 8 Elite"}
    clouds = {"Microsoft Maia 100", "Microsoft Maia 200", "AWS Trainium2", "AWS Trainium3", "AWS Inferentia2"}
    assert phones | clouds | {"NVIDIA GeForce RTX 5090", "SambaNova SN40L", "Google TPU v7 (Ironwood)"} <= names


def test_every_device_says_where_and_when_it_was_read() -> None:
    assert [] == [row.name for row in load_devices() if row.source_url is None or row.read_on is None]
