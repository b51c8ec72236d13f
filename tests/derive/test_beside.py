"""Like is set beside like: which figure is chosen, what keeps a ratio out of a summary, and both sides' intervals."""

from __future__ import annotations

import dataclasses

import pytest

from tokbench.derive.likeness import say_harness
from tokbench.derive.published import (
    Absence,
    Comparison,
    Measured,
    NoComparison,
    PublishedFigure,
    Shortfall,
    compare_with_published,
    find_harness_efficiency,
    load_published,
    model_key,
)
from tokbench.record.facts import Agreement, Conditions, Difference
from tokbench.stats import Estimate

ROW: dict[str, object] = {
    "id": "acme-l31-8b",
    "vendor": "acme",
    "system": "Acme One",
    "deployment": "cloud-endpoint",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "total_params_b": 8,
    "active_params_b": 8,
    "precision": "bf16",
    "speculation": "none",
    "metric": "decode_tokens_per_s",
    "value": 200,
    "unit": "tokens/s",
    "excludes_ttft": True,
    "concurrency": 1,
    "measured_by": "vendor",
    "is_primary": True,
    "published": "2025-06-01",
    "read_on": "2026-11-21",
    "source_url": "https://example.com/speed",
    "source_title": "Speed",
}
OURS = Conditions(
    model="Llama-3.1-8B-Instruct",
    weights="pretrained",
    precision="bf16",
    prompt_tokens=128,
    output_tokens=64,
    static_batch=1,
    speculation="none",
    engine="transformers",
    hardware="NVIDIA H200",
    devices_per_stream=1,
    measured_by="tokbench",
    as_of="2026-11-21",
)
SPEED = Estimate(50.0, 48.0, 52.0, 7, "tokens/s", "geometric_mean")


def figure(**changes: object) -> PublishedFigure:
    dense = {"active_params_b": changes["total_params_b"]} if "total_params_b" in changes else {}
    return PublishedFigure.model_validate({**ROW, **dense, **changes})


def measured(
    *,
    metric: str = "decode_tokens_per_s",
    size_b: float | None = 8.03,
    active_b: float | None = 8.03,
    **changes: object,
) -> Measured:
    return Measured(SPEED, metric, dataclasses.replace(OURS, **changes), size_b, active_b)  # type: ignore[arg-type]


def compare(ours: Measured, *figures: PublishedFigure, vendor: str = "acme") -> Comparison:
    (result,) = compare_with_published(ours, figures, [vendor])
    assert isinstance(result, Comparison)
    return result


# --- names of models


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instruct",
        "Llama-3.1-8B-Instruct",
        "llama-3.1-8b",
        "meta-llama/Meta-Llama-3.1-8B-Instruct",
        "llama3.1:8b",
        "llama3.1-8b",
        "hf:meta-llama/Llama-3.1-8B-Instruct@main",
        "path:/models/Llama-3.1-8B-Instruct/",
        "shape:llama-3.1-8b",
        "llama-3.1-8b-instant",
        "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
        "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
        "RedHatAI/Llama-3.1-8B-Instruct-FP8",
    ],
)
def test_spellings_of_one_model_have_one_key(name: str) -> None:
    assert "llama-3.1-8b" == model_key(name)


def test_other_weights_have_other_keys() -> None:
    names = [
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "Qwen/Qwen3-235B-A22B",
        "Qwen/Qwen3-235B-A22B-Instruct-2507",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    ]
    assert len(names) == len({model_key(name) for name in names})


# --- which figure is set beside ours


def test_same_model_comes_before_the_same_size_however_old_it_is() -> None:
    old = figure(id="old", published="2024")
    new = figure(id="new", model="acme/Other-8B", published="2026-10")
    result = compare(measured(), new, old)
    assert ("same_model", "old", ()) == (result.match, result.theirs.id, result.others)


def test_llama_3_and_3_1_are_one_size_and_not_one_model() -> None:
    result = compare(measured(), figure(model="meta-llama/Meta-Llama-3-8B-Instruct"))
    assert "same_size_class" == result.match
    assert ("model",) == result.unlike


