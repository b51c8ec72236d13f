"""The edge-exact window on a scripted counter: no bias where a naive one has it, else a reason."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

from builders import Script
from energy_builders import (
    IDLE_W,
    LOAD_W,
    Power,
    counter_readings,
    energy_trial,
    only_cell,
    opened,
    period,
    power_readings,
    reason_of,
    value_of,
)
from tokbench.derive.energy.agreement import integrate_power
from tokbench.derive.energy.counters import Tick, choose_edges, find_period_s, find_ticks, unwrap
from tokbench.derive.energy.rows import find_energy
from tokbench.derive.energy.windows import BOUND_LIMIT, Bound, Frame, Span, Without, measure_span
from tokbench.derive.energy.work import Levels, Segment, Work, steady_window
from tokbench.derive.repetitions import UndefinedError
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, FactsRead, RunStarted, TrialFailed, TrialFinished
from tokbench.record.run import Run

SOURCE = ("nvml", "gpu")
BEGIN_NS, END_NS = 10_000_000_000, 12_000_000_000


def reading(at_s: float, joules: float, unchanged_s: float | None = None, **more: float) -> EnergyReading:
    unchanged = None if unchanged_s is None else round(unchanged_s * 1e9)
    return EnergyReading(
        meter="nvml", domain="gpu", at_ns=round(at_s * 1e9), joules=joules, unchanged_at_ns=unchanged, **more
    )


def bare_run(folder: Path, readings: list[EnergyReading]) -> Run:
    header = RunStarted(schema_version=1, tokbench_version="0", config_sha256="0", seed=0, at_ns=0, utc="2026")
    return Run(folder, header, energy=readings, periods=[period()])


def loaded() -> Power:
    """Load from the begin of a window of 2 s to its end, idle around it."""
    power = Power()
    power.set(BEGIN_NS, LOAD_W)
    power.set(END_NS, IDLE_W)
    return power


STEPS = tuple(Segment(BEGIN_NS + step * 10_000_000, BEGIN_NS + (step + 1) * 10_000_000, 1) for step in range(200))
TRUE_J_PER_TOKEN = LOAD_W * 0.01


def simulate(folder: Path, seed: int) -> tuple[Span, float]:
    """One window at a random phase of the counter and of the polls; and what a naive reader would get."""
    draw = random.Random(seed)
    first_ns = 8_000_000_000 + draw.randrange(5_000_000)
    readings = counter_readings(loaded(), first_ns, 14_000_000_000, phase_s=draw.uniform(0, 0.1), poll_s=0.004)
    span = measure_span(bare_run(folder, readings), SOURCE, Frame(BEGIN_NS, END_NS, Work(STEPS, 0.0), idle_w=IDLE_W))
    shown = [[item.joules for item in readings if item.at_ns <= edge][-1] for edge in (BEGIN_NS, END_NS)]
    return span, (shown[1] - shown[0]) / 200


def test_no_bias_at_a_period_of_100_ms_and_a_window_of_2_s(tmp_path: Path) -> None:
    found = [simulate(tmp_path, seed) for seed in range(400)]
    exact = [span.joules / span.tokens / TRUE_J_PER_TOKEN - 1 for span, _ in found]
    naive = [per_token / TRUE_J_PER_TOKEN - 1 for _, per_token in found]
    assert abs(statistics.fmean(exact)) <= 0.001
    assert -0.025 < statistics.fmean(naive) < -0.015


def test_no_error_is_beyond_its_bound(tmp_path: Path) -> None:
    for seed in range(200):
        span, _ = simulate(tmp_path, seed)
        assert isinstance(span.bound, Bound)
        assert abs(span.joules / span.tokens / TRUE_J_PER_TOKEN - 1) <= span.bound.total <= BOUND_LIMIT
        assert span.why_wide is None


def test_a_bound_above_one_percent_says_why(tmp_path: Path) -> None:
    readings = counter_readings(loaded(), 8_000_000_000, 14_000_000_000, poll_s=0.05)
    span = measure_span(bare_run(tmp_path, readings), SOURCE, Frame(BEGIN_NS, END_NS, Work(STEPS, 0.0)))
    assert isinstance(span.bound, Bound)
    assert span.bound.total > BOUND_LIMIT
    assert span.why_wide is not None
    assert "its two ticks are known to 50.0 ms together" in span.why_wide
    assert "the steps that they cut last up to 10.0 ms" in span.why_wide


def test_ticks_lie_in_the_middle_of_what_is_known() -> None:
    readings = [reading(1.0, 5.0, 0.99), reading(1.2, 7.0, read_s=0.002), reading(1.3, 7.0)]
    expected = [(0.995, 0.005, 5.0), (1.15, 0.051, 7.0)]
    found = [(tick.at_ns * 1e-9, tick.error_s, tick.joules) for tick in find_ticks(readings, 0.1)]
    assert expected == [pytest.approx(tick) for tick in found]


def test_a_tick_that_was_only_surmised_is_no_edge_where_close_ones_are() -> None:
    ticks = [Tick(1e9, 0.05, 1.0), *(Tick(at * 1e9, 0.001, at) for at in (1.1, 1.2, 2.9)), Tick(3e9, 0.05, 9.0)]
    assert (ticks[1], ticks[3]) == choose_edges(ticks)
    assert choose_edges(ticks[:1]) is None


def test_the_period_is_the_records_or_the_median_change() -> None:
    readings = [reading(at, at) for at in (1.0, 1.1, 1.2, 1.3)]
    assert find_period_s([], SOURCE, readings, 2e9) == pytest.approx(0.1)
    assert 0.02 == find_period_s([period(0.02)], SOURCE, readings, 2e9)


def test_a_wrap_inside_the_window_changes_nothing(tmp_path: Path) -> None:
    plain = counter_readings(loaded(), 8_000_000_000, 14_000_000_000)
    wrapped = counter_readings(loaded(), 8_000_000_000, 14_000_000_000, range_j=500.0)
    frame = Frame(BEGIN_NS, END_NS, Work(STEPS, 0.0))
    inside = [item.joules for item in wrapped if BEGIN_NS < item.at_ns < END_NS]
    assert inside != sorted(inside), "the window holds a wrap"
    expected = measure_span(bare_run(tmp_path, plain), SOURCE, frame)
    assert measure_span(bare_run(tmp_path, wrapped), SOURCE, frame).joules == pytest.approx(expected.joules, rel=1e-9)


@pytest.mark.parametrize("range_j", [None, 65_536.0])
def test_a_reading_that_goes_backwards_is_no_wrap(range_j: float | None) -> None:
    with pytest.raises(UndefinedError, match="went backwards by 3 J"):
        unwrap([reading(1.0, 10.0), reading(1.1, 7.0, **({} if range_j is None else {"range_j": range_j}))])


def broken(folder: Path, change) -> str:  # type: ignore[no-untyped-def]
    """Why a cell has no energy once its counter's readings were changed."""
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    decode_ns = power.from_ns[1]
    readings = change(counter_readings(power, 0, script.now_ns), decode_ns)
    script.add(opened(), period(), *readings)
    if not any(item.at_ns > decode_ns + 1_500_000_000 for item in readings):
        script.meter_absent("nvml", "it could be read no longer: GPU is lost")
    cell = only_cell(script, folder)
    for name in ("energy_j", "mean_power_w", "energy_j_per_output_token", "output_tokens_per_j"):
        reason_of(cell, name)
    return reason_of(cell, "energy_j_per_output_token")


