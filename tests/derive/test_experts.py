"""Families of cells that differ in the feed-forward alone, and the report's section on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from moe_builders import MoeScript
from tokbench.arithmetic import bytes_read_per_step, expected_distinct_experts, flops_per_token
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.experts.coverage import find_coverage, find_offloaded
from tokbench.derive.experts.families import (
    find_grains,
    find_sparsities,
    find_triples,
    first_multiplying,
    multiplying_s,
    reading_s,
    step_bytes,
)
from tokbench.derive.experts.touches import resident_share, without_offloading
from tokbench.derive.report.experts_figures import MAX_LINES, draw_experts
from tokbench.derive.report.write import write_report
from tokbench.record.catalog import find_model
from tokbench.record.facts import CeilingFacts
from tokbench.record.observations import FactsRead
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import expand, read_config


def cells_of(script: MoeScript, folder: Path) -> list[CellResult]:
    return list(evaluate(script.run(folder), "run").cells)


def near(seconds: float, times: int = 4) -> tuple[float, ...]:
    """Repetitions that differ by a thousandth."""
    return tuple(seconds * (1 + 0.001 * index) for index in range(times))


def triple() -> MoeScript:
    script = MoeScript()
    for rows, moe_s, active_s, total_s in ((1, 0.020, 0.016, 0.100), (8, 0.080, 0.020, 0.160)):
        touched = [(4, 4)] if rows == 1 else [(20, 22)]
        script.shaped("cpu-moe", rows, step_s=near(moe_s), touches=touched)
        script.shaped("cpu-dense-active", rows, step_s=near(active_s))
        script.shaped("cpu-dense-total", rows, step_s=near(total_s))
    return script


def test_a_triple_is_found_by_its_sizes(tmp_path: Path) -> None:
    (found,) = find_triples(cells_of(triple(), tmp_path))
    one, eight = found.steps

    assert ("cpu-moe", 1, 8) == (found.moe.shape.name, one.rows, eight.rows)
    assert one.gain is not None and one.price is not None and eight.gain is not None
    assert [5.0, 1.25, 2.0] == [pytest.approx(e.value) for e in (one.gain, one.price, eight.gain)]
    assert one.gain.low is not None and one.gain.low < 5.0


def test_bytes_of_a_mixture_are_by_the_experts_that_it_touched(tmp_path: Path) -> None:
    (found,) = find_triples(cells_of(triple(), tmp_path))
    shape = find_model("cpu-moe").shape
    context = 16 + 5 // 2

    assert step_bytes(found.steps[0].moe) == pytest.approx(bytes_read_per_step(shape, "float32", 1, context).total)
    of_eight = bytes_read_per_step(shape, "float32", 8, context, distinct_experts=21.0).total
    assert step_bytes(found.steps[1].moe) == pytest.approx(of_eight)
    assert step_bytes(None) is None


READ_BYTES_PER_S, FLOPS_PER_S = 30e9, 60e9
"""At them a weight of four bytes is read in the time of four rows' multiplications with it."""


def with_ceilings(script: MoeScript) -> MoeScript:
    script.add(
        FactsRead(
            at_ns=script.wait(0),
            ceilings=CeilingFacts(
                read_bytes_per_s=READ_BYTES_PER_S,
                matmul_flops_per_s=FLOPS_PER_S,
                dtype="float32",
                buffer_bytes=1 << 29,
                repetitions=5,
                method="by hand",
            ),
        )
    )
    return script


def test_both_ceilings_tell_where_the_gain_comes_back(tmp_path: Path) -> None:
    """Read alone, the gain is gone once all experts are touched; the wider twin's products bring it back."""
    (found,) = find_triples(cells_of(with_ceilings(triple()), tmp_path))
    one, eight = found.steps
    wide, narrow = (find_model(name).shape for name in ("cpu-dense-total", "cpu-moe"))
    context = 16 + 5 // 2
    wide_flops = 8 * flops_per_token(wide, context)

    assert one.gain_by_ceilings == pytest.approx(one.gain_by_bytes)
    assert multiplying_s(eight.total) == pytest.approx(wide_flops / FLOPS_PER_S)
    assert reading_s(eight.moe) == pytest.approx(
        bytes_read_per_step(narrow, "float32", 8, context, distinct_experts=21.0).total / READ_BYTES_PER_S
    )
    assert eight.gain_by_bytes is not None and eight.gain_by_ceilings is not None
    assert eight.gain_by_ceilings == pytest.approx(2 * eight.gain_by_bytes, rel=0.05)
    assert (8, None) == tuple(
        first_multiplying(found.steps, which) for which in (lambda step: step.total, lambda step: step.moe)
    )


def test_without_ceilings_nothing_is_said_of_them(tmp_path: Path) -> None:
    (found,) = find_triples(cells_of(triple(), tmp_path))

    assert (None, None) == (found.steps[0].gain_by_ceilings, found.steps[0].price_by_ceilings)
    assert first_multiplying(found.steps, lambda step: step.total) is None