@pytest.mark.parametrize(
    ("total", "match"), [(12.0, "same_size_class"), (12.1, "nearest_size"), (5.34, "same_size_class")]
)
def test_a_size_class_ends_at_one_and_a_half_times(total: float, match: str) -> None:
    result = compare(measured(size_b=8.0), figure(model="acme/x", total_params_b=total, active_params_b=1.0))
    assert match == result.match
    assert total / 8.0 == result.their_size_over_ours


def test_within_a_size_class_as_many_active_parameters_come_first() -> None:
    dense = figure(id="dense", model="acme/dense-30b", total_params_b=30, active_params_b=30, published="2026")
    sparse = figure(id="sparse", model="acme/sparse-30b", total_params_b=30, active_params_b=3, published="2025")
    result = compare(measured(model="x/30b-a3b", size_b=30.0, active_b=3.3), dense, sparse)
    assert "sparse" == result.theirs.id
    assert ["dense"] == [other.theirs.id for other in result.others]
    assert 30 / 3.3 == result.others[0].their_active_size_over_ours


def test_the_newest_figure_is_the_headline_and_the_rest_are_kept_in_order() -> None:
    rows = [
        figure(id="d-year", published="2026"),
        figure(id="c-secondary", published="2026-05-01", is_primary=False),
        figure(id="e-repeats", published="2026-05-01", repeats="b-primary"),
        figure(id="b-primary", published="2026-05"),
        figure(id="a-superseded", published="2026-10-01", superseded_by="b-primary"),
    ]
    expected = ["b-primary", "e-repeats", "c-secondary", "d-year", "a-superseded"]
    for order in (rows, rows[::-1]):
        result = compare(measured(), *order)
        assert expected == [result.theirs.id, *(other.theirs.id for other in result.others)]
        assert all(not other.others for other in result.others)


def test_figures_of_one_day_are_ordered_by_id() -> None:
    result = compare(measured(), figure(id="b"), figure(id="a"))
    assert ["a", "b"] == [result.theirs.id, result.others[0].theirs.id]


def test_a_demo_model_on_a_cpu_finds_only_the_nearest_size() -> None:
    ours = measured(model="HuggingFaceTB/SmolLM2-135M-Instruct", hardware="Xeon", size_b=0.1345, active_b=0.1345)
    results = compare_with_published(ours, load_published(), ["cerebras", "groq"])
    assert ["cerebras", "groq"] == [result.vendor for result in results]
    for result in results:
        assert isinstance(result, Comparison)
        assert "nearest_size" == result.match
        assert result.their_size_over_ours is not None and result.their_size_over_ours > 10
        assert "model" in result.unlike
        assert Shortfall.MODEL in result.shortfalls


def test_of_a_nearest_class_the_newest_is_the_headline() -> None:
    near = figure(id="near", model="acme/seven", total_params_b=6.7, published="2024")
    newer = figure(id="newer", model="acme/eight", total_params_b=8, published="2025")
    far = figure(id="far", model="acme/seventy", total_params_b=70, published="2026")
    result = compare(measured(model="x/tiny", size_b=0.1, active_b=0.1), near, newer, far)
    assert ["newer", "near"] == [result.theirs.id, *(other.theirs.id for other in result.others)]


def test_a_per_stream_speed_is_never_set_beside_other_concurrency_or_the_system() -> None:
    rows = [
        figure(id="load", concurrency=32),
        figure(id="unstated", concurrency=None),
        figure(id="system", metric="output_tokens_per_s"),
    ]
    expected = NoComparison("acme", "decode_tokens_per_s", Absence.UNUSABLE)
    (result,) = compare_with_published(measured(), rows, ["acme"])
    assert expected == result
    assert "no figure of acme for decode_tokens_per_s is of a load and a statistic like ours" == expected.reason