def test_a_device_that_vanishes_leaves_its_reason(tmp_path: Path) -> None:
    reason = broken(tmp_path, lambda items, begin: [item for item in items if item.at_ns < begin + 1_000_000_000])
    assert "nvml gpu: the meter gave nothing new in the last" in reason
    assert reason.endswith("it could be read no longer: GPU is lost")


def test_a_counter_that_goes_backwards_in_the_window_leaves_its_reason(tmp_path: Path) -> None:
    def fall(items: list[EnergyReading], begin: int) -> list[EnergyReading]:
        return [
            item if item.at_ns < begin + 1_000_000_000 else item.model_copy(update={"joules": item.joules - 90})
            for item in items
        ]

    assert "the counter went backwards by 55 J within the window" in broken(tmp_path, fall)


def test_a_counter_that_stands_still_under_load_leaves_its_reason(tmp_path: Path) -> None:
    def freeze(items: list[EnergyReading], begin: int) -> list[EnergyReading]:
        frozen = next(item.joules for item in items if item.at_ns > begin + 500_000_000)
        return [
            item if item.joules <= frozen else item.model_copy(update={"joules": frozen, "unchanged_at_ns": None})
            for item in items
        ]

    reason = broken(tmp_path, freeze)
    assert "the counter stood still for" in reason
    assert "it moves every 100 ms" in reason


def test_a_counter_that_shows_zero_gives_no_zero(tmp_path: Path) -> None:
    reason = broken(tmp_path, lambda items, _: [item.model_copy(update={"joules": 0.0}) for item in items])
    assert "the counter stood still for" in reason


