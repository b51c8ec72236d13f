"""What is derived from the experiment `verify_cost`: v(m) paired and by hand, its prediction, the report's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from builders import Script
from scripted_facts import LLAMA_8B, LLAMA_8B_CONFIG, ceilings
from tokbench import arithmetic
from tokbench.derive.evaluate import Missing, evaluate
from tokbench.derive.report.document import Section, Table
from tokbench.derive.report.verify_figures import FILE_NAME, draw_verify_cost
from tokbench.derive.report.verify_section import verify_sections
from tokbench.derive.report.write import NO_EXTRAS, _find, _gather
from tokbench.derive.verify_cost import VerifyCurve, find_curves
from tokbench.record.catalog import find_model, shape_from_config
from tokbench.record.facts import CeilingFacts
from tokbench.record.observations import ExperimentPoint

MOE = find_model("cpu-moe")
ROWS, CONTEXT, PASSES = 2, 119, 4
Windows = Mapping[int, Sequence[float]]
"""Seconds of each window, by m."""


def script(
    *repetitions: Windows, config: Mapping[str, object] | None = LLAMA_8B_CONFIG, ceiling: CeilingFacts | None = None
) -> Script:
    """A cell of two rows with such windows of four passes in each repetition; experts where the shape has them."""
    made = Script(ceiling=ceiling)
    is_moe = config is MOE.config
    cell_id = made.cell("cpu-moe" if is_moe else LLAMA_8B, static_batch=ROWS, config=config)
    for windows in repetitions:
        trial_id = made.trial(cell_id)
        finished = made.events.pop()
        for m, times in windows.items():
            experts = {"distinct_experts_sum": 4 * (5 + m), "routed_layers": 4} if is_moe else {}
            for window, seconds in enumerate(times):
                made.add(
                    ExperimentPoint(
                        trial_id=trial_id,
                        window_id=f"{trial_id}/experiment/m{m}/{window}",
                        experiment="verify_cost",
                        settings={"m": m, "rows": ROWS, "context": CONTEXT, "window": window, "graph": "device"},
                        duration_s=seconds,
                        stamped_by="script",
                        values={"passes": PASSES, **experts},
                    )
                )
        made.add(finished)
    made.end()
    return made


def curve(made: Script, folder: Path) -> VerifyCurve:
    [found] = find_curves(evaluate(made.run(folder), "run"))
    return found


def test_v_is_the_median_of_windows_paired_within_each_repetition(tmp_path: Path) -> None:
    first = {1: (0.4, 0.8, 0.44), 2: (0.55, 0.5, 9.0)}
    second = {1: (4.4, 4.0, 4.2), 2: (5.25, 5.25, 5.25)}
    found = curve(script(first, second), tmp_path)
    assert (ROWS, CONTEXT, None, "device") == (found.rows, found.context_tokens, found.experts, found.graph)
    one, two = found.passes
    assert (1, 1.0, 1.0) == (one.m, one.cost.value, one.cost.high)
    assert pytest.approx((0.11 * 1.05) ** 0.5) == one.seconds.value  # geometric mean of 0.44/4 and 4.2/4
    assert pytest.approx(1.25) == two.cost.value  # 0.55/0.44 and 5.25/4.2: the slower repetition changes nothing
    assert 2 == two.cost.n


def test_a_dense_model_costs_nothing_more_until_it_computes_all_the_time(tmp_path: Path) -> None:
    found = curve(script({m: (0.1,) for m in (1, 2, 200)}, ceiling=ceilings()), tmp_path)
    shape = shape_from_config(LLAMA_8B_CONFIG, LLAMA_8B)
    read, matmul = (found.cell.metrics[name] for name in ("read_bytes_per_s", "matmul_flops_per_s"))
    assert not isinstance(read, Missing) and not isinstance(matmul, Missing)
    memory_s = arithmetic.bytes_read_per_step(shape, "bfloat16", ROWS, CONTEXT + 1).total / read.value
    compute_s = ROWS * 200 * arithmetic.flops_per_token(shape, CONTEXT + 200) / matmul.value
    assert [1.0, pytest.approx(1.0, abs=1e-4), pytest.approx(compute_s / memory_s)] == [
        item.predicted for item in found.passes
    ]
    assert compute_s > memory_s
    assert [None] * 3 == [item.predicted_distinct for item in found.passes]
    assert pytest.approx(1 / (compute_s / memory_s)) == found.passes[2].residual


def test_experts_of_further_tokens_are_predicted_by_coverage(tmp_path: Path) -> None:
    found = curve(script({1: (0.1,), 4: (0.3,)}, config=MOE.config, ceiling=ceilings()), tmp_path)
    shape = shape_from_config(MOE.config, "cpu-moe")
    distinct = [arithmetic.expected_distinct_experts(32, 4, ROWS * m) for m in (1, 4)]
    assert pytest.approx(distinct) == [item.predicted_distinct for item in found.passes]
    assert [6.0, 9.0] == [item.distinct for item in found.passes]  # counted: 4·(5 + m) over 4 layers
    size = [
        arithmetic.bytes_read_per_step(shape, "bfloat16", ROWS, CONTEXT + m, distinct_experts=experts).total
        for m, experts in zip((1, 4), distinct, strict=True)
    ]
    assert pytest.approx(size[1] / size[0]) == found.passes[1].predicted_bytes == found.passes[1].predicted
    assert 32 == found.experts


def test_without_ceilings_or_a_shape_the_prediction_is_missing_with_its_reason(tmp_path: Path) -> None:
    bare = curve(script({1: (0.1,), 2: (0.2,)}), tmp_path / "bare")
    assert isinstance(bare.passes[1].predicted, Missing) and "ceiling" in bare.passes[1].predicted.reason
    assert bare.passes[1].residual is None
    assert not isinstance(bare.passes[1].predicted_bytes, Missing)
    unknown = curve(script({1: (0.1,), 2: (0.2,)}, config=None, ceiling=ceilings()), tmp_path / "unknown")
    assert isinstance(unknown.passes[1].predicted, Missing) and "config" in unknown.passes[1].predicted.reason
    assert isinstance(unknown.passes[1].predicted_bytes, Missing)


def sections(made: Script, folder: Path) -> list[Section]:
    results = evaluate(made.run(folder), "run")
    return verify_sections(_gather(_find([results], (), ()), (), (), NO_EXTRAS))


def test_a_run_without_the_experiment_has_neither_section_nor_figure(tmp_path: Path) -> None:
    made = script({})
    assert [] == sections(made, tmp_path)
    assert () == draw_verify_cost([evaluate(made.run(tmp_path), "run")])


def test_the_section_shows_a_line_for_every_m(tmp_path: Path) -> None:
    [section] = sections(script({1: (0.1,), 4: (0.3,)}, config=MOE.config, ceiling=ceilings()), tmp_path)
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    assert ["1", "4"] == [row[3].text for row in table.rows]
    assert ["6.00 of 32", "9.00 of 32"] == [row[9].text for row in table.rows]
    assert [1.0, pytest.approx(3.0)] == [row[5].sort for row in table.rows]


def test_the_figure_holds_every_point(tmp_path: Path) -> None:
    results = evaluate(script({1: (0.1,), 4: (0.3,)}, ceiling=ceilings()).run(tmp_path), "run")
    [drawn] = draw_verify_cost([results])
    assert FILE_NAME == drawn.figure.file_name
    assert 2 == drawn.svg.count('class="tip"')
    assert "m 4: v 3<" in drawn.svg