def system(**changes: object) -> PublishedFigure:
    fields = {"metric": "output_tokens_per_s", "excludes_ttft": None, "concurrency": 64, "value": 9000, **changes}
    return figure(**fields)


def test_a_system_speed_is_set_beside_system_speeds_of_the_same_lengths() -> None:
    ours = measured(metric="output_tokens_per_s", static_batch=64)
    like = system(id="system", input_tokens=128, output_tokens=64)
    result = compare(ours, figure(), like)
    assert ("system", (), ()) == (result.theirs.id, result.unlike, result.shortfalls)
    other = compare(ours, system(input_tokens=128, output_tokens=2048))
    assert (("output_tokens",), False, True) == (other.unlike, other.is_like_for_like, other.is_presentable)


def per_device(**changes: object) -> PublishedFigure:
    unit = {"metric": "output_tokens_per_s_per_device", "unit": "tokens/s/device", "devices": 8}
    return system(**{**unit, "value": 25, **changes})


def test_a_speed_of_one_device_is_set_beside_our_share_of_one_device() -> None:
    ours = measured(metric="output_tokens_per_s", static_batch=64, device_count=4)
    result = compare(ours, per_device())
    assert (12.5, 12.0, 13.0) == (result.ours.value, result.ours.low, result.ours.high)
    assert (0.5, 0.48, 0.52) == (
        result.ours_over_theirs,
        result.ours_over_theirs_low,
        result.ours_over_theirs_high,
    )
    assert result.is_per_device
    assert Difference("device_count", 4, 8, Agreement.DIFFERENT) in result.differences
    assert not compare(ours, system()).is_per_device


def test_a_share_of_an_unknown_number_of_devices_is_compared_with_nothing() -> None:
    ours = measured(metric="output_tokens_per_s", static_batch=64, device_count=None)
    expected = NoComparison("acme", "output_tokens_per_s", Absence.UNUSABLE)
    assert (expected,) == compare_with_published(ours, [per_device()], ["acme"])


def first_token(**changes: object) -> PublishedFigure:
    return figure(metric="ttft_s", unit="s", value=0.2, excludes_ttft=None, **changes)


def test_a_percentile_is_set_beside_its_metric_and_a_tail_only_beside_itself() -> None:
    assert ("ttft_s.p50", "ttft_s") == (
        (result := compare(measured(metric="ttft_s.p50"), first_token())).metric,
        result.theirs.metric,
    )
    tail = first_token(statistic="p99")
    assert compare(measured(metric="ttft_s.p99"), tail).theirs == tail
    for metric in ("ttft_s", "ttft_s.p95"):
        assert (NoComparison("acme", metric, Absence.UNUSABLE),) == compare_with_published(
            measured(metric=metric), [tail], ["acme"]
        )


@pytest.mark.parametrize(
    ("is_endpoint", "deployment", "agreement"),
    [
        (True, "cloud-endpoint", Agreement.SAME),
        (False, "cloud-endpoint", Agreement.DIFFERENT),
        (True, "on-prem-system", Agreement.UNKNOWN),
    ],
)
def test_a_first_token_is_like_theirs_only_at_an_endpoint(
    is_endpoint: bool, deployment: str, agreement: Agreement
) -> None:
    ours = dataclasses.replace(measured(metric="ttft_s"), is_endpoint=is_endpoint)
    result = compare(ours, first_token(deployment=deployment, input_tokens=128))
    assert {agreement} == {row.agreement for row in result.differences if row.field == "endpoint"}
    is_like = agreement is Agreement.SAME
    assert (() if is_like else (Shortfall.KIND,)) == result.shortfalls
    assert (() if is_like else ("endpoint",)) == result.unlike


def test_a_first_token_waits_for_the_prompt() -> None:
    ours = dataclasses.replace(measured(metric="ttft_s"), is_endpoint=True)
    assert ("prompt_tokens",) == compare(ours, first_token(input_tokens=1000)).unlike


