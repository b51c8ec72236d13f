"""`tokbench published`: which rows, in which order and form, and what is said where there are none."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tokbench.cli.more import register
from tokbench.derive.published import load_published
from tokbench.derive.published.facts import load_facts
from tokbench.derive.published.prices import load_prices
from tokbench.errors import DataError, SpecError

app = typer.Typer()
register(app)
HEAD = "vendor,model,metric,value,published,measured by,read,technique,remarks,system,source"

OWN = """figures:
- {id: acme-old, vendor: acme, system: Acme One, deployment: cloud-endpoint, model: acme/Tiny-1.5-7B-Instruct,
   metric: decode_tokens_per_s, value: 10.5, unit: tokens/s, statistic: at_least, concurrency: 1, measured_by: vendor,
   is_primary: true, superseded_by: acme-new, published: "2031", read_on: "2031-02-01",
   source_url: "https://acme.example/old", source_title: Old}
- {id: acme-second, vendor: acme, system: Acme One, deployment: cloud-endpoint, model: acme/Tiny-1.5-7B-Instruct,
   metric: decode_tokens_per_s, value: 12, unit: tokens/s, statistic: median, speculation: speculative-decoding,
   concurrency: 1, measured_by: artificial-analysis, is_primary: false, repeats: acme-new,
   available_until: "2032-01-01", available_until_url: "https://acme.example/end",
   published: "2031-05-02", read_on: "2031-06-01",
   source_url: "https://other.example/", source_title: "Says, it"}
- {id: acme-new, vendor: acme, system: Acme One, deployment: cloud-endpoint, model: acme/Tiny-1.5-7B-Instruct,
   metric: decode_tokens_per_s, value: 12, unit: tokens/s, speculation: none, concurrency: 1, measured_by: vendor,
   is_primary: true, published: "2031-05-02", read_on: "2031-06-01",
   source_url: "https://acme.example/new", source_title: New}
- {id: acme-power, vendor: acme, system: Acme One, deployment: on-prem-system, metric: mean_power_w, value: 23000,
   unit: W, statistic: rated, measured_by: vendor, is_primary: true, published: "2030-12", read_on: "2031-06-01",
   source_url: "https://acme.example/power", source_title: Power}
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "acme.yaml").write_text(OWN, encoding="utf-8")
    return str(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["published", *arguments])


def rows(*arguments: str) -> list[list[str]]:
    result = invoke(*arguments)
    assert (result.exit_code, result.exception) == (0, None)
    return [line.split("\t") for line in result.stdout.splitlines()]


def refused(*arguments: str) -> SpecError:
    error = invoke(*arguments).exception
    assert isinstance(error, SpecError)
    return error


def test_a_table_newest_first_and_the_source_itself_before_second_hand(own: str) -> None:
    speed = ["Acme", "Tiny-1.5-7B-Instruct", "decode_tokens_per_s"]
    head, *found = rows("--published", own, "--vendor", "acme")
    assert HEAD == ",".join(head)
    new, second, old, power = found
    assert new[:3] == speed
    assert new[3:7] == ["12 tokens/s", "2031-05-02", "stated by the vendor", "primary"]
    assert new[7:] == ["no speculation", "none", "Acme One", "https://acme.example/new"]
    assert second[5:] == [
        "measured by Artificial Analysis, median",
        "second-hand",
        "speculative decoding",
        "repeats acme-new; offered until 2032-01-01",
        "Acme One",
        "https://other.example/",
    ]
    assert old[3:9] == [
        "at least 10.5 tokens/s",
        "2031",
        "stated by the vendor",
        "primary",
        "not stated",
        "superseded by acme-new",
    ]
    assert power[:4] == ["Acme", "machine: Acme One", "mean_power_w", "23,000 W"]


def on_a_terminal(columns: int, *arguments: str) -> list[str]:
    terminal = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}
    result = CliRunner().invoke(app, ["published", *arguments], env=terminal)
    assert (result.exit_code, result.exception) == (0, None)
    return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()


