"""Published figures: every row of the package loads, and a wrong row is named."""

from __future__ import annotations

import collections
import os
import re
from pathlib import Path

import pytest
import yaml

from tokbench.derive.published import METRIC_UNITS, PublishedFigure, first_day, load_published
from tokbench.errors import DataError, ExitCode
from tokbench.record.catalog import DATA_DIR, find_device
from tokbench.record.facts import Conditions
from tokbench.record.yaml_tree import parse_tree

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


def figure(**changes: object) -> PublishedFigure:
    return PublishedFigure.model_validate({**ROW, **changes})


def write_rows(folder: Path, *rows: object, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump({"figures": list(rows)}), encoding="utf-8")
    return folder


# --- the rows of the package


def test_every_row_of_the_package_loads() -> None:
    figures = load_published()
    counts = collections.Counter(row.vendor for row in figures)
    floor = {"nvidia": 240, "cerebras": 65, "groq": 40, "amd": 19, "apple": 19, "sambanova": 10, "aws": 10, "google": 7}
    assert floor == {vendor: min(count, counts[vendor]) for vendor, count in floor.items()}
    assert {"deepseek", "fireworks", "openai", "nebius", "crusoe", "digitalocean", "intel", "ampere"} <= counts.keys()
    assert set(METRIC_UNITS) - {"ttft_s"} <= {row.metric for row in figures} | {"ttft_s"}


def test_rows_of_the_package_say_where_and_when_they_were_read() -> None:
    for row in load_published():
        assert first_day(row.published) <= first_day(row.read_on)
        assert (row.available_until is None) == (row.available_until_url is None)
        assert row.active_params_b is None or (row.total_params_b or 0) >= row.active_params_b
        assert row.excludes_ttft is None or row.metric == "decode_tokens_per_s"
        assert (row.scenario == "single-stream") == (row.concurrency == 1)


def test_what_somebody_else_measured_is_primary_only_on_the_measurers_own_page() -> None:
    homes = {"artificial-analysis": "https://artificialanalysis.ai/", "mlperf": "https://github.com/mlcommons/"}
    primary = [row for row in load_published() if row.is_primary and row.measured_by in homes]
    assert 5 < len(primary)
    assert [] == [row.id for row in primary if not row.source_url.startswith(homes[row.measured_by])]


def test_a_price_of_the_package_is_the_vendors_whoever_copied_it() -> None:
    prices = [row for row in load_published() if row.metric.startswith("price_")]
    assert 100 < len(prices)
    assert {"vendor"} == {row.measured_by for row in prices}


def test_the_readme_says_how_many_figures_there_are() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"some (\d+) published figures", text)
    assert abs(len(load_published()) - int(said)) < 15


def test_conflicting_rows_are_kept() -> None:
    values = {
        row.value
        for row in load_published()
        if row.vendor == "cerebras" and row.model == "openai/gpt-oss-120b" and row.metric == "decode_tokens_per_s"
    }
    assert {1705.8, 1844.1, 3000.0} <= values


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


def test_a_stream_need_not_use_all_devices_of_a_system() -> None:
    alone, shared = figure(devices=8).conditions(), figure(devices=8, concurrency=64).conditions()
    assert (8, 8) == (alone.device_count, alone.devices_per_stream)
    assert (8, None) == (shared.device_count, shared.devices_per_stream)


def test_the_software_is_a_condition() -> None:
    assert "vllm" == figure(engine="vllm", engine_version="0.9").conditions().engine


@pytest.mark.parametrize(
    ("statistic", "name"),
    [("p50", "ttft_s.p50"), ("median", "ttft_s.p50"), ("p99", "ttft_s.p99"), ("average", "ttft_s"), (None, "ttft_s")],
)
def test_a_percentile_is_part_of_the_metrics_name(statistic: str | None, name: str) -> None:
    assert name == figure(metric="ttft_s", unit="s", statistic=statistic).metric_name


def test_the_median_has_one_spelling() -> None:
    assert figure(statistic="median") == figure(statistic="p50")


