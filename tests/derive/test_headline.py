"""The sentences of the console: what they must name, and what they must never suggest."""

from __future__ import annotations

from pathlib import Path

from builders import Script
from report_builders import FIGURES, VENDORS, figure, rich_script
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.headline import headline


def results_of(script: Script, folder: Path) -> Results:
    return evaluate(script.run(folder), "run")


def measured(folder: Path, **cell: object) -> Results:
    """One cell at exactly 100 tokens/s."""
    script = Script()
    cell_id = script.cell(**cell)  # type: ignore[arg-type]
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    return results_of(script, folder)


def test_five_sentences(tmp_path: Path) -> None:
    lines = headline([results_of(rich_script(), tmp_path)], FIGURES, VENDORS)
    assert len(lines) == 5
    assert all(line.endswith(".") and "\n" not in line for line in lines)
    assert lines[0].startswith(
        "Fastest for one user: 78.1 tokens/s decode (95 % interval 74.4 to 81.9, 6 repetitions in 3 processes)"
    )
    assert lines[1].startswith("Most for all users together: 194 tokens/s output")
    assert lines[2].startswith("Memory of that cell: peak 17.0 GB on the device, weights 16.1 GB")


def test_vendor_sentence_names_figure_ratio_and_conditions(tmp_path: Path) -> None:
    line = headline([measured(tmp_path)], [figure(value=1800.0)], ["cerebras"])[3]
    assert line.startswith(
        "Cerebras publishes 1,800 tokens/s for Llama-3.1-8B-Instruct (stated by the vendor, 2024-08-27; example.org): "
        "18.0x ours (18.0 to 18.0), which is 100 tokens/s with Llama-3.1-8B-Instruct, static batch 1; "
    )
    assert "conditions differ" in line and "are unknown" in line
    assert "not like for like (not stated: precision, speculation" in line


def test_like_for_like_only_where_all_is_stated(tmp_path: Path) -> None:
    theirs = figure(speculation="none", precision="bf16", excludes_ttft=True)
    assert "not like for like" not in headline([measured(tmp_path)], [theirs], ["cerebras"])[3]


def test_random_weights_stand_in_every_sentence(tmp_path: Path) -> None:
    lines = headline([measured(tmp_path, weights="random")], FIGURES, VENDORS)
    assert [line for line in lines if "random weights" not in line] == []


def test_nearest_size_is_never_like_for_like(tmp_path: Path) -> None:
    theirs = figure(model="meta-llama/Llama-3.1-405B-Instruct", total_params_b=405.0)
    line = headline([measured(tmp_path)], [theirs], ["cerebras"])[3]
    assert "not like for like: their model is 50 times larger" in line


def test_speculation_is_named(tmp_path: Path) -> None:
    line = headline([measured(tmp_path)], [figure(speculation="speculative-decoding")], ["cerebras"])[3]
    assert "with speculative decoding" in line and "different: speculation" in line


def test_vendor_without_a_figure(tmp_path: Path) -> None:
    assert headline([measured(tmp_path)], [], ["groq"])[3].startswith("Groq: no comparison: ")


def test_suspect_cells_say_so_and_give_way(tmp_path: Path) -> None:
    script = Script()
    quick, firm = script.cell(), script.cell(static_batch=2)
    script.trial(quick, step_s=0.005)
    for _ in range(3):
        script.trial(firm, step_s=0.01)
    lines = headline([results_of(script, tmp_path)], FIGURES, VENDORS)
    assert "100 tokens/s decode" in lines[0] and "static batch 2" in lines[0]

    alone = Script()
    alone.trial(alone.cell(), step_s=0.01)
    lines = headline([results_of(alone, tmp_path / "alone")], FIGURES, VENDORS)
    assert "no interval, 1 repetition" in lines[0] and "[suspect: too few repetitions]" in lines[0]


def test_nothing_measured(tmp_path: Path) -> None:
    script = Script()
    script.skip(script.cell(), "skipped", "the weights do not fit")
    lines = headline([results_of(script, tmp_path)], FIGURES, VENDORS)
    assert lines == ("No decode speed was measured in 1 cells: the weights do not fit.",)
