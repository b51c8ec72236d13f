"""Pairs of cells: one per block, the right baseline or none, and what a report says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from energy_builders import Power, counter_readings, energy_trial, opened, period
from report_builders import FIGURES, VENDORS
from tokbench.derive.evaluate import Missing, evaluate
from tokbench.derive.pairs import AMBIGUOUS, ModePair, pair_modes, pair_others
from tokbench.derive.repetitions import ByWorker
from tokbench.derive.report.write import write_report
from tokbench.record.observations import CellPlanned, TrialStarted
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import make_cell
from tokbench.stats import Comparison, Estimate, Outcome


def in_block(script: Script, block: int) -> None:
    """Move the trial begun last into a block."""
    index = max(number for number, event in enumerate(script.events) if isinstance(event, TrialStarted))
    script.events[index] = script.events[index].model_copy(update={"block": block})


def with_attention(script: Script, attention: str) -> str:
    """Give the cell planned last an attention kernel of its own."""
    planned = script.events[-1]
    assert isinstance(planned, CellPlanned)
    spec = CellSpec.model_validate_json(planned.resolved)
    cell = make_cell(spec.model_copy(update={"engine": spec.engine.model_copy(update={"attention": attention})}))
    assert cell.pair_key == planned.pair_key
    script.events[-1] = planned.model_copy(update={"cell_id": cell.cell_id, "resolved": cell.resolved_json()})
    script._specs[cell.cell_id] = cell.spec
    return cell.cell_id


def pairs_of(script: Script, folder: Path) -> list[ModePair]:
    return pair_modes(evaluate(script.run(folder), "run").cells, "decode_tokens_per_s")


def test_modes_are_paired_by_block(tmp_path: Path) -> None:
    """A block may hold several repetitions of one cell: together they are one of the pair."""
    script = Script()
    eager, compiled = script.cell(), script.cell(mode="compiled")
    trials = [
        (eager, 0, 0.02),
        (compiled, 0, 0.01),
        (compiled, 0, 0.04),
        (compiled, 1, 5.0),
        (eager, 2, 0.06),
        (compiled, 2, 0.06),
        (compiled, 3, 0.01),
        (eager, 3, 0.01),
    ]
    for cell_id, block, step_s in trials:
        script.trial(cell_id, step_s=step_s, worker=f"{cell_id}-{block}")
        in_block(script, block)
    (pair,) = pairs_of(script, tmp_path)
    assert isinstance(pair.compared, Comparison) and isinstance(pair.ratio, Estimate)
    assert (pair.compared.basis, pair.ratio.n, pair.ratio.value) == ("paired blocks", 3, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("eager_workers", "compiled_workers"),
    [("aaaa", "bbbb"), ("aacc", "bbdd"), ("aaaa", "bcde"), ("abca", "wxyz")],
    ids=["one process each", "two processes each", "one side in one process", "two blocks share a process"],
)
def test_blocks_that_share_a_process_are_one_pair(tmp_path: Path, eager_workers: str, compiled_workers: str) -> None:
    """Four blocks, and fewer independent pairs of processes."""
    script = Script()
    eager, compiled = script.cell(), script.cell(mode="compiled")
    for block in range(4):
        for cell_id, workers in ((eager, eager_workers), (compiled, compiled_workers)):
            script.trial(cell_id, step_s=0.01 * (1 + block), worker=workers[block])
            in_block(script, block)
    (pair,) = pairs_of(script, tmp_path)
    assert isinstance(pair.compared, Comparison)
    independent = 3 if eager_workers == "abca" else 0
    expected = ("paired blocks", independent) if independent else ("repetitions", 4)
    assert expected == (pair.compared.basis, pair.compared.n_a)


def test_cells_of_other_engines_options_are_set_beside_the_first(tmp_path: Path) -> None:
    script = Script()
    sdpa = with_attention_of(script, "eager", "sdpa")
    flash = with_attention_of(script, "eager", "flash_attention_2")
    compiled = with_attention_of(script, "compiled", "sdpa")
    lone = script.cell(static_batch=2)
    for block in range(3):
        for cell_id, step_s in ((sdpa, 0.02), (flash, 0.01), (compiled, 0.005), (lone, 0.03)):
            script.trial(cell_id, step_s=step_s * (1 + block), worker=f"{cell_id}-{block}")
    (pair,) = pair_others(evaluate(script.run(tmp_path / "run"), "run").cells, "decode_tokens_per_s")
    assert (sdpa, flash) == (pair.baseline.cell_id, pair.cell.cell_id)
    assert isinstance(pair.compared, Comparison)
    assert (Outcome.HIGHER, pytest.approx(2.0)) == (pair.compared.outcome, pair.compared.ratio.value)
    results = evaluate(script.run(tmp_path / "run"), "run")
    text = write_report([results], FIGURES, tmp_path / "out", vendors=VENDORS, with_figures=False).markdown.read_text()
    assert f"| {sdpa} | {flash} | 2.00 (2.00 – 2.00), n 3 | 3 paired blocks | faster |" in text


def test_cells_without_a_common_block_have_no_ratio(tmp_path: Path) -> None:
    script = Script()
    eager, compiled = script.cell(), script.cell(mode="compiled")
    script.trial(eager)
    script.trial(compiled)
    in_block(script, 1)
    (pair,) = pairs_of(script, tmp_path)
    assert pair.ratio == Missing("no block holds a repetition of both cells")


def test_the_baseline_is_alike_in_all_but_mode(tmp_path: Path) -> None:
    script = Script()
    plain, flash = script.cell(), with_attention_of(script, "eager", "flash_attention_2")
    compiled = with_attention_of(script, "compiled", "flash_attention_2")
    for cell_id, step_s in ((plain, 0.08), (flash, 0.02), (compiled, 0.01)):
        script.trial(cell_id, step_s=step_s)
    (pair,) = pairs_of(script, tmp_path)
    assert pair.baseline is not None and pair.baseline.cell_id == flash
    assert isinstance(pair.ratio, Estimate) and pair.ratio.value == pytest.approx(2.0)


def with_attention_of(script: Script, mode: str, attention: str) -> str:
    script.cell(mode=mode)
    return with_attention(script, attention)


def test_an_ambiguous_baseline_is_none(tmp_path: Path) -> None:
    script = Script()
    cells = [with_attention_of(script, "eager", name) for name in ("sdpa", "flash_attention_2")]
    cells.append(script.cell(mode="compiled"))
    for cell_id in cells:
        script.trial(cell_id)
    (pair,) = pairs_of(script, tmp_path / "run")
    assert (pair.baseline, pair.ratio) == (None, Missing(AMBIGUOUS))
    results = evaluate(script.run(tmp_path / "run"), "run")
    paths = write_report([results], FIGURES, tmp_path / "out", vendors=VENDORS, with_figures=False)
    assert "several eager cells differ from it" in paths.markdown.read_text(encoding="utf-8")


def test_groups_apart_in_time_are_told_beside_the_ratios(tmp_path: Path) -> None:
    texts = []
    for labels in ({}, {"order": "not_interleaved"}):
        script = Script()
        for cell_id in (script.cell(labels=labels), script.cell(mode="compiled", labels=labels)):
            script.trial(cell_id)
        folder = tmp_path / str(len(texts))
        results = evaluate(script.run(folder / "run"), "run")
        paths = write_report([results], FIGURES, folder / "out", vendors=VENDORS, with_figures=False)
        texts.append(paths.markdown.read_text(encoding="utf-8"))
    assert ["measured apart in time, group after group" in text for text in texts] == [False, True]


def test_energy_is_paired_by_the_block_that_its_trials_worker_ran_in(tmp_path: Path) -> None:
    """There are fewer energy trials than repetitions, and in another order: a value belongs to its worker's block."""
    script, power = Script(), Power()
    eager, compiled = script.cell(), script.cell(mode="compiled")
    watts = {(eager, 0): 100.0, (compiled, 0): 200.0, (compiled, 1): 900.0, (eager, 1): 300.0}
    watts |= {(eager, 2): 100.0, (compiled, 2): 250.0}
    for (cell_id, block), load_w in watts.items():
        for _ in range(2):
            script.trial(cell_id, worker=f"{cell_id}-{block}")
            in_block(script, block)
        energy_trial(script, cell_id, power, worker=f"{cell_id}-{block}", load_w=load_w)
        in_block(script, block)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    cells = evaluate(script.run(tmp_path), "run").cells
    assert [tuple(f"{cell.cell_id}-{block}" for block in range(3)) for cell in cells] == [
        values.workers
        for cell in cells
        if isinstance(values := cell.repetitions["energy_j_per_output_token"], ByWorker)
    ]
    (pair,) = pair_modes(cells, "energy_j_per_output_token")
    assert isinstance(pair.compared, Comparison) and isinstance(pair.ratio, Estimate)
    assert ("paired blocks", 3) == (pair.compared.basis, pair.compared.n_a)
    assert pair.ratio.value == pytest.approx((2.0 * 3.0 * 2.5) ** (1 / 3), rel=0.01)
