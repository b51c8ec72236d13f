"""Watches the machine and reads the meters while workers work: one thread in the parent, asleep between readings.

It may use 1 % of one core. Within an energy trial it looks closely at each counter around the moments when it is
expected to move; outside it, and where there is no counter, it reads now and then.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping

import psutil

from tokbench.errors import PlugError, RecordError
from tokbench.measure.meter_watch import MeterWatch, SamplerClock
from tokbench.measure.meters import Meter
from tokbench.measure.nvml import GpuSample, NvmlReader
from tokbench.measure.ticks import ReadAllowance
from tokbench.record.observations import Event, LoadSample, MeterAbsent

CPU_INTERVAL_S = 1.0
GPU_INTERVAL_S = 0.2
CPU_SHARE, LOOKS_SHARE = 0.008, 0.004
"""Of one core: of everything here, and of the looks at counters that move. It is kept to by this thread's own clock. At
0.01 the scheduler counted 1.07 %, at 0.008 it counts 0.89 % (two busy EPYC cores, 2026-11-22); 1 % is the limit."""
SAVED_S = 0.1
"""CPU seconds that the search for a counter's period may take at once; it then waits until they are saved again."""
SHORT_S = 0.005
"""A pause that nothing needs to end: to sleep costs less than to wait for a signal."""
JOIN_S = 5.0
"""How long the end of a run waits for a meter that does not answer."""


class SystemClock:
    """This machine's clock, and the CPU time of the calling thread."""

    def monotonic_ns(self) -> int:
        """Now."""
        return time.monotonic_ns()

    def thread_s(self) -> float:
        """CPU seconds of the calling thread."""
        return time.thread_time()


class Sampler:
    """Appends load samples and what the meters show until closed."""

    def __init__(
        self,
        append: Callable[[Event], None],
        worker_cpu_s: Callable[[], float | None],
        meters: Mapping[str, Meter],
        gpu: NvmlReader | None = None,
        clock: SamplerClock | None = None,
    ) -> None:
        self._append = append
        self._worker_cpu_s = worker_cpu_s
        self._gpu = gpu
        self._clock = SystemClock() if clock is None else clock
        share = LOOKS_SHARE / len(meters) if meters else LOOKS_SHARE
        self._watches = [MeterWatch(name, meter, self._clock, share) for name, meter in meters.items()]
        self._opened = tuple(meters.values())
        self._interval_ns = round((GPU_INTERVAL_S if gpu is not None or meters else CPU_INTERVAL_S) * 1e9)
        self._load_due_ns = self._clock.monotonic_ns()
        self._allowance = ReadAllowance(CPU_SHARE, SAVED_S, self._load_due_ns)
        self._paid_s: float | None = None
        """CPU seconds of this thread when it had last read everything that was due; None before."""
        self._is_dense = self._is_stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and let go of the meters."""
        self._is_stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        for meter in self._opened:
            meter.close()

    def has_meters(self) -> bool:
        """Whether any meter can be read."""
        return bool(self._watches)

    def period_s(self) -> float | None:
        """The longest period of a counter that is known by now; None where none is."""
        return max((period_s for watch in list(self._watches) for period_s in watch.periods_s()), default=None)

    def begin_energy(self) -> None:
        """An energy trial begins: look closely at the counters."""
        for watch in list(self._watches):
            watch.begin_dense()
        self._is_dense = True
        self._wake.set()

    def end_energy(self) -> None:
        """It is over."""
        self._is_dense = False
        self._wake.set()

    def _watch(self) -> None:
        try:
            while not self._is_stopped:
                pause_s = (self.poll_due() - self._clock.monotonic_ns()) * 1e-9
                if pause_s < SHORT_S:
                    time.sleep(max(pause_s, 0.0))
                else:
                    self._wake.wait(pause_s)
                    self._wake.clear()
        except RecordError:
            return

    def poll_due(self) -> int:
        """Read everything that is due; when something will be due next."""
        wake_s = 0.0 if self._paid_s is None else self._clock.thread_s() - self._paid_s
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._load_due_ns:
            gpu = self._gpu.sample() if self._gpu is not None else None
            self._append(read_load(self._worker_cpu_s(), gpu, now_ns))
            self._load_due_ns = now_ns + self._interval_ns
        for watch in list(self._watches):
            if self._due_ns(watch) <= now_ns:
                self._poll(watch, wake_s)
        before_s, self._paid_s = self._paid_s, self._clock.thread_s()
        self._allowance.spend(0.0 if before_s is None else self._paid_s - before_s, self._clock.monotonic_ns())
        return min([self._load_due_ns, *(self._due_ns(watch) for watch in self._watches)])

    def _due_ns(self, watch: MeterWatch) -> int:
        return watch.due_ns(self._clock.monotonic_ns(), self._allowance.ready_ns(), is_dense=self._is_dense)

    def _poll(self, watch: MeterWatch, wake_s: float) -> None:
        """What a meter shows; one that fails is recorded and left out from then on, the others go on."""
        try:
            events = watch.poll(wake_s, is_dense=self._is_dense)
        except Exception as error:  # a library's own exception must not cost the other meters
            self._watches.remove(watch)
            said = str(error) if isinstance(error, OSError | PlugError) else f"{type(error).__name__}: {error}"
            reason = f"it could be read no longer: {said}"
            events = [MeterAbsent(meter=watch.name, reason=reason, domains=watch.meter.domains())]
        for event in events:
            self._append(event)


def read_load(worker_cpu_s: float | None, gpu: GpuSample | None, at_ns: int | None = None) -> LoadSample:
    """The machine's load now. CPU seconds are cumulative, so that any two samples tell what lies between."""
    times = psutil.cpu_times()
    busy = times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq"))
    frequency = _cpu_mhz()
    return LoadSample(
        at_ns=time.monotonic_ns() if at_ns is None else at_ns,
        load_average=os.getloadavg()[0],
        machine_cpu_s=busy,
        steal_s=getattr(times, "steal", None),
        worker_cpu_s=worker_cpu_s,
        parent_cpu_s=time.process_time(),
        cpu_mhz=frequency,
        sm_clock_mhz=gpu.sm_clock_mhz if gpu else None,
        memory_clock_mhz=gpu.memory_clock_mhz if gpu else None,
        temperature_c=gpu.temperature_c if gpu else None,
        throttle_reasons=gpu.throttle_reasons if gpu else None,
    )


def _cpu_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    current = getattr(frequency, "current", None)
    return float(current) if current else None