def test_our_cost_beside_their_price_says_that_it_is_none() -> None:
    ours = measured(metric="usd_per_million_output_tokens")
    money = {"value": 0.1, "unit": "USD/1M tokens", "excludes_ttft": None}
    result = compare(ours, figure(metric="price_usd_per_million_output_tokens", **money))
    assert Difference("kind_of_price", "cost", "price", Agreement.DIFFERENT) in result.differences
    assert ((Shortfall.KIND,), ("kind_of_price",)) == (result.shortfalls, result.unlike)
    theirs = compare(ours, figure(metric="usd_per_million_output_tokens", **money))
    assert Difference("kind_of_price", "cost", "cost", Agreement.SAME) in theirs.differences
    assert () == theirs.shortfalls


def test_what_cannot_be_compared_says_why_in_the_order_of_the_vendors() -> None:
    machine = {"model": None, "total_params_b": None, "active_params_b": None, "excludes_ttft": None}
    rows = [figure(**machine, metric="mean_power_w", unit="W")]
    power = compare_with_published(measured(metric="mean_power_w"), rows, ["Nobody", "acme", "nobody"])
    assert (
        NoComparison("nobody", "mean_power_w", Absence.METRIC),
        NoComparison("acme", "mean_power_w", Absence.SIZE),
    ) == power
    assert [
        "no figure of nobody states mean_power_w",
        "no figure of acme for mean_power_w is of our model, and the sizes are not known on both sides",
    ] == [result.reason for result in power if isinstance(result, NoComparison)]


def test_without_our_size_only_the_same_model_is_found() -> None:
    ours = measured(size_b=None, active_b=None)
    assert "same_model" == compare(ours, figure()).match
    assert compare(ours, figure()).their_size_over_ours is None
    (other,) = compare_with_published(ours, [figure(model="acme/x")], ["acme"])
    assert isinstance(other, NoComparison)


# --- the ratio, the differences, and what is like for like


def test_with_one_source_the_ratio_has_our_interval_alone() -> None:
    result = compare(measured(), figure())
    assert (0.25, 0.24, 0.26) == (
        result.ours_over_theirs,
        result.ours_over_theirs_low,
        result.ours_over_theirs_high,
    )
    assert (SPEED, "acme", "decode_tokens_per_s") == (result.ours, result.vendor, result.metric)
    assert (None, None, 1, ("acme-l31-8b",)) == result.theirs_range


def test_the_interval_of_a_ratio_is_interval_arithmetic_on_both_sides() -> None:
    other = figure(id="measured", value=160, measured_by="artificial-analysis", published="2025-09")
    result = compare(measured(), figure(), other)
    assert ("measured", 50 / 160) == (result.theirs.id, result.ours_over_theirs)
    assert (160, 200, 2, ("acme-l31-8b", "measured")) == result.theirs_range
    assert (48 / 200, 52 / 160) == (result.ours_over_theirs_low, result.ours_over_theirs_high)


@pytest.mark.parametrize(
    "changes",
    [
        {"measured_by": "vendor"},
        {"repeats": "acme-l31-8b"},
        {"published": "2025-12-02"},
        {"published": "2024-11-29"},
        {"precision": "fp8"},
        {"speculation": "speculative-decoding"},
        {"input_tokens": 100, "system": "Acme Two"},
        {"devices": 4, "engine": "vllm"},
        {"excludes_ttft": False},
        {"statistic": "p99"},
        {"superseded_by": "acme-l31-8b"},
    ],
)
def test_what_is_no_independent_source_of_the_same_thing_widens_nothing(changes: dict[str, object]) -> None:
    first = figure(devices=2, engine="own")
    other = figure(**{"id": "other", "value": 160, "measured_by": "artificial-analysis", **changes})
    result = compare(measured(), first, other)
    mine = next(one for one in (result, *result.others) if one.theirs.id == "acme-l31-8b")
    assert (None, None, 1) == mine.theirs_range[:3]
    assert (0.24, 0.26) == (mine.ours_over_theirs_low, mine.ours_over_theirs_high)


