"""A report in Chinese: every sentence of the program is, what lies in the record is not, and no number differs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from report_builders import FIGURES, GOLDEN, VENDORS
from tokbench.derive.evaluate import evaluate
from tokbench.derive.report.write import Extras, ReportPaths, write_report
from tokbench.derive.words import language
from tokbench.errors import SpecError
from tokbench.record.run import read_run

ENGLISH_CLAUSE = re.compile(r"(?:\b[a-z]{2,}\b[ ,]*){4,}")
"""Four plain English words in a row: no name, key, unit or command has as many."""
DATA = re.compile(r"\[[^\]]*\]\(\S*\)|`[^`]*`")
"""Links, whose texts are titles of sources, and code."""
NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def report_in(code: str, folder: Path) -> ReportPaths:
    results = evaluate(read_run(GOLDEN / "run"), "golden")
    return write_report([results], FIGURES, folder, vendors=VENDORS, extras=Extras(language=code))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReportPaths]:
    return {code: report_in(code, tmp_path_factory.mktemp(code)) for code in ("en", "zh")}


def prose(path: Path) -> list[str]:
    """Fields of tables and lines outside code, without links."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [field for line in text.splitlines() for field in DATA.sub("", line).split("|")]


def recorded() -> str:
    return (GOLDEN / "run" / "events.jsonl").read_text(encoding="utf-8")


def test_no_sentence_of_the_program_is_left_in_english(reports: dict[str, ReportPaths]) -> None:
    left = [found[0].strip() for line in prose(reports["zh"].markdown) for found in ENGLISH_CLAUSE.finditer(line)]
    assert [] == [text for text in left if text not in recorded()]


def test_the_english_report_would_not_pass(reports: dict[str, ReportPaths]) -> None:
    assert 100 < sum(1 for line in prose(reports["en"].markdown) if ENGLISH_CLAUSE.search(line))


def test_headings_and_captions_are_chinese(reports: dict[str, ReportPaths]) -> None:
    text = reports["zh"].markdown.read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if line.startswith("##") or line.startswith("![")]
    assert [] == [line for line in heads if not re.search(r"[\u4e00-\u9fff]", line)]
    for heading in ("## 瓶颈在哪里", "## 能耗", "## 数值有多可靠", "## 测量条件", "## 如何复现"):
        assert heading in text


def test_both_hold_the_same_numbers_in_every_table(reports: dict[str, ReportPaths]) -> None:
    english, chinese = (
        [sorted(NUMBER.findall(line)) for line in reports[code].markdown.read_text("utf-8").splitlines() if "|" in line]
        for code in ("en", "zh")
    )
    assert len(english) == len(chinese)
    assert [] == [pair for pair in zip(english, chinese, strict=True) if pair[0] != pair[1]]


def test_data_files_are_english_in_either_language(reports: dict[str, ReportPaths]) -> None:
    for name in ("summary", "cells"):
        english, chinese = (getattr(reports[code], name).read_bytes() for code in ("en", "zh"))
        assert english == chinese
    assert b"a step is" in reports["zh"].summary.read_bytes()


def test_the_page_names_its_language(reports: dict[str, ReportPaths]) -> None:
    assert '<html lang="zh">' in reports["zh"].html.read_text(encoding="utf-8")
    assert '<html lang="en">' in reports["en"].html.read_text(encoding="utf-8")


def test_an_unknown_language_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown language 'de'"):
        report_in("de", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "en" == language()
