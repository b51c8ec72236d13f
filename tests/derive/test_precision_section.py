"""What fewer bits cost: gains beside the bytes' prediction, added nats with their reading, and absence."""

from __future__ import annotations

from pathlib import Path

import pytest

from quality_builders import Lab
from report_builders import FIGURES, VENDORS, rich_script
from tokbench.arithmetic import Precision, bytes_read_per_step, weight_bytes
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.quality.precisions import find_precisions
from tokbench.derive.report.write import write_report
from tokbench.record.catalog import find_model
from tokbench.record.observations import FactsRead
from tokbench.record.run import read_run

NATIVE = {"native_dtype": "bfloat16"}


def results_of(lab: Lab, folder: Path) -> Results:
    lab.script.write(folder)
    return evaluate(read_run(folder), "lab")


def report(results: Results, folder: Path) -> str:
    return write_report([results], FIGURES, folder, vendors=VENDORS, with_figures=False).markdown.read_text()


def ladder(labels: dict[str, str]) -> Lab:
    """bfloat16 beside int4: 40 ms a step against 20, half a nat a token more."""
    lab = Lab()
    wide, narrow = lab.cell(labels=labels), lab.cell("int4", labels=labels)
    for _ in range(2):
        lab.read(wide, [3.0, 3.3], steps_s=[0.04] * 3)
        lab.read(narrow, [4.5, 4.8], steps_s=[0.02] * 3)
    return lab


def test_the_gain_stands_beside_what_the_bytes_predict(tmp_path: Path) -> None:
    ((wide, narrow),) = find_precisions(results_of(ladder(NATIVE), tmp_path))
    shape = find_model("Llama-3.1-8B-Instruct").shape
    reads = [bytes_read_per_step(shape, dtype, 1, 10).total for dtype in ("bfloat16", "int4")]

    assert wide.is_reference and not narrow.is_reference and narrow.reference is wide.cell
    assert narrow.speed_x == pytest.approx(2.0)
    assert narrow.predicted_speed_x == pytest.approx(reads[0] / reads[1], rel=1e-3)
    assert weight_bytes(shape, Precision("int4", "bfloat16")) == narrow.predicted_weight_bytes
    assert narrow.is_native


def test_the_section_tells_gain_residual_and_loss(tmp_path: Path) -> None:
    text = report(results_of(ladder(NATIVE), tmp_path / "run"), tmp_path / "report")
    assert "## What fewer bits cost\n" in text
    assert "### What fewer bits cost in foresight\n" in text
    row = next(line for line in text.splitlines() if "| int4" in line and "2.00x" in line)
    assert "| 2.00x | 3." in row  # int4 reads a bit less than a third of bfloat16's bytes
    loss = next(line for line in text.splitlines() if "| int4" in line and "loses" in line)
    assert "0.500 (0.500 – 0.500), n 2" in loss and "| 1.649 | loses foresight: perplexity 65 % higher |" in loss
    assert "Plumbing only" not in text


@pytest.mark.parametrize(
    ("nats", "reading"),
    [
        (-0.0005, "gains foresight: perplexity 0.050 % lower; told from 0, but not considerable (up to 0.02 nats)"),
        (0.004, "loses foresight: perplexity 0.40 % higher; told from 0, but not considerable (up to 0.02 nats)"),
        (0.06, "loses foresight: perplexity 6.2 % higher"),
    ],
)
def test_a_difference_that_is_told_from_0_has_its_size_beside_it(tmp_path: Path, nats: float, reading: str) -> None:
    """Seen: "gains foresight" stood beside half a thousandth of a nat, as if it were of any size."""
    lab = Lab()
    wide, narrow = lab.cell(labels=NATIVE), lab.cell("int8", labels=NATIVE)
    for _ in range(2):
        lab.read(wide, [3.0, 3.3], steps_s=[0.04] * 3)
        lab.read(narrow, [3.0 + 3 * nats, 3.3 + 3 * nats], steps_s=[0.02] * 3)
    text = report(results_of(lab, tmp_path / "run"), tmp_path / "report")
    assert f"| {reading} |" in next(line for line in text.splitlines() if "| int8" in line and "foresight:" in line)


def test_weights_that_were_quantised_before_are_plumbing(tmp_path: Path) -> None:
    text = report(results_of(ladder({"native_dtype": "q4_1"}), tmp_path / "run"), tmp_path / "report")
    assert "Plumbing only, no verdict" in text and "(label native_dtype: q4_1)" in text
    assert "loses foresight" not in text
    assert any("| plumbing only |" in line for line in text.splitlines() if "| int4" in line)


def test_weights_that_the_record_knows_as_dequantised_are_plumbing_whatever_the_label_says(tmp_path: Path) -> None:
    lab = ladder(NATIVE)
    note = {"note": "dequantised from Q4_1 GGUF of the package"}
    lab.script.events = [
        event.model_copy(update={"model": event.model.model_copy(update=note)})
        if isinstance(event, FactsRead) and event.model is not None
        else event
        for event in lab.script.events
    ]
    text = report(results_of(lab, tmp_path / "run"), tmp_path / "report")
    assert "Plumbing only, no verdict" in text and "loses foresight" not in text


def test_cells_of_one_type_or_without_a_text_have_no_such_section(tmp_path: Path) -> None:
    script = rich_script()
    script.write(tmp_path / "rich")
    assert "What fewer bits cost" not in report(evaluate(read_run(tmp_path / "rich"), "rich"), tmp_path / "one")

    lab = Lab()
    for dtype in ("bfloat16", "int8"):
        lab.trial(lab.cell(dtype, experiment="none"), [], steps_s=[0.02] * 3)
    text = report(results_of(lab, tmp_path / "two"), tmp_path / "silent")
    assert "## What fewer bits cost\n" in text and "in foresight" not in text


def test_another_mode_has_no_gain_and_says_why(tmp_path: Path) -> None:
    lab = ladder(NATIVE)
    ((wide, narrow),) = find_precisions(results_of(lab, tmp_path))
    assert {"bfloat16", "int4"} == {row.cell.record.spec.model.dtype for row in (wide, narrow)}
    alone = Lab()
    alone.trial(alone.cell("int8", experiment="none"), [], steps_s=[0.02] * 3)
    assert () == find_precisions(results_of(alone, tmp_path / "alone"))