def test_what_a_source_leaves_out_or_spells_otherwise_does_not_part_two_figures() -> None:
    vague = figure(id="vague", value=160, measured_by="artificial-analysis", precision=None, speculation=None)
    wide = figure(id="wide", value=190, measurer="someone", measured_by="third-party", precision="16-bit")
    stated = figure(value_low=180, value_high=220)
    result = compare(measured(), stated, vague, wide)
    mine = next(one for one in (result, *result.others) if one.theirs.id == "acme-l31-8b")
    assert (160, 220, 3) == mine.theirs_range[:3]


def test_an_estimate_without_an_interval_has_a_ratio_without_one() -> None:
    ours = dataclasses.replace(measured(), estimate=Estimate(50.0, None, None, 1, "tokens/s", "exact"))
    result = compare(ours, figure())
    assert (0.25, None, None) == (result.ours_over_theirs, result.ours_over_theirs_low, result.ours_over_theirs_high)


def test_every_condition_is_counted_once_and_unknown_is_not_same() -> None:
    result = compare(measured(), figure(precision=None, devices=2))
    rows = {row.field: row.agreement for row in result.differences}
    assert {field.name for field in dataclasses.fields(Conditions)} == set(rows)
    same = {name for name, agreement in rows.items() if agreement is Agreement.SAME}
    different = {name for name, agreement in rows.items() if agreement is Agreement.DIFFERENT}
    assert {"model", "weights", "concurrency", "speculation"} == same
    assert {"hardware", "devices_per_stream", "measured_by", "as_of"} == different
    assert (4, 4, len(rows) - 8) == tuple(result.count(agreement) for agreement in Agreement)
    assert Agreement.UNKNOWN is rows["precision"]


def test_like_for_like_needs_all_that_decides() -> None:
    result = compare(measured(), figure())
    assert () == result.unlike
    assert result.is_like_for_like


@pytest.mark.parametrize(
    ("ours", "theirs", "unlike"),
    [
        ({}, {"precision": None}, ("precision",)),
        ({}, {"precision": "fp8"}, ("precision",)),
        ({"precision": None}, {}, ("precision",)),
        ({}, {"speculation": None}, ("speculation",)),
        ({}, {"speculation": "speculative-decoding"}, ("speculation",)),
        ({"speculation": "draft_model"}, {"speculation": "speculative-decoding"}, ("speculation",)),
        ({"static_batch": 8}, {}, ("concurrency",)),
        ({"static_batch": None}, {}, ("concurrency",)),
        ({"weights": "random"}, {}, ("weights",)),
        ({}, {"excludes_ttft": None}, ("excludes_ttft",)),
        ({}, {"excludes_ttft": False}, ("excludes_ttft",)),
        ({}, {"precision": None, "speculation": None}, ("precision", "speculation")),
    ],
)
def test_what_keeps_two_numbers_from_being_like_for_like(
    ours: dict[str, object], theirs: dict[str, object], unlike: tuple[str, ...]
) -> None:
    result = compare(measured(**ours), figure(**theirs))  # type: ignore[arg-type]
    assert unlike == result.unlike
    assert not result.is_like_for_like


@pytest.mark.parametrize(("theirs", "agreement"), [("16-bit", Agreement.UNKNOWN), ("fp16", Agreement.DIFFERENT)])
def test_one_width_is_like_for_like_but_only_one_type_is_the_same(theirs: str, agreement: Agreement) -> None:
    result = compare(measured(), figure(precision=theirs))
    assert result.is_like_for_like
    assert Difference("precision", "bf16", theirs, agreement) in result.differences


def test_an_unnamed_method_of_speculation_is_unknown_and_not_different() -> None:
    result = compare(measured(speculation="draft_model"), figure(speculation="speculative-decoding"))
    assert Difference("speculation", "draft_model", "speculative-decoding", Agreement.UNKNOWN) in result.differences


def test_concurrency_stated_by_us_wins_over_the_static_batch() -> None:
    assert compare(measured(concurrency=1, static_batch=8), figure()).is_like_for_like


