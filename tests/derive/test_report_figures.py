"""The figures of a report: what stands in them, what a reader is told on pointing, that a page can hold them all."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from builders import Script
from report_builders import FIGURES, VENDORS, figure, rich_script
from tokbench.derive.distributions import find_distributions
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.pareto import TradeOff, find_front, find_one_sided, find_trade_offs
from tokbench.derive.published import PublishedFigure
from tokbench.derive.report.canvas import Drawn, Tip, drawing, open_canvas, print_canvas
from tokbench.derive.report.figures import draw_figures
from tokbench.derive.standing import Standing, take_standing
from tokbench.derive.words import in_language

ALIKE = figure(speculation="none", precision="bf16", excludes_ttft=True)
HOSTILE = '--><script>alert("x")</script><!--'


def cells_of(script: Script, folder: Path) -> tuple[tuple[CellResult, ...], Standing]:
    return standing_of(script, folder, FIGURES)


def standing_of(
    script: Script, folder: Path, figures: tuple[PublishedFigure, ...]
) -> tuple[tuple[CellResult, ...], Standing]:
    results = evaluate(script.run(folder), "run")
    return results.cells, take_standing([results], figures, VENDORS)


def drawn_of(script: Script, folder: Path, figures: tuple[PublishedFigure, ...] = (ALIKE,)) -> dict[str, Drawn]:
    cells, standing = standing_of(script, folder, figures)
    return {item.figure.file_name: item for item in draw_figures(cells, standing, find_distributions(cells))}


def titles_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]


def test_every_mark_tells_its_value(tmp_path: Path) -> None:
    drawn = drawn_of(rich_script(), tmp_path)
    speed = titles_of(drawn["speed.png"].svg)
    assert any("78.1 tokens/s" in text and "static batch 1" in text for text in speed)
    assert "Cerebras, Llama-3.1-8B-Instruct: 1,800 tokens/s, stated by the vendor, 2024-08-27" in speed
    assert len(titles_of(drawn["pareto.png"].svg)) == 4 + 1
    assert len(titles_of(drawn["roofline.png"].svg)) == 4


def test_a_mark_lies_where_its_value_is(tmp_path: Path) -> None:
    """A tip's place is found after the layout: a point in the middle of the axes is in the middle of their frame."""
    with drawing():
        canvas, axes = open_canvas(4.0)
        axes.plot([0, 10], [0, 10])
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        svg = print_canvas(canvas, "a.png", [Tip(axes, 5, 5, "middle"), Tip(axes, 0, 10, "corner")]).svg
        left, bottom, width, height = axes.get_position().bounds
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    wide, high = 9.5 * 72, 4.0 * 72
    assert places[0] == pytest.approx(((left + width / 2) * wide, (1 - bottom - height / 2) * high), abs=0.1)
    assert places[1] == pytest.approx((left * wide, (1 - bottom - height) * high), abs=0.1)


def test_a_picture_follows_the_theme_and_shares_no_id(tmp_path: Path) -> None:
    drawn = drawn_of(rich_script(), tmp_path)
    ids = [name for item in drawn.values() for name in re.findall(r'\bid="([^"]+)"', item.svg)]
    assert len(ids) == len(set(ids))
    for item in drawn.values():
        used = set(re.findall(r'href="#([^"]+)"', item.svg)) | set(re.findall(r"url\(#([^)]+)\)", item.svg))
        assert used <= set(ids)
        assert "var(--ink)" in item.svg and "var(--paper)" in item.svg
        assert re.search(r"#(000000|ffffff|1b1f24)", item.svg, re.IGNORECASE) is None


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    script = Script()
    for batch in (1, 2):
        cell_id = script.cell(model=HOSTILE, static_batch=batch)
        for _ in range(3):
            script.trial(cell_id)
    for item in drawn_of(script, tmp_path).values():
        assert "<script" not in item.svg and "<!--" not in item.svg
        ElementTree.fromstring(item.svg)


def test_a_comparison_below_the_minimum_is_in_no_chart(tmp_path: Path) -> None:
    other = figure(model="meta-llama/Llama-3.1-405B-Instruct", total_params_b=405.0, value=969.0)
    drawn = drawn_of(rich_script(), tmp_path, (other,))
    assert not any("969" in text for item in drawn.values() for text in titles_of(item.svg))
    assert "No published figure meets the minimum" in drawn["speed.png"].figure.caption


def test_random_weights_are_hollow_and_named(tmp_path: Path) -> None:
    script = Script()
    for batch in (1, 2):
        cell_id = script.cell(weights="random", static_batch=batch)
        for _ in range(3):
            script.trial(cell_id)
    for item in drawn_of(script, tmp_path).values():
        texts = [text for text in titles_of(item.svg) if not text.startswith("Cerebras")]
        assert texts and all("(random weights)" in text for text in texts)


def test_words_in_a_picture_are_english_and_its_caption_is_not(tmp_path: Path) -> None:
    with in_language("zh"):
        item = drawn_of(rich_script(), tmp_path)["latency.png"]
    assert "来源" in item.figure.caption
    assert all(text.isascii() or "µ" in text for text in titles_of(item.svg))


