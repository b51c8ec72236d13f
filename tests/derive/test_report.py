"""The report: golden text, escaping, absence, merging, whole files."""

from __future__ import annotations

import csv
import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from builders import Script
from report_builders import FIGURES, GOLDEN, VENDORS, figure, golden_report, rich_script
from scripted_facts import GPU, ceilings
from tokbench.derive.evaluate import evaluate
from tokbench.derive.pairs import pair_modes
from tokbench.derive.report import write
from tokbench.derive.report.document import Bullets as BulletList
from tokbench.derive.report.document import Cell, Column, Document, Item, Section, Table, mark_of
from tokbench.derive.report.html import render_html
from tokbench.derive.report.markdown import escape, link, render_markdown
from tokbench.derive.report.write import ReportPaths, write_report
from tokbench.errors import RecordError
from tokbench.record.observations import FactsRead
from tokbench.stats import Estimate

HOSTILE = '<script>alert("x")</script>|`*[a](javascript:alert(1))'


def report_of(script: Script, folder: Path, with_figures: bool = False) -> ReportPaths:
    results = evaluate(script.run(folder / "run"), "run")
    return write_report([results], FIGURES, folder / "out", vendors=VENDORS, with_figures=with_figures)


def text_of(script: Script, folder: Path) -> str:
    return report_of(script, folder).markdown.read_text(encoding="utf-8")


def test_golden() -> None:
    """Regenerate with scripts/regenerate_goldens and read the diff."""
    assert golden_report() == (GOLDEN / "report.md").read_text(encoding="utf-8")


def test_the_golden_record_is_what_the_script_makes(tmp_path: Path) -> None:
    made = (rich_script().write(tmp_path) / "events.jsonl").read_text(encoding="utf-8")
    assert made == (GOLDEN / "run" / "events.jsonl").read_text(encoding="utf-8")


def test_every_file_is_there(tmp_path: Path) -> None:
    paths = report_of(rich_script(), tmp_path, with_figures=True)
    drawn = sorted(path.name for path in paths.figures)
    assert drawn == ["latency.png", "limit_roofline.png", "pareto.png", "roofline.png", "speed.png"]
    for path in (paths.markdown, paths.html, paths.summary, paths.cells, *paths.figures):
        assert path.stat().st_size > 0
    assert [path.name for path in paths.markdown.parent.iterdir() if path.name.startswith(".")] == []
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths.figures)