def test_a_reading_that_a_later_one_replaced_is_not_the_headline() -> None:
    old = figure(id="old", published="2026-09-01", superseded_by="new", speculation="none")
    new = figure(id="new", published="2026-01-01", speculation=None, precision=None, excludes_ttft=None)
    assert "new" == compare(measured(), old, new).theirs.id


def test_of_machines_one_with_as_many_devices_as_ours_comes_first() -> None:
    one = figure(id="one", devices=1, deployment="on-prem-system", published="2024")
    eight = figure(id="eight", devices=8, deployment="on-prem-system", published="2026")
    assert "one" == compare(measured(device_count=1), eight, one).theirs.id
    assert "eight" == compare(measured(device_count=8), eight, one).theirs.id
    cloud = figure(id="cloud", devices=8, published="2026-05")
    assert "cloud" == compare(measured(device_count=1), one, cloud).theirs.id


# --- the minimum for a summary


def test_a_figure_that_may_be_shown_comes_before_a_newer_one_that_may_not() -> None:
    firm = figure(id="firm", published="2024")
    vague = figure(id="vague", published="2026-10", precision=None, speculation=None, excludes_ttft=None)
    result = compare(measured(), vague, firm)
    assert ("firm", ["vague"]) == (result.theirs.id, [other.theirs.id for other in result.others])


@pytest.mark.parametrize(
    ("ours", "theirs", "shortfalls"),
    [
        ({}, {}, ()),
        ({}, {"precision": None, "speculation": None}, ()),
        ({}, {"precision": "fp8", "excludes_ttft": None}, ()),
        ({}, {"precision": None, "speculation": None, "excludes_ttft": None}, (Shortfall.OPEN,)),
        ({"weights": "random"}, {"precision": None, "speculation": None}, (Shortfall.OPEN,)),
        ({"static_batch": 8}, {}, (Shortfall.LOAD,)),
        ({"static_batch": None}, {}, (Shortfall.LOAD,)),
        ({"static_batch": 8}, {"precision": None, "speculation": None}, (Shortfall.LOAD, Shortfall.OPEN)),
        ({}, {"model": "acme/other"}, (Shortfall.MODEL,)),
    ],
)
def test_what_keeps_a_ratio_out_of_a_summary(
    ours: dict[str, object], theirs: dict[str, object], shortfalls: tuple[Shortfall, ...]
) -> None:
    result = compare(measured(**ours), figure(**theirs))  # type: ignore[arg-type]
    assert shortfalls == result.shortfalls
    assert (not shortfalls) == result.is_presentable


def test_the_open_conditions_of_a_system_speed_count_its_load() -> None:
    ours = measured(metric="output_tokens_per_s", static_batch=64)
    unstated = {"concurrency": None, "precision": "fp8", "input_tokens": 128, "output_tokens": 64}
    assert () == compare(ours, system(**unstated)).shortfalls
    assert (Shortfall.OPEN,) == compare(ours, system(**{**unstated, "speculation": None})).shortfalls


# --- harness efficiency

H100 = {"device": "NVIDIA H100 SXM", "devices": 1, "system": "1 x H100"}


def on_h100(**changes: object) -> Measured:
    return measured(**{"hardware": "NVIDIA H100 80GB HBM3", "device_count": 1, **changes})  # type: ignore[arg-type]