def test_percentiles_are_pooled_and_need_enough_values(tmp_path: Path) -> None:
    """Two repetitions of four steps each: 10 ms, and one of 30 ms."""
    script = Script()
    cell_id = script.cell()
    script.trial(cell_id, step_s=0.01, prefill_s=0.5)
    script.trial(cell_id, step_s=0.03, prefill_s=0.7)
    cells, _ = cells_of(script, tmp_path)
    first, gap = find_distributions(cells)
    assert (first.quantity, first.n, first.p50_s) == ("ttft_s", 2, pytest.approx(0.6))
    assert (first.p90_s, first.p99_s, first.values_s) == (None, None, pytest.approx((0.5, 0.7)))
    assert (gap.quantity, gap.n, gap.repetitions) == ("gap_s", 8, 2)
    assert (gap.least_s, gap.p50_s, gap.most_s) == pytest.approx((0.01, 0.02, 0.03))
    assert gap.p90_s is None


def test_a_percentile_appears_with_the_values_that_hold_it_up(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(output_tokens=101)
    script.trial(cell_id, step_s=0.01)
    cells, _ = cells_of(script, tmp_path)
    gap = find_distributions(cells)[1]
    assert (gap.n, gap.values_s) == (100, ())
    assert gap.p90_s == pytest.approx(0.01) and gap.p99_s == pytest.approx(0.01)


def test_gaps_of_requests_leave_out_those_with_an_error(tmp_path: Path) -> None:
    script = Script()
    script.requests(script.cell(concurrency=2), [(0.0, (0.2, 0.4, 0.7), (1, 1, 1))] * 2)
    index = next(number for number, event in enumerate(script.events) if event.event == "request_trace")
    script.events[index] = script.events[index].model_copy(update={"error": "connection lost"})
    cells, _ = cells_of(script, tmp_path)
    first, gap = find_distributions(cells)
    assert (first.n, gap.n) == (1, 2)
    assert (gap.least_s, gap.most_s) == pytest.approx((0.2, 0.3))


def test_speed_per_device_is_that_of_all_streams_over_the_devices(tmp_path: Path) -> None:
    """Four rows of five tokens in 0.5 + 4 * 0.125 s are 20 tokens/s."""
    script = Script()
    script.trial(script.cell(static_batch=4), step_s=0.125, prefill_s=0.5)
    cells, _ = cells_of(script, tmp_path)
    (point,) = find_trade_offs(cells)
    assert (point.tokens_per_s_per_user, point.tokens_per_s_per_device) == pytest.approx((8.0, 20.0))


def test_an_invalid_cell_is_no_point_of_the_trade_off(tmp_path: Path) -> None:
    """16 GB of weights in a tenth of a millisecond is no speed of an H100: it must not be the best of the figure."""
    script = rich_script()
    assert "Invalid cells" not in drawn_of(script, tmp_path / "without")["pareto.png"].figure.caption
    impossible = script.cell(static_batch=2)
    for _ in range(3):
        script.trial(impossible, step_s=0.0001)
    cells, _ = cells_of(script, tmp_path / "cells")
    assert "invalid" in {cell.validity.verdict for cell in cells if cell.cell_id == impossible}
    assert impossible not in {point.cell.cell_id for point in find_trade_offs(cells)}
    assert "Invalid cells are left out." in drawn_of(script, tmp_path / "with")["pareto.png"].figure.caption


def test_no_front_is_drawn_over_real_and_random_weights(tmp_path: Path) -> None:
    script = rich_script()
    script.trial(script.cell(weights="random"), step_s=0.01)
    assert "no other cell here equals" not in drawn_of(script, tmp_path)["pareto.png"].figure.caption


def test_the_front_is_what_no_other_beats(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    (cell,), _ = cells_of(script, tmp_path)
    made = [TradeOff(cell, user, device) for user, device in ((10, 1), (8, 5), (7, 4), (8, 6), (2, 9), (2, 8))]
    front = [(point.tokens_per_s_per_user, point.tokens_per_s_per_device) for point in find_front(made)]
    assert front == [(10, 1), (8, 6), (2, 9)]


def test_one_sided_figures_are_those_that_may_be_shown(tmp_path: Path) -> None:
    _, standing = standing_of(rich_script(), tmp_path / "alike", (ALIKE,))
    assert [(item.tokens_per_s, item.is_per_user) for item in find_one_sided(standing)] == [(1800.0, True)]
    other = figure(model="meta-llama/Llama-3.1-405B-Instruct", total_params_b=405.0, value=969.0)
    _, standing = standing_of(rich_script(), tmp_path / "other", (other,))
    assert find_one_sided(standing) == ()


def test_no_front_is_drawn_over_several_models(tmp_path: Path) -> None:
    """A smaller model is always faster: only cells of one model are set against one another."""
    front = "no other cell here equals"
    assert front in drawn_of(rich_script(), tmp_path / "one")["pareto.png"].figure.caption
    script = rich_script()
    script.trial(script.cell(model="example/small", parameters=1_000_000_000))
    assert front not in drawn_of(script, tmp_path / "two")["pareto.png"].figure.caption
