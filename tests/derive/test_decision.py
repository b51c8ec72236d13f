"""The most users that a promise holds for: from measured cells alone, by hand on scripted sweeps."""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path

import pytest

from builders import Script
from decision_builders import decision_of, results_of, row, sweep
from scripted_facts import CPU, ceilings
from tokbench.derive.decision import Market, decide
from tokbench.derive.decision.answers import Edge, Outcome, answer
from tokbench.derive.decision.grades import Weakness, grade_of
from tokbench.derive.decision.latency import _noncentral, normal_p95, ttft_p95
from tokbench.derive.decision.promises import Promise
from tokbench.derive.decision.sweeps import Barred, LeftOut, find_sweeps, why_barred
from tokbench.derive.evaluate import Missing, Results
from tokbench.derive.report.decision_words import say_answer
from tokbench.derive.validity import Validity
from tokbench.record.sweep import expand, read_config
from tokbench.stats import Estimate


def outcome(steps_s: dict[int, float], folder: Path, speed: float = 20.0, prefill_s: float = 0.5) -> tuple[object, ...]:
    """Outcome, users, and what the next load does."""
    results = results_of(sweep(steps_s, prefill_s), folder)
    found = next(
        iter(answer(results.run, sweeps, Promise(speed)) for sweeps in find_sweeps([results]).by_workload.values())
    )
    limit = None if found.limit is None else (found.limit.users, found.limit.why)
    users = None if found.cell is None else found.cell.conditions.static_batch
    return found.outcome, users, limit or found.why_not


# --- the largest load that holds, and where it ends


def test_each_promise_gets_the_largest_load_that_holds_it(tmp_path: Path) -> None:
    """160, 125, 62.5, 25 and 10 tokens/s per user at 1, 2, 4, 8 and 16."""
    rows = decision_of(sweep(), tmp_path).rows
    assert [20.0, 50.0, 200.0] == [item.answer.promise.tokens_per_s for item in rows]
    assert [8, 4, 1] == [item.users for item in rows]
    assert [Outcome.HELD, Outcome.HELD, Outcome.CANNOT] == [item.answer.outcome for item in rows]
    assert [(16, Edge.SPEED), (8, Edge.SPEED)] == [
        (item.answer.limit.users, item.answer.limit.why) for item in rows if item.answer.limit
    ]
    assert [None, None, None] == [item.command for item in rows]


def test_system_speed_is_that_of_the_answers_cell(tmp_path: Path) -> None:
    """8 rows of 5 tokens in 0.5 + 4 * 0.04 s."""
    cell = decision_of(sweep(), tmp_path).rows[0].answer.cell
    assert cell is not None
    system = cell.metrics["output_tokens_per_s"]
    assert isinstance(system, Estimate)
    assert 8 * 5 / 0.66 == pytest.approx(system.value)


def test_nothing_is_interpolated(tmp_path: Path) -> None:
    """Between 4 (62.5) and 16 (10) lies 20; 4 is the answer all the same."""
    assert (Outcome.HELD, 4, (16, Edge.SPEED)) == outcome({1: 0.00625, 4: 0.016, 16: 0.1}, tmp_path)


def test_the_largest_measured_load_leaves_the_limit_open(tmp_path: Path) -> None:
    assert (Outcome.HELD, 2, (None, Edge.NOT_MEASURED)) == outcome({1: 0.00625, 2: 0.008}, tmp_path)


def test_a_late_first_token_breaks_a_fast_load(tmp_path: Path) -> None:
    assert (Outcome.NOT_MET, 1, Edge.TTFT) == outcome({1: 0.00625, 2: 0.008}, tmp_path, prefill_s=1.5)


def test_out_of_memory_ends_a_promise(tmp_path: Path) -> None:
    script = sweep({1: 0.00625, 2: 0.008})
    script.fail(script.cell(static_batch=4), "oom", "out of memory")
    limit = decision_of(script, tmp_path).rows[0].answer.limit
    assert limit is not None
    assert (4, Edge.MEMORY) == (limit.users, limit.why)


def test_a_load_that_was_not_reached_is_asked_for(tmp_path: Path) -> None:
    script = sweep({1: 0.00625, 2: 0.008})
    script.skip(script.cell(static_batch=4), "skipped", "the budget was used up")
    found = decision_of(script, tmp_path).rows[0]
    assert found.answer.limit is not None
    assert (4, Edge.NOT_MEASURED) == (found.answer.limit.users, found.answer.limit.why)
    assert found.command is not None and '"static_batch": [4]' in found.command


def test_a_smaller_load_that_breaks_is_told(tmp_path: Path) -> None:
    found = decision_of(sweep({1: 0.1, 2: 0.008, 4: 0.2}), tmp_path).rows[0]
    assert (2, True) == (found.users, found.answer.smaller_breaks)
    assert Weakness.SMALLER_BREAKS in found.weaknesses