def test_harness_efficiency_is_ours_over_the_best_of_the_same_device_and_model() -> None:
    rows = [
        figure(id="slow", vendor="a", value=80, **H100),
        figure(id="best", vendor="b", value=125, **H100),
        figure(id="narrow", vendor="c", value=250, precision="fp8", **H100),
        figure(id="drafted", vendor="c", value=400, speculation="speculative-decoding", **H100),
        figure(id="other-device", vendor="d", value=900, device="NVIDIA B200", devices=1),
        figure(id="eight", vendor="d", value=700, **{**H100, "devices": 8}),
        figure(id="other-model", vendor="d", value=800, model="acme/x", **H100),
        figure(id="loaded", vendor="d", value=600, **{**H100, "concurrency": 16}),
    ]
    found = find_harness_efficiency(on_h100(), rows)
    assert isinstance(found, Comparison)
    assert ("best", 0.4, 0.384, 0.416) == (
        found.theirs.id,
        found.ours_over_theirs,
        found.ours_over_theirs_low,
        found.ours_over_theirs_high,
    )
    only_narrow = find_harness_efficiency(on_h100(), rows[2:4])
    assert isinstance(only_narrow, Comparison)
    assert ("drafted", 0.125) == (only_narrow.theirs.id, only_narrow.ours_over_theirs)
    assert "speculation" in only_narrow.unlike


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        ({"hardware": "Intel Xeon"}, H100, Absence.DEVICE),
        ({"hardware": None}, H100, Absence.DEVICE),
        ({}, {"system": "Acme One"}, Absence.DEVICE),
        ({}, {**H100, "model": "acme/x"}, Absence.DEVICE_MODEL),
        ({}, {**H100, "devices": None}, Absence.DEVICE_MODEL),
        ({"device_count": 2}, H100, Absence.DEVICE_MODEL),
        ({"static_batch": 8}, H100, Absence.LOAD),
    ],
)
def test_without_a_figure_of_the_same_device_and_model_there_is_no_harness_efficiency(
    ours: dict[str, object], theirs: dict[str, object], why: Absence
) -> None:
    found = find_harness_efficiency(on_h100(**ours), [figure(**theirs)])
    assert NoComparison("anybody", "decode_tokens_per_s", why) == found


def test_harness_efficiency_of_a_system_takes_the_share_of_one_device_too() -> None:
    ours = on_h100(metric="output_tokens_per_s", static_batch=64, device_count=2)
    found = find_harness_efficiency(ours, [per_device(value=100, **{**H100, "devices": 8})])
    assert isinstance(found, Comparison)
    assert (25.0, 0.25) == (found.ours.value, found.ours_over_theirs)


def test_without_a_figure_of_as_many_devices_the_share_of_a_larger_system_is_taken_and_says_so() -> None:
    ours = on_h100(metric="output_tokens_per_s", static_batch=64, device_count=1)
    eight = system(id="eight", value=1600, **{**H100, "devices": 8})
    found = find_harness_efficiency(ours, [eight])
    assert isinstance(found, Comparison)
    assert (200.0, 0.25, ("eight",), "tokens/s/device") == (
        found.theirs.value,
        found.ours_over_theirs,
        found.theirs.derived_from,
        found.theirs.unit,
    )
    assert Difference("device_count", 1, 8, Agreement.DIFFERENT) in found.differences
    own = find_harness_efficiency(ours, [eight, system(id="one", value=100, **H100)])
    assert isinstance(own, Comparison) and "one" == own.theirs.id


def test_harness_efficiency_keeps_to_the_same_load_where_it_can_and_to_current_rows() -> None:
    ours = on_h100(metric="output_tokens_per_s", static_batch=64)
    rows = [
        system(id="loaded", value=9000, **{**H100, "concurrency": 512}),
        system(id="same-load", value=100, **H100),
        system(id="old", value=500, superseded_by="same-load", **H100),
        system(id="tail", value=600, statistic="p99", **H100),
    ]
    found = find_harness_efficiency(ours, rows)
    assert isinstance(found, Comparison) and "same-load" == found.theirs.id
    other = find_harness_efficiency(ours, rows[:1])
    assert isinstance(other, Comparison) and "loaded" == other.theirs.id
    assert "with 512 streams, ours with 64: the load's share included" in say_harness(other)
    assert "streams" not in say_harness(found)
    unstated = find_harness_efficiency(ours, [system(value=9000, **{**H100, "concurrency": None})])
    assert "its number of streams is not stated, so that the gap may be the load's" in say_harness(unstated)
