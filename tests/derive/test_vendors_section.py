"""The part of a report on vendors: what stands in its table, what in the appendix and why, and both languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import Script
from report_builders import figure
from scripted_facts import ceilings
from tokbench.derive import likeness
from tokbench.derive.evaluate import evaluate
from tokbench.derive.published import Comparison, PublishedFigure
from tokbench.derive.report.document import Bullets, Paragraph, Section, Table
from tokbench.derive.report.material import Material
from tokbench.derive.report.projection_section import projection_sections
from tokbench.derive.report.vendors_section import appendix_sections, vendors_sections
from tokbench.derive.standing import take_standing
from tokbench.derive.words import in_language

LIKE = figure(speculation="none", precision="bf16", excludes_ttft=True)
VAGUE = figure("groq", 700.0)
OTHER_SOURCE = PublishedFigure.model_validate(
    {**LIKE.model_dump(), "id": "aa", "value": 1500.0, "measured_by": "artificial-analysis", "published": "2024-09"}
)


def material(folder: Path, *figures: PublishedFigure, vendors: tuple[str, ...] = ("cerebras", "groq")) -> Material:
    """One cell at exactly 100 tokens/s on an H100, set beside the figures."""
    script = Script(ceiling=ceilings(4e12))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    results = evaluate(script.run(folder), "run")
    return Material((results,), take_standing([results], figures, vendors), vendors, (), (), ())


def texts(sections: list[Section]) -> Iterator[str]:
    """Every text of the sections."""
    for section in sections:
        yield section.title
        for block in section.blocks:
            if isinstance(block, Paragraph):
                yield block.text
            elif isinstance(block, Bullets):
                yield from (item.text for item in block.items)
            elif isinstance(block, Table):
                yield block.caption
                yield from (text for column in block.columns for text in (column.title, column.unit))
                yield from (text for row in block.rows for cell in row for text in (cell.text, cell.note or ""))


def table_of(section: Section) -> list[dict[str, str]]:
    """The first table of a section, a row as its texts under the titles."""
    (table, *_) = [block for block in section.blocks if isinstance(block, Table)]
    return [{column.title: cell.text for column, cell in zip(table.columns, row, strict=True)} for row in table.rows]


def test_the_table_holds_what_reaches_the_minimum_and_the_appendix_the_rest_with_the_reason(tmp_path: Path) -> None:
    made = material(tmp_path, LIKE, VAGUE)
    shown, kept_out = vendors_sections(made), appendix_sections(made)
    (row,) = table_of(shown[0])
    assert ("Cerebras", "18.0x (18.0 to 18.0)", "yes") == (row["Vendor"], row["Theirs / ours"], row["Like for like"])
    (row,) = table_of(kept_out[0])
    assert ("Groq", "7.00x (7.00 to 7.00)") == (row["Vendor"], row["Theirs / ours"])
    assert (
        "3 of the conditions that move a speed by a factor differ or are not stated (precision, speculation, whether "
        "the time to the first token is left out); 2 are allowed" == row["What keeps it out"]
    )
    assert "1 of 2 comparisons are like for like. Shown here: 1; below the minimum, in the appendix: 1." in (
        list(texts(shown))
    )
    assert not any("700" in text for text in texts(shown))


def test_without_anything_below_the_minimum_there_is_no_appendix(tmp_path: Path) -> None:
    assert [] == appendix_sections(material(tmp_path, LIKE))


def test_with_everything_below_it_there_is_no_table_and_no_ratio(tmp_path: Path) -> None:
    sections = vendors_sections(material(tmp_path, VAGUE))
    assert not [block for section in sections for block in section.blocks if isinstance(block, Table)]
    assert any("None reaches the minimum" in text for text in texts(sections))
    assert not any("7.00x" in text for text in texts(sections))


def test_the_range_of_independent_sources_widens_the_ratio_and_is_told(tmp_path: Path) -> None:
    sections = vendors_sections(material(tmp_path, LIKE, OTHER_SOURCE))
    (row,) = table_of(sections[0])
    assert "15.0x (15.0 to 18.0)" == row["Theirs / ours"]
    assert any("1,500 tokens/s to 1,800 tokens/s in 2 independent sources" in text for text in texts(sections))
    alone = vendors_sections(material(tmp_path / "alone", LIKE))
    assert any("one source, so no interval of theirs" in text for text in texts(alone))


def test_harness_efficiency_stands_beside_the_ratio_or_says_why_not(tmp_path: Path) -> None:
    here = {"device": "NVIDIA H100 SXM", "devices": 1, "system": "1 x H100", "vendor": "nvidia", "id": "h100"}
    best = PublishedFigure.model_validate({**LIKE.model_dump(), **here, "value": 160.0})
    sections = vendors_sections(material(tmp_path, LIKE, best))
    (row,) = table_of(sections[0])
    assert "62.5 %" == row["Harness efficiency"]
    assert any("of 160 tokens/s, the best published for this device and model (1 x H100;" in t for t in texts(sections))
    without = vendors_sections(material(tmp_path / "without", LIKE))
    assert "–" == table_of(without[0])[0]["Harness efficiency"]
    assert "no harness efficiency: no published figure of this speed for this device" in set(texts(without))


def test_a_comparison_that_could_not_be_made_says_why(tmp_path: Path) -> None:
    found = set(texts(vendors_sections(material(tmp_path, LIKE))))
    assert "Groq, decode per user: no figure of Groq states decode per user" in found
    assert "Cerebras, output of the whole system: no figure of Cerebras states output of the whole system" in found


def test_projections_are_labelled_in_text_and_column(tmp_path: Path) -> None:
    (section,) = projection_sections(material(tmp_path, LIKE))
    (label, *_) = section.blocks
    assert isinstance(label, Paragraph)
    assert ("warning", True) == (label.tone, "projected, not measured" in label.text)
    rows = table_of(section)
    assert ["bfloat16", "fp8", "int4"] == [row["Weights"] for row in rows]
    assert ["1,800"] * 3 == [row["Published per user"] for row in rows]
    assert rows[0]["Per user on these"].startswith("100 ")
    table = section.blocks[-1]
    assert isinstance(table, Table)
    units = {column.title: column.unit for column in table.columns}
    assert "tokens/s, projected" == units["Per user on these"]


def test_without_a_target_one_sentence_says_why(tmp_path: Path) -> None:
    (section,) = projection_sections(material(tmp_path, vendors=("groq",)))
    assert ["What it would take", "Nothing is projected: no vendor that was asked for has published a speed of one "
            "stream."] == list(texts([section]))  # fmt: skip


@pytest.mark.parametrize("figures", [(LIKE, VAGUE, OTHER_SOURCE), (VAGUE,), ()])
def test_in_chinese_no_sentence_of_these_parts_stays_english(
    tmp_path: Path, figures: tuple[PublishedFigure, ...]
) -> None:
    with in_language("zh"):
        made = material(tmp_path, *figures)
        said = [
            *texts(vendors_sections(made)),
            *texts(appendix_sections(made)),
            *texts(projection_sections(made)),
        ]
    english = ("the ", "is ", "are ", "not stated", "no figure", "comparisons", "projected")
    left = {text for text in said if any(f" {word}" in f" {text}" for word in english)}
    assert not left


def test_what_is_one_devices_share_is_said(tmp_path: Path) -> None:
    share = {
        "metric": "output_tokens_per_s_per_device",
        "unit": "tokens/s/device",
        "excludes_ttft": None,
        "concurrency": None,
        "id": "share",
    }
    row = PublishedFigure.model_validate({**LIKE.model_dump(), **share})
    made = material(tmp_path, row)
    (outcome,) = [item.outcome for item in made.standing.beside if isinstance(item.outcome, Comparison)]
    assert "output of one device" == likeness.say_share(outcome)