def test_cells_under_other_conditions_are_no_twins(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-moe", 1)
    script.shaped("cpu-dense-total", 2)
    script.shaped("tiny-llama", 1)
    script.shaped("cpu-dense-active", 1, options={"prefill_chunk": 8})

    assert [] == find_triples(cells_of(script, tmp_path))


@pytest.mark.parametrize(
    ("seconds", "is_equal"), [((0.020, 0.0203), True), ((0.020, 0.026), False), ((0.020, 0.0208), True)]
)
def test_finer_experts_are_tested_for_equivalence(tmp_path: Path, seconds: tuple[float, float], is_equal: bool) -> None:
    script = MoeScript()
    script.shaped("cpu-moe-8x1", 8, step_s=near(seconds[0], 8))
    script.shaped("cpu-moe-128x16", 8, step_s=near(seconds[1], 8))
    (found,) = find_grains(cells_of(script, tmp_path))

    assert ("cpu-moe-8x1", "cpu-moe-128x16", is_equal) == (
        found.first.shape.name,
        found.other.shape.name,
        found.is_equal,
    )


def test_one_repetition_is_no_test_of_equivalence(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-moe-8x1", 8, step_s=(0.02,))
    script.shaped("cpu-moe", 8, step_s=(0.02,))
    (found,) = find_grains(cells_of(script, tmp_path))

    assert found.is_equal is None


def test_sparsity_is_no_grain(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-moe", 8)
    script.shaped("cpu-moe-32x2", 8)
    script.shaped("cpu-moe-32x8", 8)
    cells = cells_of(script, tmp_path)

    assert [] == find_grains(cells)
    found = [(one.first.shape.name, one.other.shape.name) for one in find_sparsities(cells)]
    assert [("cpu-moe-32x2", "cpu-moe"), ("cpu-moe-32x2", "cpu-moe-32x8")] == found


def test_coverage_has_its_law_and_its_error(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-moe", 8, touches=[(20, 22), (21, 21)])
    script.shaped("cpu-moe", 8, options={"routing": "correlated", "routing_skew": 1.0}, touches=[(4, 4), (4, 4)])
    own, drawn = sorted(find_coverage(cells_of(script, tmp_path)), key=lambda one: one.routing.kind == "correlated")

    assert 21.0 == own.distinct
    assert own.error == pytest.approx((2 / 3) ** 0.5 / 2)
    assert own.expected == expected_distinct_experts(32, 4, 8)
    assert (4.0, 4.0, None) == (drawn.distinct, pytest.approx(drawn.expected), drawn.errors_off)


def test_offloaded_cells_stand_beside_each_other(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-moe", 1, step_s=near(0.01))
    for share, seconds in ((0.5, 0.02), (0.0, 0.05)):
        options = {"resident_experts": share}
        script.shaped("cpu-moe", 1, options=options, step_s=near(seconds), touches=[(4,)], copied=[(600,)])
    ((whole, half, none),) = find_offloaded(cells_of(script, tmp_path))

    assert (1.0, 0.5, 0.0) == (whole.share, half.share, none.share)
    assert (0.0, 600.0) == (whole.copied_bytes, none.copied_bytes)
    assert half.copied_bytes_per_s == pytest.approx(600 / 0.02, rel=0.01)


def test_lines_that_are_not_drawn_are_counted(tmp_path: Path) -> None:
    """The figure was cut to so many lines without a word."""
    script = triple()
    for name in ("cpu-moe-8x1", "cpu-moe-128x16"):
        for rows in (1, 8):
            script.shaped(name, rows)
    options = {"prefill_chunk": 8}
    for name in ("cpu-moe", "cpu-dense-active", "cpu-dense-total"):
        for rows in (1, 8):
            script.shaped(name, rows, options=options)
    (bathtub, *_) = draw_experts(cells_of(script, tmp_path))

    assert f"Left out: {8 - MAX_LINES} lines; the tables have them all." in bathtub.figure.caption


def test_the_section_says_what_was_found(tmp_path: Path) -> None:
    script = with_ceilings(triple())
    script.shaped("cpu-moe-8x1", 8, step_s=near(0.080, 8), touches=[(5, 5)])
    script.shaped("cpu-moe", 8, options={"resident_experts": 0.5}, step_s=near(0.2), touches=[(9,)], copied=[(600,)])
    results = evaluate(script.run(tmp_path), "run")
    paths = write_report([results], [], tmp_path / "out", vendors=())
    text = paths.markdown.read_text(encoding="utf-8")

    for words in ("## Mixture of experts", "32 experts of 1,024", "Within 5 %", "Experts left in the host's memory"):
        assert words in text
    assert "of the wider twin from static batch 8 on, of the mixture at no static batch measured" in text
    names = {path.name for path in paths.figures}
    assert {"experts-bathtub.png", "experts-offload.png"} <= names
    assert "| 8 | 80.1 ms | 2.00 " in text


def test_a_twin_that_was_not_measured_multiplies_at_no_known_batch(tmp_path: Path) -> None:
    """Seen: of a twin without a single cell it said "at no static batch measured", as if one had been looked at."""
    script = with_ceilings(MoeScript())
    for rows in (1, 8):
        script.shaped("cpu-moe", rows, touches=[(4, 4)] if rows == 1 else [(20, 22)])
        script.shaped("cpu-dense-active", rows)
    results = evaluate(script.run(tmp_path), "run")
    text = write_report([results], [], tmp_path / "out", vendors=()).markdown.read_text(encoding="utf-8")

    assert "of the wider twin unknown (not measured), of the mixture at no static batch measured" in text


def test_a_run_without_experts_has_no_section(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-dense-active", 1)
    paths = write_report([evaluate(script.run(tmp_path), "run")], [], tmp_path / "out", vendors=())

    assert "Mixture of experts" not in paths.markdown.read_text(encoding="utf-8")


def cells_of_config(name: str) -> list[CellSpec]:
    config = read_config(Path(__file__).resolve().parents[2] / "configs" / name)
    return [cell.spec for cell in expand(config, resolve_max=lambda spec: 1)]


def labelled(specs: Sequence[CellSpec], claim: str) -> list[CellSpec]:
    return [spec for spec in specs if spec.labels["claim"] == claim]


def batches(specs: Sequence[CellSpec]) -> set[int]:
    return {spec.load.static_batch for spec in specs if spec.load.kind == "static_batch"}


@pytest.mark.parametrize("name", ["moe.yaml", "moe-h200.yaml"])
def test_the_configs_hold_what_the_claims_select(name: str) -> None:
    specs = cells_of_config(name)
    at_eight = [spec for spec in specs if batches([spec]) == {8}]

    assert {"moe", "dense_active", "dense_total"} == {s.labels["ffn"] for s in labelled(at_eight, "moe-triple")}
    assert {"fine", "coarse"} <= {spec.labels["grain"] for spec in labelled(at_eight, "granularity")}
    for spec in specs:
        experts = find_model(spec.model.source.removeprefix("shape:")).shape.experts
        assert spec.labels["experts"] == str(experts.experts if experts else 1)


@pytest.mark.parametrize("name", ["moe-routing.yaml", "moe-h200.yaml"])
def test_an_offloaded_cell_stands_beside_the_same_with_all_experts_resident(name: str) -> None:
    specs = cells_of_config(name)
    (offloaded,) = labelled(specs, "moe-offload")
    wanted = without_offloading(offloaded)

    assert [1.0] == [resident_share(spec) for spec in specs if without_offloading(spec) == wanted][:1]


@pytest.mark.parametrize("name", ["moe.yaml", "moe-routing.yaml", "moe-h200.yaml"])
def test_no_cell_has_a_loop_over_experts_in_python(name: str) -> None:
    assert all(spec.engine.mode == "eager" or spec.model.dtype == "bfloat16" for spec in cells_of_config(name))


def test_grain_and_sparsity_are_measured_at_several_batches_and_three_times_each() -> None:
    """With one or two repetitions beyond batch 1 a claim on finer experts had no interval."""
    grain, routing = cells_of_config("moe.yaml"), cells_of_config("moe-routing.yaml")
    root = Path(__file__).resolve().parents[2] / "configs"
    stops = [read_config(root / name).run.stop for name in ("moe.yaml", "moe-routing.yaml")]

    assert {1, 4, 8, 16, 64} == batches(labelled(grain, "moe-triple"))
    for kind in ("coarse", "fine"):
        assert {8, 16, 64} <= batches([spec for spec in grain if spec.labels["grain"] == kind])
    for name in ("cpu-moe-32x2", "cpu-moe", "cpu-moe-32x8"):
        of_shape = [spec for spec in labelled(routing, "sparsity") if spec.model.source == f"shape:{name}"]
        assert {1, 4, 16} == batches(of_shape)
    assert all(stop.min_repetitions >= 3 for stop in stops)


def test_a_batch_beyond_memory_is_a_row_of_its_own_and_hides_nothing(tmp_path: Path) -> None:
    script = triple()
    too_many = script.shaped("cpu-moe", 4096, step_s=())
    script.fail(too_many, "oom", "out of memory: the cache")
    results = evaluate(script.run(tmp_path), "run")
    (found,) = find_triples(results.cells)

    assert [1, 8] == [step.rows for step in found.steps]
    assert ["oom"] == [cell.status for cell in results.cells if cell.cell_id == too_many]
    text = write_report([results], [], tmp_path / "out", vendors=()).markdown.read_text(encoding="utf-8")
    assert "out of memory: the cache" in text