def test_energy_of_the_package_says_what_it_takes_in_or_that_nobody_knows() -> None:
    energy = [row for row in load_published() if row.metric == "energy_j_per_output_token"]
    assert {"board", "wall"} <= {row.energy_scope for row in energy}
    assert all(row.is_primary is False for row in energy if row.energy_scope is None)


def test_what_we_derived_follows_from_the_rows_it_names() -> None:
    by_id = {row.id: row for row in load_published()}
    derived = [row for row in by_id.values() if row.derived_from]
    assert 9 <= len(derived)
    for row in derived:
        power, rate = (by_id[name] for name in row.derived_from)
        assert ("W", "tokens/s", power.model) == (power.unit, rate.unit, rate.model)
        assert row.value == pytest.approx(power.value / rate.value, rel=1e-3), row.id


def test_what_we_derived_from_one_table_says_so_and_its_rate_and_cost_agree() -> None:
    by_id = {row.id: row for row in load_published() if row.measurer == "dstack"}
    assert 28 == len(by_id)
    for row in by_id.values():
        assert row.notes is not None and re.match(r"Ours?\b.*(2048 / 2176|2176 / 2048)", row.notes)
    for name in (name for name in by_id if f"{name}-cost" in by_id):
        cost = by_id[f"{name}-cost"]
        rent = re.search(r"([\d.]+) USD an hour per GPU", cost.notes or "")
        assert rent is not None
        assert cost.value == pytest.approx(8 * float(rent[1]) / 3600 / by_id[name].value * 1e6, rel=1e-3), name


def test_a_device_of_the_package_is_that_of_its_system() -> None:
    for row in load_published():
        named = find_device(row.system)
        assert None in (row.device, named) or (named is not None and named.name == row.device), row.id


@pytest.mark.parametrize("name", ["published", "facts.yaml", "prices.yaml"])
def test_the_fast_way_to_read_our_own_files_reads_the_same(name: str) -> None:
    place = DATA_DIR / name
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        text = file.read_text(encoding="utf-8")
        assert parse_tree(text, file.name) == parse_tree(text, file.name, is_packaged=True), file.name


# --- a user's folder, and what is wrong with it


def test_a_users_folder_adds_to_the_package(tmp_path: Path) -> None:
    figures = load_published(write_rows(tmp_path, ROW))
    assert (*load_published(), figure()) == figures


def test_files_that_are_not_yaml_are_left_alone(tmp_path: Path) -> None:
    write_rows(tmp_path, ROW)
    (tmp_path / "README.md").write_text("figures: {", encoding="utf-8")
    assert (*load_published(), figure()) == load_published(tmp_path)


def test_a_suffix_in_capitals_is_read(tmp_path: Path) -> None:
    assert figure() == load_published(write_rows(tmp_path, ROW, name="MINE.YAML"))[-1]


def test_a_folder_without_figures_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("figures: []", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_published(tmp_path)
    assert (str(tmp_path), "no YAML file in it") == (caught.value.file, caught.value.message)
    assert "*.yaml" in (caught.value.fix or "")


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    with pytest.raises(DataError, match=r"mine\.yaml: is no file"):
        load_published(tmp_path)


def test_a_file_that_nests_without_end_is_refused_and_kills_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("figures: " + "[" * 300_000, encoding="utf-8")
    with pytest.raises(DataError, match="nests too deeply"):
        load_published(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("published", 2025, 'a year or a number as text stands in quotes, e.g. "2025"'),
        ("value", "1,800", "a plain number, without quotes and thousands separators"),
        ("value", 0, "leave the field out where the source does not state it"),
        ("concurrency", "8", "a whole number"),
        ("is_primary", "yes", "write true or false"),
        ("vendor", "Acme Inc", "e.g. together-ai"),
        ("read_on", "2026-11", "e.g. 2026-11-22"),
        ("source_url", "https:////", "e.g. https://example.com/page"),
        ("engine", "vLLM 0.9", "lower case letters, digits, hyphens and dots"),
        ("source_title", "", "leave the field out"),
        ("derived_from", "second", "write a list, e.g. [first-id, second-id]"),
        ("derived_from", ["nobody"], "name the ids of the rows"),
        ("repeats", "nobody", "name the id of another row of the same vendor and metric"),
        ("concurency", 1, "did you mean concurrency?"),
        ("colour", "red", "remove it; known: id, vendor, "),
    ],
)
def test_a_wrong_field_comes_with_what_to_do(tmp_path: Path, field: str, value: object, fix: str) -> None:
    write_rows(tmp_path, {**ROW, field: value})
    with pytest.raises(DataError) as caught:
        load_published(tmp_path)
    assert ("acme-l31-8b", field) == (caught.value.row, caught.value.field)
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize("field", ["repeats", "superseded_by"])
@pytest.mark.parametrize("changes", [{"vendor": "other"}, {"metric": "e2e_tokens_per_s"}])
def test_a_row_is_linked_to_one_of_its_kind_alone(tmp_path: Path, field: str, changes: dict[str, object]) -> None:
    write_rows(tmp_path, {**ROW, "excludes_ttft": None}, {**ROW, "id": "second", field: "acme-l31-8b", **changes})
    with pytest.raises(DataError, match=f"row second, field {field}: 'acme-l31-8b' is of another vendor or metric"):
        load_published(tmp_path)


