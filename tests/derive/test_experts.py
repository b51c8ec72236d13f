"""Families of cells that differ in the feed-forward alone, and the report's section on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_builders import MoeScript
from tokbench.arithmetic import bytes_read_per_step, expected_distinct_experts
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.experts.coverage import find_coverage, find_offloaded
from tokbench.derive.experts.families import find_grains, find_sparsities, find_triples, step_bytes
from tokbench.derive.experts.touches import resident_share, without_offloading
from tokbench.derive.report.write import write_report
from tokbench.record.catalog import find_model
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


def test_the_section_says_what_was_found(tmp_path: Path) -> None:
    script = triple()
    script.shaped("cpu-moe-8x1", 8, step_s=near(0.080, 8), touches=[(5, 5)])
    script.shaped("cpu-moe", 8, options={"resident_experts": 0.5}, step_s=near(0.2), touches=[(9,)], copied=[(600,)])
    results = evaluate(script.run(tmp_path), "run")
    paths = write_report([results], [], tmp_path / "out", vendors=())
    text = paths.markdown.read_text(encoding="utf-8")

    for words in ("## Mixture of experts", "32 experts of 1,024", "Within 5 %", "Experts left in the host's memory"):
        assert words in text
    names = {path.name for path in paths.figures}
    assert {"experts-bathtub.png", "experts-offload.png"} <= names
    assert "| 8 | 80.1 ms | 2.00 " in text


def test_a_run_without_experts_has_no_section(tmp_path: Path) -> None:
    script = MoeScript()
    script.shaped("cpu-dense-active", 1)
    paths = write_report([evaluate(script.run(tmp_path), "run")], [], tmp_path / "out", vendors=())

    assert "Mixture of experts" not in paths.markdown.read_text(encoding="utf-8")


def cells_of_config(name: str) -> list[CellSpec]:
    config = read_config(Path(__file__).resolve().parents[2] / "configs" / name)
    return [cell.spec for cell in expand(config, resolve_max=lambda spec: 1)]


@pytest.mark.parametrize("name", ["moe.yaml", "moe-h200.yaml"])
def test_the_configs_hold_what_the_claims_select(name: str) -> None:
    specs = cells_of_config(name)

    def labels(claim: str, key: str) -> set[str]:
        chosen = [spec for spec in specs if spec.labels["claim"] == claim]
        return {spec.labels[key] for spec in chosen if spec.load.kind == "static_batch" and spec.load.static_batch == 8}

    assert {"moe", "dense_active", "dense_total"} == labels("moe-triple", "ffn")
    assert {"fine", "coarse"} <= labels("granularity", "grain")
    (offloaded,) = (spec for spec in specs if spec.labels["claim"] == "moe-offload")
    wanted = without_offloading(offloaded)
    assert [1.0] == [resident_share(spec) for spec in specs if without_offloading(spec) == wanted][:1]
    for spec in specs:
        experts = find_model(spec.model.source.removeprefix("shape:")).shape.experts
        assert spec.labels["experts"] == str(experts.experts if experts else 1)
        assert spec.engine.mode == "eager" or spec.model.dtype == "bfloat16"  # else experts are a loop in Python


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
