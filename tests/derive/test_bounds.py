"""What bounds a cell and how time grows: known lines give their own constants back, too few points give a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from builders import Script
from scripted_facts import GPU, ceilings
from tokbench.derive.bounds import Bounds, find_bounds
from tokbench.derive.bounds.fits import fit_steps
from tokbench.derive.bounds.found import Point, StepFit
from tokbench.derive.bounds.points import Line, find_points
from tokbench.derive.bounds.verdicts import bound_cell
from tokbench.derive.evaluate import Results, evaluate
from tokbench.record.observations import CellPrepared, RepeatabilityChecked, WindowClosed

READ, MULTIPLY = 2e12, 5e14


def results_of(script: Script, folder: Path) -> Results:
    run = script.run(folder)
    return evaluate(run, "a run")


def bounds_of(script: Script, folder: Path) -> Bounds:
    return find_bounds(results_of(script, folder))


def points_at(folder: Path, sizes: Sequence[float], times: Sequence[float]) -> list[Point]:
    """Single streams of the given bytes per step and seconds."""
    script = Script(ceiling=ceilings(read_bytes_per_s=READ))
    for prompt in range(100, 100 + len(sizes)):
        script.trial(script.cell(prompt_tokens=prompt))
    found = find_points(results_of(script, folder))
    return [
        dataclasses.replace(point, step_bytes=size, step_s=seconds)
        for point, size, seconds in zip(found, sizes, times, strict=True)
    ]


def test_points_on_a_line_give_the_constant_and_the_rate_back(tmp_path: Path) -> None:
    sizes = [1e9, 5e9, 15e9, 140e9]
    fits, refused = fit_steps(points_at(tmp_path, sizes, [0.002 + size / 4e12 for size in sizes]))
    assert () == refused
    (fit,) = fits
    assert (fit.t0_s, fit.bytes_per_s, fit.r_squared) == pytest.approx((0.002, 4e12, 1.0), rel=1e-9)
    assert ("eager", "bf16", 4) == (fit.mode, fit.precision, len(fit.points))
    assert fit.t0_interval_s == pytest.approx((0.002, 0.002), rel=1e-6)
    assert fit.bytes_per_s_interval == pytest.approx((4e12, 4e12), rel=1e-6)


def test_a_fit_counts_errors_relative_to_the_step(tmp_path: Path) -> None:
    sizes = [1e9, 2e9, 100e9]
    times = [0.001 + size / 1e12 for size in sizes]
    times[2] *= 1.5  # half as long again: the small steps still decide where the line begins
    (fit,), _ = fit_steps(points_at(tmp_path, sizes, times))
    plain = Line(sizes, times).intercept
    assert abs(fit.t0_s - 0.001) < abs(plain - 0.001)
    assert 0 < fit.t0_s < 0.001
    assert fit.r_squared < 1
    assert fit.t0_interval_s is not None and fit.t0_interval_s[0] < fit.t0_s < fit.t0_interval_s[1]


@pytest.mark.parametrize(
    ("sizes", "times", "reason"),
    [
        ([1e9, 2e9], [1, 2], "2 different sizes of a step and 3 are needed"),
        ([10e9, 11e9, 12e9], [1, 2, 3], "span a factor 1.20, less than 1.5"),
        ([1e9, 2e9, 3e9], [3, 2, 1], "larger steps were not slower"),
        ([], [], "no single stream was measured"),
    ],
)
def test_too_little_for_a_fit_is_said(tmp_path: Path, sizes: list[float], times: list[float], reason: str) -> None:
    fits, refused = fit_steps(points_at(tmp_path, sizes, times))
    assert () == fits
    assert reason in refused[0]


def test_batches_are_no_points_of_the_fit(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ))
    for batch in (2, 4, 8, 16):
        script.trial(script.cell(static_batch=batch))
    assert ((), True) == (
        bounds_of(script, tmp_path).fits,
        "no single stream" in bounds_of(script, tmp_path).unfitted[0],
    )


READ_S = 15.0e9 / READ
"""About what reading the weights of Llama-3.1-8B takes at the ceiling: 7.5 ms."""


@pytest.mark.parametrize(
    ("step_s", "batch", "multiply", "expected"),
    [
        (READ_S / 0.9, 1, MULTIPLY, "memory"),
        (READ_S / 0.7, 1, MULTIPLY, "mixed"),
        (READ_S / 1.2, 1, MULTIPLY, "unknown"),
        (READ_S / 0.2, 1, MULTIPLY, "overhead"),
        (64 * 15.0e9 / 2e12 / 0.9, 64, 2e12, "compute"),
    ],
)
def test_the_larger_ceiling_decides(tmp_path: Path, step_s: float, batch: int, multiply: float, expected: str) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ, matmul_flops_per_s=multiply))
    script.trial(script.cell(static_batch=batch), step_s=step_s)
    (bound,) = bounds_of(script, tmp_path).cells
    assert expected == bound.kind
    assert bound.memory_share is not None and bound.compute_share is not None and bound.rest_s is not None
    largest = max(bound.memory_share, bound.compute_share)
    assert bound.rest_s == pytest.approx(max(0.0, step_s * (1 - largest)))
    assert "%" in bound.sentence


def test_a_host_that_launches_too_slowly_bounds_a_step_of_an_idle_device(tmp_path: Path) -> None:
    cases = (
        (0.95, 0.3, "host"),
        (0.5, 0.3, "overhead"),
        (0.95, 0.7, "mixed"),
    )  # the last: a full queue keeps it waiting
    for share, memory, expected in cases:
        script = Script(ceiling=ceilings(read_bytes_per_s=READ, matmul_flops_per_s=MULTIPLY))
        script.trial(script.cell(), step_s=READ_S / memory)
        window_s = 4 * READ_S / memory
        script.events = [
            event.model_copy(update={"host_s": share * window_s}) if isinstance(event, WindowClosed) else event
            for event in script.events
        ]
        (bound,) = bounds_of(script, tmp_path / expected).cells
        assert expected == bound.kind
        assert bound.host_share == pytest.approx(share)
        assert f"the host needed {share * 100:.3g}" in bound.sentence


def test_weights_in_the_last_cache_are_not_bounded_by_memory(tmp_path: Path) -> None:
    device = GPU.model_copy(update={"cache_bytes": 16 << 30})
    script = Script(device=device, ceiling=ceilings(read_bytes_per_s=READ, matmul_flops_per_s=MULTIPLY))
    script.trial(script.cell())
    bounds = bounds_of(script, tmp_path)
    assert ["cache"] == [bound.kind for bound in bounds.cells]
    assert () == bounds.fits and "no single stream" in bounds.unfitted[0]


def test_without_a_ceiling_nothing_is_claimed(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    (bound,) = bounds_of(script, tmp_path).cells
    assert ("unknown", None, None) == (bound.kind, bound.memory_share, bound.rest_s)


@pytest.mark.parametrize(("kernels", "expected"), [(2000, "overhead"), (7, "kernels")])
def test_few_long_kernels_are_not_what_lies_between(tmp_path: Path, kernels: int, expected: str) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ, matmul_flops_per_s=MULTIPLY))
    cell_id = script.cell()
    script.prepare(cell_id)
    script.events = [
        event.model_copy(update={"kernels_per_step": kernels}) if isinstance(event, CellPrepared) else event
        for event in script.events
    ]
    script.trial(cell_id, step_s=READ_S / 0.2)
    (bound,) = bounds_of(script, tmp_path).cells
    assert expected == bound.kind
    assert ("for each of" in bound.sentence) == (expected == "overhead")


def test_kernels_share_what_is_left_of_a_step(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ, matmul_flops_per_s=MULTIPLY))
    cell_id = script.cell()
    script.prepare(cell_id)
    script.events = [
        event.model_copy(update={"kernels_per_step": 300}) if isinstance(event, CellPrepared) else event
        for event in script.events
    ]
    script.trial(cell_id, step_s=READ_S / 0.5)
    (bound,) = bounds_of(script, tmp_path).cells
    assert 300 == bound.kernels_per_step
    assert "for each of 300 kernels and operators" in bound.sentence


def test_depth_gives_the_time_of_a_layer_and_its_cap(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ))
    for layers in (8, 16, 32):
        script.trial(script.cell(weights="random", layers=layers), step_s=0.0005 + layers * 20e-6)
    (depth,) = bounds_of(script, tmp_path).depths
    assert (8, 16, 32) == depth.layers
    assert (depth.s_per_layer, depth.t0_s, depth.r_squared) == pytest.approx((20e-6, 0.0005, 1.0), rel=1e-6)
    caps = dict(depth.caps_tokens_per_s)
    assert caps[80] == pytest.approx(625) and caps[126] == pytest.approx(1 / (126 * 20e-6))
    assert depth.largest_byte_share is not None and depth.largest_byte_share > 0.2  # 8B is no floor, and it shows


def test_context_and_prompt_have_a_slope_and_an_exponent(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ))
    for prompt in (128, 1024, 8192):
        cell_id = script.cell(prompt_tokens=prompt)
        script.prepare(cell_id, cache_rows=8448, kv_bytes=8448 * 131072)
        script.trial(cell_id, step_s=0.008 + prompt * 1e-7, prefill_s=1e-6 * prompt**1.5)
    bounds = bounds_of(script, tmp_path)
    (context,), (prefill,) = bounds.contexts, bounds.prefills
    assert context.s_per_token == pytest.approx(1e-7, rel=1e-6)
    assert context.roofline_s_per_token == pytest.approx(131072 / READ)
    assert prefill.exponent == pytest.approx(1.5) and prefill.last_exponent == pytest.approx(1.5)
    assert (128, 1024, 8192) == prefill.prompts


def test_prompts_of_one_octave_have_no_long_end(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ))
    for prompt in (1000, 1200, 1400):
        script.trial(script.cell(prompt_tokens=prompt), prefill_s=1e-6 * prompt**1.5)
    (prefill,) = bounds_of(script, tmp_path).prefills
    assert prefill.exponent == pytest.approx(1.5)
    assert prefill.last_exponent is None


@pytest.mark.parametrize(("constant_s", "wobble", "is_told"), [(3e-3, 1.0, True), (3e-4, 1.3, False)])
def test_a_constant_that_is_not_told_from_zero_explains_no_cell(
    tmp_path: Path, constant_s: float, wobble: float, is_told: bool
) -> None:
    sizes = [5e9, 10e9, 20e9, 30e9]
    times = [factor * (constant_s + size / 4e12) for size, factor in zip(sizes, (1.0, wobble, 1.0, 1.0), strict=True)]
    points = points_at(tmp_path, sizes, times)
    (fit,), _ = fit_steps(points)
    assert fit.t0_s > 0 and fit.r_squared > 0.9
    assert fit.t0_interval_s is not None and is_told == (fit.t0_interval_s[0] > 0)
    bound = bound_cell(points[0].cell, [fit])
    assert bound is not None and is_told == ("the fit's constant is" in bound.sentence)


def test_a_share_above_one_leaves_nothing_over_and_says_why(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ, matmul_flops_per_s=MULTIPLY))
    cell_id = script.cell()
    script.prepare(cell_id)
    for factor in (0.5, 1.2, 1.0):  # 1.2 of the ceiling in the mean, and 1 within the interval
        script.trial(cell_id, step_s=READ_S * factor)
    (bound,) = bounds_of(script, tmp_path).cells
    assert bound.memory_share is not None and bound.memory_share > 1
    assert "less was read than counted" in bound.sentence and "for each of" not in bound.sentence


def test_two_lengths_are_no_curve(tmp_path: Path) -> None:
    script = Script()
    for prompt in (128, 1024):
        script.trial(script.cell(prompt_tokens=prompt))
    bounds = bounds_of(script, tmp_path)
    assert ((), (), ()) == (bounds.contexts, bounds.prefills, bounds.depths)


def test_kernels_that_were_tried_are_set_beside_the_fastest(tmp_path: Path) -> None:
    script = Script()
    times = {"sdpa": 0.02, "sdpa_gqa": 0.01, "flex_attention": 0.015}
    for name, seconds in times.items():
        cell_id = script.cell(attention=name)
        for factor in (1.0, 1.1, 0.9):
            script.trial(cell_id, step_s=seconds * factor)
    (choice,) = bounds_of(script, tmp_path).choices
    assert ("engine.attention", ("sdpa_gqa", "flex_attention", "sdpa")) == (choice.setting, choice.values)
    ratios = [getattr(item, "value", None) for item in choice.slowdowns]
    assert ratios == pytest.approx([1.0, 1.5, 2.0])


def test_other_kernels_are_other_lines(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=READ))
    for prompt in (100, 200, 300):
        script.trial(script.cell(prompt_tokens=prompt))
        script.trial(script.cell(prompt_tokens=prompt, attention="flex_attention"))
    points = find_points(results_of(script, tmp_path))
    changed = [
        dataclasses.replace(
            point,
            step_bytes=1e9 * (1 + index // 2),
            step_s=0.001 * (1 + index % 2) + (1 + index // 2) / 4e3,
            cell=dataclasses.replace(
                point.cell,
                conditions=dataclasses.replace(
                    point.cell.conditions, attention_kernel=point.cell.record.spec.engine.attention or "sdpa"
                ),
            ),
        )
        for index, point in enumerate(points)
    ]
    fits, _ = fit_steps(changed)
    assert {"eager, sdpa": 0.001, "eager, flex_attention": 0.002} == pytest.approx({f.mode: f.t0_s for f in fits})


def test_memory_names_cells_that_ran_out_of_it(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell(), peak_bytes=17_000_000_000)
    script.fail(script.cell(static_batch=512), "oom", "CUDA out of memory")
    script.skip(script.cell(static_batch=1024), "skipped", "would not fit")
    rows = bounds_of(script, tmp_path).memory
    assert [("ok", 17e9), ("oom", None)] == [(row.cell.status, row.peak_bytes) for row in rows]
    assert not rows[0].is_whole_process


def test_a_pass_that_was_repeated_is_shown(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    checked = RepeatabilityChecked(
        cell_id=cell_id, against="alone", steps=31, tokens_equal=True, states_equal=False, max_abs_difference=2e-7
    )
    script.add(checked)
    script.trial(cell_id)
    (row,) = bounds_of(script, tmp_path).repeats
    assert ("alone", 31, True, False, 2e-7) == (
        row.against,
        row.steps,
        row.tokens_equal,
        row.states_equal,
        row.max_abs_difference,
    )


def test_a_weighted_line_leans_to_the_heavier_points() -> None:
    line = Line([0, 1, 2], [0, 1, 4], [1, 1, 0.0001])
    assert (line.slope, line.intercept) == pytest.approx((1, 0), abs=0.01)
    assert Line([1, 2], [3, 3]).r_squared == 1.0


def test_a_fit_names_its_points(tmp_path: Path) -> None:
    sizes = [1e9, 5e9, 15e9]
    (fit,), _ = fit_steps(points_at(tmp_path, sizes, [0.002 + size / 4e12 for size in sizes]))
    assert isinstance(fit, StepFit)
    assert sizes == [point.step_bytes for point in fit.points]
