"""What a run says of a repetition that is finished."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tokbench.cli.console import ConsoleProgress
from tokbench.measure.plan import PlannedCell
from tokbench.record.spec import CellSpec, EngineSpec, ModelSpec, SpeculationSpec
from tokbench.record.sweep import make_cell


@pytest.mark.parametrize("drafts", [False, True])
def test_the_share_of_the_roofline_stands_only_where_a_pass_gives_one_token(drafts: bool) -> None:
    drafting = SpeculationSpec(method="prompt_lookup", gamma=4) if drafts else "none"
    spec = CellSpec(
        model=ModelSpec(source="shape:cpu-moe", dtype="float32"),
        engine=EngineSpec(kind="transformers"),
        speculation=drafting,
    )
    said = io.StringIO()
    with ConsoleProgress(Console(file=said, width=200), 60, "a CPU") as progress:
        progress.know_ceiling("float32", 1e10)
        progress.end_trial(PlannedCell(make_cell(spec), None, None, None, 1e9, None), 5.0, 1)
    assert "5.00 tokens/s per user" in said.getvalue()
    assert ("50% of the roofline" in said.getvalue()) is not drafts