def test_a_figure_without_data_is_left_out(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    paths = report_of(script, tmp_path, with_figures=True)
    assert [path.name for path in paths.figures] == ["speed.png", "latency.png"]
    assert "pareto.png" not in paths.markdown.read_text(encoding="utf-8")
    assert paths.html.read_text(encoding="utf-8").count("<svg ") == 2


def test_html_needs_no_network(tmp_path: Path) -> None:
    page = report_of(rich_script(), tmp_path, with_figures=True).html.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|@import|url\()\s*=?\s*"?https?:', page) == []
    assert page.count("<svg ") == 5 and "<img" not in page
    assert 'name="viewport" content="width=device-width' in page


def test_a_page_has_contents_and_a_switch(tmp_path: Path) -> None:
    """Every part of level 2 is in the list, its address is there once, and no two sections share one."""
    page = report_of(rich_script(), tmp_path).html.read_text(encoding="utf-8")
    listed = re.findall(r'<li><a href="#([^"]+)">', page)
    headings = re.findall(r'<h2 id="([^"]+)">', page)
    assert listed == headings and len(listed) > 10
    every = re.findall(r'<h[23] id="([^"]+)">', page)
    assert len(every) == len(set(every))
    assert re.findall(r'name="theme" value="(\w*)"', page) == ["", "light", "dark"]
    assert "light-dark(" in page and "color-scheme: light dark" in page


def test_the_parts_stand_in_order(tmp_path: Path) -> None:
    """Five sentences and one table first, then the decision; the appendix last."""
    text = text_of(rich_script(), tmp_path)
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    wanted = ["In one minute", "What it means for a purchase", "Where the time goes", "How this was measured"]
    wanted += ["Conditions", "Threats to validity", "How to reproduce"]
    assert [title for title in titles if title in wanted] == wanted
    assert titles[:2] == wanted[:2]
    opening = text.split("## In one minute\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in opening.splitlines() if line]
    assert [line.startswith("- **") for line in lines[:6]] == [True] * 5 + [False]
    assert re.match(r"- \*\*\d+ of \d+ comparisons with published figures are like for like", lines[0])
    assert lines[5].startswith("Every cell of the sweep") and lines[6].startswith("| Model |")
    assert "The weakest number here is" in opening


def test_a_chinese_anchor_is_a_number() -> None:
    sections = (Section("目录", ()), Section("解码 p50", ()), Section("解码 p50", ()))
    page = render_html(Document("t", sections, "zh"), {})
    assert re.findall(r'<h2 id="([^"]+)">', page) == ["section-1", "p50", "p50-2"]
    assert '<html lang="zh">' in page


class _Tags(html.parser.HTMLParser):
    """Counts the tags of a page and collects its links."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        assert not any(name.startswith("on") for name, _ in attrs)


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    device = GPU.model_copy(update={"name": HOSTILE})
    script = Script(device=device, command=("tokbench", "run", "</code></pre><img src=x onerror=alert(1)>"))
    cell_id = script.cell(model=HOSTILE, note=HOSTILE, config=None)
    script.trial(cell_id)
    script.fail(script.cell(model=HOSTILE, static_batch=2), "engine", HOSTILE)
    script.meter_absent(HOSTILE, HOSTILE)
    results = evaluate(script.run(tmp_path / "run"), "run")
    figures = [figure(notes=HOSTILE)]
    paths = write_report([results], figures, tmp_path / "out", vendors=VENDORS, with_figures=True)
    page = _Tags()
    page.feed(paths.html.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 0
    assert page.tags.count("svg") == len(paths.figures)
    assert [address for address in page.links if not address.startswith(("#", "https://"))] == []
    outside_code = re.sub(r"```.*?```", "", paths.markdown.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "<script" not in outside_code
    assert re.search(r"(?<!\\)\]\(javascript:", outside_code) is None


def test_links_are_web_addresses_only() -> None:
    item = Item("see", "javascript:alert(1)", "here")
    document = Document("t", (Section("s", (BulletList((item,)),)),))
    assert "javascript" not in render_html(document, {})
    assert link("here", "javascript:alert(1)") == "here"
    assert link("a]b", "https://x.org/a(b)|c") == "[a\\]b](https://x.org/a%28b%29%7Cc)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", "a\\|b"),
        ("<b>", "&lt;b&gt;"),
        ("decode_tokens_per_s", "decode_tokens_per_s"),
        ("_x_", "\\_x\\_"),
        ("# no heading", "\\# no heading"),
        ("1. no list", "\\1. no list"),
        ("two\nlines", "two lines"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markdown_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_a_missing_value_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    text = text_of(script, tmp_path)
    assert "| – (a) |" in text
    assert "no ceiling was measured in this run" in text
    assert " nan" not in text.lower() and "inf " not in text.lower()


def test_cells_without_a_number_stay_rows(tmp_path: Path) -> None:
    text = text_of(rich_script(), tmp_path)
    assert "out of memory (a)" in text and "CUDA out of memory: tried to allocate 12 GiB" in text
    assert "not run (b)" in text and "the budget was used up" in text


def test_the_weakest_number_is_named(tmp_path: Path) -> None:
    script = Script()
    firm, loose = script.cell(), script.cell(static_batch=4)
    for factor in (1.0, 1.1, 1.2):
        script.trial(firm, step_s=0.01)
        script.trial(loose, step_s=0.01 * factor)
    text = text_of(script, tmp_path)
    weakest = next(line for line in text.splitlines() if line.startswith("The weakest number"))
    assert "static batch 4" in weakest and "3 repetitions" in weakest


def test_random_weights_are_labelled(tmp_path: Path) -> None:
    script = Script()
    for _ in range(3):
        script.trial(script.cell(weights="random"))
    text = text_of(script, tmp_path)
    assert text.startswith("# Llama-3.1-8B-Instruct (random weights) on")
    assert "All cells ran with random weights" in text


def test_amd_has_never_been_run(tmp_path: Path) -> None:
    assert "tokbench has never been run on AMD hardware" in text_of(rich_script(), tmp_path / "cuda")
    amd = Script(device=GPU.model_copy(update={"kind": "rocm", "name": "AMD Instinct MI300X"}))
    amd.trial(amd.cell())
    assert "tokbench has never been run on AMD hardware" not in text_of(amd, tmp_path / "rocm")


def test_a_record_without_an_end_says_so(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    assert "has no end: the run is still going on, or it crashed" in text_of(script, tmp_path / "none")
    script.end("budget")
    said = text_of(script, tmp_path / "budget")
    assert "was ended (its time was up before every interval was as narrow as asked); every cell had its turn" in said


def test_a_run_without_any_number(tmp_path: Path) -> None:
    script = Script(device=None)
    script.skip(script.cell(), "skipped", "the weights do not fit")
    text = text_of(script, tmp_path)
    assert "No decode speed was measured" in text and "the weights do not fit" in text
    assert "nothing of ours was measured" in text


def test_drift_over_blocks_is_not_in_the_ratio_of_modes(tmp_path: Path) -> None:
    script = Script()
    eager, compiled = script.cell(), script.cell(mode="compiled")
    for slow in (1.0, 1.5, 2.0):
        script.trial(eager, step_s=0.02 * slow, worker=f"eager-{slow}")
        script.trial(compiled, step_s=0.01 * slow, worker=f"compiled-{slow}")
    script.trial(compiled, step_s=5.0)
    (pair,) = pair_modes(evaluate(script.run(tmp_path), "run").cells, "decode_tokens_per_s")
    assert isinstance(pair.ratio, Estimate)
    assert pair.ratio.n == 3
    assert (pair.ratio.low, pair.ratio.value, pair.ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_preparations_that_disagree_are_both_shown(tmp_path: Path) -> None:
    """A capture that was refused once must not stand for all trials, nor be hidden by those that went well."""
    script = Script()
    cell_id = script.cell()
    facts = next(event.engine for event in script.events if event.event == "facts_read" and event.engine is not None)
    for has_graphs in (True, False, True):
        script.prepare(cell_id)
        engine = facts.model_copy(update={"cuda_graphs": has_graphs, "attention_kernel": "sdpa"})
        script.events[-1] = script.events[-1].model_copy(update={"engine": engine})
        script.trial(cell_id)
    text = text_of(script, tmp_path)
    assert "| CUDA graphs | yes / no |" in text
    assert "| Attention kernel | sdpa |" in text


def test_every_part_of_a_resumed_run_shows_its_device(tmp_path: Path) -> None:
    script = Script(device=GPU.model_copy(update={"foreign_processes": 2}))
    script.trial(script.cell())
    script.add(FactsRead(at_ns=script.now_ns, device=GPU))
    assert "| Other processes at the start | 2 | 0 |" in text_of(script, tmp_path)


def test_requests_with_an_error_are_counted(tmp_path: Path) -> None:
    script = Script()
    script.requests(script.cell(concurrency=2), [(0.0, (0.2, 0.4), (1, 2))] * 3)
    index = next(number for number, event in enumerate(script.events) if event.event == "request_trace")
    script.events[index] = script.events[index].model_copy(update={"error": "connection lost"})
    assert "1 of 3 requests ended in an error and are left out" in text_of(script, tmp_path)


def test_several_machines_are_merged(tmp_path: Path) -> None:
    other = Script(device=GPU.model_copy(update={"name": "NVIDIA A100-SXM4-80GB"}), ceiling=ceilings(1e12))
    for _ in range(3):
        other.trial(other.cell(), step_s=0.02)
    runs = [("h100", rich_script()), ("a100", other)]
    results = [evaluate(script.run(tmp_path / name), name) for name, script in runs]
    paths = write_report(results, FIGURES, tmp_path / "out", vendors=VENDORS, with_figures=False)
    text = paths.markdown.read_text(encoding="utf-8")
    assert "### Run against run" in text
    part = text.split("## a100 beside the baseline h100\n", 1)[1].split("\n## ", 1)[0]
    (row,) = [line for line in part.splitlines() if "| Decode speed per user | 48.8 tokens/s | 50.0 tokens/s |" in line]
    assert "hardware (NVIDIA H100 80GB HBM3 → NVIDIA A100-SXM4-80GB)" in part and "| 1.02 (" in row
    assert "h100: Llama-3.1-8B-Instruct" in text and "a100: Llama-3.1-8B-Instruct" in text
    assert len({cell["run"] for cell in json.loads(paths.summary.read_text(encoding="utf-8"))["cells"]}) == 2


def test_csv_is_long_form(tmp_path: Path) -> None:
    paths = report_of(rich_script(), tmp_path)
    rows = list(csv.DictReader(paths.cells.open(encoding="utf-8")))
    decode = [row for row in rows if row["metric"] == "decode_tokens_per_s"]
    assert [row["status"] for row in decode] == ["ok", "ok", "ok", "ok", "oom", "skipped"]
    assert decode[4]["value"] == "" and decode[4]["missing"].startswith("CUDA out of memory")
    assert float(decode[1]["value"]) == pytest.approx(78.0604, rel=1e-3)


def test_csv_holds_no_formula(tmp_path: Path) -> None:
    script = Script()
    script.fail(script.cell(model="=cmd|x!A1"), "engine", "=1+1")
    for row in csv.reader(report_of(script, tmp_path).cells.open(encoding="utf-8")):
        assert not any(field.startswith("=") for field in row)


def test_a_stopped_writer_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    write.write_whole(path, b"old")

    def stop(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.md"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RecordError, match="the report cannot be written"):
        write.write_whole(tmp_path / "file" / "report.md", b"")


def test_tables_are_checked_and_footnotes_counted() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table((Column("a"), Column("b")), ((Cell("x"),),))
    table = Table((Column("a"),), ((Cell("–", note="p"),), (Cell("–", note="q"),), (Cell("–", note="p"),)))
    assert [(note.mark, note.text) for note in table.footnotes()] == [("a", "p"), ("b", "q")]
    assert [mark_of(index) for index in (0, 25, 26, 52)] == ["a", "z", "aa", "ba"]
    assert "| – (b) |" in render_markdown(Document("t", (Section("s", (table,)),)))


def test_a_report_without_figures_loads_no_matplotlib_and_no_torch() -> None:
    code = "import sys, tokbench.derive.report.write; print({'torch', 'matplotlib', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "set()"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
