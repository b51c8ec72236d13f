"""Joules of ours beside a vendor's: a scope on both sides, and a sourced band where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from builders import Script
from energy_builders import Power, counter_readings, energy_trial, opened, period
from energy_builders import Scope as EnergyScope
from tokbench.derive.energy.domains import CPU_SCOPES, GPU_SCOPES
from tokbench.derive.energy.rows import CellEnergy, find_energy
from tokbench.derive.energy_scope import (
    Beside,
    NotComparable,
    Scope,
    StatedJoules,
    find_band,
    load_overheads,
    set_beside,
    state_ours,
)
from tokbench.errors import DataError
from tokbench.record.observations import MeterOpened

H100 = "NVIDIA H100 80GB HBM3"


def test_the_band_is_divided_from_rows_with_sources() -> None:
    """10,401 W of a node over 8 * 1,000 W of boards; 10,200 W of another over 8 * 700 W."""
    band = find_band(H100, "wall")
    assert band is not None
    assert (band.low, band.high) == (pytest.approx(10_401 / 8_000), pytest.approx(10_200 / 5_600))
    assert "MLPerf Inference v5.1" in band.say()
    assert all(row.source_url.startswith("https://") and row.read_on for row in load_overheads())


def test_a_desktop_card_has_no_band() -> None:
    assert find_band("NVIDIA GeForce RTX 4090", "wall") is None
    assert find_band(None, "wall") is None


def test_a_board_is_never_set_bare_beside_a_system() -> None:
    outcome = set_beside(StatedJoules(1.0, "board", 0.9), StatedJoules(5.0, "wall"), H100)
    assert isinstance(outcome, Beside)
    assert (outcome.low, outcome.high) == (pytest.approx(5 * 5_600 / 10_200), pytest.approx(5 * 8_000 / 10_401))
    assert "to the wall" in outcome.said and "learnAI" in outcome.said


def test_their_board_beside_our_plug() -> None:
    outcome = set_beside(StatedJoules(1.0, "wall"), StatedJoules(5.0, "board"), H100)
    assert isinstance(outcome, Beside)
    assert outcome.low == pytest.approx(5 * 10_401 / 8_000)


def test_one_scope_needs_no_band() -> None:
    outcome = set_beside(StatedJoules(2.0, "wall"), StatedJoules(5.0, "wall"), None)
    assert outcome == Beside(2.5, 2.5, "both of the wall")


@pytest.mark.parametrize(
    ("ours", "theirs", "device", "why"),
    [
        (StatedJoules(1.0, "board"), StatedJoules(2.0, None), H100, "their scope is unknown"),
        (StatedJoules(1.0, None), StatedJoules(2.0, "wall"), H100, "our scope is unknown"),
        (StatedJoules(1.0, "script"), StatedJoules(2.0, "script"), H100, "from a script"),
        (StatedJoules(1.0, "package"), StatedJoules(2.0, "wall"), H100, "how package and wall relate"),
        (StatedJoules(1.0, "dram"), StatedJoules(2.0, "dram"), H100, "our joules are of the memory alone"),
        (StatedJoules(1.0, "node part"), StatedJoules(2.0, "wall"), H100, "how node part and wall relate"),
        (StatedJoules(1.0, "boards"), StatedJoules(2.0, "node"), H100, "a boards and a node relate"),
        (StatedJoules(1.0, "board"), StatedJoules(2.0, "module"), H100, "a board and a module relate"),
        (StatedJoules(1.0, "board"), StatedJoules(2.0, "wall"), "NVIDIA GeForce RTX 4090", "boards of NVIDIA GeForce"),
        (StatedJoules(1.0, "board", 0.3), StatedJoules(2.0, "wall"), H100, "drew 30 % of their limit"),
    ],
)
def test_no_ratio_without_a_source(ours: StatedJoules, theirs: StatedJoules, device: str, why: str) -> None:
    outcome = set_beside(ours, theirs, device)
    assert isinstance(outcome, NotComparable)
    assert outcome.reason.startswith("not comparable, because") and why in outcome.reason


def test_a_row_without_a_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host_overhead.yaml"
    path.write_text(
        "rows:\n- {id: a, device: NVIDIA B200, boards: 8, whole_w: 9000, reaches: wall}\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match="required"):
        load_overheads(path)


def test_every_scope_of_a_row_is_one_that_can_be_stated(tmp_path: Path) -> None:
    """A group's scope that the rule did not know would never stand beside anything."""
    groups = {*GPU_SCOPES, *CPU_SCOPES, *get_args(MeterOpened.model_fields["scope"].annotation)}
    assert groups | {"facility"} == set(get_args(Scope))


def test_boards_of_a_split_model_are_brought_out_as_one_board_is() -> None:
    split = set_beside(StatedJoules(1.0, "boards", 0.9), StatedJoules(5.0, "wall"), H100)
    single = set_beside(StatedJoules(1.0, "board", 0.9), StatedJoules(5.0, "wall"), H100)
    assert isinstance(split, Beside) and isinstance(single, Beside)
    assert (single.low, single.high) == (split.low, split.high)
    assert split.said.startswith("our joules of the boards at ")
    assert isinstance(set_beside(StatedJoules(1.0, "boards"), StatedJoules(3.0, "board"), None), Beside)


def cell_energy(folder: Path, *, limit_w: float | None = 400.0, scope: EnergyScope = "board") -> CellEnergy:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    script.add(opened(scope=scope, power_limit_w=limit_w), period(), *counter_readings(power, 0, script.now_ns))
    run = script.run(folder)
    return find_energy(run, run.cells[cell_id])


def test_a_cells_joules_are_stated_with_scope_and_load(tmp_path: Path) -> None:
    assert StatedJoules(3.5, "board", pytest.approx(350 / 400)) == state_ours(cell_energy(tmp_path / "a"), 3.5)
    node = state_ours(cell_energy(tmp_path / "b", scope="node", limit_w=None), 3.5)
    assert StatedJoules(3.5, "node", None) == node


def test_a_cell_without_energy_is_not_comparable_and_says_why() -> None:
    stated = state_ours(CellEnergy((), (), "no meter was read in this run"), 3.5)
    assert NotComparable("not comparable, because no meter was read in this run") == stated
