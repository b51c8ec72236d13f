"""A record read back: events by cell and trial; what a crash left half done is not a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builders import Script
from scripted_facts import GPU
from tokbench.errors import RecordError
from tokbench.record.facts import CeilingFacts
from tokbench.record.observations import (
    BlockStarted,
    ClockAnchor,
    CounterPeriod,
    EnergyReading,
    Event,
    FactsRead,
    MemoryReading,
    MeterOpened,
    OutputTokens,
    PowerReading,
    RepeatabilityChecked,
    RunStarted,
    TrialFinished,
    TrialStarted,
    WindowClosed,
)
from tokbench.record.run import read_run
from tokbench.record.store import EVENTS_FILE


def drop(script: Script, is_dropped: Callable[[Event], bool]) -> Script:
    script.events = [event for event in script.events if not is_dropped(event)]
    return script


def test_trials_stand_in_their_cells_in_order(tmp_path: Path) -> None:
    script = Script()
    first, second = script.cell(static_batch=1, labels={"family": "dense"}), script.cell(static_batch=4)
    trials = [script.trial(first), script.trial(second), script.trial(first)]
    run = script.run(tmp_path)
    assert [first, second] == list(run.cells)
    assert [trials[0], trials[2]] == [trial.started.trial_id for trial in run.cells[first].trials]
    assert [trials[1]] == [trial.started.trial_id for trial in run.cells[second].good_trials()]
    assert {"family": "dense"} == run.cells[first].spec.labels
    assert [0, 1] == [trial.started.repetition for trial in run.cells[first].trials]


def test_windows_hold_their_own_steps(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell(output_tokens=4)
    script.trial(cell, step_s=[0.01, 0.02, 0.03], prefill_s=0.5)
    (trial,) = script.run(tmp_path).cells[cell].trials
    (prefill,), (decode,) = trial.of_kind("prefill"), trial.of_kind("decode")
    assert 1 == len(prefill.steps[0].step_at_ns)
    (steps,) = decode.steps
    assert [10_000_000, 30_000_000, 60_000_000] == [at - steps.start_at_ns for at in steps.step_at_ns]
    assert [] == trial.of_kind("warmup")


def test_a_trial_without_its_end_is_kept_and_is_not_good(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    whole, torn = script.trial(cell), script.trial(cell)
    drop(script, lambda event: isinstance(event, TrialFinished) and event.trial_id == torn)
    record = script.run(tmp_path).cells[cell]
    assert [whole] == [trial.started.trial_id for trial in record.good_trials()]
    assert 2 == len(record.trials)


def test_a_window_without_its_end_is_left_out(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    trial_id = script.trial(cell)
    drop(script, lambda event: isinstance(event, WindowClosed) and event.window_id == f"{trial_id}-decode")
    (trial,) = script.run(tmp_path).cells[cell].trials
    assert [] == trial.of_kind("decode")
    assert 1 == len(trial.of_kind("prefill"))


def test_a_record_torn_anywhere_can_be_read(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    script.prepare(cell)
    for _ in range(2):
        script.trial(cell)
    script.end()
    path = script.write(tmp_path) / "events.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    counts = []
    for end in range(first, len(whole), 31):
        path.write_bytes(whole[:end])
        run = read_run(tmp_path)
        counts.append(sum(len(cell.good_trials()) for cell in run.cells.values()))
        assert run.ended is None
    assert sorted(counts) == counts
    assert {0, 1, 2} == set(counts)


def test_failures_and_skips_say_why(tmp_path: Path) -> None:
    script = Script()
    failed, skipped = script.cell(static_batch=1), script.cell(static_batch=2)
    script.fail(failed, "engine", "it broke")
    script.skip(skipped, "oom", "too large")
    run = script.run(tmp_path)
    (trial,) = run.cells[failed].trials
    assert trial.failed is not None
    assert ("engine", "it broke", []) == (trial.failed.cause, trial.failed.message, run.cells[failed].good_trials())
    skip = run.cells[skipped].skipped
    assert skip is not None
    assert ("oom", "too large") == (skip.cause, skip.reason)


def test_facts_of_a_group_reach_its_cells_and_the_engine_as_prepared_wins(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell(mode="eager")
    record = script.run(tmp_path / "a").cells[cell]
    assert record.engine is not None
    assert record.model is not None
    assert ("eager", "sdpa") == (record.engine.mode, record.engine.attention_kernel)
    script.prepare(cell)
    script.events[-1] = script.events[-1].model_copy(
        update={"engine": record.engine.model_copy(update={"attention_kernel": "flash"})}
    )
    prepared = script.run(tmp_path / "b").cells[cell].engine
    assert prepared is not None
    assert "flash" == prepared.attention_kernel


def test_a_later_fact_replaces_an_earlier_one_and_leaves_the_rest(tmp_path: Path) -> None:
    script = Script()
    ceiling = CeilingFacts(
        read_bytes_per_s=1e9, matmul_flops_per_s=None, dtype="bfloat16", buffer_bytes=8, repetitions=1, method="copy"
    )
    script.add(FactsRead(at_ns=5, device_choice="another"), FactsRead(at_ns=6, ceilings=ceiling))
    run = script.run(tmp_path)
    assert "another" == run.device_choice
    assert run.host is not None
    assert run.device is not None
    assert [ceiling] == run.ceilings


def test_each_trial_knows_the_device_as_it_was_read_before_it(tmp_path: Path) -> None:
    """After a reboot the clock begins anew: the order of the record counts, not the stamps."""
    script = Script()
    cell = script.cell()
    script.trial(cell)
    busy = GPU.model_copy(update={"foreign_processes": 3})
    script.add(FactsRead(at_ns=5, device=busy))
    script.trial(cell)
    run = script.run(tmp_path)
    assert [(1_000_000_000, GPU), (5, busy)] == run.devices
    assert busy == run.device
    assert [GPU, busy] == [trial.device for trial in run.cells[cell].trials]


def test_readings_stand_in_their_lists(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    trial = script.trial(cell)
    energy = EnergyReading(meter="m", domain="d", at_ns=1, joules=2.5)
    power = PowerReading(meter="m", domain="d", at_ns=1, watts=3.5)
    anchor = ClockAnchor(group="g", before_at_ns=1, after_at_ns=2, label="open")
    of_cell = MemoryReading(trial_id=None, cell_id=cell, at_ns=1, source="rss_peak", value_bytes=7)
    of_trial = of_cell.model_copy(update={"trial_id": trial, "value_bytes": 8})
    output = OutputTokens(trial_id=trial, token_ids=((1, 2),))
    script.add(energy, power, anchor, of_cell, of_trial, output)
    script.meter_absent("rapl", "no such file", "chmod")
    script.load_sample(1.0)
    script.identity(cell, 3, 0.5)
    script.end("budget")
    run = script.run(tmp_path)
    record = run.cells[cell]
    assert ([energy], [power], [anchor]) == (run.energy, run.power, run.anchors)
    assert ([of_cell], [8]) == (record.memory, [m.value_bytes for m in record.trials[0].memory if m == of_trial])
    assert output == record.trials[0].output
    assert ["rapl"] == [item.meter for item in run.absent_meters]
    assert [1.0] == [item.machine_cpu_s for item in run.load_samples]
    assert [3] == [item.first_divergence for item in record.identity]
    assert run.ended is not None
    assert "budget" == run.ended.reason


def test_repeats_stand_in_their_cell(tmp_path: Path) -> None:
    script = Script()
    cell, other = script.cell(), script.cell(static_batch=4)
    found = [
        RepeatabilityChecked(
            cell_id=cell, against="itself", steps=8, tokens_equal=True, states_equal=True, max_abs_difference=0.0
        ),
        RepeatabilityChecked(
            cell_id=cell, against="alone", steps=8, tokens_equal=True, states_equal=False, max_abs_difference=0.25
        ),
    ]
    script.add(*found)
    cells = script.run(tmp_path).cells
    assert (found, []) == (cells[cell].repeats, cells[other].repeats)


def test_a_resumed_run_announces_its_cells_once(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    script.trial(cell)
    planned = next(event for event in script.events if event.event == "cell_planned")
    script.add(planned)
    script.trial(cell)
    run = script.run(tmp_path)
    assert 2 == len(run.cells[cell].trials)


@pytest.mark.parametrize(
    ("kind", "what"),
    [("cell_planned", "cell"), ("trial_started", "trial"), ("window_opened", "window")],
)
def test_a_record_with_a_line_taken_out_is_refused(tmp_path: Path, kind: str, what: str) -> None:
    script = Script()
    script.trial(script.cell())
    drop(script, lambda event: event.event == kind)
    with pytest.raises(RecordError, match=f"the record names {what} '.*' before it begins") as caught:
        script.run(tmp_path)
    assert "restore it" in str(caught.value)


def test_a_window_that_ends_and_never_began_is_refused(tmp_path: Path) -> None:
    script = Script()
    trial = script.trial(script.cell())
    script.add(WindowClosed(trial_id=trial, window_id="other", at_ns=5))
    with pytest.raises(RecordError, match="the record names window 'other' before it begins"):
        script.run(tmp_path)


@pytest.mark.parametrize("resolved", ["{}", "not json", '{"model": 5}'])
def test_a_cell_that_cannot_be_read_is_refused(tmp_path: Path, resolved: str) -> None:
    script = Script()
    script.cell()
    script.events[-1] = script.events[-1].model_copy(update={"resolved": resolved})
    with pytest.raises(RecordError, match="cannot be read"):
        script.run(tmp_path)


def test_a_run_knows_its_header_and_folder(tmp_path: Path) -> None:
    run = Script(seed=42).run(tmp_path)
    assert isinstance(run.header, RunStarted)
    assert (42, tmp_path) == (run.header.seed, run.folder)


def test_sentinels_stand_apart_from_repetitions(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    opens, repetition, closes, torn = (script.trial(cell) for _ in range(4))
    for place, event in enumerate(script.events):
        if isinstance(event, TrialStarted) and event.trial_id != repetition:
            script.events[place] = event.model_copy(update={"purpose": "sentinel"})
    drop(script, lambda event: isinstance(event, TrialFinished) and event.trial_id == torn)
    record = script.run(tmp_path).cells[cell]
    assert [repetition] == [trial.started.trial_id for trial in record.trials]
    assert [repetition] == [trial.started.trial_id for trial in record.good_trials()]
    assert [opens, closes] == [trial.started.trial_id for trial in record.sentinels()]
    assert [opens, closes, torn] == [trial.started.trial_id for trial in record.sentinel_trials]


def test_blocks_stand_in_order_and_a_record_without_them_can_be_read(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    script.trial(cell)
    lines = (script.write(tmp_path / "old") / EVENTS_FILE).read_text(encoding="utf-8")
    old = lines.replace(',"purpose":"measure"', "").replace(',"stop":null', "")
    assert old != lines
    (tmp_path / "old" / EVENTS_FILE).write_text(old, encoding="utf-8")
    before = read_run(tmp_path / "old")
    assert ([], None, 1) == (before.blocks, before.header.stop, len(before.cells[cell].good_trials()))
    kept = BlockStarted(block=1, at_ns=6, seed=7, order=(cell,), is_fresh=False, reason="budget: …", sentinel=None)
    first = BlockStarted(block=0, at_ns=5, seed=7, order=(cell,), is_fresh=True, sentinel=cell)
    script.add(first, kept)
    assert [first, kept] == script.run(tmp_path / "new").blocks


def test_energy_trials_are_no_repetitions_and_what_the_meters_cover_stands_by_itself(tmp_path: Path) -> None:
    script = Script()
    cell = script.cell()
    repetition, energy = script.trial(cell), script.trial(cell)
    for place, event in enumerate(script.events):
        if isinstance(event, TrialStarted) and event.trial_id == energy:
            script.events[place] = event.model_copy(update={"purpose": "energy"})
    opened = MeterOpened(meter="m", domain="d", scope="board", source="s", at_ns=1, power_limit_w=700.0)
    period = CounterPeriod(meter="m", domain="d", period_s=0.1, changes=21, at_ns=2)
    reading = EnergyReading(meter="m", domain="d", at_ns=9, joules=2.5, unchanged_at_ns=7, range_j=65_000.0)
    script.add(opened, period, reading)
    run = script.run(tmp_path)
    record = run.cells[cell]
    assert [repetition] == [trial.started.trial_id for trial in record.good_trials()]
    assert [repetition] == [trial.started.trial_id for trial in record.trials]
    assert [energy] == [trial.started.trial_id for trial in record.energy_trials]
    assert [repetition, energy] == [trial.started.trial_id for trial in record.all_trials()]
    assert ([opened], [period], [reading]) == (run.meters, run.periods, run.energy)


def test_readings_from_before_movements_were_kept_can_be_read(tmp_path: Path) -> None:
    script = Script()
    script.add(EnergyReading(meter="m", domain="d", at_ns=1, joules=2.5))
    script.add(PowerReading(meter="m", domain="d", at_ns=1, watts=3.5))
    lines = (script.write(tmp_path) / EVENTS_FILE).read_text(encoding="utf-8")
    old = lines.replace(',"unchanged_at_ns":null,"range_j":null,"same_since_ns":null', "").replace(',"kind":null', "")
    assert len(old) < len(lines) - 40
    (tmp_path / EVENTS_FILE).write_text(old, encoding="utf-8")
    run = read_run(tmp_path)
    assert (None, None, None) == (run.energy[0].unchanged_at_ns, run.energy[0].range_j, run.power[0].kind)