def test_idle_from_power_where_the_counter_stands_still(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    begin = power.from_ns[1]
    moving = [item for item in counter_readings(power, 0, script.now_ns) if item.at_ns > begin]
    script.add(opened(), period(), *moving, *power_readings(power, 0, script.now_ns))
    cell = only_cell(script, tmp_path)
    (row,) = cell.energy.headline
    assert isinstance(row.idle, Span) and isinstance(row.output, Span)
    assert ("integrated", "counter") == (row.idle.method, row.output.method)
    assert value_of(cell, "idle_power_w") == pytest.approx(IDLE_W)


@pytest.mark.parametrize(("share", "is_flagged"), [(1.0, False), (1.04, False), (0.9, True)])
def test_two_sources_agree_or_are_flagged(tmp_path: Path, share: float, is_flagged: bool) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    script.add(*power_readings(power, 0, script.now_ns, share=share))
    run = script.run(tmp_path)
    energy = find_energy(run, run.cells[cell_id])
    (row,) = energy.headline
    assert row.agreement == pytest.approx(1 / share, rel=1e-6)
    assert is_flagged == energy.has_disagreement


def test_power_is_not_drawn_out_into_the_idle_around_a_window() -> None:
    readings = power_readings(loaded(), 8_000_000_000, 14_000_000_000, every_s=0.5)
    inside = [item for item in readings if BEGIN_NS <= item.at_ns < END_NS]
    assert integrate_power(inside, BEGIN_NS, END_NS) == pytest.approx(2 * LOAD_W)
    with pytest.raises(UndefinedError, match="2 power readings lie within the window"):
        integrate_power(inside[:2], BEGIN_NS, END_NS)


def test_averaged_power_is_no_second_source(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    script.add(*power_readings(power, 0, script.now_ns, kind="average"))
    run = script.run(tmp_path)
    (row,) = find_energy(run, run.cells[cell_id]).headline
    assert isinstance(row.agreement, Without)
    assert "averages over its own time" in row.agreement.reason


def test_a_cut_step_counts_by_its_share_and_its_error_is_bounded() -> None:
    work = Work((Segment(0.0, 10.0, 4.0), Segment(10.0, 20.0, 4.0)), 0.0)
    assert 4.0 == work.between(5.0, 15.0)
    # A quarter of the time done; power between half and twice the mean.
    levels = Levels(50.0, 100.0, 200.0)
    assert 4 * max(min(0.25 * 1, 0.75 * 0.5), min(0.25 * 0.5, 0.75 * 1)) == work.edge_error(2.5, levels)
    assert 0.0 == work.edge_error(10.0, levels)
    assert 4 * 0.75 * 1.0 == work.edge_error(2.5, Levels(0.0, 100.0, None))


def test_requests_have_a_steady_window_and_nothing_of_their_own(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell(concurrency=2, output_tokens=5)
    begin = script.now_ns
    chunk_s = [0.1 * step for step in range(1, 21)]
    script.requests(cell_id, [(queue_s, chunk_s, [1] * 20) for queue_s in (0.0, 0.05, 2.05, 2.1)])
    power.set(begin, LOAD_W)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    run = script.run(tmp_path)
    cell = run.cells[cell_id]
    start, end = steady_window(cell.trials[0], 2)
    origin = cell.trials[0].requests[0].sent_at_ns
    # Both slots have a token 0.15 s after the first was sent; the third and fourth keep them full until 4.05 s.
    assert (pytest.approx(0.15), pytest.approx(4.05)) == ((start - origin) * 1e-9, (end - origin) * 1e-9)
    (row,) = find_energy(run, cell).headline
    assert isinstance(row.output, Span)
    # Two streams of 10 tokens/s, but for the 50 ms that each slot waits for its next request.
    assert row.output.tokens == pytest.approx(2 * 10 * row.output.seconds, rel=0.03)
    assert isinstance(row.prefill, Without)
    assert "one meter cannot tell them apart" in row.prefill.reason


@pytest.mark.parametrize(
    ("slots", "queues", "reason"),
    [
        (None, (0.0, 0.0), "no slots"),
        (3, (0.0, 0.0), "2 requests never filled 3 slots"),
        (2, (0.0, 5.0), "2 slots were never all filled"),
        (2, (0.0, 0.6), "ran empty before all slots had a first token"),
    ],
)
def test_without_a_steady_window_there_is_a_reason(
    tmp_path: Path, slots: int | None, queues: tuple[float, ...], reason: str
) -> None:
    script = Script()
    cell_id = script.cell(concurrency=2)
    script.requests(cell_id, [(queue_s, (0.5, 1.0), (1, 1)) for queue_s in queues])
    trial = script.run(tmp_path).cells[cell_id].trials[0]
    with pytest.raises(UndefinedError, match=reason):
        steady_window(trial, slots)


def test_a_reading_that_does_not_say_how_long_it_took_leaves_no_bound(tmp_path: Path) -> None:
    """Its share of the error is unknown, not 0; the joules stand."""
    told = counter_readings(loaded(), 8_000_000_000, 14_000_000_000)
    silent = [item.model_copy(update={"read_s": None}) for item in told]
    frame = Frame(BEGIN_NS, END_NS, Work(STEPS, 0.0))
    span = measure_span(bare_run(tmp_path, silent), SOURCE, frame)
    assert isinstance(span.bound, Without)
    assert "does not say how long the counter's readings took" in span.bound.reason
    assert (None, measure_span(bare_run(tmp_path, told), SOURCE, frame).joules) == (span.why_wide, span.joules)


def test_ticks_of_known_error_are_the_edges_where_there_are_two(tmp_path: Path) -> None:
    readings = counter_readings(loaded(), 8_000_000_000, 14_000_000_000)
    inside = [number for number, item in enumerate(readings) if BEGIN_NS <= item.at_ns <= END_NS]
    readings[inside[0]] = readings[inside[0]].model_copy(update={"read_s": None})
    span = measure_span(bare_run(tmp_path, readings), SOURCE, Frame(BEGIN_NS, END_NS, Work(STEPS, 0.0)))
    assert isinstance(span.bound, Bound)
    assert span.seconds == pytest.approx(0.1 * (len(inside) - 2), abs=0.002)


def test_a_long_prefill_says_why_its_bound_is_wide(tmp_path: Path) -> None:
    """A window of 4 s holds six of 0.7 s: the two that are cut weigh much, and the report's cell gets the note."""
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power, prefill_s=0.7, window_s=4.0)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns), *power_readings(power, 0, script.now_ns))
    run = script.run(tmp_path)
    energy = find_energy(run, run.cells[cell_id])
    (row,) = energy.headline
    assert isinstance(row.prefill, Span) and isinstance(row.prefill.bound, Bound) and isinstance(row.output, Span)
    assert row.prefill.bound.cuts > BOUND_LIMIT > row.prefill.bound.ticks
    assert row.prefill.why_wide is not None and energy.has_wide_bound
    assert "the steps that they cut last up to 700 ms" in row.prefill.why_wide
    assert row.prefill.why_wide.endswith("a longer energy.window narrows it")