@pytest.mark.parametrize("is_first", [True, False])
def test_the_engine_mode_with_more_users_answers(tmp_path: Path, is_first: bool) -> None:
    few, many = {1: 0.00625, 2: 0.008}, {1: 0.00625, 2: 0.008, 4: 0.01}
    script = sweep(many, script=None if is_first else sweep(few, mode="compiled"))
    script = sweep(few, mode="compiled", script=script) if is_first else script
    found = decision_of(script, tmp_path)
    assert 1 == len(found.workloads)
    cell = found.rows[0].answer.cell
    assert cell is not None
    assert (4, "eager") == (cell.conditions.static_batch, cell.conditions.mode)


def varied(folder: Path, steps_s: tuple[float, ...], batch: int = 1) -> Results:
    """A cell whose repetitions, each in a process of its own, differ."""
    script = Script(ceiling=ceilings())
    cell_id = script.cell(static_batch=batch)
    for index, step_s in enumerate(steps_s):
        script.trial(cell_id, step_s=step_s, worker=f"w{index}")
    return results_of(script, folder)


def test_an_interval_that_straddles_the_promise_shows_nothing(tmp_path: Path) -> None:
    """1 / 0.04, 0.05 and 0.06 s: about 20 tokens/s, from below 20 to above."""
    found = decide([varied(tmp_path, (0.04, 0.05, 0.06))], Market((), (), {})).rows[0]
    assert (Outcome.NOT_SHOWN, Edge.SPEED_NOT_SHOWN) == (found.answer.outcome, found.answer.why_not)
    assert found.command is not None and "--set stop.blocks=7" in found.command


def test_one_repetition_has_no_interval_and_shows_nothing(tmp_path: Path) -> None:
    assert Outcome.NOT_SHOWN is decide([varied(tmp_path, (0.008,))], Market((), (), {})).rows[0].answer.outcome


def test_an_unsure_first_token_is_told_apart_from_an_unsure_speed(tmp_path: Path) -> None:
    """First tokens after 0.5, 0.6 and 0.7 s: p95 is 0.79 s with an interval up to 3.8 s; 100 tokens/s hold."""
    script = Script(ceiling=ceilings())
    cell_id = script.cell()
    for index, prefill_s in enumerate((0.5, 0.6, 0.7)):
        script.trial(cell_id, step_s=0.01, prefill_s=prefill_s, worker=f"w{index}")
    found = decision_of(script, tmp_path).rows[0]
    assert isinstance(found.ttft_p95, Estimate) and 0.79 == pytest.approx(found.ttft_p95.value, abs=0.01)
    assert (Outcome.NOT_SHOWN, Edge.TTFT_NOT_SHOWN) == (found.answer.outcome, found.answer.why_not)


def test_a_larger_load_without_an_interval_opens_nothing_that_a_smaller_one_breaks(tmp_path: Path) -> None:
    script = sweep({1: 0.1})
    script.trial(script.cell(static_batch=2), step_s=0.1)
    assert Outcome.NOT_MET is decision_of(script, tmp_path).rows[0].answer.outcome


def test_what_the_ceilings_forbid_needs_no_interval(tmp_path: Path) -> None:
    """One repetition at 100 tokens/s, ceilings of 125: 50 is not shown, 200 cannot be."""
    rows = decide([varied(tmp_path, (0.01,))], Market((), (), {})).rows
    assert [Outcome.NOT_SHOWN, Outcome.CANNOT] == [item.answer.outcome for item in rows[1:]]


def test_an_invalid_cell_is_as_if_it_were_not_measured(tmp_path: Path) -> None:
    results = results_of(sweep(), tmp_path)
    cells = tuple(
        dataclasses.replace(cell, validity=Validity("invalid", ())) if cell.conditions.static_batch == 8 else cell
        for cell in results.cells
    )
    found = decide([dataclasses.replace(results, cells=cells)], Market((), (), {})).rows[0].answer
    assert found.limit is not None
    assert (4, 8, Edge.INVALID) == (
        found.cell and found.cell.conditions.static_batch,
        found.limit.users,
        found.limit.why,
    )


# --- what cannot be met, what was not measured


def test_ceilings_below_the_promise_say_that_the_hardware_cannot(tmp_path: Path) -> None:
    """2.8e12 B/s over 15 to 16.06e9 bytes of weights: 174 to 187 tokens/s for one stream."""
    rows = decision_of(sweep({1: 0.04}), tmp_path).rows
    assert [Outcome.HELD, Outcome.NOT_MET, Outcome.CANNOT] == [item.answer.outcome for item in rows]
    ceiling = rows[2].answer.ceiling
    assert ceiling is not None and 2.8e12 / 16.1e9 < ceiling.value < 2.8e12 / 15.0e9


