"""Which published figures are independent, and which contradict one another."""

from __future__ import annotations

import pytest

from tokbench.derive.published import PublishedFigure, load_published
from tokbench.derive.published.evidence import conflicts, evidence_groups, measuring_party

ROW: dict[str, object] = {
    "id": "a",
    "vendor": "acme",
    "system": "Acme One",
    "deployment": "cloud-endpoint",
    "model": "acme/Tiny-7B",
    "metric": "decode_tokens_per_s",
    "value": 100,
    "unit": "tokens/s",
    "measured_by": "vendor",
    "is_primary": True,
    "published": "2026-05-01",
    "read_on": "2026-11-22",
    "source_url": "https://acme.example/speed",
    "source_title": "Speed",
}
THIRD: dict[str, object] = {"measured_by": "third-party", "source_url": "https://tester.example/acme"}


def figure(**changes: object) -> PublishedFigure:
    return PublishedFigure.model_validate({**ROW, **changes})


def groups(*figures: PublishedFigure) -> list[tuple[str, list[str]]]:
    return [(group.party, [row.id for row in group.figures]) for group in evidence_groups(figures)]


def conflicting(*figures: PublishedFigure) -> list[list[str]]:
    return [[row.id for row in conflict.figures] for conflict in conflicts(figures)]


# --- independence


@pytest.mark.parametrize(
    ("changes", "party"),
    [
        ({}, "acme"),
        ({"measured_by": "artificial-analysis"}, "artificial-analysis"),
        ({"measured_by": "third-party", "measurer": "a-tester"}, "a-tester"),
        ({"measured_by": "third-party", "source_url": "https://www.tester.example/a/b"}, "tester.example"),
        (
            {"measured_by": "third-party", "source_url": "https://github.com/Tester/bench/blob/main/x"},
            "github.com/tester",
        ),
        ({"measured_by": "mlperf", "measurer": "lenovo", "benchmark": "v5.1", "scenario": "offline"}, "lenovo"),
        ({"measured_by": "mlperf", "benchmark": "v5.1", "scenario": "offline"}, "mlperf"),
    ],
)
def test_who_stands_behind_a_figure(changes: dict[str, object], party: str) -> None:
    assert party == measuring_party(figure(**changes))


def test_a_price_is_the_vendors_statement_whoever_copied_it() -> None:
    price = {"metric": "price_usd_per_million_output_tokens", "unit": "USD/1M tokens"}
    own, copied = figure(**price), figure(id="b", **price, **THIRD)
    assert [("acme", ["a", "b"])] == groups(own, copied)


def test_a_vendor_counts_once_however_often_it_speaks() -> None:
    own = figure(id="own", measured_by="mlperf", measurer="acme", benchmark="v5.1", scenario="offline")
    assert [("acme", ["a", "b", "own"])] == groups(figure(), figure(id="b", published="2026-06-01"), own)


def test_two_authors_on_one_site_of_many_are_two_sources() -> None:
    one = figure(id="one", measured_by="third-party", source_url="https://github.com/one/x")
    other = figure(id="other", measured_by="third-party", source_url="https://github.com/other/x")
    assert 2 == len(groups(one, other))


def test_a_repost_belongs_to_the_source_that_it_repeats() -> None:
    repost = figure(id="repost", repeats="a", **THIRD)
    assert [("acme", ["a", "repost"])] == groups(figure(), repost)
    assert [("acme", ["a"]), ("tester.example", ["own"])] == groups(figure(), figure(id="own", **THIRD))


def test_what_a_reposter_measured_itself_stays_independent() -> None:
    repost, own = figure(id="repost", repeats="a", **THIRD), figure(id="own", value=60, **THIRD)
    assert [("acme", ["a", "repost"]), ("tester.example", ["own"])] == groups(figure(), repost, own)


def test_two_reposts_of_a_row_that_was_not_chosen_are_one_source() -> None:
    reposts = [figure(id=name, repeats="gone", measured_by="third-party", measurer=name) for name in ("x", "y")]
    assert [("row gone", ["x", "y"])] == groups(*reposts)


def test_no_figures_are_no_evidence() -> None:
    assert () == evidence_groups(())


# --- conflicts


