"""`tokbench claims`: table, explanation, JSON, the user's own file, and errors without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from builders import Script
from claims_builders import TODAY, evidence_of
from tokbench.cli.more import register
from tokbench.derive.claims.explain import explain
from tokbench.derive.claims.judge import judge_claims
from tokbench.derive.claims.rules import load_claims
from tokbench.derive.report.claims_section import claims_sections
from tokbench.derive.report.document import Document, Table
from tokbench.derive.report.markdown import render_markdown
from tokbench.derive.words import in_language
from tokbench.errors import DataError, RecordError, SpecError
from tokbench.record.run import read_run

app = typer.Typer()
register(app)

MINE = """
claims:
- id: slow-steps
  topic: latency
  priority: 1
  document: mine.txt
  statement: "A step takes longer than a millisecond."
  statement_zh: "一步超过一毫秒。"
  attributed_to: "Me"
  kind: local
  quantities: {bound: {value: 1, unit: ms}}
  inputs:
    step: {measured: {select: {weights: pretrained}, metric: TPOT}}
    bound: {quantity: bound}
  supports_if: "step > bound"
  refutes_if: "step < bound"
  needs: "tokbench run configs/smoke.yaml"
  against: {en: "On other devices it is shorter.", zh: "在其他设备上更短。"}
  rules_before: {supports_if: "a", refutes_if: "b", why: "c"}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE, encoding="utf-8")
    return file


@pytest.fixture
def record(tmp_path: Path) -> Path:
    script = Script()
    cell_id = script.cell()
    for index in range(3):
        script.trial(cell_id, step_s=0.01 + 0.0001 * index, worker=f"worker-{index}")
    return script.write(tmp_path / "run")


def cell_of(record: Path) -> str:
    (cell_id,) = read_run(record).cells
    return cell_id


def claims(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["claims", *map(str, arguments)])


def test_without_a_record_the_command_that_tests_it_is_printed(mine: Path) -> None:
    result = claims("--file", mine)
    assert 0 == result.exit_code, result.output
    assert "slow-steps\tlatency\tuntested\t-\tan input that can be had is missing" in result.stdout
    assert "claims: 1, tests: 1: 1 untested\nto test slow-steps: tokbench run configs/smoke.yaml\n" in result.stdout


def test_a_command_whose_config_is_not_there_says_so(mine: Path) -> None:
    mine.write_text(MINE.replace("configs/smoke.yaml", "configs/unwritten.yaml"), encoding="utf-8")
    assert "to test slow-steps: tokbench run configs/unwritten.yaml  (not here: configs/unwritten.yaml)\n" in (
        claims("--file", mine).stdout
    )


def test_a_record_settles_it(mine: Path, record: Path) -> None:
    result = claims(record, "--file", mine)
    assert "slow-steps\tlatency\tsupported\tmeasured-at-scale" in result.stdout
    assert "to test" not in result.stdout


def test_explain_goes_down_to_the_cell(mine: Path, record: Path) -> None:
    result = claims(record, "--file", mine, "--explain", "slow-steps")
    assert "slow-steps: supported" in result.stdout
    assert "supported if step > bound: true" in result.stdout
    assert "      step = 0.01010 s (" in result.stdout
    assert "        run " in result.stdout
    assert f"tpot_s of cell {cell_of(record)} in {record.as_posix()}/events.jsonl\n" in result.stdout
    assert "formula: " in result.stdout
    assert "0.01000 s from trial t0 by worker-0: 2 window_opened, 2 step_trace, 1 memory_reading\n" in result.stdout
    assert "strongest argument against: On other devices it is shorter." in result.stdout
    before = "  rules before: supported if a\n  rules before: refuted if b\n  repaired because: c\n"
    assert result.stdout.endswith(before)


def test_json_holds_numbers_sources_and_both_rules(mine: Path, record: Path) -> None:
    (found,) = json.loads(claims(record, "--file", mine, "--json").stdout)["claims"]
    assert ("slow-steps", "supported", "measured-at-scale") == (found["id"], found["verdict"], found["strength"])
    step = found["inputs"]["step"]
    assert step["base_value"]["low"] < 0.0101 < step["base_value"]["high"]
    assert "pretrained" == step["sources"][0]["conditions"]["weights"]
    assert {"rule": "step < bound", "state": "false", "straddles": []} == found["parts"][0]["refutes_if"]


def test_only_one_topic_of_ours() -> None:
    result = claims("--only", "moe", "--json")
    assert {"moe"} == {found["topic"] for found in json.loads(result.stdout)["claims"]}


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (("--only", "gossip"), SpecError, "no such topic: 'gossip'"),
        (("--only", "nosuch"), SpecError, "use one of: attention, cost, edge"),
        (("--only", "moe", "--explain", "wse3-area-57x"), SpecError, "'wse3-area-57x' is not of the topic 'moe'"),
        (("--explain", "wse3-area-75x"), SpecError, "wse3-area-57x"),
        (("--file", "nowhere.yaml"), DataError, "cannot be read"),
        (("nowhere",), RecordError, "nowhere"),
    ],
)
def test_what_is_wrong_is_told_with_its_code(arguments: tuple[str, ...], kind: type[Exception], says: str) -> None:
    result = claims(*arguments)
    assert isinstance(result.exception, kind)
    assert says in str(result.exception)


def test_a_step_is_said_in_a_unit_that_people_read_and_a_year_as_a_year() -> None:
    tree = claims("--explain", "custom-silicon-2-3-years").stdout
    assert "trainium_launched - trainium_started) = 7.000 years" in tree
    assert "maia_started = the year 2019" in tree
    assert " 2,0" not in tree
    assert "bits_per_weight = cards * card_memory / parameters = 0.5723 bit" in (
        claims("--explain", "moe-671b-two-4090").stdout
    )
    assert "From cheap to dear industrial power, 0.1000 USD/kWh" in (
        claims("--explain", "chip-generation-stranding").stdout
    )


@pytest.mark.parametrize(
    ("own", "hostile", "field"),
    [
        ('"step > bound"', "\"step > q(1, 's/0')\"", "supports_if"),
        ("unit: ms", "unit: s/0", "inputs.bound"),
        ('"step > bound"', '"2 > 1"', "supports_if"),
        ('"step > bound"', '"step / 0 > bound"', "supports_if"),
        ('"step > bound"', '"step ** 0.3 > bound ** 0.3"', "supports_if"),
    ],
)
def test_a_hostile_file_is_one_error_with_row_and_field(
    mine: Path, record: Path, own: str, hostile: str, field: str
) -> None:
    mine.write_text(MINE.replace(own, hostile), encoding="utf-8")
    error = claims(record, "--file", mine).exception
    assert isinstance(error, DataError), error
    assert ("slow-steps", field) == (error.row, error.field)


def test_the_section_and_the_tree_are_said_in_both_languages(mine: Path) -> None:
    rows = load_claims({"mine.yaml": mine})
    with in_language("zh"):
        verdicts = judge_claims(rows, evidence_of(), TODAY)
        text = render_markdown(Document("T", tuple(claims_sections(verdicts))))
        tree = "\n".join(line.text for line in explain(verdicts[0]))
    assert "一步超过一毫秒。" in text
    assert "未测试" in text
    assert "在其他设备上更短。" in tree
    assert "slow-steps：未测试" in tree
    english = claims_sections(judge_claims(rows, evidence_of(), TODAY))
    tables = [block for section in english for block in section.blocks if isinstance(block, Table)]
    assert "untested" == tables[0].rows[0][3].text
    assert [] == claims_sections([])