def test_without_ceilings_nothing_is_said_of_the_hardware(tmp_path: Path) -> None:
    script = Script(ceiling=None)
    rows = decision_of(sweep({1: 0.04}, script=script), tmp_path).rows
    assert (Outcome.NOT_MET, None) == (rows[2].answer.outcome, rows[2].answer.ceiling)


def test_one_user_is_asked_for_where_only_batches_broke_it(tmp_path: Path) -> None:
    found = decision_of(sweep({8: 0.1, 16: 0.2}), tmp_path).rows[0]
    assert (Outcome.NOT_MEASURED, None, None) == (found.answer.outcome, found.answer.cell, found.grade)
    assert found.command is not None and '"static_batch": [1]' in found.command


def test_a_model_that_never_ran_is_not_measured(tmp_path: Path) -> None:
    script = Script()
    script.fail(script.cell(), "oom", "out of memory")
    found = decision_of(script, tmp_path).rows[0]
    assert (Outcome.NOT_MEASURED, Edge.MEMORY) == (found.answer.outcome, found.answer.why_not)
    assert say_answer(found) == ": no load gave a number to judge (out of memory)."
    assert found.command is None  # one user is already what did not fit


# --- what never feeds a decision


def test_random_weights_feed_no_decision(tmp_path: Path) -> None:
    found = decision_of(sweep(weights="random"), tmp_path)
    assert () == found.rows
    assert (LeftOut(Barred.RANDOM, 5),) == found.left_out


def test_random_weights_beside_real_ones_change_nothing(tmp_path: Path) -> None:
    """The random cells are faster at every load, and none of their numbers appears."""
    alone = decision_of(sweep(), tmp_path / "alone")
    both = decision_of(sweep({1: 0.001, 64: 0.001}, weights="random", script=sweep()), tmp_path / "both")
    assert [(item.users, item.answer.limit and item.answer.limit.users) for item in alone.rows] == [
        (item.users, item.answer.limit and item.answer.limit.users) for item in both.rows
    ]
    assert (LeftOut(Barred.RANDOM, 2),) == both.left_out


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("weights", "replay", Barred.REPLAY),
        ("weights", "scripted", Barred.SCRIPTED),
        ("weights", None, Barred.UNKNOWN_WEIGHTS),
        ("speculation", "replay", Barred.REPLAY),
    ],
)
def test_other_weights_and_replayed_drafts_are_barred(
    tmp_path: Path, field: str, value: str | None, why: Barred
) -> None:
    cell = results_of(sweep({1: 0.00625}), tmp_path).cells[0]
    assert why_barred(cell) is None
    changed = dataclasses.replace(cell, conditions=dataclasses.replace(cell.conditions, **{field: value}))
    assert why is why_barred(changed)


# --- TTFT p95


@pytest.mark.parametrize(("n", "factor"), [(5, 4.203), (10, 2.911), (20, 2.396)])
def test_the_bound_of_a_percentile_is_the_one_of_the_tables(n: int, factor: float) -> None:
    """One-sided tolerance factors for 95 % of a normal population at 95 % confidence, as tables print them."""
    assert factor == pytest.approx(_noncentral(n, 0.95) / math.sqrt(n), abs=6e-4)


def test_p95_of_a_log_normal_by_hand() -> None:
    """Logarithms -1, 0, 1: mean 0, deviation 1, so that p95 is exp(1.645)."""
    found = normal_p95([math.exp(-1), 1.0, math.e], "s")
    assert math.exp(1.6448536) == pytest.approx(found.value)
    assert found.low is not None and found.high is not None
    assert (0.4785, 10.927) == (
        pytest.approx(math.log(found.low), abs=1e-3),
        pytest.approx(math.log(found.high), abs=1e-2),
    )


def test_p95_of_requests_is_over_requests_of_each_repetition(tmp_path: Path) -> None:
    """First tokens after 0.1 … 2.0 s: the 95th percentile of twenty is 1.905 s, of each repetition the same."""
    script = Script()
    cell_id = script.cell(concurrency=20)
    chunks = [(0.0, [0.1 * index, 0.1 * index + 0.4], [1, 4]) for index in range(1, 21)]
    for _ in range(3):
        script.requests(cell_id, chunks)
    found = ttft_p95(results_of(script, tmp_path).cells[0])
    assert isinstance(found, Estimate)
    assert (1.905, 1.905) == (pytest.approx(found.value), pytest.approx(found.high))


# --- services


