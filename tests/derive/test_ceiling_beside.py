"""The read ceiling beside a repetition: what the memory gave just before and after its decode."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from builders import Script
from scripted_facts import ceilings
from tokbench.derive.evaluate import evaluate
from tokbench.record.observations import ReadPass, TrialFinished
from tokbench.stats import Estimate


def read_beside(script: Script, side: Literal["before", "after"], bytes_per_s: float) -> None:
    """Passes over 1 GB in the newest trial; its slower ones do not count."""
    finished = [event for event in script.events if isinstance(event, TrialFinished)][-1]
    shortest = 1e9 / bytes_per_s
    read = ReadPass(
        trial_id=finished.trial_id,
        window_id=f"{finished.trial_id}/decode",
        side=side,
        at_ns=finished.at_ns,
        read_bytes=10**9,
        pass_s=(3 * shortest, shortest),
    )
    script.events.insert(script.events.index(finished), read)


def used_ratio(script: Script, folder: Path) -> Estimate:
    (cell,) = evaluate(script.run(folder), "run").cells
    value = cell.metrics["bandwidth_used_ratio"]
    assert isinstance(value, Estimate)
    return value


def test_each_repetition_is_held_to_what_the_memory_gave_beside_it(tmp_path: Path) -> None:
    """The memory halves its rate and so does decode: the share stays what it was."""
    plain, beside = Script(ceiling=ceilings()), Script(ceiling=ceilings())
    for script in (plain, beside):
        cell_id = script.cell()
        for step_s, rate in ((0.01, 2e12), (0.02, 1e12), (0.01, 2e12)):
            script.trial(cell_id, step_s=(step_s,) * 4)
            if script is beside:
                read_beside(script, "before", rate * 2)
                read_beside(script, "after", rate / 2)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    local, whole = used_ratio(beside, tmp_path / "a"), used_ratio(plain, tmp_path / "b")
    assert local.high - local.low == pytest.approx(0.0, abs=1e-9)
    assert whole.high - whole.low > 0.1 * whole.value
    assert whole.value < local.value


def test_one_side_alone_does_not_count(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings())
    cell_id = script.cell()
    script.trial(cell_id, step_s=(0.01,) * 4)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    expected = used_ratio(script, tmp_path / "a").value
    read_beside(script, "before", 1e11)
    assert used_ratio(script, tmp_path / "b").value == pytest.approx(expected)