def test_readings_of_another_boot_are_in_no_window(tmp_path: Path) -> None:
    """After a reboot the clock begins anew, and so may the counter: stamps of the two never mix."""
    script = Script()
    cell_id = script.cell()
    begun = script.now_ns
    script.add(opened())
    for boot, load_w in enumerate((LOAD_W, 200.0)):
        script.now_ns, power = begun + boot * 7_000_000, Power()
        script.load_sample(0.0)
        script.trial(cell_id, worker=f"worker-{boot}")
        energy_trial(script, cell_id, power, worker=f"worker-{boot}", load_w=load_w)
        script.add(period(), *counter_readings(power, 0, script.now_ns), *power_readings(power, 0, script.now_ns))
        script.load_sample(0.0)
    run = script.run(tmp_path)
    spans = [row.output for row in find_energy(run, run.cells[cell_id]).headline]
    assert [pytest.approx(LOAD_W), pytest.approx(200.0)] == [
        span.mean_w if isinstance(span, Span) else span.reason for span in spans
    ]


def test_an_energy_trial_that_was_left_out_did_not_fail(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    trial_id = energy_trial(script, cell_id, power)
    script.events = [
        event for event in script.events if not (isinstance(event, TrialFinished) and event.trial_id == trial_id)
    ]
    script.add(
        opened(), TrialFailed(trial_id=trial_id, cell_id=cell_id, at_ns=9, cause="skipped", message="it needs 9 s")
    )
    assert "the energy trial was left out: it needs 9 s" == reason_of(only_cell(script, tmp_path), "mean_power_w")


def test_the_power_limit_of_a_row_is_that_of_its_own_part_of_a_resumed_run(tmp_path: Path) -> None:
    script, power = Script(), Power()
    cell_id = script.cell()
    begun = script.now_ns
    for limit_w in (700.0, 400.0):
        card = DeviceFacts(kind="cuda", name="H200", uuid="GPU-a", power_limit_w=limit_w)
        script.add(FactsRead(at_ns=script.now_ns, device=card), opened(device_uuid="GPU-a", power_limit_w=limit_w))
        script.trial(cell_id)
        energy_trial(script, cell_id, power)
    script.add(period(), *counter_readings(power, begun, script.now_ns))
    run = script.run(tmp_path)
    assert [700.0, 400.0] == [row.power_limit_w for row in find_energy(run, run.cells[cell_id]).headline]