def test_figures_that_state_the_same_conditions_and_other_values_conflict() -> None:
    found = conflicts([figure(), figure(id="b", value=150, **THIRD)])
    assert [["a", "b"]] == [[row.id for row in conflict.figures] for conflict in found]
    assert 1.5 == found[0].highest_over_lowest


@pytest.mark.parametrize(
    "changes",
    [
        {"vendor": "other"},
        {"model": "acme/Tiny-8B"},
        {"metric": "e2e_tokens_per_s"},
        {"value": 104.9},
        {"published": "2026-11-02"},
        {"repeats": "a"},
        {"superseded_by": "a"},
        {"system": "Acme Two"},
        {"statistic": "at_most"},
        {"statistic": "p99"},
        {"value_low": 90, "value_high": 200},
        {"source_url": "https://acme.example/speed", "measured_by": "vendor"},
    ],
)
def test_what_is_no_conflict(changes: dict[str, object]) -> None:
    assert [] == conflicting(figure(), figure(**{"id": "b", "value": 150, **THIRD, **changes}))


@pytest.mark.parametrize(
    ("field", "mine", "theirs"),
    [
        ("precision", "fp8", "bf16"),
        ("speculation", "none", "speculative-decoding"),
        ("engine", "vllm", "sglang"),
        ("scenario", "server", "offline"),
        ("concurrency", 8, 64),
        ("mean_concurrency", 8, 64),
        ("devices", 1, 8),
        ("input_tokens", 100, 1000),
        ("output_tokens", 100, 1000),
        ("excludes_ttft", True, False),
        ("region", "us", "eu"),
        ("includes_network", True, False),
    ],
)
def test_a_condition_that_both_state_parts_two_figures(field: str, mine: object, theirs: object) -> None:
    one = figure(**{field: mine})
    assert [] == conflicting(one, figure(**{"id": "b", "value": 150, **THIRD, field: theirs}))
    assert [["a", "b"]] == conflicting(one, figure(**{"id": "b", "value": 150, **THIRD, field: mine}))
    assert [["a", "b"]] == conflicting(one, figure(id="b", value=150, **THIRD))


def test_joules_of_another_scope_are_no_conflict() -> None:
    energy = {"metric": "energy_j_per_output_token", "unit": "J/token"}
    one = figure(**energy, energy_scope="board")
    assert [] == conflicting(one, figure(**energy, energy_scope="wall", id="b", value=150, **THIRD))
    assert [["a", "b"]] == conflicting(one, figure(**energy, energy_scope="board", id="b", value=150, **THIRD))


def test_one_device_under_two_names_is_one_machine() -> None:
    one = figure(system="8 x H200", device="NVIDIA H200 SXM")
    other = figure(id="b", value=150, system="H200 cluster", device="NVIDIA H200 SXM", **THIRD)
    assert [["a", "b"]] == conflicting(one, other)


def test_a_floor_contradicts_only_what_lies_below_it() -> None:
    floor = figure(statistic="at_least")
    assert [] == conflicting(floor, figure(id="b", value=150, **THIRD))
    assert [["b", "a"]] == conflicting(floor, figure(id="b", value=50, **THIRD))


def test_conflicts_are_linked_and_the_widest_comes_first() -> None:
    chain = [figure(), figure(id="b", value=150, **THIRD), figure(id="c", value=225, **THIRD, measurer="c")]
    small = [figure(id="d", model="acme/Big"), figure(id="e", model="acme/Big", value=110, **THIRD)]
    assert [["a", "b", "c"], ["d", "e"]] == conflicting(*small, *chain)


def test_the_package_keeps_its_conflicts() -> None:
    found = [{row.id for row in conflict.figures} for conflict in conflicts(load_published())]
    assert any({"cerebras-2026-03-oss120-tps", "aa-cerebras-oss120-2026-05"} <= ids for ids in found)


def test_sources_of_the_package_are_counted_once() -> None:
    mlperf = [row for row in load_published() if row.id.startswith("mlperf51-") and row.device == "NVIDIA B200"]
    assert {"lenovo", "nvidia"} == {group.party for group in evidence_groups(mlperf)}
    assert 20 < len(mlperf)
