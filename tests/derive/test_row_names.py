"""Names beside the rows of a chart: folded, so that the data keep most of the width."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from moe_builders import MoeScript
from tokbench.derive import wording
from tokbench.derive.evaluate import evaluate
from tokbench.derive.report.canvas import LINE_IN, NAME_CHARS, ROW_IN, fold_names
from tokbench.derive.report.write import write_report
from tokbench.record.facts import CeilingFacts
from tokbench.record.observations import FactsRead

LONG = "eager, routing drawn, even, 50.0 % of the experts resident, static batch 1, prompt 16"


def test_long_lines_are_folded_and_no_word_is_lost() -> None:
    found = fold_names([f"cpu-moe (random weights)\n{LONG}", "llama\neager"])
    lines = found.names[0].splitlines()

    assert "cpu-moe (random weights)" == lines[0]
    assert LONG == " ".join(lines[1:])
    assert max(map(len, lines)) <= NAME_CHARS
    assert "llama\neager" == found.names[1]


@pytest.mark.parametrize(
    ("names", "row_in"),
    [(["one"], ROW_IN), (["one\ntwo"], ROW_IN), ([f"one\n{LONG}"], ROW_IN + LINE_IN), ([], ROW_IN)],
)
def test_a_row_is_as_high_as_the_longest_name(names: list[str], row_in: float) -> None:
    assert pytest.approx(row_in) == fold_names(names).row_in


def test_long_names_leave_room_for_the_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib gave up the layout, with a warning, and the bars were a line at the right edge."""
    monkeypatch.setattr(wording, "say_mode", lambda cell: LONG)
    script = MoeScript()
    script.add(
        FactsRead(
            at_ns=script.wait(0),
            ceilings=CeilingFacts(
                read_bytes_per_s=30e9,
                matmul_flops_per_s=60e9,
                dtype="float32",
                buffer_bytes=1 << 29,
                repetitions=5,
                method="by hand",
            ),
        )
    )
    for rows in (1, 16):
        script.shaped("cpu-moe", rows, step_s=(0.02, 0.021))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_report([evaluate(script.run(tmp_path), "run")], [], tmp_path / "out", vendors=())
    assert {"roofline.png", "latency.png"} <= {path.name for path in paths.figures}