def test_rows_that_supersede_each_other_would_all_be_lost(tmp_path: Path) -> None:
    ring = [{**ROW, "id": name, "superseded_by": later} for name, later in (("a", "b"), ("b", "c"), ("c", "a"))]
    with pytest.raises(DataError, match="row a, field superseded_by: leads back to 'a': no row would be left"):
        load_published(write_rows(tmp_path, *ring))


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
        ("metric", "ttft_s.p99", "a percentile stands in `statistic`"),
        ("vendor", "Acme Inc", "should match pattern"),
        ("engine", "vLLM 0.9", "should match pattern"),
        ("measurer", "a-tester", "measured_by is the vendor already"),
        ("statistic", "mean", "Input should be 'peak', 'median'"),
        ("scenario", "multi-stream", "Input should be 'single-stream'"),
        ("energy_scope", "board", "decode_tokens_per_s is no energy and no power"),
        ("value_low", 150, "a range needs value_low and value_high"),
        ("active_params_b", 9, "more than total_params_b"),
        ("available_until", "2026-01", "available_until and available_until_url go together"),
        ("published", "2026-11-22", "later than it was read (2026-11-21)"),
        ("device", "NVIDIA H200 SMX", "'NVIDIA H200 SMX' is no device of data/devices.yaml"),
        ("derived_from", ["nobody"], "'nobody' is no other row"),
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


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"measured_by": "mlperf"}, "benchmark", "names its round in `benchmark`, and its scenario"),
        ({"value_low": 210, "value_high": 220}, "value", "lies outside its range"),
        ({"scenario": "single-stream", "concurrency": 8}, "concurrency", "a single stream is concurrency 1"),
        ({"metric": "mean_power_w", "unit": "W", "statistic": "peak"}, "metric", "write peak_power_w"),
        ({"metric": "output_tokens_per_s_per_device"}, "unit", "write one of: tokens/s/device"),
    ],
)
def test_fields_that_do_not_go_together(tmp_path: Path, changes: dict[str, object], field: str, message: str) -> None:
    write_rows(tmp_path, {**ROW, **changes})
    with pytest.raises(DataError) as caught:
        load_published(tmp_path)
    assert ("acme-l31-8b", field) == (caught.value.row, caught.value.field)
    assert message in caught.value.message


def test_a_repost_names_the_first_row_and_no_other_repost(tmp_path: Path) -> None:
    second = {**ROW, "id": "second", "repeats": "acme-l31-8b"}
    assert 2 == len(load_published(write_rows(tmp_path, ROW, second))) - len(load_published())
    write_rows(tmp_path, ROW, second, {**ROW, "id": "third", "repeats": "second"})
    with pytest.raises(DataError, match="row third, field repeats: 'second' repeats 'acme-l31-8b' itself"):
        load_published(tmp_path)


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


# --- dates


def test_a_coarse_date_counts_as_its_first_day() -> None:
    assert ["2024-01-01", "2024-10-01", "2024-10-09"] == [
        first_day(date).isoformat() for date in ("2024", "2024-10", "2024-10-09")
    ]
