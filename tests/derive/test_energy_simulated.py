"""The simulated counter through the real sampler and the real derivation: no bias, or a reason, and never 0 J."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

from energy_builders import IDLE_W, LOAD_W
from simulated_counter import ScriptedTime, SimulatedCounter, record
from tokbench.derive.energy.windows import BOUND_LIMIT, Bound, Frame, Span, measure_span
from tokbench.derive.energy.work import Segment, Work
from tokbench.derive.repetitions import UndefinedError
from tokbench.record.observations import (
    CounterPeriod,
    EnergyReading,
    MeterAbsent,
    PowerReading,
    RunStarted,
)
from tokbench.record.run import Run

BEGIN_S, END_S = 8.0, 10.0
STEPS = tuple(
    Segment(BEGIN_S * 1e9 + step * 10_000_000, BEGIN_S * 1e9 + (step + 1) * 10_000_000, 1) for step in range(200)
)


def watched(folder: Path, counter: SimulatedCounter) -> Run:
    events = record(counter.time, [counter], END_S + 1, dense=(BEGIN_S - 0.2, END_S + 0.2))
    header = RunStarted(schema_version=1, tokbench_version="0", config_sha256="0", seed=0, at_ns=0, utc="2026")
    return Run(
        folder,
        header,
        energy=[event for event in events if isinstance(event, EnergyReading)],
        power=[event for event in events if isinstance(event, PowerReading)],
        periods=[event for event in events if isinstance(event, CounterPeriod)],
        absent_meters=[event for event in events if isinstance(event, MeterAbsent)],
    )


def counter_at(phase_s: float, **more: object) -> SimulatedCounter:
    profile = ((0.0, IDLE_W), (BEGIN_S, LOAD_W), (END_S, IDLE_W))
    return SimulatedCounter(ScriptedTime(oversleep_s=0.0002), profile, phase_s=phase_s, **more)  # type: ignore[arg-type]


def span_of(run: Run) -> Span:
    source = (run.energy[0].meter, run.energy[0].domain)
    frame = Frame(round(BEGIN_S * 1e9), round(END_S * 1e9), Work(STEPS, 0.0), idle_w=IDLE_W)
    return measure_span(run, source, frame._replace(is_lost=bool(run.absent_meters)))


def test_bias_at_100_ms_and_2_s_is_at_most_a_thousandth(tmp_path: Path) -> None:
    draw, errors, naive = random.Random(1), [], []
    for _ in range(40):
        counter = counter_at(draw.uniform(0, 0.1))
        span = span_of(watched(tmp_path, counter))
        assert isinstance(span.bound, Bound)
        errors.append(span.joules / span.tokens / (LOAD_W * 0.01) - 1)
        assert abs(errors[-1]) <= span.bound.total <= BOUND_LIMIT
        naive.append((counter.shown_j(END_S) - counter.shown_j(BEGIN_S)) / (LOAD_W * (END_S - BEGIN_S)) - 1)
    assert abs(statistics.fmean(errors)) <= 0.001
    assert -0.025 < statistics.fmean(naive) < -0.015


@pytest.mark.parametrize(
    "more",
    [
        {"period_s": 0.02},
        {"period_s": 0.001, "jitter_s": 0.0002},
        {"jitter_s": 0.005},
        {"range_j": 400.0},
        {"stale": ((8.8, 8.95),)},
    ],
    ids=["20 ms", "1 ms", "jitter", "wrap", "a short stale stretch"],
)
def test_other_counters_are_as_right(tmp_path: Path, more: dict[str, object]) -> None:
    span = span_of(watched(tmp_path, counter_at(0.037, **more)))
    assert isinstance(span.bound, Bound)
    assert abs(span.joules / span.tokens / (LOAD_W * 0.01) - 1) <= max(span.bound.total, 0.001)


@pytest.mark.parametrize("work", [Work(STEPS, 0.0), None], ids=["load", "idle"])
def test_a_value_that_stood_since_before_the_window_is_no_tick_within_it(tmp_path: Path, work: Work | None) -> None:
    """It was kept within the window as a sign of life, and was once taken for a movement: 86 % too much power."""
    run = watched(tmp_path, counter_at(0.05, period_s=0.005, stale=((7.965, 9.165),)))
    source = (run.energy[0].meter, run.energy[0].domain)
    try:
        span = measure_span(run, source, Frame(round(BEGIN_S * 1e9), round(END_S * 1e9), work))
    except UndefinedError as undefined:
        assert "stood still" in str(undefined)
        return
    assert isinstance(span.bound, Bound)
    assert abs(span.mean_w / LOAD_W - 1) <= max(span.bound.ticks, 0.001)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"falls": ((9.0, 200.0),)}, "went backwards"),
        ({"falls": ((9.0, 3400.0),), "start_j": 3000.0, "range_j": 5000.0}, "went backwards"),
        ({"stale": ((8.1, 20.0),)}, "stood still|seen to move|nothing new"),
        ({"vanishes_at_s": 8.9}, "nothing new in the last"),
    ],
    ids=["backwards", "set back by more than half of its range", "stale", "vanished"],
)
def test_broken_counters_give_their_reason(tmp_path: Path, more: dict[str, object], reason: str) -> None:
    run = watched(tmp_path, counter_at(0.037, **more))
    with pytest.raises(UndefinedError, match=reason):
        span_of(run)