def test_a_narrow_terminal_gets_lines_that_break_no_word(own: str) -> None:
    lines = on_a_terminal(80, "--published", own, "--vendor", "acme")
    assert "4 published figures, newest first" == lines[0]
    assert [
        "Acme Tiny-1.5-7B-Instruct decode_tokens_per_s: 12 tokens/s (2031-05-02)",
        "  on Acme One",
        "  measured by Artificial Analysis, median; second-hand",
        "  technique: speculative decoding; remarks: repeats acme-new; offered until 2032-01-01",
        "  https://other.example/",
    ] == lines[8:13]
    wide = on_a_terminal(300, "--published", own, "--vendor", "acme")
    assert any("Tiny-1.5-7B-Instruct" in line and line.startswith("│") for line in wide)


def test_a_year_alone_counts_as_its_first_day(own: str) -> None:
    assert [] == [row for row in rows("--published", own, "--vendor", "acme", "--since", "2031-01-02") if "2031" in row]
    assert 4 == len(rows("--published", own, "--vendor", "acme", "--since", "2031"))


def test_a_model_is_meant_by_words_of_its_name(own: str) -> None:
    for name in ("tiny-1.5-7b", "acme/Tiny-1.5-7B", "Tiny 1.5", "tiny"):
        assert 4 == len(rows("--published", own, "--model", name)), name
    assert "No published figure for the model tin " in invoke("--published", own, "--model", "tin").stdout


def test_the_packaged_rows_of_one_model_and_vendor() -> None:
    expected = [
        figure
        for figure in load_published()
        if figure.vendor == "groq" and figure.model is not None and "gpt-oss-120b" in figure.model
    ]
    _, *found = rows("--vendor", "Groq", "--model", "openai/gpt-oss-120b")
    assert expected and len(expected) == len(found)
    assert {row[1] for row in found} == {"gpt-oss-120b"}
    assert all(row[-1].startswith("https://") for row in found)


def test_vendors_may_be_repeated() -> None:
    _, *found = rows("--vendor", "groq", "--vendor", "cerebras", "--metric", "ttfa_s")
    assert {row[0] for row in found} == {"Groq", "Cerebras"}
    assert {row[2] for row in found} == {"ttfa_s"}


def test_csv_and_json_carry_every_field_as_the_row_has_it(own: str) -> None:
    as_csv = list(csv.DictReader(io.StringIO(invoke("--published", own, "--vendor", "acme", "--csv").stdout)))
    as_json = json.loads(invoke("--published", own, "--vendor", "acme", "--json").stdout)
    assert ["acme-new", "acme-second", "acme-old", "acme-power"] == [row["id"] for row in as_csv]
    assert [row["id"] for row in as_csv] == [row["id"] for row in as_json]
    assert ("Says, it", "", "12.0") == (as_csv[1]["source_title"], as_csv[1]["precision"], as_csv[1]["value"])
    assert (12.0, None, False) == (as_json[1]["value"], as_json[1]["precision"], as_json[1]["is_primary"])


def test_nothing_found_is_said_and_is_no_fault(own: str) -> None:
    result = invoke("--published", own, "--vendor", "acme", "--metric", "ttft_s", "--since", "2031")
    assert 0 == result.exit_code
    assert result.stdout.startswith("No published figure of acme of ttft_s since 2031 among the ")
    near = invoke("--model", "gpt-os")
    assert (0, True) == (near.exit_code, "openai/gpt-oss-120b" in near.stdout)
    assert [] == json.loads(invoke("--model", "gpt-os", "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (
            ("--vendor", "grok"),
            "no published figure has the vendor 'grok'",
            "did you mean groq? known: amd, ampere, apple, aws, ",
        ),
        (("--metric", "ttft"), "no published figure has the metric 'ttft'", "did you mean ttft_s?"),
        (("--since", "May 2025"), "'May 2025' is not YYYY", "--since 2025-06"),
        (("--since", "2025-13"), "month must be in 1..12", "--since 2025-06"),
        (("--csv", "--json"), "two forms of one answer", "leave one out"),
        (("--check", "--vendor", "groq"), "the check looks at every row", "published check [--published DIR]"),
        (("check", "--json"), "the check looks at every row", "published check [--published DIR]"),
        (("chek",), "'chek' is nothing that can be done with published figures", "tokbench published check"),
        (("--metric", "ttfa_s.p51"), "no published figure has the metric 'ttfa_s.p51'", "did you mean ttfa_s.p50?"),
    ],
)
def test_what_cannot_be_listed(arguments: tuple[str, ...], message: str, fix: str) -> None:
    error = refused(*arguments)
    assert message in error.message
    assert error.fix is not None and fix in error.fix


