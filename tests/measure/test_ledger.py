"""Which cells still need repetitions: counts, rates, failures, and what an earlier part of a run left."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from tokbench.measure.ledger import Ledger, rate_of
from tokbench.record.observations import FailureCause, RequestTrace, StepTrace
from tokbench.record.spec import StopSpec

STOP = StopSpec(rel_ci=0.02, min_repetitions=3, max_repetitions=5)


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
        kept.count("c", rate)
    assert wants == kept.wants("c")


def test_repetitions_without_a_rate_end_at_the_largest_count() -> None:
    kept = ledger()
    for done in range(5):
        assert (kept.wants("c"), done) == (True, kept.accounts["c"].repetitions)
        kept.count("c", None)
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
        kept.count("c", 1.0)
    assert 1 == kept.missing(account)


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
    assert (2, [pytest.approx(100.0)] * 2, 0) == (account.repetitions, account.rates, account.failures)


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
