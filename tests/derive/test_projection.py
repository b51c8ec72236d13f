"""Projections by hand, the inverse of each, and how far published figures of the same device lie from them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from builders import Script
from report_builders import figure
from scripted_facts import GPU, ceilings
from tokbench.arithmetic import ModelShape, bytes_read_per_step
from tokbench.derive.evaluate import Missing, Results, evaluate
from tokbench.derive.projection import (
    DTYPES,
    SCALING_EFFICIENCY,
    Basis,
    Load,
    Need,
    Outlook,
    Projected,
    devices_to_hold,
    find_need,
    find_source,
    project,
    project_targets,
)
from tokbench.derive.published import load_published
from tokbench.derive.report.write import write_report
from tokbench.record.catalog import find_model
from tokbench.stats import Estimate, exact

# 44,864 bytes a step in bfloat16 at 10 tokens: by part in the first test.
SHAPE = ModelShape("toy", 2, 32, 4, 2, 8, 64, 100, 1000, is_head_tied=True)
RATIO = Estimate(0.5, 0.4, 0.6, 7, "", "geometric_mean")
BASIS = Basis(RATIO, read_bytes_per_s=1e6, memory_bytes=30_000.0, matmul_flops_per_s=None)
LOAD = Load(1, 10)


def test_the_bytes_of_the_toy() -> None:
    attention, mlp, norms = 32 * 32 * 2 + 2 * 32 * 16, 3 * 32 * 64, 2 * 32
    parameters = 100 * 32 + 2 * (attention + mlp + norms) + 32
    cache = 10 * 2 * 2 * 2 * 8 * 2
    assert 44_864 == 2 * parameters + cache == bytes_read_per_step(SHAPE, "bfloat16", 1, 10).total


def test_a_projection_is_share_times_ceiling_over_bytes() -> None:
    step_bytes = bytes_read_per_step(SHAPE, "bfloat16", 1, 10).total
    assert project(SHAPE, "bfloat16", BASIS, 1, 0.75, LOAD) == Projected(
        0.5e6 / step_bytes, 0.4e6 / step_bytes, 0.6e6 / step_bytes, 1, step_bytes
    )


def test_scaling_counts_from_two_devices_on() -> None:
    one, four = (project(SHAPE, "bfloat16", BASIS, count, 0.75, LOAD) for count in (1, 4))
    assert isinstance(one, Projected) and isinstance(four, Projected)
    assert (3.0, 3.0, 3.0) == pytest.approx(
        (four.tokens_per_s / one.tokens_per_s, four.low / one.low, four.high / one.high)  # type: ignore[operator]
    )


def test_a_share_without_an_interval_projects_without_one() -> None:
    found = project(SHAPE, "bfloat16", dataclasses.replace(BASIS, used_ratio=exact(0.5, "")), 1, 1.0, LOAD)
    assert isinstance(found, Projected)
    assert (None, None) == (found.low, found.high)


def test_where_operations_take_longer_than_bytes_nothing_is_projected() -> None:
    """A step reads for 90 ms at half of 1 MB/s; its 46,144 operations take as long at 0.514 MFLOP/s."""
    slow, quick = (dataclasses.replace(BASIS, matmul_flops_per_s=rate) for rate in (0.51e6, 0.52e6))
    assert isinstance(project(SHAPE, "bfloat16", slow, 1, 1.0, LOAD), Missing)
    assert isinstance(project(SHAPE, "bfloat16", quick, 1, 1.0, LOAD), Projected)


def test_a_need_is_the_projection_the_other_way_round() -> None:
    for devices in (1, 2, 7):
        found = project(SHAPE, "bfloat16", BASIS, devices, 0.75, LOAD)
        assert isinstance(found, Projected)
        assert devices == find_need(SHAPE, "bfloat16", BASIS, found.tokens_per_s * 0.9999, 0.75, LOAD).devices_for_speed
        more = find_need(SHAPE, "bfloat16", BASIS, found.tokens_per_s * 1.0001, 0.75, LOAD)
        assert more.devices_for_speed == devices + 1


def test_a_need_by_hand() -> None:
    """100 tokens/s of 44,864 bytes are 4.49 MB/s; a device reads 0.5 MB/s (0.4 to 0.6), of which 0.75 count."""
    step_bytes = bytes_read_per_step(SHAPE, "bfloat16", 1, 10).total
    need = find_need(SHAPE, "bfloat16", BASIS, 100.0, 0.75, LOAD)
    wanted = 100.0 * step_bytes
    assert need == Need(
        tokens_per_s=100.0,
        step_bytes=step_bytes,
        bytes_per_s=wanted,
        devices_for_memory=devices_to_hold(SHAPE, "bfloat16", BASIS, LOAD),
        devices_for_speed=math.ceil(wanted / 0.375e6),
        devices_for_speed_least=math.ceil(wanted / 0.45e6),
        devices_for_speed_most=math.ceil(wanted / 0.3e6),
    )
    assert need.devices == max(need.devices_for_speed, need.devices_for_memory or 0)


def test_the_memory_of_an_unknown_device_is_not_guessed() -> None:
    need = find_need(SHAPE, "bfloat16", dataclasses.replace(BASIS, memory_bytes=None), 1.0, 0.75, LOAD)
    assert (None, 1) == (need.devices_for_memory, need.devices)


@pytest.mark.parametrize(("dtype", "terabytes_per_s"), [("bfloat16", 208.6), ("fp8", 104.5), ("int4", 65.2)])
def test_1500_tokens_per_s_on_llama_70b(dtype: str, terabytes_per_s: float) -> None:
    """70.55e9 parameters less an embedding of 1.05e9 are 69.5e9 weights: of 2 bytes, 1 byte, and 5 bits."""
    basis = Basis(exact(1.0, ""), 3.35e12, 80e9, None)
    need = find_need(find_model("Llama-3.1-70B-Instruct").shape, dtype, basis, 1500.0, 1.0, Load(1, 1))
    assert need.bytes_per_s / 1e12 == pytest.approx(terabytes_per_s, rel=2e-3)
    assert need.devices_for_speed == math.ceil(need.bytes_per_s / 3.35e12)


# --- against published figures of one device


def used_bytes_per_s(row_id: str, model: str, dtype: str) -> float:
    """What a published single stream read per second."""
    (row,) = [row for row in load_published() if row.id == row_id]
    assert row.concurrency == 1 and row.speculation == "none"
    return row.value * bytes_read_per_step(find_model(model).shape, dtype, 1, 100).total


def residual(from_row: tuple[str, str, str], to_row: tuple[str, str, str]) -> float:
    """How far the published speed of one row lies from its projection out of another of the same device."""
    return used_bytes_per_s(*to_row) / used_bytes_per_s(*from_row) - 1


L2_7B = ("gptfast-l2-7b-bf16-a100", "Llama-2-7b-chat", "bfloat16")
L31_8B = ("gptfast-l31-8b-bf16-a100", "Llama-3.1-8B-Instruct", "bfloat16")


def test_one_precision_projects_another_model_of_its_size_within_two_percent() -> None:
    assert residual(L2_7B, L31_8B) == pytest.approx(0.0135, abs=0.002)


def test_a_small_model_projects_a_large_one_too_low() -> None:
    small = ("llamacpp-m2ultra-l3-8b-f16", "Meta-Llama-3-8B-Instruct", "float16")
    large = ("llamacpp-m2ultra-l3-70b-f16", "Meta-Llama-3-70B-Instruct", "float16")
    assert residual(small, large) == pytest.approx(0.199, abs=0.01)


@pytest.mark.parametrize(
    ("row_id", "model", "dtype", "source", "expected"),
    [
        ("gptfast-l2-7b-int8-a100", "Llama-2-7b-chat", "int8", L2_7B, -0.255),
        ("gptfast-l31-8b-int8-a100", "Llama-3.1-8B-Instruct", "int8", L31_8B, -0.266),
        ("gptfast-l2-7b-int4-a100", "Llama-2-7b-chat", "int4", L2_7B, -0.409),
    ],
)
def test_narrower_weights_stay_a_quarter_to_two_fifths_below_their_projection(
    row_id: str, model: str, dtype: str, source: tuple[str, str, str], expected: float
) -> None:
    """What the report says beside its table; it must change with these rows."""
    assert residual(source, (row_id, model, dtype)) == pytest.approx(expected, abs=0.003)


def test_the_scaling_efficiency_is_what_eight_devices_reached_with_70b_models() -> None:
    shares = {
        "llama 2": residual(L2_7B, ("gptfast-l2-70b-bf16-8a100", "Llama-2-70b-chat", "bfloat16")),
        "llama 3.1": residual(L31_8B, ("gptfast-l31-70b-bf16-8a100", "Llama-3.1-70B-Instruct", "bfloat16")),
        "8b": residual(L31_8B, ("gptfast-l31-8b-bf16-8a100", "Llama-3.1-8B-Instruct", "bfloat16")),
    }
    found = {name: round((1 + share) / 8, 2) for name, share in shares.items()}
    assert {"llama 2": 0.77, "llama 3.1": 0.72, "8b": 0.37} == found
    assert found["llama 3.1"] < SCALING_EFFICIENCY < found["llama 2"]


# --- from a record


def results_of(script: Script, folder: Path) -> Results:
    return evaluate(script.run(folder), "run")


def measured(folder: Path) -> Results:
    """Llama-3.1-8B at 100 and, twice as fast, at 200 tokens/s in another mode; a batch of 4 faster still."""
    script = Script(ceiling=ceilings(4e12))
    steps = {script.cell(): 0.01, script.cell(mode="compiled"): 0.005, script.cell(static_batch=4): 0.0045}
    for cell_id, step_s in steps.items():
        for _ in range(3):
            script.trial(cell_id, step_s=step_s)
    return results_of(script, folder)


def test_the_source_is_the_cell_of_one_stream_that_used_most(tmp_path: Path) -> None:
    results = measured(tmp_path)
    source = find_source([results])
    assert not isinstance(source, Missing)
    assert results.cells[1] == source.cell
    assert (4e12, 85e9, 5e14) == (
        source.basis.read_bytes_per_s,
        source.basis.memory_bytes,
        source.basis.matmul_flops_per_s,
    )
    assert Load(1, 102) == source.load
    assert source.basis.used_ratio == results.cells[1].metrics["bandwidth_used_ratio"]


@pytest.mark.parametrize("layers", [None, 4])
def test_a_model_with_its_own_weights_is_projected_from_before_an_instrument(
    tmp_path: Path, layers: int | None
) -> None:
    """The faster cell of random weights, whole or cut, is passed over; alone it is taken."""
    for is_alone in (False, True):
        script = Script(ceiling=ceilings(4e12))
        cells = {script.cell(weights="random", layers=layers): 0.005 if layers is None else 0.001}
        cells |= {} if is_alone else {script.cell(): 0.01}
        for cell_id, step_s in cells.items():
            for _ in range(3):
                script.trial(cell_id, step_s=step_s)
        source = find_source([results_of(script, tmp_path / str(is_alone))])
        assert not isinstance(source, Missing)
        assert ("random" if is_alone else "pretrained") == source.cell.conditions.weights


def test_one_lucky_repetition_is_not_projected_from(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(4e12))
    firm, lucky = script.cell(), script.cell(mode="compiled")
    for cell_id, step_s, count in ((firm, 0.006, 3), (lucky, 0.005, 1)):
        for _ in range(count):
            script.trial(cell_id, step_s=step_s)
    source = find_source([results_of(script, tmp_path)])
    assert not isinstance(source, Missing)
    assert firm == source.cell.cell_id


def test_a_model_projected_from_itself_gives_its_own_speed(tmp_path: Path) -> None:
    outlook = project_targets([measured(tmp_path)], [figure(value=1800.0)])
    assert isinstance(outlook, Outlook)
    own = outlook.rows[0]
    assert ("Llama-3.1-8B-Instruct", "bfloat16", 1) == (own.model, own.dtype, own.need.devices_for_memory)
    assert isinstance(own.projected, Projected)
    assert own.projected.tokens_per_s == pytest.approx(200.0, rel=1e-3)
    assert [row.dtype for row in outlook.rows] == list(DTYPES)
    assert own.need.tokens_per_s == 1800.0
    assert own.need.devices_for_speed == math.ceil(1800 / 200 / SCALING_EFFICIENCY)


def test_models_without_a_row_are_named_and_mxfp4_is_not_widened(tmp_path: Path) -> None:
    rows = [
        figure(model="acme/unheard-of", total_params_b=9.0),
        figure(model="openai/gpt-oss-120b", total_params_b=116.8),
    ]
    outlook = project_targets([measured(tmp_path)], rows)
    assert isinstance(outlook, Outlook)
    assert ("acme/unheard-of",) == outlook.without_shape
    assert [("gpt-oss-120b", "mxfp4")] == [(row.model, row.dtype) for row in outlook.rows]


def test_models_of_older_figures_are_named_and_not_dropped_in_silence(tmp_path: Path) -> None:
    names = ("Llama-3.1-8B-Instruct", "Llama-3.3-70B-Instruct", "Llama-3.1-405B-Instruct", "Llama-3.1-70B-Instruct")
    newer = [figure(model=f"meta-llama/{name}", published="2026-01") for name in names]
    newer += [figure(model=f"openai/gpt-oss-{size}", published="2026-01") for size in ("20b", "120b")]
    results = measured(tmp_path)
    old = figure(model="meta-llama/Llama-2-70b-chat-hf", published="2024-02")
    outlook = project_targets([results], [old, *newer])
    assert isinstance(outlook, Outlook)
    assert ("Llama-2-70b-chat",) == outlook.older
    assert outlook.older[0] not in {row.model for row in outlook.rows}
    text = write_report([results], [old, *newer], tmp_path / "out", vendors=("cerebras",), with_figures=False)
    assert "Left out, their figures being older: Llama-2-70b-chat." in text.markdown.read_text("utf-8")


def test_on_more_devices_than_the_scaling_is_known_for_nothing_is_projected(tmp_path: Path) -> None:
    """405B parameters in bfloat16 are 812 GB: ten devices of 85 GB; in fp8 five, in int4 a bit over half of that."""
    row = figure(model="meta-llama/Llama-3.1-405B-Instruct", total_params_b=405.9)
    outlook = project_targets([measured(tmp_path)], [row])
    assert isinstance(outlook, Outlook)
    assert [10, 5, 4] == [target.need.devices_for_memory for target in outlook.rows]
    assert Missing("no scaling is known for more than 8 devices") == outlook.rows[0].projected
    assert [5, 4] == [one.projected.devices for one in outlook.rows if isinstance(one.projected, Projected)]


def test_what_nothing_can_be_projected_from_says_why(tmp_path: Path) -> None:
    batch_only = Script(ceiling=ceilings())
    batch_only.trial(batch_only.cell(static_batch=4), step_s=0.01)
    found = project_targets([results_of(batch_only, tmp_path / "batch")], [figure()])
    assert isinstance(found, Missing) and "no valid cell of one stream" in found.reason
    no_ceiling = Script()
    no_ceiling.trial(no_ceiling.cell(), step_s=0.01)
    found = project_targets([results_of(no_ceiling, tmp_path / "none")], [figure()])
    assert isinstance(found, Missing) and "no ceiling was measured in this run" in found.reason
    found = project_targets([measured(tmp_path / "no-target")], [])
    assert isinstance(found, Missing) and "no vendor" in found.reason


def test_an_unknown_memory_leaves_the_projection_out_and_the_need_in(tmp_path: Path) -> None:
    script = Script(device=GPU.model_copy(update={"memory_bytes": None}), ceiling=ceilings(4e12))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    outlook = project_targets([results_of(script, tmp_path)], [figure()])
    assert isinstance(outlook, Outlook)
    assert {Missing("the memory of a device is not known")} == {row.projected for row in outlook.rows}
    assert all(row.need.devices_for_speed > 1 for row in outlook.rows)


def test_a_projection_is_no_estimate() -> None:
    """Decisions, comparisons and verdicts take an Estimate: none of them can be given a projection by mistake."""
    found = project(SHAPE, "bfloat16", BASIS, 1, 1.0, LOAD)
    assert not isinstance(found, Estimate)
    assert not {"value", "n", "statistic"} & {field.name for field in dataclasses.fields(Projected)}
