"""How firm the numbers are: processes and spread, why a cell ended, drift; and what an old record does not tell."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from builders import EndReason, Script
from report_builders import FIGURES, VENDORS, rich_script
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.metrics import catalog
from tokbench.derive.report.write import write_report
from tokbench.derive.sentinels import find_blocks, run_drift
from tokbench.record.spec import StopSpec
from tokbench.stats import Estimate, t_quantile

SPEED = "decode_tokens_per_s"


def text_of(script: Script, folder: Path) -> str:
    results = evaluate(script.run(folder / "run"), "run")
    paths = write_report([results], FIGURES, folder / "out", vendors=VENDORS, with_figures=False)
    return paths.markdown.read_text(encoding="utf-8")


def only_cell(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(script.run(folder), "run").cells
    return cell


def in_processes(stop: StopSpec | None = None, ended: EndReason | None = "complete", *blocks: str) -> Script:
    """One cell; each letter is a repetition at 100 tokens/s (a) or at 100 e (b), each text a process."""
    script = Script(stop=stop)
    cell_id = script.cell()
    for number, block in enumerate(blocks):
        for letter in block:
            script.trial(cell_id, step_s=0.01 if letter == "a" else 0.01 / math.e, worker=f"worker-{number}")
    if ended is not None:
        script.end(ended)
    return script


def test_the_process_is_what_is_replicated(tmp_path: Path) -> None:
    # log means 0, 1, 1 over ln 100: mean 2/3, deviation sqrt(1/3), three processes
    cell = only_cell(in_processes(None, "complete", "aa", "bb", "bbb"), tmp_path)
    value = cell.metrics[SPEED]
    assert isinstance(value, Estimate)
    assert (3, "blocks", 7) == (value.blocks, value.basis, value.n)
    assert value.value == pytest.approx(100 * math.exp(2 / 3), rel=1e-6)
    half = t_quantile(0.975, 2) * math.sqrt(1 / 3) / math.sqrt(3)
    assert value.high == pytest.approx(100 * math.exp(2 / 3 + half), rel=1e-6)
    assert (value.sd_within, value.sd_between) == pytest.approx((0.0, math.sqrt(1 / 3)), abs=1e-6)
    assert [2, 2, 3] == [len(block) for block in cell.blocks[SPEED]]


def test_processes_may_take_turns(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for worker, step_s in (("a", 0.01), ("b", 0.02), ("a", 0.01), ("b", 0.02)):
        script.trial(cell_id, step_s=step_s, worker=worker)
    cell = only_cell(script, tmp_path)
    assert ((100.0, 100.0), (50.0, 50.0)) == tuple(pytest.approx(block) for block in cell.blocks[SPEED])
    assert "repetitions" == cell.metrics[SPEED].basis  # type: ignore[union-attr]


def test_every_metric_gives_one_value_per_repetition_or_one_per_cell(tmp_path: Path) -> None:
    for cell in evaluate(rich_script().run(tmp_path), "run").cells:
        trials = len(cell.record.good_trials())
        assert set(cell.blocks) == set(cell.repetitions) <= set(catalog())
        for name, values in cell.repetitions.items():
            assert len(values) in (1, trials), name
            assert values == tuple(value for block in cell.blocks[name] for value in block), name


RULE = StopSpec(rel_ci=0.02, min_repetitions=3, max_repetitions=6, blocks=3)


@pytest.mark.parametrize(
    ("stop", "ended", "blocks", "by"),
    [
        (RULE, "complete", ("aa", "aa", "a"), "rel_ci"),
        (RULE, "complete", ("ab", "ab", "ab"), "max_repetitions"),
        (RULE, "budget", ("a", "b", "ab"), "budget"),
        (RULE, "budget", ("a", "a", "a", "a", "a"), "rel_ci"),
        (RULE, "budget", ("aaa",), "budget"),
        (RULE, "complete", ("aaa",), "rel_ci"),
        (RULE, "interrupted", ("a", "b", "ab"), "interrupted"),
        (RULE, None, ("a", "b", "ab"), "interrupted"),
        (None, "budget", ("a", "a", "a"), "budget"),
        (None, "complete", ("a", "a", "a"), "unknown"),
    ],
)
def test_why_a_cell_ended(
    tmp_path: Path, stop: StopSpec | None, ended: EndReason | None, blocks: tuple[str, ...], by: str
) -> None:
    stopped = only_cell(in_processes(stop, ended, *blocks), tmp_path).stopped
    assert stopped is not None
    assert (by, None if stop is None else 0.02) == (stopped.by, stopped.rel_ci)


def test_a_cell_that_failed_says_so(tmp_path: Path) -> None:
    script = in_processes(RULE, None, "ab")
    (cell_id,) = script._specs
    script.fail(cell_id, "oom", "out of memory")
    script.end("budget")
    stopped = only_cell(script, tmp_path).stopped
    assert stopped is not None and "failures" == stopped.by


def test_a_cell_without_a_repetition_has_no_end(tmp_path: Path) -> None:
    script = Script()
    script.skip(script.cell(), "skipped", "no time")
    assert only_cell(script, tmp_path).stopped is None


def test_the_report_tells_rule_processes_and_end(tmp_path: Path) -> None:
    text = text_of(in_processes(RULE, "budget", "ab", "ab", "a"), tmp_path)
    section = text.split("## How firm the numbers are\n", 1)[1].split("\n## ", 1)[0]
    assert (
        "until the interval of its decode_tokens_per_s stays within ±2.0 % (3 to 6 repetitions, 3 processes" in section
    )
    row = next(line for line in section.splitlines() if line.startswith("| Llama"))
    assert "| 5 | 3 | " in row and "| processes | time was up, at ±" in row


def test_an_old_record_says_what_is_not_known(tmp_path: Path) -> None:
    text = text_of(in_processes(None, "complete", "aaa"), tmp_path)
    assert "the record does not hold the stop rule" in text
    assert "Not known: the record holds no blocks" in text
    assert "- (b) fewer than three processes: what differs between them is left out" in text
    assert "No sample of load, clocks or heat is in the record of run" in text


def test_sentinels_are_no_repetitions_and_tell_the_drift(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    script.block(0, cell_id)
    script.sentinel(cell_id, 0, step_s=0.01, worker="a")
    script.trial(cell_id, worker="a")
    script.sentinel(cell_id, 0, step_s=0.02, worker="b")
    script.block(1, cell_id, kept="no time to start them anew")
    script.sentinel(cell_id, 1, step_s=0.02)
    run = script.run(tmp_path / "run")
    first, second = find_blocks(run)
    assert (pytest.approx(0.5), False, None) == (first.ratio, first.is_one_process, first.missing)
    assert (None, "the sentinel did not both open and close the block") == (second.ratio, second.missing)
    assert pytest.approx(0.5) == run_drift((first, second))
    value = evaluate(run, "run").cells[0].metrics[SPEED]
    assert isinstance(value, Estimate) and (1, pytest.approx(100.0)) == (value.n, value.value)
    text = text_of(script, tmp_path)
    assert f"| 0 | 7 | 1 | fresh | {cell_id} | 100 | 50.0 | -50.0 % | moved; opened and closed by different" in text
    assert "kept: no time to start them anew" in text


def test_sentinels_of_different_cells_tell_no_drift_over_the_run(tmp_path: Path) -> None:
    script = Script()
    for number, cell_id in enumerate((script.cell(), script.cell(static_batch=2))):
        script.block(number, cell_id)
        script.sentinel(cell_id, number)
        script.sentinel(cell_id, number)
    blocks = find_blocks(script.run(tmp_path))
    assert [pytest.approx(1.0)] * 2 == [block.ratio for block in blocks]
    assert run_drift(blocks) is None


def test_a_block_without_a_sentinel_says_so(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    script.block(0)
    (block,) = find_blocks(script.run(tmp_path))
    assert (None, "the block has no sentinel") == (block.ratio, block.missing)
