"""Caches by hand: bytes against the formula, lines over context, shares, growth, a slice taken to its whole depth."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from builders import Script
from scripted_facts import ceilings
from tokbench.derive.bounds.points import Line
from tokbench.derive.evaluate import CellResult, Results, evaluate
from tokbench.derive.kv.family import find_caches
from tokbench.derive.kv.slices import find_slices
from tokbench.derive.report.write import write_report
from tokbench.record.catalog import find_model
from tokbench.stats import Estimate

GQA_BYTES = 2 * 32 * 8 * 128 * 2
"""2 · layers · key heads · width · bytes of Llama-3.1-8B in bfloat16."""


def results_of(script: Script, folder: Path) -> Results:
    return evaluate(script.run(folder), "a run")


def value_of(cell: CellResult, name: str) -> float:
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value.value


def block(script: Script, attention: str, prompt: int, step_s: float, kv_bytes: int, **more: object) -> str:
    """One cell of a family, 104 tokens of context on average behind a prompt of 102, 128 rows of cache."""
    cell_id = script.cell(
        weights="random",
        prompt_tokens=prompt,
        labels={"attention": attention},
        attention=str(more.pop("kernel", attention)),
        **more,  # type: ignore[arg-type]
    )
    script.prepare(cell_id, cache_rows=128, kv_bytes=kv_bytes)
    script.trial(cell_id, step_s=step_s)
    return cell_id


def family(script: Script) -> None:
    """Two blocks at three contexts: 2 us and 0.5 us per cached token; 131,072 and 32,768 bytes per token."""
    for prompt in (102, 1102, 10102):
        block(script, "gqa8", prompt, 0.001 + (prompt + 2) * 2e-6, 128 * GQA_BYTES)
        block(script, "narrow", prompt, 0.001 + (prompt + 2) * 0.5e-6, 32 * GQA_BYTES)


def test_a_family_gives_rows_lines_and_shares(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=2e12))
    family(script)
    found = find_caches(results_of(script, tmp_path))
    assert [("gqa8", 32, 1.0, 0.0), ("narrow", 32, 4.0, -0.75)] == [
        (row.block, row.layers, row.largest_over_this, row.residual_ratio) for row in found.rows
    ]
    wide, narrow = found.lines
    assert ((104, 1104, 10104), 1) == (wide.contexts, wide.static_batch)
    assert (2e-6, 0.5e-6) == pytest.approx((wide.s_per_token, narrow.s_per_token), rel=1e-6)
    assert wide.implied_bytes_per_s == pytest.approx(GQA_BYTES / 2e-6, rel=1e-6)
    assert wide.predicted_s_per_token == pytest.approx(GQA_BYTES / 2e12)
    assert wide.residual_ratio == pytest.approx(2e-6 / (GQA_BYTES / 2e12) - 1, rel=1e-6)
    table = found.shares[0]
    (users, sizes), *_ = table.rows
    assert (1, 4096 * GQA_BYTES) == (users, sizes[0])
    assert table.share(sizes[0]) == pytest.approx(4096 * GQA_BYTES / (table.weight_bytes + 4096 * GQA_BYTES))
    assert (True, False) == (table.is_fitting(sizes[0]), table.is_fitting(table.rows[-1][1][-1]))


def test_shares_count_the_type_that_the_engine_keeps_its_cache_in(tmp_path: Path) -> None:
    """A cache of 8 bits beside weights of 16 is half as large as the weights' type says."""
    script = Script()
    family(script)
    results = results_of(script, tmp_path)
    for cell in results.cells:
        assert cell.record.engine is not None
        cell.record.engine = cell.record.engine.model_copy(update={"kv_dtype": "int8"})
    (_, sizes), *_ = find_caches(results).shares[0].rows
    assert sizes[0] == 4096 * GQA_BYTES // 2


def test_a_cache_of_a_type_that_no_formula_counts_has_no_shares(tmp_path: Path) -> None:
    script = Script()
    family(script)
    results = results_of(script, tmp_path)
    for cell in results.cells:
        assert cell.record.engine is not None
        cell.record.engine = cell.record.engine.model_copy(update={"kv_dtype": "turbo3"})
    assert () == find_caches(results).shares


