"""The proof of the statistics with few pairs: the same counts, with room for chance. The full one is in benchmarks/."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import statistics_proof as proof
from benchmarks.counting import Row, differing
from benchmarks.counting import comparisons as compared
from benchmarks.simulated_runs import MACHINES, Shape, simulate

from tokbench.stats import StopRule, estimate_blocks

PAIRS = 100
ROOM = 0.025
"""Three standard deviations of a share of 5 % among 4 x PAIRS, and a little."""


@pytest.mark.parametrize(
    "count", [proof.false_differences, proof.coverage_of_ratios, proof.coverage_of_values, proof.slow_downs]
)
def test_promises_hold_but_for_chance(count: proof.Count) -> None:
    rows = [row for row in count(PAIRS, np.random.default_rng(1)) if row.is_kept is not None]
    assert rows
    broken = [row for row in rows if not (row.at_least or 0) - ROOM <= row.share <= (row.at_most or 1) + ROOM]
    assert [] == broken


def test_stopping_keeps_its_coverage_where_the_first_narrow_interval_does_not() -> None:
    machine = MACHINES[1].without_drift()
    rule = StopRule(proof.HARDEST * machine.spread, 3, 40, min_blocks=3)
    hits = proof.stopped_hits(machine, 1, rule, 1500, np.random.default_rng(1))
    assert hits / 1500 >= 0.92
    first = StopRule(rule.rel_ci, 3, 40, min_blocks=1)
    assert proof.stopped_hits(machine, 1, first, 1500, np.random.default_rng(1)) < hits - 15


def test_processes_and_not_repetitions_are_what_is_replicated() -> None:
    # the same values, once as seven processes and once as if every repetition were one
    run = simulate(MACHINES[3].without_drift(), Shape(400, 7, 3), 1.0, np.random.default_rng(1))
    honest = differing(compared(run.a, run.b, paired=False))
    naive = differing(compared(run.a.reshape(400, 21, 1), run.b.reshape(400, 21, 1), paired=False))
    assert honest <= 30
    assert naive >= 60


def test_the_spreads_that_were_put_in_are_found() -> None:
    machine = MACHINES[3].without_drift()
    run = simulate(machine, Shape(1, 400, 20), 1.0, np.random.default_rng(1))
    found = estimate_blocks(run.a[0].tolist(), "")
    assert pytest.approx(machine.within, rel=0.1) == found.sd_within
    assert pytest.approx(machine.between, rel=0.1) == found.sd_between


def test_a_broken_bound_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(share: int) -> proof.Count:
        return lambda pairs, rng: iter([Row("topic", "machine", "design", share, 100, 0.93, 0.97)])

    monkeypatch.setattr(proof.controls, "CONTROLS", ())
    monkeypatch.setattr(proof, "PROMISES", (one(95),))
    assert 0 == proof.main(["--out", str(tmp_path)])
    monkeypatch.setattr(proof, "PROMISES", (one(95), one(92), one(98)))
    assert 1 == proof.main(["--out", str(tmp_path)])
    rows = json.loads((tmp_path / "statistics.json").read_text())["rows"]
    assert [True, False, False] == [row["is_kept"] for row in rows]
    assert "1 of 3 bounds kept" in (tmp_path / "statistics.md").read_text()
