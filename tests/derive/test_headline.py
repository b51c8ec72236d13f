"""The sentences of the console: what they must name, and what they must never suggest."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from builders import Script
from report_builders import FIGURES, VENDORS, figure, rich_script
from tokbench.derive.decision import Market, decide
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.headline import console_lines, headline, lines_of
from tokbench.derive.purchase import say_purchase
from tokbench.derive.standing import take_standing

ALIKE = figure(speculation="none", precision="bf16", excludes_ttft=True)
LARGER = figure(model="meta-llama/Llama-3.1-405B-Instruct", total_params_b=405.0)


def results_of(script: Script, folder: Path) -> Results:
    return evaluate(script.run(folder), "run")


def measured(folder: Path, **cell: object) -> Results:
    """One cell at exactly 100 tokens/s."""
    script = Script()
    cell_id = script.cell(**cell)  # type: ignore[arg-type]
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    return results_of(script, folder)


def test_the_first_sentence_says_how_many_are_like_for_like(tmp_path: Path) -> None:
    results = measured(tmp_path)
    for figures, start in (
        ([ALIKE], "1 of 1 comparisons with published figures are like for like; "),
        ([ALIKE, figure("groq", 751.0)], "1 of 2 comparisons with published figures are like for like; "),
        ([], "No comparison with a published figure could be made; "),
    ):
        (first, *_) = headline([results], figures, ("cerebras", "groq"))
        assert first.startswith(f"{start}fastest for one user here: 100 tokens/s decode (95 % interval 100 to 100")


def test_the_sentences_of_ours(tmp_path: Path) -> None:
    lines = headline([results_of(rich_script(), tmp_path)], FIGURES, VENDORS)
    assert len(lines) == 4
    assert all(line.endswith(".") and "\n" not in line for line in lines)
    assert "fastest for one user here: 78.1 tokens/s decode (95 % interval 74.4 to 81.9" in lines[0]
    assert "6 repetitions in 3 processes): Llama-3.1-8B-Instruct, bf16, fake compiled, static batch 1" in lines[0]
    assert lines[1].startswith("Most for all users together: 194 tokens/s output")
    assert lines[1].endswith("; memory 17.0 GB on the device, weights 16.1 GB.")


def test_a_purchase_is_the_fifth(tmp_path: Path) -> None:
    """100 tokens/s, and half a second until the first token, hold 20 and 50 tokens/s for one user."""
    results = [measured(tmp_path)]
    decision = decide(results, Market(tuple(FIGURES), VENDORS, {}))
    lines = lines_of(results, take_standing(results, FIGURES, VENDORS), VENDORS, decision)
    assert len(lines) == 5
    assert lines[4].startswith(
        "For a purchase (Llama-3.1-8B-Instruct, 100 prompt + 5 output tokens, on NVIDIA H100 80GB HBM3; "
        "TTFT p95 of at most 1 s; an upper bound without queueing), tokens/s per user hold as follows: 20 for 1 user"
    )
    assert "20 for 1 user, evidence " in lines[4] and "50 for 1 user, evidence " in lines[4]
    assert "; 200 for nobody" in lines[4]


def test_a_purchase_names_every_device_of_the_box(tmp_path: Path) -> None:
    decision = decide([measured(tmp_path)], Market(tuple(FIGURES), VENDORS, {}))
    assert decision.headline is not None
    both = dataclasses.replace(decision.headline, device_count=2)
    rows = tuple(dataclasses.replace(row, workload=both) for row in decision.rows)
    assert "on 2 of NVIDIA H100 80GB HBM3;" in say_purchase(dataclasses.replace(decision, rows=rows))


def test_random_weights_decide_nothing(tmp_path: Path) -> None:
    results = [measured(tmp_path, weights="random")]
    decision = decide(results, Market(tuple(FIGURES), VENDORS, {}))
    (*_, last) = lines_of(results, take_standing(results, FIGURES, VENDORS), VENDORS, decision)
    assert last == "For a purchase: no decision, for want of a measured cell with weights of a real model."


def test_vendor_sentence_names_figure_ratio_and_conditions(tmp_path: Path) -> None:
    theirs = figure(value=1800.0, precision="bf16")
    line = headline([measured(tmp_path)], [theirs], ["cerebras"])[2]
    assert line.startswith(
        "Cerebras publishes 1,800 tokens/s for Llama-3.1-8B-Instruct (stated by the vendor, 2024-08-27; example.org): "
        "18.0x ours (18.0 to 18.0), which is 100 tokens/s (Llama-3.1-8B-Instruct, static batch 1); "
    )
    assert "conditions differ" in line and "are unknown" in line
    assert "not like for like (not stated: speculation" in line


def test_like_for_like_only_where_all_is_stated(tmp_path: Path) -> None:
    assert "not like for like" not in headline([measured(tmp_path)], [ALIKE], ["cerebras"])[2]


def test_random_weights_stand_in_every_sentence(tmp_path: Path) -> None:
    lines = headline([measured(tmp_path, weights="random")], [ALIKE], ["cerebras"])
    assert [line for line in lines if "random weights" not in line] == []


def test_a_ratio_below_the_minimum_is_not_told(tmp_path: Path) -> None:
    line = headline([measured(tmp_path)], [LARGER], ["cerebras"])[2]
    assert line.startswith("Cerebras: no ratio to tell (another model; ")
    assert "see the appendix). Its nearest figure is 1,800 tokens/s for Llama-3.1-405B-Instruct (stated by" in line
    assert "18.0x" not in line and "ours" not in line
    told = console_lines([measured(tmp_path / "console")], [LARGER], ["cerebras"])[2]
    assert told.startswith("Cerebras: no ratio to tell (another model; ") and "18.0x" not in told


def test_what_can_no_longer_be_had_says_so_in_the_first_minute(tmp_path: Path) -> None:
    gone = {"available_until": "2026-05-27", "available_until_url": "https://example.org/end"}
    theirs = [ALIKE.model_copy(update=gone), figure("groq", 751.0, precision="bf16").model_copy(update=gone)]
    lines = headline([measured(tmp_path)], theirs, ("cerebras", "groq", "amd"))
    assert "2024-08-27, no longer offered (until 2026-05-27); example.org)" in lines[2]
    assert "(2024-08-27, no longer offered (until 2026-05-27)), 7.51x ours" in lines[3]


def test_speculation_is_named(tmp_path: Path) -> None:
    theirs = figure(speculation="speculative-decoding", precision="bf16")
    line = headline([measured(tmp_path)], [theirs], ["cerebras"])[2]
    assert "with speculative decoding" in line and "different: speculation" in line


def test_more_vendors_share_a_sentence(tmp_path: Path) -> None:
    figures = [ALIKE, figure("groq", 751.0, precision="bf16"), figure("sambanova", 1042.0, precision="bf16")]
    lines = headline([measured(tmp_path)], figures, ("cerebras", "groq", "sambanova", "amd"))
    assert len(lines) == 4
    assert lines[2].startswith("Cerebras publishes 1,800 tokens/s")
    assert lines[3].startswith("Groq publishes 751 tokens/s for Llama-3.1-8B-Instruct (2024-08-27), 7.51x ours")
    assert "; SambaNova 1,042 tokens/s, 10.4x ours (10.4 to 10.4) (" in lines[3]
    assert re.search(r"\((\d+) of (\d+) conditions differ or are unknown\)", lines[3])
    assert lines[3].endswith("; AMD: no figure to set beside.")


def test_vendor_without_a_figure(tmp_path: Path) -> None:
    assert headline([measured(tmp_path)], [], ["groq"])[2].startswith("Groq: no comparison: ")


def test_suspect_cells_say_so_and_give_way(tmp_path: Path) -> None:
    script = Script()
    quick, firm = script.cell(), script.cell(static_batch=2)
    script.trial(quick, step_s=0.007)
    for _ in range(3):
        script.trial(firm, step_s=0.01)
    lines = headline([results_of(script, tmp_path)], FIGURES, VENDORS)
    assert "100 tokens/s decode" in lines[0] and "static batch 2" in lines[0]

    ahead = Script()
    quick, firm = ahead.cell(), ahead.cell(static_batch=2)
    ahead.trial(quick, step_s=0.006)  # by more than one good moment
    for _ in range(3):
        ahead.trial(firm, step_s=0.01)
    lines = headline([results_of(ahead, tmp_path / "ahead")], FIGURES, VENDORS)
    assert "167 tokens/s decode" in lines[0] and "[suspect: too few repetitions]" in lines[0]

    alone = Script()
    alone.trial(alone.cell(), step_s=0.01)
    lines = headline([results_of(alone, tmp_path / "alone")], FIGURES, VENDORS)
    assert "no interval, 1 repetition" in lines[0] and "[suspect: too few repetitions]" in lines[0]


def test_nothing_measured(tmp_path: Path) -> None:
    script = Script()
    script.skip(script.cell(), "skipped", "the weights do not fit")
    lines = headline([results_of(script, tmp_path)], FIGURES, VENDORS)
    assert lines == ("No decode speed was measured in the only cell: the weights do not fit.",)
    script.skip(script.cell(static_batch=2), "skipped", "the weights do not fit")
    lines = headline([results_of(script, tmp_path / "two")], FIGURES, VENDORS)
    assert lines == ("No decode speed was measured in 2 cells: the weights do not fit.",)
    nothing = headline([results_of(Script(), tmp_path / "none")], FIGURES, VENDORS)
    assert nothing == ("Nothing was measured: no cell was planned.",)