def test_a_slope_that_noise_could_have_made_implies_no_rate_and_is_no_headline(tmp_path: Path) -> None:
    """Seen on a busy CPU: "costs least in mha", of a line whose interval reached below 0."""
    script = Script(ceiling=ceilings(read_bytes_per_s=2e12))
    for prompt, noisy in ((102, 0.010), (1102, 0.012), (5102, 0.009), (10102, 0.013)):
        block(script, "noisy", prompt, noisy, 128 * GQA_BYTES)
        block(script, "firm", prompt, 0.001 + (prompt + 2) * 2e-6, 128 * GQA_BYTES)
    lines = {line.block: line for line in find_caches(results_of(script, tmp_path / "derived")).lines}
    assert (False, True) == (lines["noisy"].is_told, lines["firm"].is_told)
    assert lines["noisy"].s_per_token > 0 and lines["noisy"].implied_bytes_per_s is None
    text = report_of(script, tmp_path / "report")
    assert "costs most in" not in text and "the interval of the slope holds 0" in text


def test_two_contexts_are_no_line_and_cells_without_a_label_no_family(tmp_path: Path) -> None:
    script = Script()
    for prompt in (102, 1102):
        block(script, "gqa8", prompt, 0.01, 128 * GQA_BYTES)
    for prompt in (10, 20, 30):
        script.trial(script.cell(prompt_tokens=prompt))
    found = find_caches(results_of(script, tmp_path))
    assert ((), 1) == (found.lines, len(found.rows))


def test_growth_has_an_exponent_for_every_longer_prompt(tmp_path: Path) -> None:
    script = Script()
    for prompt in (1000, 2000, 4000):
        cell_id = script.cell(prompt_tokens=prompt, labels={"kernel": "naive"})
        extra = prompt**2 * 1000
        script.trial(cell_id, prefill_s=prompt**1.5 * 1e-6, peak_bytes=2 * 8_030_261_248 + extra)
    first, second, third = find_caches(results_of(script, tmp_path)).growth
    assert (None, None, None) == (first.time_exponent, first.memory_exponent, first.predicted_time_exponent)
    assert (1.5, 2.0) == pytest.approx((third.time_exponent, third.memory_exponent), rel=1e-6)
    assert second.predicted_time_exponent is not None and third.predicted_time_exponent is not None
    assert 1 < second.predicted_time_exponent < third.predicted_time_exponent < 1.1  # attention is small at 8B and 4k


def slice_of(script: Script, depths: tuple[int, ...], step_s: float = 20e-6) -> None:
    for layers in depths:
        script.trial(script.cell(weights="random", layers=layers), step_s=0.0005 + layers * step_s)


def test_a_slice_is_taken_to_the_whole_depth(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=2e13))
    slice_of(script, (2, 4, 8))
    (found,) = find_slices(results_of(script, tmp_path))
    assert ((2, 4, 8), 32) == (found.layers, found.whole_layers)
    assert (20e-6, 0.0005) == pytest.approx((found.s_per_layer, found.rest_s), rel=1e-4)
    assert found.whole_step_s == pytest.approx(0.0005 + 32 * 20e-6, rel=1e-6)
    assert found.interval_whole_step_s == pytest.approx((found.whole_step_s, found.whole_step_s), rel=1e-3)


@pytest.mark.parametrize("depths", [(2, 4), (8, 16, 32)])
def test_what_is_no_slice(tmp_path: Path, depths: tuple[int, ...]) -> None:
    """Two depths leave no error to tell, and a model that was run whole needs none."""
    script = Script()
    slice_of(script, depths)
    assert [] == list(find_slices(results_of(script, tmp_path)))


def test_a_slice_that_gets_faster_with_depth_is_not_extrapolated(tmp_path: Path) -> None:
    """Seen on a busy CPU: 61 layers would have taken less than no time."""
    script = Script()
    for layers, step_s in ((2, 0.02), (4, 0.01), (8, 0.001)):
        script.trial(script.cell(weights="random", layers=layers), step_s=step_s)
    (found,) = find_slices(results_of(script, tmp_path / "derived"))
    assert (None, None) == (found.whole_step_s, found.interval_whole_step_s)
    text = report_of(script, tmp_path / "report")
    assert "more layers were not slower: nothing is extrapolated from that" in text and "at most -" not in text


def test_layers_of_another_kind_at_the_front_are_left_out(tmp_path: Path) -> None:
    script = Script()
    config = dict(find_model("DeepSeek-V3").config)
    for layers in (1, 2, 4, 6, 8):
        cell_id = script.cell(model="deepseek-ai/DeepSeek-V3", weights="random", layers=layers, config=config)
        script.trial(cell_id, step_s=0.001 * max(0, layers - 3) + 0.0001 * min(3, layers))
    (found,) = find_slices(results_of(script, tmp_path))
    assert ((4, 6, 8), 61) == (found.layers, found.whole_layers)
    assert found.whole_step_s == pytest.approx(58 * 0.001 + 3 * 0.0001, rel=1e-3)


