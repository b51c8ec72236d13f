"""Published figures: every row of the package loads, a wrong row is named, and like is set beside like."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from tokbench.derive.published import (
    Comparison,
    Measured,
    NoComparison,
    PublishedFigure,
    compare_with_published,
    first_day,
    load_published,
    model_key,
)
from tokbench.errors import DataError, ExitCode
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
    return PublishedFigure.model_validate({**ROW, **changes})


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


def write_rows(folder: Path, *rows: object, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump({"figures": list(rows)}), encoding="utf-8")
    return folder


# --- the rows of the package


def test_every_row_of_the_package_loads() -> None:
    figures = load_published()
    counts = {vendor: sum(row.vendor == vendor for row in figures) for vendor in ("cerebras", "groq")}
    assert {"cerebras": 65, "groq": 40} == counts


def test_rows_of_the_package_say_where_and_when_they_were_read() -> None:
    for row in load_published():
        assert first_day(row.published) <= first_day(row.read_on)
        assert (row.available_until is None) == (row.available_until_url is None)
        assert row.active_params_b is None or (row.total_params_b or 0) >= row.active_params_b
        assert row.excludes_ttft is None or row.metric == "decode_tokens_per_s"
        assert (row.scenario == "single-stream") == (row.concurrency == 1)


def test_conflicting_rows_are_kept() -> None:
    values = {
        row.value
        for row in load_published()
        if row.vendor == "cerebras" and row.model == "openai/gpt-oss-120b" and row.metric == "decode_tokens_per_s"
    }
    assert {1705.8, 1844.1, 3000.0} == values


def test_time_to_the_first_answer_token_is_not_the_plain_ttft() -> None:
    by_id = {row.id: row for row in load_published()}
    assert "ttfa_s" == by_id["aa-groq-oss120low-ttfat"].metric
    assert "ttft_s" == by_id["aa-cerebras-l33-70b-ttft"].metric


def test_conditions_of_a_figure() -> None:
    by_id = {row.id: row for row in load_published()}
    expected = Conditions(
        model="moonshotai/Kimi-K2.6",
        weights="pretrained",
        prompt_tokens=10000,
        output_tokens=500,
        concurrency=1,
        hardware="Cerebras Inference (CS-3 / WSE-3)",
        measured_by="vendor",
        as_of="2026-05-20",
    )
    assert expected == by_id["cerebras-kimi26-e2e"].conditions()


def test_a_machine_without_a_model_has_no_weights() -> None:
    row = figure(model=None, metric="mean_power_w", unit="W", devices=1)
    assert (None, None, 1) == (row.conditions().model, row.conditions().weights, row.conditions().devices_per_stream)


# --- a user's folder, and what is wrong with it


def test_a_users_folder_adds_to_the_package(tmp_path: Path) -> None:
    figures = load_published(write_rows(tmp_path, ROW))
    assert 106 == len(figures)
    assert figure() == figures[-1]


def test_files_that_are_not_yaml_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("figures: {", encoding="utf-8")
    assert load_published() == load_published(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("source_url", None, "valid string"),
        ("source_url", "example.com", "should match pattern"),
        ("read_on", None, "valid string"),
        ("read_on", "2026-11", "should match pattern"),
        ("read_on", "2026-13-01", "month must be in 1..12"),
        ("published", "May 2024", "'May 2024' is not YYYY, YYYY-MM or YYYY-MM-DD"),
        ("published", "2024-1", "'2024-1' is not YYYY, YYYY-MM or YYYY-MM-DD"),
        ("value", 0, "greater than 0"),
        ("value", -1.5, "greater than 0"),
        ("value", "1800", "valid number"),
        ("value", True, "valid number"),
        ("metric", "tokens_per_second", "unknown metric 'tokens_per_second'; write one of: decode_tokens_per_s, "),
        ("unit", "s", "unknown unit 's'; write one of: tokens/s"),
        ("precision", "half", "unknown precision 'half'; write one of: fp32, "),
        ("speculation", "unknown", "'none' or 'speculative-decoding'"),
        ("concurrency", 0, "greater than 0"),
        ("colour", "red", "not permitted"),
        ("repeats", "nobody", "'nobody' is no other row"),
        ("superseded_by", "acme-l31-8b", "'acme-l31-8b' is no other row"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_row(tmp_path: Path, field: str, value: object, message: str) -> None:
    write_rows(tmp_path, {**ROW, field: value})
    with pytest.raises(DataError) as caught:
        load_published(tmp_path)
    assert (str(tmp_path / "mine.yaml"), "acme-l31-8b", field) == (
        caught.value.file,
        caught.value.row,
        caught.value.field,
    )
    assert message in caught.value.message
    assert ExitCode.DATA == caught.value.exit_code


@pytest.mark.parametrize("field", ["source_url", "read_on", "is_primary", "value", "published"])
def test_a_row_without_a_required_field_is_refused(tmp_path: Path, field: str) -> None:
    write_rows(tmp_path, {key: value for key, value in ROW.items() if key != field})
    with pytest.raises(DataError, match=f"mine.yaml, row acme-l31-8b, field {field}: Field required"):
        load_published(tmp_path)


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, value: str) -> None:
    text = write_rows(tmp_path, ROW).joinpath("mine.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("value: 200", f"value: {value}"), encoding="utf-8")
    with pytest.raises(DataError, match="row acme-l31-8b, field value"):
        load_published(tmp_path)


def test_a_row_without_an_id_is_named_by_its_number(tmp_path: Path) -> None:
    write_rows(tmp_path, ROW, {key: value for key, value in ROW.items() if key != "id"})
    with pytest.raises(DataError, match="row number 2, field id: Field required"):
        load_published(tmp_path)


def test_the_first_fault_says_how_many_more_there_are(tmp_path: Path) -> None:
    write_rows(tmp_path, {**ROW, "value": -1, "source_url": "x", "colour": "red"})
    with pytest.raises(DataError, match=r"field value: .* \(and 2 more\)"):
        load_published(tmp_path)


def test_an_id_of_the_package_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, {**ROW, "id": "groq-l2-70b-100"})
    with pytest.raises(DataError, match=r"row groq-l2-70b-100, field id: stands already in .*groq\.yaml"):
        load_published(tmp_path)


def test_an_id_that_stands_twice_in_a_folder_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, ROW, name="a.yaml")
    write_rows(tmp_path, ROW, name="b.yml")
    with pytest.raises(DataError, match=r"b\.yml, row acme-l31-8b, field id: stands already in .*a\.yaml"):
        load_published(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("figures: [", "line 1: not valid YAML"),
        ("figures:\n- id: a\n  id: b\n", "line 3: the key stands twice"),
        ("rows: []", "one key `figures` with a list of rows is expected"),
        ("", "one key `figures` with a list of rows is expected"),
        ("figures: []\nnotes: x", "one key `figures` with a list of rows is expected"),
        ("figures: [3]", "row number 1"),
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_published(tmp_path)
    assert str(tmp_path / "mine.yaml") == caught.value.file
    assert message in str(caught.value)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"mine\.yaml: cannot be read"):
        load_published(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_published(tmp_path / "nowhere")


# --- names and dates


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


def test_a_coarse_date_counts_as_its_first_day() -> None:
    assert ["2024-01-01", "2024-10-01", "2024-10-09"] == [
        first_day(date).isoformat() for date in ("2024", "2024-10", "2024-10-09")
    ]


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
    assert [("cerebras", "nearest_size"), ("groq", "nearest_size")] == [
        (result.vendor, result.match) for result in results if isinstance(result, Comparison)
    ]
    for result in results:
        assert isinstance(result, Comparison)
        assert "meta-llama/Llama-3.1-8B-Instruct" == result.theirs.model
        assert 8 / 0.1345 == result.their_size_over_ours == result.their_active_size_over_ours
        assert not result.is_like_for_like
        assert "model" in result.unlike


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
    expected = NoComparison(
        "acme", "decode_tokens_per_s", "no figure of acme for decode_tokens_per_s is of a single stream"
    )
    assert (expected,) == compare_with_published(measured(), rows, ["acme"])


def test_a_system_speed_is_set_beside_system_speeds() -> None:
    rows = [figure(), figure(id="system", metric="output_tokens_per_s", concurrency=64, value=9000)]
    result = compare(measured(metric="output_tokens_per_s", static_batch=64), *rows)
    assert ("system", True) == (result.theirs.id, result.is_like_for_like)


def test_a_percentile_is_set_beside_its_metric() -> None:
    row = figure(metric="ttft_s", unit="s", value=0.2, excludes_ttft=None)
    assert ("ttft_s.p50", "ttft_s") == (
        (result := compare(measured(metric="ttft_s.p50"), row)).metric,
        result.theirs.metric,
    )


def test_what_cannot_be_compared_says_why_in_the_order_of_the_vendors() -> None:
    rows = [figure(model=None, total_params_b=None, active_params_b=None, metric="mean_power_w", unit="W")]
    power = compare_with_published(measured(metric="mean_power_w"), rows, ["Nobody", "acme", "nobody"])
    assert (
        NoComparison("nobody", "mean_power_w", "no figure of nobody states mean_power_w"),
        NoComparison(
            "acme",
            "mean_power_w",
            "no figure of acme for mean_power_w is of our model, and the sizes are not known on both sides",
        ),
    ) == power


def test_without_our_size_only_the_same_model_is_found() -> None:
    ours = measured(size_b=None, active_b=None)
    assert "same_model" == compare(ours, figure()).match
    assert compare(ours, figure()).their_size_over_ours is None
    (other,) = compare_with_published(ours, [figure(model="acme/x")], ["acme"])
    assert isinstance(other, NoComparison)


# --- the ratio, the differences, and what is like for like


def test_the_ratio_is_ours_over_theirs_with_our_interval() -> None:
    result = compare(measured(), figure())
    assert (0.25, 0.24, 0.26) == (
        result.ours_over_theirs,
        result.ours_over_theirs_low,
        result.ours_over_theirs_high,
    )
    assert (SPEED, "acme", "decode_tokens_per_s") == (result.ours, result.vendor, result.metric)


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


def test_llama_8b_on_one_gpu_beside_the_package() -> None:
    cerebras, groq = compare_with_published(measured(), load_published(), ["cerebras", "groq"])
    assert isinstance(cerebras, Comparison)
    assert isinstance(groq, Comparison)
    assert ("cerebras-l31-8b-2200-2026", "same_model", 50 / 2200) == (
        cerebras.theirs.id,
        cerebras.match,
        cerebras.ours_over_theirs,
    )
    assert ("precision", "speculation", "excludes_ttft") == cerebras.unlike
    assert {"aa-cerebras-l31-8b-2024-09"} == {other.theirs.id for other in cerebras.others if other.is_like_for_like}
    assert ("aa-groq-l31-8b-2024-09", ("precision",)) == (groq.theirs.id, groq.unlike)


def test_a_reading_that_a_later_one_replaced_is_not_the_headline() -> None:
    ours = measured(model="Qwen/Qwen3-32B", size_b=32.8, active_b=32.8)
    (result,) = compare_with_published(ours, load_published(), ["cerebras"])
    assert isinstance(result, Comparison)
    assert ("cerebras-docs-q3-32b-2600", 2600.0) == (result.theirs.id, result.theirs.value)
