"""What disturbed a repetition while it ran: load, heat, clocks, a warm-up that never became steady.

It judges repetitions and drops none: `evaluate` gives every figure with them, and beside it the same without.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence
from typing import TypeAlias

from tokbench.derive.codes import BUSY_FREE_SHARE, CLOCK_SHARE, CONTENDED_SHARE, DISTURBING, MIN_CLOCK_SAMPLES, Code
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import LoadSample
from tokbench.record.run import CellRecord, Run, Trial

SLOWDOWNS = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
"""Clock-event reasons that mean trouble; idle and application clocks are ordinary."""
POWER_CAP = "sw_power_cap"
Around: TypeAlias = Sequence[tuple[LoadSample, LoadSample]]
"""Neighbouring samples of the time that is asked about; see `Timeline.around`."""
MIN_SAMPLED_S = 0.15
"""Linux counts CPU time in steps of 10 ms: over less time than this one step is too large a share. It is below the
interval of the samples beside a GPU or a meter (0.2 s), so that a short repetition is judged by the two around it."""


class Timeline:
    """The samples of a run by boot and in time order, so that those beside a trial are found without looking at all."""

    def __init__(self, run: Run) -> None:
        boots = range(run.boots.current + 1)
        self._samples = [sorted(run.in_boot(boot).load_samples, key=lambda item: item.at_ns) for boot in boots]
        self._times = [[sample.at_ns for sample in samples] for samples in self._samples]

    def around(self, trials: Sequence[Trial]) -> list[tuple[LoadSample, LoadSample]]:
        """Neighbouring samples that enclose or lie in one of the finished trials."""
        found: set[tuple[int, int]] = set()
        for trial in trials:
            if trial.finished is not None:
                times = self._times[trial.boot]
                first = max(bisect.bisect_right(times, trial.started.at_ns) - 1, 0)
                last = min(bisect.bisect_left(times, trial.finished.at_ns), len(times) - 1)
                found.update((trial.boot, index) for index in range(first, last))
        return [(self._samples[boot][index], self._samples[boot][index + 1]) for boot, index in sorted(found)]

    def inside(self, boot: int, start_at_ns: int, end_at_ns: int) -> list[LoadSample]:
        """Samples of one boot taken from the one moment to the other."""
        times = self._times[boot]
        return self._samples[boot][bisect.bisect_left(times, start_at_ns) : bisect.bisect_right(times, end_at_ns)]


def find_disturbances(run: Run, cell: CellRecord) -> dict[str, tuple[Code, ...]]:
    """What disturbed each finished repetition of a cell, by trial id; nothing is an empty entry."""
    trials = cell.good_trials()
    timeline = Timeline(run)
    unsteady = _find_unsteady(trials)
    off_clock = find_off_clock(run, trials)
    found = {}
    for trial in trials:
        around = timeline.around([trial])
        is_earned = {
            Code.UNSTEADY: trial.started.trial_id in unsteady,
            Code.FOREIGN_LOAD: trial.device is not None and has_foreign_load(trial.device),
            Code.CONTENDED_CPU: not is_gpu(run.device) and is_contended(run, around),
            Code.THROTTLED: is_throttled(around),
            Code.CLOCKS_MOVED: trial.started.trial_id in off_clock,
        }
        found[trial.started.trial_id] = tuple(code for code in DISTURBING if is_earned[code])
    return found


def is_gpu(device: DeviceFacts | None) -> bool:
    """Whether the work was on a GPU, apart from the host."""
    return device is not None and device.kind in ("cuda", "rocm")


def has_foreign_load(device: DeviceFacts) -> bool:
    """Whether others were on a device when it was looked at."""
    return bool(device.foreign_processes) or _looks_busy(device)


def _looks_busy(device: DeviceFacts) -> bool:
    """Whether memory is in use on a card whose processes cannot be seen."""
    if not is_gpu(device) or device.foreign_processes is not None:
        return False
    free, memory = device.free_memory_bytes, device.memory_bytes
    return free is not None and memory is not None and free < BUSY_FREE_SHARE * memory


def foreign_cpu_share(run: Run, around: Around) -> float | None:
    """CPU time of processes other than ours over the usable cores between the samples; None if not known.

    Not known either where we may use some of the host's cores only: what others do on the rest is no matter of ours.
    """
    if not sees_only_its_cores(run):
        return None
    foreign = seconds = 0.0
    for a, b in around:
        values = (a.machine_cpu_s, b.machine_cpu_s, a.worker_cpu_s, b.worker_cpu_s, a.parent_cpu_s, b.parent_cpu_s)
        if any(value is None for value in values):
            continue
        machine, worker, parent = values[1] - values[0], values[3] - values[2], values[5] - values[4]  # type: ignore[operator]
        if worker < 0:
            continue
        foreign += machine - worker - parent
        seconds += (b.at_ns - a.at_ns) * 1e-9
    cores = run.host.usable_cores if run.host else None
    if seconds < MIN_SAMPLED_S or not cores:
        return None
    return max(foreign, 0.0) / (seconds * cores)


def sees_only_its_cores(run: Run) -> bool:
    """Whether the CPU load of the whole host, which is what a sample holds, is that of the cores we may use."""
    return run.host is None or run.host.usable_cores >= run.host.logical_cores


def is_contended(run: Run, around: Around) -> bool:
    """Whether others used so much of the CPU that a measurement on it is disturbed."""
    share = foreign_cpu_share(run, around)
    return share is not None and share > CONTENDED_SHARE


def is_throttled(around: Around) -> bool:
    """Whether heat or the hardware held the clocks down."""
    return any(SLOWDOWNS & set(b.throttle_reasons or ()) for _, b in around)


def is_power_capped(around: Around) -> bool:
    """Whether the power limit held the clocks down."""
    return any(POWER_CAP in (b.throttle_reasons or ()) for _, b in around)


def _find_unsteady(trials: Sequence[Trial]) -> set[str]:
    """Trials whose warm-up never became steady; one without a warm-up of its own rests on the last of its visit."""
    found = set()
    last: dict[tuple[str, int], bool] = {}
    for trial in trials:
        visit = trial.started.worker_id, trial.started.block
        if trial.finished is not None and trial.finished.is_steady is not None:
            last[visit] = trial.finished.is_steady
        if last.get(visit) is False:
            found.add(trial.started.trial_id)
    return found


def find_off_clock(run: Run, trials: Sequence[Trial]) -> set[str]:
    """Trials with a clock sample too far from the median over all of the cell's measured windows."""
    timeline = Timeline(run)
    clocks = {trial.started.trial_id: _clocks(run, timeline, trial) for trial in trials}
    every = [mhz for values in clocks.values() for mhz in values]
    if len(every) < MIN_CLOCK_SAMPLES:
        return set()
    usual = statistics.median(every)
    return {name for name, values in clocks.items() if any(abs(mhz / usual - 1) > CLOCK_SHARE for mhz in values)}


def _clocks(run: Run, timeline: Timeline, trial: Trial) -> list[float]:
    """Clocks in MHz sampled within what was measured of a trial; those at the power limit are left out.

    A GPU's are those of its multiprocessors, a CPU's the mean of all cores.
    """
    samples = [sample for start, end in _measured_spans(trial) for sample in timeline.inside(trial.boot, start, end)]
    free = [sample for sample in samples if POWER_CAP not in (sample.throttle_reasons or ())]
    clocks = [sample.sm_clock_mhz if is_gpu(run.device) else sample.cpu_mhz for sample in free]
    return [float(mhz) for mhz in clocks if mhz]


def _measured_spans(trial: Trial) -> list[tuple[int, int]]:
    """What was measured of a trial: its windows of work, or from the first request until the last chunk."""
    spans = [
        (window.opened.at_ns, window.closed.at_ns)
        for window in trial.windows.values()
        if window.closed is not None and window.kind in ("prefill", "decode", "experiment")
    ]
    chunks = [trace.chunk_at_ns[-1] for trace in trial.requests if trace.chunk_at_ns]
    if chunks:
        spans.append((min(trace.sent_at_ns for trace in trial.requests), max(chunks)))
    return spans
