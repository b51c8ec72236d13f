"""The section of speculative decoding: what it says of each kind of cell, and that it is absent without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from report_builders import FIGURES, VENDORS
from speculation_builders import DraftScript
from tokbench.derive.evaluate import evaluate
from tokbench.derive.published import PublishedFigure, load_published
from tokbench.derive.report.speculation_figures import _acceptance_lines
from tokbench.derive.report.write import Extras, write_report
from tokbench.derive.speculation.found import find_speculation
from tokbench.derive.speculation.runs import RunLengths
from tokbench.record.observations import ExperimentPoint
from tokbench.record.run import Run
from tokbench.record.spec import ModelSpec

ACCEPTED = (4, 0, 2, 1)
FAST = {"draft_s": 0.001, "verify_s": 0.010, "other_s": 0.0}
OFF = {"draft_s": 0.004, "verify_s": 0.012, "other_s": 0.004}
GGUF = "dequantised from Q4_1 GGUF of the package"


def report(run: Run, folder: Path, figures: Sequence[PublishedFigure] = FIGURES, with_figures: bool = False) -> str:
    results = [evaluate(run, "run")]
    paths = write_report(results, figures, folder / "report", vendors=VENDORS, with_figures=with_figures)
    return paths.markdown.read_text(encoding="utf-8")


def section(text: str, title: str = "## Speculative decoding") -> str:
    """From the title to the next part of the report."""
    assert title in text
    return text.split(title, 1)[1].split("\n## ", 1)[0]


def both(script: DraftScript, method: str = "prompt_lookup", times: dict[str, float] = FAST, **drafted: object) -> str:
    """Three repetitions in three processes of a plain cell and of one with drafts."""
    shared = {name: drafted[name] for name in ("weights", "note", "task", "static_batch") if name in drafted}
    plain, cell_id = script.plan(**shared), script.plan(method, **drafted)  # type: ignore[arg-type]
    rows = shared.get("static_batch", 1)
    assert isinstance(rows, int)
    for block in range(3):
        script.plain(plain, worker=f"w{block}", block=block)
        prompts = [f"edit-{block}-{row}" for row in range(rows)] if "task" in shared else ()
        script.rounds(cell_id, *[ACCEPTED] * rows, times=times, worker=f"w{block}", block=block, prompts=prompts)
    return cell_id


def test_a_run_without_drafts_has_no_such_section(tmp_path: Path) -> None:
    script = DraftScript()
    script.plain(script.plan())
    text = report(script.run(tmp_path), tmp_path)
    assert "Speculative decoding" not in text and "drafts by" not in text


def test_method_task_acceptance_costs_and_speed_up_stand_in_one_row(tmp_path: Path) -> None:
    """11 tokens in four rounds of 11 ms, beside plain steps of 10 ms."""
    script = DraftScript()
    both(script, task="edit")
    text = section(report(script.run(tmp_path), tmp_path))
    (row,) = [line for line in text.split("### ")[0].splitlines() if "drafts by prompt" in line]
    fields = [field.strip() for field in row.strip("|").split("|")]
    assert "drafts by prompt_lookup, gamma 4" in fields[1]
    assert ["edit", "0.700 (0.700 – 0.700), n 3", "2.75", "0.0250", "1.00", "2.50 (2.50 – 2.50), n 3"] == fields[4:10]
    assert "as measured" == fields[11]
    assert "–" in fields[10], "no joules were metered"


def test_a_baseline_shows_the_bandwidth_that_it_used(tmp_path: Path) -> None:
    script = DraftScript()
    both(script)
    text = section(report(script.run(tmp_path), tmp_path), "### Predicted and measured speed-up")
    assert "from the rounds themselves: no test" in text and "MBU" in text
    assert "scripts/profile" not in text


def test_a_residual_beyond_the_limit_points_to_the_profile(tmp_path: Path) -> None:
    """A fifth of each round is neither drafting nor verifying."""
    script = DraftScript()
    both(script, times=OFF)
    text = section(report(script.run(tmp_path), tmp_path))
    assert "measured 0.800 of what was predicted, beyond 15%." in text
    assert "took, in plain steps, +0.00 drafting, +0.00 verifying, +0.40 besides, and +0.00 because" in text
    assert "Most of it: what a round does besides both" in text
    assert "scripts/profile_speculation CONFIG" in text
    assert (Path(__file__).resolve().parents[2] / "scripts" / "profile_speculation").is_file()


def test_a_residual_is_traced_to_the_part_that_takes_longer_in_a_round_than_alone(tmp_path: Path) -> None:
    """Alone a plain step took 10 ms, four drafts 4 and verification 8; in its rounds verification took 12."""
    script = DraftScript()
    plain, cell_id = script.plan(), script.plan("prompt_lookup", experiment="round_parts")
    for block in range(3):
        script.plain(plain, worker=f"w{block}", block=block)
        trial_id = script.rounds(cell_id, ACCEPTED, worker=f"w{block}", block=block)
        for part, seconds in (("plain", 0.01), ("draft", 0.004), ("verify", 0.008)):
            script.add(
                ExperimentPoint(
                    trial_id=trial_id,
                    window_id=f"{trial_id}/experiment/{part}/0",
                    experiment="round_parts",
                    settings={"part": part, "window": 0},
                    duration_s=2 * seconds,
                    stamped_by="script",
                    values={"passes": 2},
                )
            )
    text = section(report(script.run(tmp_path), tmp_path), "### Predicted and measured speed-up").split("\n### ")[0]
    (row,) = [line for line in text.splitlines() if line.startswith("|") and "drafts by prompt" in line]
    assert [["0.100", "0.800", "each part alone"]] == [[field.strip() for field in row.strip("|").split("|")][8:11]]
    assert "measured 0.706 of what was predicted" in text
    assert "+0.00 drafting, +0.40 verifying, +0.10 besides" in text
    assert "Most of it: verification takes another time in a round than alone" in text


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"draft_s": 0.03, "verify_s": 0.011, "other_s": 0.0}, "the control that was to lose speed does so, 0.671x"),
        (FAST, "the control that was to lose speed gains, 2.50x. That is a finding"),
    ],
)
def test_a_negative_control_is_told_either_way(tmp_path: Path, times: dict[str, float], said: str) -> None:
    script = DraftScript()
    both(script, "early_exit", times, labels={"control": "negative"})
    assert said in section(report(script.run(tmp_path), tmp_path))


@pytest.mark.parametrize(
    ("drafted", "reading", "warning"),
    [
        ({"note": GGUF}, "plumbing only", "Plumbing only: these weights come from a file of fewer bits"),
        ({"weights": "random"}, "costs only: random weights", "Random weights: acceptance has no meaning"),
        (
            {"method": "draft_model", "draft": ModelSpec(source="hf:any/draft", weights="random")},
            "costs only: random weights",
            "Random weights: acceptance has no meaning",
        ),
        ({"method": "replay", "weights": "random"}, "costs only: acceptance is replayed", "Replayed: the drafts"),
        ({"accept": "top3"}, "a control: it accepts wrong tokens", "May be read as"),
    ],
    ids=["four bits", "random", "random draft", "replay", "lossy"],
)
def test_rows_that_must_not_be_read_as_acceptance_say_so(
    tmp_path: Path, drafted: dict[str, object], reading: str, warning: str
) -> None:
    script = DraftScript()
    both(script, **drafted)  # type: ignore[arg-type]
    text = section(report(script.run(tmp_path), tmp_path))
    assert reading in text and warning in text
    assert "No acceptance of a model's own weights was measured" in text


def test_published_speed_ups_stand_beside_the_highest_acceptance_here(tmp_path: Path) -> None:
    script = DraftScript()
    both(script)
    text = section(report(script.run(tmp_path), tmp_path, load_published()), "### Published speed-ups")
    assert "γ 6: 0.98; γ 8: 0.92; γ 12: 0.88" in text and "6.66" in text
    assert "γ 5: 0.85" in text and "3.55" in text
    assert "The highest acceptance measured here with a model's own weights: α 0.700" in text


def test_a_toy_pair_counts_and_is_called_one(tmp_path: Path) -> None:
    script = DraftScript()
    both(script, note="toy, trained here: 400 steps on 100000 tokens")
    text = section(report(script.run(tmp_path), tmp_path, load_published()))
    assert "as measured, of a toy pair that was trained here" in text
    assert "> A toy pair (toy, trained here: 400 steps on 100000 tokens): its acceptance is its own" in text
    assert "The highest acceptance measured here: α 0.700" in text and "not a model that anybody serves" in text


def test_without_a_plain_cell_the_reason_stands_where_the_speed_up_would(tmp_path: Path) -> None:
    script = DraftScript()
    script.rounds(script.plan("prompt_lookup"), ACCEPTED)
    text = section(report(script.run(tmp_path), tmp_path))
    assert "no cell of this run asks the same without drafts" in text
    assert "Predicted and measured" not in text and "Acceptance by position and task" in text


def test_figures_are_drawn_where_there_is_data(tmp_path: Path) -> None:
    script = DraftScript()
    both(script)
    both(script, static_batch=4, times={"draft_s": 0.01, "verify_s": 0.09, "other_s": 0.0})
    text = section(report(script.run(tmp_path), tmp_path, with_figures=True))
    for name in ("speculation.png", "acceptance.png", "speculation_batch.png"):
        assert f"figures/{name}" in text
        assert (tmp_path / "report" / "figures" / name).stat().st_size > 10_000
    assert "the speed-up falls below 1 between static batch 1 and 4" in text


def test_cells_that_differ_in_an_option_of_the_drafts_have_names_of_their_own(tmp_path: Path) -> None:
    script = DraftScript()
    for layers in (10, 20):
        both(script, "early_exit", options={"layers": layers})
    text = section(report(script.run(tmp_path), tmp_path))
    for layers in (10, 20):
        assert f"drafts by early_exit (layers {layers}), gamma 4" in text


def test_a_line_of_the_acceptance_figure_holds_one_way_of_drafting(tmp_path: Path) -> None:
    """Early exits at other layers are no one line, and replayed acceptance is none at all."""
    script = DraftScript()
    for layers, accepted in ((10, 0), (20, 4)):
        cell_id = script.plan("early_exit", options={"layers": layers}, task="edit", output_tokens=61)
        rounds = (accepted,) * (60 // (accepted + 1))
        script.rounds(cell_id, rounds, prompts=["edit-1"])
    script.rounds(script.plan("replay", output_tokens=61), (4,) * 12)
    found = find_speculation([evaluate(script.run(tmp_path), "run")], ())
    lines = _acceptance_lines(found.cells)
    names = [f"drafts by early_exit (layers {layers}), gamma 4, edit" for layers in (10, 20)]
    assert {names[0]: [(60, 0), (0, 0), (0, 0), (0, 0)], names[1]: [(12, 12)] * 4} == lines


def test_likeliest_and_drawn_tokens_are_no_one_line_of_the_acceptance_figure(tmp_path: Path) -> None:
    script = DraftScript()
    for temperature, accepted in ((0.0, 0), (0.8, 4)):
        cell_id = script.plan("prompt_lookup", task="edit", output_tokens=61, temperature=temperature)
        script.rounds(cell_id, (accepted,) * (60 // (accepted + 1)), prompts=["edit-1"])
    lines = _acceptance_lines(find_speculation([evaluate(script.run(tmp_path), "run")], ()).cells)
    greedy, drawn = (f"drafts by prompt_lookup, gamma 4{law}, edit" for law in ("", ", drawn at temperature 0.800"))
    assert {greedy: [(60, 0), (0, 0), (0, 0), (0, 0)], drawn: [(12, 12)] * 4} == lines


def test_prompts_that_come_to_one_output_are_not_called_many(tmp_path: Path) -> None:
    """Two prompts, one output, and it repeats six tokens."""
    script, looping = DraftScript(), [1, 2, 3, 4, 5, 6] * 8
    cell_id = script.plan("prompt_lookup", static_batch=2)
    script.rounds(cell_id, ACCEPTED, ACCEPTED, prompts=["a", "b"], output=[looping, looping])
    text = section(report(script.run(tmp_path), tmp_path))
    assert "2 prompts gave 1 different outputs, 1 of them in a loop: acceptance there is that of a phrase" in text
    assert "takes the prompts for independent" in text and "1 of 1" in text


def test_the_highest_acceptance_is_one_outside_of_loops(tmp_path: Path) -> None:
    script = DraftScript()
    looping, honest = script.plan("prompt_lookup"), script.plan("early_exit")
    script.rounds(looping, (4, 4, 0), output=[[1, 2, 3] * 16])
    script.rounds(honest, ACCEPTED, output=[list(range(48))])
    text = section(report(script.run(tmp_path), tmp_path, load_published()), "### Published speed-ups")
    assert "own weights: α 0.700" in text and "early_exit" in text


def test_run_lengths_that_are_no_bursts_are_not_called_so(tmp_path: Path) -> None:
    """The first draft of a round is accepted every other time, the next never; then each round all or none."""
    for name, rounds, said in (
        ("one", (1, 0) * 40, "behind an accepted draft the next is accepted less often"),
        ("all", (4, 0) * 20, "acceptance comes in bursts"),
    ):
        script = DraftScript()
        script.rounds(script.plan("prompt_lookup", output_tokens=1 + 40 * 3), rounds)
        (tmp_path / name).mkdir()
        text = section(report(script.run(tmp_path / name), tmp_path / name))
        assert f"run lengths are not geometric: {said}" in text


def test_the_closed_form_has_no_bias_with_one_draft(tmp_path: Path) -> None:
    script = DraftScript()
    cell_id = script.plan("prompt_lookup", 1, output_tokens=61)
    script.rounds(cell_id, (1,) * 27 + (0,) * 6)
    (found,) = find_speculation([evaluate(script.run(tmp_path), "run")], ()).cells
    assert isinstance(found.lengths, RunLengths) and 0.0 == found.lengths.bias


def test_every_other_place_names_the_drafts_of_a_cell(tmp_path: Path) -> None:
    """The headline's fastest cell may have drafts, and says so."""
    script = DraftScript()
    both(script)
    text = report(script.run(tmp_path), tmp_path)
    assert "drafts by prompt_lookup, gamma 4" in text.split("\n## ", 2)[1]


def test_the_section_speaks_chinese_with_the_same_numbers(tmp_path: Path) -> None:
    script = DraftScript()
    both(script, times=OFF, note=GGUF)
    results = [evaluate(script.run(tmp_path), "run")]
    paths = write_report(
        results, FIGURES, tmp_path / "zh", vendors=VENDORS, with_figures=False, extras=Extras(language="zh")
    )
    text = section(paths.markdown.read_text(encoding="utf-8"), "## 推测解码")
    assert "仅验证流程" in text and "实测为预测的 0.800 倍" in text and "prompt_lookup 草稿，gamma 4" in text
    assert "Plumbing" not in text and "Speed-up" not in text
