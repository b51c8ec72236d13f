"""The machine's state beside the work: what a sample holds, and what happens when a meter or the record fails."""

from __future__ import annotations

import threading
import time

import pytest

from simulated_counter import ScriptedTime, SimulatedCounter
from tokbench.errors import PlugError, RecordError
from tokbench.measure import meter_watch
from tokbench.measure import sampler as sampler_module
from tokbench.measure.meters import Available, Meter, Unavailable
from tokbench.measure.nvml import GpuSample
from tokbench.measure.sampler import Sampler, read_load
from tokbench.record.observations import EnergyReading, Event, LoadSample, MeterAbsent, MeterOpened, PowerReading


class Scripted:
    """A meter that reads 5 W, or fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.reads = self.closes = 0

    def availability(self) -> Available | Unavailable:
        return Available()

    def opened(self) -> list[MeterOpened]:
        return []

    def domains(self) -> tuple[str, ...]:
        return ("board",)

    def read(self) -> list[EnergyReading | PowerReading]:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        return [PowerReading(meter="scripted", domain="board", at_ns=self.reads, watts=5.0)]

    def close(self) -> None:
        self.closes += 1


def sampling(kept: list[Event], worker_cpu_s: float | None = 2.5, **meters: Meter) -> Sampler:
    return Sampler(kept.append, lambda: worker_cpu_s, meters)


def test_a_sample_sets_load_and_cpu_seconds_beside_the_clock() -> None:
    before = time.monotonic_ns()
    sample = read_load(2.5, GpuSample(1980, 2619, 61.0, ("sw_power_cap",), 300.0))
    assert before <= sample.at_ns <= time.monotonic_ns()
    assert sample.load_average is not None and sample.load_average >= 0
    assert sample.machine_cpu_s is not None and sample.machine_cpu_s > 0
    assert sample.parent_cpu_s is not None and sample.parent_cpu_s > 0
    assert (2.5, 1980, 2619, 61, ("sw_power_cap",)) == (
        sample.worker_cpu_s,
        sample.sm_clock_mhz,
        sample.memory_clock_mhz,
        sample.temperature_c,
        sample.throttle_reasons,
    )


def test_what_was_not_read_is_absent_and_not_nothing() -> None:
    sample = read_load(None, None)
    assert (None,) * 4 == (sample.worker_cpu_s, sample.sm_clock_mhz, sample.temperature_c, sample.throttle_reasons)


def test_cpu_seconds_are_cumulative() -> None:
    first, second = read_load(None, None), read_load(None, None)
    assert first.machine_cpu_s is not None and second.machine_cpu_s is not None
    assert first.machine_cpu_s <= second.machine_cpu_s


def test_one_round_reads_the_machine_and_every_meter() -> None:
    kept: list[Event] = []
    sampling(kept, one=Scripted(), two=Scripted()).poll_due()
    assert [LoadSample, PowerReading, PowerReading] == [type(event) for event in kept]


class ForeignError(Exception):
    """As a vendor's library raises: of no kind that tokbench knows."""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError("the card fell off the bus"), "the card fell off the bus"),
        (PlugError("the card fell off the bus"), "the card fell off the bus"),
        (RuntimeError("the card fell off the bus"), "RuntimeError: the card fell off the bus"),
        (ForeignError("code 15"), "ForeignError: code 15"),
        (KeyError("energy"), "KeyError: 'energy'"),
    ],
)
def test_a_meter_that_fails_is_recorded_once_and_the_others_go_on(fault: Exception, said: str) -> None:
    kept: list[Event] = []
    broken, whole = Scripted(fault), Scripted()
    time = ScriptedTime()
    sampler = Sampler(kept.append, lambda: None, {"broken": broken, "whole": whole}, clock=time)
    while whole.reads < 3:
        time.sleep_until(sampler.poll_due())
    absent = [event for event in kept if isinstance(event, MeterAbsent)]
    reason = f"it could be read no longer: {said}"
    assert [MeterAbsent(meter="broken", reason=reason, domains=("board",))] == absent
    assert (1, 3) == (broken.reads, whole.reads)
    sampler.close()
    assert (1, 1) == (broken.closes, whole.closes)


def test_a_librarys_own_exception_ends_neither_the_thread_nor_the_other_meters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meter_watch, "COARSE_NS", 1_000_000)
    enough = threading.Event()
    kept: list[Event] = []

    def append(event: Event) -> None:
        kept.append(event)
        if sum(isinstance(each, PowerReading) for each in kept) >= 3:
            enough.set()

    broken = Scripted(RuntimeError("no answer"))
    sampler = Sampler(append, lambda: None, {"broken": broken, "whole": Scripted()})
    sampler.start()
    assert enough.wait(10), "the thread died with the meter that failed first"
    sampler.close()
    assert ["broken"] == [event.meter for event in kept if isinstance(event, MeterAbsent)]
    assert "" == capsys.readouterr().err


def test_the_thread_samples_from_the_start_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "GPU_INTERVAL_S", 60.0)
    monkeypatch.setattr(meter_watch, "COARSE_NS", 60_000_000_000)
    seen = threading.Event()

    def append(event: Event) -> None:
        if isinstance(event, PowerReading):
            seen.set()

    meter = Scripted()
    sampler = Sampler(append, lambda: None, {"one": meter})
    sampler.start()
    assert seen.wait(10)
    begun = time.monotonic()
    sampler.close()
    assert time.monotonic() - begun < 10  # not the minute until the next reading
    assert (1, 1) == (meter.reads, meter.closes)


def test_a_record_that_cannot_be_written_ends_the_sampling_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    def append(event: Event) -> None:
        raise RecordError("the disk is full")

    sampler = Sampler(append, lambda: None, {})
    sampler.start()
    sampler._thread.join(10)
    assert not sampler._thread.is_alive()
    sampler.close()
    assert "" == capsys.readouterr().err


def test_closing_before_the_start_closes_the_meters() -> None:
    meter = Scripted()
    sampling([], one=meter).close()
    assert 1 == meter.closes


def test_what_is_known_of_the_meters_is_told_to_who_orders_the_windows() -> None:
    time = ScriptedTime()
    slow, fast = SimulatedCounter(time, period_s=0.1), SimulatedCounter(time, period_s=0.02)
    sampler = Sampler([].append, lambda: None, {"slow": slow, "fast": fast}, clock=time)
    assert (True, None) == (sampler.has_meters(), sampler.period_s())
    while time.now_ns < 8e9:
        time.sleep_until(sampler.poll_due())
    assert sampler.period_s() == pytest.approx(0.1, rel=0.02)  # the slower of the two
    assert not sampling([]).has_meters()


def test_a_meter_without_counter_is_read_more_often_within_an_energy_trial() -> None:
    time, meter = ScriptedTime(), Scripted()
    sampler = Sampler([].append, lambda: None, {"one": meter}, clock=time)
    reads = []
    for until_s, begin in ((10, None), (20, sampler.begin_energy), (30, sampler.end_energy)):
        if begin is not None:
            begin()
        while time.now_ns < until_s * 1e9:
            time.sleep_until(min(sampler.poll_due(), round(until_s * 1e9)))
        reads.append(meter.reads - sum(reads))
    assert [pytest.approx(20, abs=2), pytest.approx(100, abs=6), pytest.approx(20, abs=2)] == reads
