"""What is derived from the experiment `assisted`: sums and agreement by hand, and the report's part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from builders import Script
from scripted_facts import LLAMA_8B
from tokbench.derive.assisted import Sums, find_both
from tokbench.derive.evaluate import evaluate
from tokbench.derive.report.assisted_section import _read, assisted_sections
from tokbench.derive.report.document import Section, Table
from tokbench.derive.report.write import NO_EXTRAS, _find, _gather
from tokbench.record.observations import ExperimentPoint, PromptsStaged

Seen = tuple[int, int, int, int, float]
"""Rounds, drafted, accepted, same tokens, seconds."""
OURS: tuple[Seen, Seen] = ((4, 12, 6, 16, 2.0), (5, 15, 4, 9, 2.0))
THEIRS: tuple[Seen, Seen] = ((4, 12, 6, 16, 1.5), (6, 15, 4, 9, 1.75))


def script(*repetitions: tuple[tuple[Seen, Seen], tuple[Seen, Seen]], method: str = "early_exit") -> Script:
    """A cell of two rows; in each repetition what both implementations did for each row."""
    made = Script()
    cell_id = made.cell(LLAMA_8B, static_batch=2)
    for sides in repetitions:
        trial_id = made.trial(cell_id)
        finished = made.events.pop()
        for name, rows in zip(("tokbench", "transformers"), sides, strict=True):
            for row, (rounds, drafted, accepted, same, seconds) in enumerate(rows):
                made.add(
                    ExperimentPoint(
                        trial_id=trial_id,
                        window_id=f"{trial_id}/experiment/{name}/{row}",
                        experiment="assisted",
                        settings={
                            "implementation": name,
                            "row": row,
                            "rows": 2,
                            "method": method,
                            "gamma": 3,
                            "output_tokens": 16,
                        },
                        duration_s=seconds,
                        stamped_by="script",
                        values={"rounds": rounds, "drafted": drafted, "accepted": accepted, "same_tokens": same},
                    )
                )
        made.add(finished)
    made.end()
    return made


def sections(made: Script, folder: Path) -> list[Section]:
    results = evaluate(made.run(folder), "run")
    return assisted_sections(_gather(_find([results], (), ()), (), (), NO_EXTRAS))


def test_sums_and_agreement_by_hand(tmp_path: Path) -> None:
    agreeing = ((OURS[0], (5, 15, 4, 16, 2.0)), (THEIRS[0], (5, 15, 4, 16, 1.75)))
    results = evaluate(script((OURS, THEIRS), agreeing).run(tmp_path), "run")
    [found] = find_both(results.cells)
    assert ("early_exit", 3, 2, 2) == (found.method, found.gamma, found.rows, found.prompts)
    assert (1, 1) == (found.same_tokens, found.same_counts), "a prompt counts by its worst repetition"
    assert Sums(18, 54, 20, 4.0) == found.ours  # a batch of two rows is one time a repetition
    assert Sums(19, 54, 20, 6.5) == found.theirs


def test_prompts_of_a_frozen_set_are_told_apart_by_their_names(tmp_path: Path) -> None:
    made = script((OURS, THEIRS), (OURS, THEIRS))
    begun = [event for event in made.events if event.event == "trial_started"]
    for started, names in zip(begun, (("a", "b"), ("b", "c")), strict=True):
        staged = PromptsStaged(trial_id=started.trial_id, task="edit", sha256="cd" * 32, prompt_ids=names)
        made.events.insert(made.events.index(started) + 1, staged)
    [found] = find_both(evaluate(made.run(tmp_path), "run").cells)
    assert (3, 1, 1) == (found.prompts, found.same_tokens, found.same_counts)  # b was another once, c always


def test_two_programs_that_accept_nothing_agree_on_little(tmp_path: Path) -> None:
    none: tuple[Seen, Seen] = ((4, 12, 0, 16, 2.0), (5, 15, 0, 16, 2.0))
    [found] = find_both(evaluate(script((none, none)).run(tmp_path), "run").cells)
    assert "same tokens; no draft was accepted, so little was tested" == _read(found)


def test_a_run_without_the_experiment_has_no_such_part(tmp_path: Path) -> None:
    made = Script()
    made.trial(made.cell(LLAMA_8B))
    made.end()
    assert [] == sections(made, tmp_path)


def test_the_table_shows_both_implementations(tmp_path: Path) -> None:
    [section] = sections(script((OURS, THEIRS)), tmp_path)
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    texts = [cell.text for cell in table.rows[0]]
    assert ["early_exit", "3", "2", "1 of 2", "1 of 2"] == texts[1:6]
    assert ["0.370 (10 of 27)"] * 2 + ["2.00 s", "3.25 s"] == texts[6:10]
    assert len(table.columns) == len(table.rows[0])


@pytest.mark.parametrize(
    ("method", "precision", "same", "theirs", "reading"),
    [
        ("early_exit", "fp32", 16, 6, "the two agree"),
        ("early_exit", "fp32", 16, 5, "counts differ: a fault in one of the two"),
        ("prompt_lookup", "fp32", 16, 5, "same tokens; drafts copied from other places"),
        ("early_exit", "fp32", 9, 6, "tokens differ: see where drafts change output"),
        ("early_exit", "bf16", 9, 6, "tokens differ, as rounding may"),
    ],
)
def test_what_the_two_say_of_one_another(
    tmp_path: Path, method: str, precision: str, same: int, theirs: int, reading: str
) -> None:
    ours, other = (((4, 12, 6, same, 2.0), (5, 15, accepted, 16, 2.0)) for accepted in (6, theirs))
    [result] = evaluate(script((ours, other), method=method).run(tmp_path), "run").cells
    result = dataclasses.replace(result, conditions=dataclasses.replace(result.conditions, precision=precision))
    [found] = find_both([result])
    assert reading == _read(found)


def test_nothing_drafted_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    none: tuple[Seen, Seen] = ((4, 0, 0, 16, 2.0), (5, 0, 0, 16, 2.0))
    [section] = sections(script((none, none)), tmp_path)
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    assert ["nothing was drafted"] * 2 == [cell.note for cell in table.rows[0][6:8]]
