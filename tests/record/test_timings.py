"""Durations of one request or window from raw stamps; by hand, and where there is none."""

from __future__ import annotations

import pytest

from tokbench.record import timings
from tokbench.record.observations import RequestTrace, StepTrace

S = 1_000_000_000


def steps(*seconds: float, tokens: tuple[int, ...] | None = None) -> StepTrace:
    return StepTrace(
        trial_id="t",
        window_id="w",
        start_at_ns=10 * S,
        step_at_ns=tuple(round((10 + second) * S) for second in seconds),
        tokens_per_row=tokens if tokens is not None else (1,) * len(seconds),
        rows=2,
        context_tokens=5,
        stamped_by="script",
        clock_error_s=None,
    )


def request(*seconds: float, scheduled: int | None = None, tokens: tuple[int, ...] = ()) -> RequestTrace:
    return RequestTrace(
        trial_id="t",
        request_id="r",
        scheduled_at_ns=scheduled,
        sent_at_ns=10 * S,
        chunk_at_ns=tuple(round((10 + second) * S) for second in seconds),
        chunk_tokens=tokens or (1,) * len(seconds),
        prompt_tokens=3,
        tokens_counted_by="script",
        stamped_by="script",
    )


def test_steps_lie_between_stamps_the_first_from_the_start() -> None:
    assert [0.5, 0.25, 0.25] == timings.step_durations_s(steps(0.5, 0.75, 1.0))
    assert 1.0 == timings.trace_duration_s(steps(0.5, 0.75, 1.0))


def test_no_stamps_no_duration() -> None:
    assert [] == timings.step_durations_s(steps())
    assert 0.0 == timings.trace_duration_s(steps())
    assert timings.decode_rate_per_row([steps()]) is None
    assert timings.decode_rate_per_row([]) is None


def test_the_rate_of_a_row_counts_tokens_and_not_stamps() -> None:
    assert 8 == timings.trace_tokens_per_row(steps(1.0, 2.0, tokens=(3, 5)))
    assert 4.0 == timings.decode_rate_per_row([steps(1.0, 2.0, tokens=(3, 5))])


def test_the_rate_over_several_traces_is_all_tokens_by_all_seconds() -> None:
    assert 8 / 4 == timings.decode_rate_per_row([steps(1.0, tokens=(6,)), steps(3.0, tokens=(2,))])


def apart(*counts: tuple[int, int], start: float = 0.0) -> StepTrace:
    """Two rows that advance apart, a stamp a second."""
    whole = steps(*(start + second for second in range(1, len(counts) + 1)), tokens=tuple(map(min, counts)))
    return whole.model_copy(update={"tokens_by_row": counts})


def test_rows_that_advance_apart_each_end_with_their_last_token() -> None:
    """The first row has its six tokens after two seconds, the second after four."""
    trace = apart((5, 1), (1, 3), (0, 1), (0, 1))
    assert [6, 6] == timings.row_token_counts(trace)
    assert [2.0, 4.0] == timings.row_durations_s(trace)
    assert (6 / 2 + 6 / 4) / 2 == timings.decode_rate_per_row([trace])
    assert [6, 4, 1, 1] == timings.tokens_at_stamps(trace)
    assert 6 == timings.trace_tokens_per_row(trace), "not the sum of the least of each stamp, which is 2"


def test_rows_over_several_traces_add_up_row_by_row() -> None:
    assert (4 / 3 + 4 / 4) / 2 == timings.decode_rate_per_row([apart((2, 1), (0, 1)), apart((1, 1), (1, 1))])


def test_a_row_without_a_token_has_no_rate() -> None:
    assert timings.decode_rate_per_row([apart((1, 0))]) is None


def test_rows_alike_are_counted_alike() -> None:
    trace = steps(1.0, 2.0, tokens=(3, 5))
    assert ([8, 8], [2.0, 2.0], [6, 10]) == (
        timings.row_token_counts(trace),
        timings.row_durations_s(trace),
        timings.tokens_at_stamps(trace),
    )


def test_the_first_chunk_counts_from_the_schedule_where_there_is_one() -> None:
    assert 0.5 == timings.request_first_chunk_s(request(0.5, 1.0))
    assert 2.5 == timings.request_first_chunk_s(request(0.5, 1.0, scheduled=8 * S))
    assert timings.request_first_chunk_s(request()) is None


def test_the_whole_request_counts_from_the_schedule_too() -> None:
    assert 1.0 == timings.request_e2e_s(request(0.5, 1.0))
    assert 3.0 == timings.request_e2e_s(request(0.5, 1.0, scheduled=8 * S))
    assert timings.request_e2e_s(request()) is None


def test_decode_is_from_the_first_chunk_to_the_last() -> None:
    assert 1.5 == timings.request_decode_s(request(0.5, 1.0, 2.0))
    assert timings.request_decode_s(request(0.5)) is None
    assert timings.request_decode_s(request()) is None


@pytest.mark.parametrize(("tokens", "decode"), [((1, 1, 1), 2), ((4, 2, 3), 5), ((4,), 0)])
def test_decode_tokens_leave_the_whole_first_chunk_out(tokens: tuple[int, ...], decode: int) -> None:
    trace = request(*(0.5 * (index + 1) for index in range(len(tokens))), tokens=tokens)
    assert (sum(tokens), decode) == (timings.request_tokens(trace), timings.request_decode_tokens(trace))