def test_check_counts_per_vendor(own: str) -> None:
    lines = invoke("check", "--published", own).stdout.splitlines()
    assert lines[0] == (
        "acme: 4 figures of 1 model, 3 read in the source itself, 1 second-hand, 1 superseded, 1 repost, "
        "1 independent source, newest 2031-05-02"
    )
    vendors = [line.partition(":")[0] for line in lines if ", newest " in line]
    assert vendors == sorted(vendors)
    assert {"acme", "cerebras", "groq", "nvidia", "amd", "google", "aws", "apple", "sambanova"} <= set(vendors)
    counts = f"{len(load_published()) + 4} figures, {len(load_facts())} facts, {len(load_prices())} prices"
    assert f"{counts}: every row is well-formed" == lines[-1]
    assert lines == invoke("--check", "--published", own).stdout.splitlines()


def test_check_lists_what_conflicts(own: str, tmp_path: Path) -> None:
    before = invoke("check", "--published", own).stdout
    other = OWN.split("figures:\n")[1].split("- {id: acme-new,")[1]
    row = "- {id: acme-other," + other.split("\n- {id: acme-power")[0]
    row = row.replace("measured_by: vendor", "measured_by: third-party").replace("value: 12", "value: 30")
    (tmp_path / "other.yaml").write_text("figures:\n" + row.replace("acme.example", "tester.example"), encoding="utf-8")
    after = invoke("check", "--published", own).stdout
    line = (
        "  2.50x acme Tiny-1.5-7B-Instruct decode_tokens_per_s: "
        "12 tokens/s acme-new (2031-05-02) | 30 tokens/s acme-other (2031-05-02)"
    )
    assert line not in before.splitlines()
    assert line in after.splitlines()
    assert "2 independent sources" in after.splitlines()[0]

    def subjects(text: str) -> tuple[int, int]:
        (found,) = (line for line in text.splitlines() if "subjects (vendor, model, metric)" in line)
        return int(found.split()[0]), int(found.split()[2])

    assert (subjects(before)[0] + 1, subjects(before)[1]) == subjects(after)


def test_a_percentile_and_its_metric_are_asked_for_by_name() -> None:
    _, *medians = rows("--vendor", "cerebras", "--metric", "decode_tokens_per_s.p50")
    _, *every = rows("--vendor", "cerebras", "--metric", "decode_tokens_per_s")
    assert 0 < len(medians) < len(every)
    assert all(row[5].endswith(", median") for row in medians)


def test_what_we_derived_and_who_measured_are_said() -> None:
    asked = ("--vendor", "nvidia", "--metric", "energy_j_per_output_token", "--model", "llama-2-70b")
    _, *found = rows(*asked)
    assert {"board", "wall"} >= {row[8].rpartition("energy scope: ")[2] for row in found} >= {"wall"}
    sources = [row["derived_from"].split() for row in csv.DictReader(io.StringIO(invoke(*asked, "--csv").stdout))]
    assert {2} == {len(ids) for ids in sources}
    assert any(
        "measured in MLPerf (lenovo)" == row[5] and row[8].startswith("our arithmetic on mlperf51") for row in found
    )


def test_check_names_the_row_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(OWN.replace("value: 10.5", "value: -1"), encoding="utf-8")
    error = invoke("--check", "--published", str(tmp_path)).exception
    assert isinstance(error, DataError)
    assert ("acme-old", "value") == (error.row, error.field)
