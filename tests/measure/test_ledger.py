"""Which cells still need repetitions: counts, rates, failures, and what an earlier part of a run left."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from tokbench.measure.ledger import Ledger, rate_of
from tokbench.record.observations import FailureCause, RequestTrace, StepTrace
from tokbench.record.spec import StopSpec

STOP = StopSpec(rel_ci=0.02, min_repetitions=3, max_repetitions=5, blocks=1)


def ledger(*cell_ids: str) -> Ledger:
    return Ledger(list(cell_ids or ("c",)), STOP)


@pytest.mark.parametrize(
    ("rates", "wants"),
    [
        ([], True),
        ([100.0, 100.0], True),  # even, and too few
        ([100.0, 100.1, 99.9], False),
        ([100.0, 130.0, 70.0], True),
        ([100.0, 130.0, 70.0, 100.0], True),
        ([100.0, 130.0, 70.0, 100.0, 150.0], False),  # as many as there may be
    ],
)
def test_the_stop_rule_decides(rates: list[float], wants: bool) -> None:
    kept = ledger()
    for rate in rates:
        kept.count("c", "w", rate)
    assert wants == kept.wants("c")


def test_repetitions_without_a_rate_end_at_the_largest_count() -> None:
    kept = ledger()
    for done in range(5):
        assert (kept.wants("c"), done) == (True, kept.accounts["c"].repetitions)
        kept.count("c", "w", None)
    assert not kept.wants("c")


@pytest.mark.parametrize("cause", ["crashed", "killed", "timeout", "engine"])
def test_a_cell_may_fail_once_and_is_closed_at_the_second_time(cause: str) -> None:
    kept = ledger()
    assert (False, True) == (kept.fail("c", cause), kept.wants("c"))
    assert (True, False) == (kept.fail("c", cause), kept.wants("c"))


def test_memory_that_ran_out_closes_at_once() -> None:
    kept = ledger()
    assert (True, False) == (kept.fail("c", "oom"), kept.wants("c"))


def test_missing_counts_at_least_one() -> None:
    kept = ledger()
    account = kept.accounts["c"]
    assert 3 == kept.missing(account)
    for _ in range(4):
        kept.count("c", "w", 1.0)
    assert 1 == kept.missing(account)


def by_process(*counts: int, stop: StopSpec) -> Ledger:
    """So many even repetitions in each of some worker processes."""
    kept = Ledger(["c"], stop)
    for number, count in enumerate(counts):
        for _ in range(count):
            kept.count("c", f"w{number}", 100.0)
    return kept


@pytest.mark.parametrize(("counts", "wants"), [((5,), True), ((3, 2), True), ((1, 1, 1, 1, 1), False), ((20,), False)])
def test_even_repetitions_of_too_few_processes_are_not_enough_unless_there_are_as_many_as_there_may_be(
    counts: tuple[int, ...], wants: bool
) -> None:
    kept = by_process(*counts, stop=StopSpec(min_repetitions=5, max_repetitions=20, blocks=3))
    assert (wants, max(3 - len(counts), 0)) == (kept.wants("c"), kept.missing_blocks(kept.accounts["c"]))


@pytest.mark.parametrize(
    ("counts", "worker_id", "least", "largest", "most"),
    [
        ((), "w0", 3, 5, 2),  # of five, two more visits must have theirs
        ((2,), "w1", 3, 5, 2),
        ((2, 2), "w2", 3, 5, 1),
        ((), "w0", 7, 20, 3),  # a third of what must be
        ((), "w0", 5, 20, 2),
        ((2, 2), "w2", 5, 20, 3),  # the last process that must be: the stop rule decides within the limit
        ((2,), "w0", 5, 6, 2),  # the worker was kept: two others are still to come
    ],
)
def test_a_visit_leaves_repetitions_to_the_processes_to_come(
    counts: tuple[int, ...], worker_id: str, least: int, largest: int, most: int
) -> None:
    stop = StopSpec(min_repetitions=least, max_repetitions=largest, blocks=3)
    assert most == by_process(*counts, stop=stop).most("c", worker_id, limit=3)


def loaded(tmp_path: Path, failures: list[FailureCause], skip: FailureCause | None = None, good: int = 0) -> Ledger:
    script = Script()
    cell_id = script.cell()
    for _ in range(good):
        script.trial(cell_id, step_s=0.01)
    for cause in failures:
        script.fail(cell_id, cause, "scripted")
    if skip is not None:
        script.skip(cell_id, skip, "scripted")
    kept = Ledger([cell_id], STOP)
    kept.load(script.run(tmp_path))
    return kept


def test_an_earlier_part_is_taken_over(tmp_path: Path) -> None:
    kept = loaded(tmp_path, failures=[], good=2)
    (account,) = kept.accounts.values()
    assert (2, {"worker-1": [pytest.approx(100.0)] * 2}) == (account.repetitions, account.rates)
    assert 0 == account.failures


@pytest.mark.parametrize(
    ("failures", "skip", "is_closed"),
    [
        (["oom"], "oom", True),
        (["crashed", "killed"], "killed", True),
        (["crashed"], None, False),
        (["crashed"], "crashed", False),  # its worker could not be opened: another start may do
        ([], "oom", False),  # predicted only: the plan of the resumed run predicts anew
        ([], "engine", False),
        ([], "skipped", False),  # no budget was left
    ],
)
def test_only_a_cells_own_trials_close_it_for_a_resumed_run(
    tmp_path: Path, failures: list[FailureCause], skip: FailureCause | None, is_closed: bool
) -> None:
    kept = loaded(tmp_path, failures, skip)
    (account,) = kept.accounts.values()
    assert (is_closed, len(failures)) == (account.is_closed, account.failures)


def test_cells_that_the_plan_no_longer_has_are_passed_over(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    kept = ledger("another")
    kept.load(script.run(tmp_path))
    assert 0 == kept.accounts["another"].repetitions


def steps(window_id: str, *at_ns: int) -> StepTrace:
    return StepTrace(
        trial_id="t",
        window_id=window_id,
        start_at_ns=0,
        step_at_ns=at_ns,
        tokens_per_row=(1,) * len(at_ns),
        rows=4,
        context_tokens=1,
        stamped_by="script",
        clock_error_s=None,
    )


def request(*chunk_at_ns: int) -> RequestTrace:
    return RequestTrace(
        trial_id="t",
        request_id="r",
        scheduled_at_ns=None,
        sent_at_ns=0,
        chunk_at_ns=chunk_at_ns,
        chunk_tokens=(1,) * len(chunk_at_ns),
        prompt_tokens=1,
        tokens_counted_by="script",
        stamped_by="script",
    )


def test_the_rate_is_that_of_decode_per_user() -> None:
    half_second = 500_000_000
    assert 2.0 == rate_of([steps("t/prefill", 1), steps("t/decode", half_second, 2 * half_second)])
    assert 2.0 == rate_of([request(0, half_second), request(0, half_second, 2 * half_second)])
    assert rate_of([steps("t/prefill", 1)]) is None
    assert rate_of([request(5)]) is None
    assert rate_of([]) is None
