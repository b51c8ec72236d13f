"""Joules of ours beside a vendor's: a scope on both sides, and a sourced band where they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.derive.energy_scope import (
    Beside,
    NotComparable,
    StatedJoules,
    find_band,
    load_overheads,
    set_beside,
)
from tokbench.errors import DataError

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