def test_the_interval_of_a_line_widens_with_distance() -> None:
    line = Line([1.0, 2.0, 3.0, 4.0], [1.1, 1.9, 3.2, 3.8])
    near, far = line.interval_at(2.5), line.interval_at(61.0)
    assert near is not None and far is not None
    assert near[1] - near[0] < far[1] - far[0]
    # By hand: slope 0.94, residual variance 0.041; t(0.975, 2) = 4.3027; half = t · sqrt(s² (1/4 + (x - 2.5)²/5)).
    assert (far[1] - far[0]) / 2 == pytest.approx(4.3027 * math.sqrt(0.041 * (0.25 + 58.5**2 / 5)), rel=1e-3)
    assert Line([1.0, 2.0], [1.0, 2.0]).interval_at(3.0) is None


def test_the_report_tells_caches_and_slices_and_is_silent_without_them(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=2e12))
    family(script)
    slice_of(script, (2, 4, 8))
    text = report_of(script, tmp_path / "with")
    for said in (
        "## KV cache and attention",
        "The cache of narrow is 4.00 times smaller than that of gqa8. The measured bytes lie up to 75.0 % off",
        "costs most in gqa8, 2.00 µs (2.00 µs – 2.00 µs) a step, and least in narrow, 500 ns (500 ns – 500 ns) (static",
        "Arithmetic, not measured",
        "figures/kv_context.png",
        "## A slice of a larger model",
        "Extrapolated, not measured",
        "1.14 ms (1.14 ms – 1.14 ms) at 32 layers",
        "at most 877 tokens/s",
    ):
        assert said in text, said
    plain = Script()
    plain.trial(plain.cell())
    text = report_of(plain, tmp_path / "without")
    assert "KV cache and attention" not in text and "A slice of a larger model" not in text


def test_one_block_is_not_smaller_than_itself(tmp_path: Path) -> None:
    """Seen: "The cache of gqa8 is 1.00 times smaller than that of gqa8."."""
    script = Script(ceiling=ceilings(read_bytes_per_s=2e12))
    for prompt in (102, 1102, 10102):
        block(script, "gqa8", prompt, 0.001 + (prompt + 2) * 2e-6, 128 * GQA_BYTES)
    text = report_of(script, tmp_path)
    assert "times smaller" not in text and "The measured bytes are those of the formula." in text


def test_captions_say_random_and_cut_only_where_cells_are(tmp_path: Path) -> None:
    """Seen in reports of trained weights at their full depth: "Random weights, few layers"."""
    random, trained = Script(), Script()
    for prompt in (102, 1102, 10102):
        block(random, "gqa8", prompt, 0.001, 128 * GQA_BYTES, layers=2)
        cell_id = trained.cell(prompt_tokens=prompt, labels={"attention": "gqa8"})
        trained.prepare(cell_id, kv_bytes=128 * GQA_BYTES)
        trained.trial(cell_id, step_s=0.001)
    slice_of(random, (2, 4, 8))
    said = report_of(random, tmp_path / "random")
    assert 2 == said.count("meaningless as text. Every model is cut to so many layers: 2.")  # the figure and the table
    assert "every speed an upper one. Weights are random." in said
    text = report_of(trained, tmp_path / "trained")
    assert 2 == text.count("No weights are random.") and "is cut" not in text and "meaningless" not in text


def test_every_line_is_in_a_figure(tmp_path: Path) -> None:
    """Seen: the smallest static batch alone was drawn, and no more than seven lines of it, without a word."""
    script = Script()
    for prompt in (102, 1102, 10102):
        for number in range(8):
            block(script, f"kind{number}", prompt, 0.001, 128 * GQA_BYTES, kernel=f"kernel{number}")
        block(script, "kind0", prompt, 0.004, 128 * GQA_BYTES, static_batch=4)
    text = report_of(script, tmp_path)
    assert ["kv_context.png", "kv_context_2.png", "kv_context_3.png"] == re.findall(r"figures/(kv_\w+\.png)", text)
    assert "static batch 1: flat" in text and "static batch 4: flat" in text
    assert "Part 1 of 2." in text and "Part 2 of 2." in text
    drawn = "".join((tmp_path / "report" / "report.html").read_text(encoding="utf-8").split())
    assert all(f"kind{number},eager" in drawn for number in range(8))


def report_of(script: Script, folder: Path) -> str:
    script.end()
    paths = write_report([evaluate(script.run(folder / "run"), "run")], (), folder / "report", vendors=())
    return paths.markdown.read_text(encoding="utf-8")