def test_a_service_is_decided_before_batches_and_is_no_upper_bound(tmp_path: Path) -> None:
    script = sweep({1: 0.00625})
    for users, wait_s in ((2, 0.2), (4, 1.4)):
        cell_id = script.cell(concurrency=users)
        for _ in range(3):
            script.requests(cell_id, [(0.0, [wait_s, wait_s + 0.1], [1, 5])] * 20)
    found = decision_of(script, tmp_path)
    assert ["closed", "static_batch"] == [workload.load_kind for workload in found.workloads]
    first = found.rows[0]
    assert (first.workload,) == found.headlines
    assert first.answer.limit is not None
    assert (2, 4, Edge.TTFT) == (first.users, first.answer.limit.users, first.answer.limit.why)
    assert Weakness.NO_QUEUE not in first.weaknesses
    assert Weakness.NO_QUEUE in found.rows[3].weaknesses


def test_the_headline_is_a_service_then_the_prompt_nearest_to_a_thousand(tmp_path: Path) -> None:
    """A prompt of 100 tokens is ten times shorter than 1000, one of 3000 three times longer."""
    script = Script(ceiling=ceilings())
    for prompt in (100, 3000, 20000):
        script.trial(script.cell(prompt_tokens=prompt), step_s=0.008)
    (batches,) = decision_of(script, tmp_path / "batches").headlines
    assert 3000 == batches.prompt_tokens
    script.requests(script.cell(concurrency=2, prompt_tokens=10), [(0.0, [0.1, 0.2], [1, 4])])
    (service,) = decision_of(script, tmp_path / "service").headlines
    assert ("closed", 10) == (service.load_kind, service.prompt_tokens)


def test_each_run_speaks_for_its_own_box(tmp_path: Path) -> None:
    here = results_of(sweep(), tmp_path / "here")
    there = dataclasses.replace(results_of(sweep({1: 0.04}, device=CPU), tmp_path / "there"), name="there")
    cells = tuple(dataclasses.replace(cell, run_name="there") for cell in there.cells)
    found = decide([here, dataclasses.replace(there, cells=cells)], Market((), (), {}))
    assert ["script", "there"] == [workload.run_name for workload in found.headlines]
    assert [8, 1] == [found.of(workload)[0].users for workload in found.headlines]


# --- grades and commands


@pytest.mark.parametrize(
    ("weaknesses", "grade"),
    [
        ((), "A"),
        ((Weakness.NO_QUEUE,), "B"),
        ((Weakness.VERY_WIDE,), "C"),
        ((Weakness.NO_QUEUE, Weakness.VERY_WIDE), "D"),
        (tuple(Weakness), "D"),
    ],
)
def test_each_weakness_takes_its_steps(weaknesses: tuple[Weakness, ...], grade: str) -> None:
    assert grade == grade_of(weaknesses)


def test_a_firm_batch_is_graded_b_and_a_shared_process_c(tmp_path: Path) -> None:
    assert "B" == decision_of(sweep(), tmp_path / "firm").rows[0].grade
    script = Script(ceiling=ceilings())
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.008)
    found = decision_of(script, tmp_path / "shared").rows[0]
    assert ((Weakness.NO_QUEUE, Weakness.FEW_PROCESSES), "C") == (found.weaknesses, found.grade)


CONFIG = """\
name: sweep
model: {source: "hf:meta-llama/Llama-3.1-8B-Instruct"}
engine: {kind: transformers, mode: [eager, compiled]}
workload: {prompt_tokens: [100, 200], output_tokens: 5}
load: {static_batch: [1, 2]}
exclude: [{engine.mode: eager, load.static_batch: 4}]
"""


def test_the_command_opens_into_the_loads_that_lack_and_no_other_cell(tmp_path: Path) -> None:
    results = results_of(sweep({1: 0.00625, 2: 0.008}), tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    command = decide([results], Market((), (), {})).rows[0].command
    assert command is not None
    words = shlex.split(command)
    assert ["tokbench", "run", "RUN/config.yaml"] == words[:3]
    config = read_config(tmp_path / "config.yaml", words[4::2])
    cells = [cell.spec for cell in expand(config, lambda spec: 1)]
    assert [("eager", 100, 4), ("eager", 100, 8)] == [
        (spec.engine.mode, spec.workload.prompt_tokens, getattr(spec.load, "static_batch", None)) for spec in cells
    ]


def test_a_harness_efficiency_stands_beside_an_accelerator(tmp_path: Path) -> None:
    """8 rows of 5 tokens in 0.66 s are 60.6 tokens/s, half of what is published for this card and model."""
    published = row(
        "card", "output_tokens_per_s", 2 * 8 * 5 / 0.66, unit="tokens/s", vendor="nvidia", system="H100",
        device="NVIDIA H100 SXM", devices=1, concurrency=8, deployment="lab-demo", precision="bf16", speculation="none",
    )  # fmt: skip
    rows = decision_of(sweep(), tmp_path, published).rows
    assert 0.5 == pytest.approx(getattr(rows[0].harness, "ours_over_theirs", None))
    assert isinstance(rows[1].harness, Missing) and "other loads" in rows[1].harness.reason
