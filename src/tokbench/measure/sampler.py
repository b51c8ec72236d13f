"""Watches the machine and reads the meters while workers work: one thread in the parent, asleep between readings."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping

import psutil

from tokbench.errors import PlugError, RecordError
from tokbench.measure.meters import Meter
from tokbench.measure.nvml import GpuSample, NvmlReader
from tokbench.record.observations import EnergyReading, Event, LoadSample, MeterAbsent, PowerReading

CPU_INTERVAL_S = 1.0
GPU_INTERVAL_S = 0.2
JOIN_S = 5.0
"""How long the end of a run waits for a meter that does not answer."""


class Sampler:
    """Appends a LoadSample and the meters' readings at a fixed interval until closed."""

    def __init__(
        self,
        append: Callable[[Event], None],
        worker_cpu_s: Callable[[], float | None],
        meters: Mapping[str, Meter],
        gpu: NvmlReader | None = None,
    ) -> None:
        self._append = append
        self._worker_cpu_s = worker_cpu_s
        self._meters = dict(meters)
        self._opened = tuple(meters.values())
        self._gpu = gpu
        self._interval_s = GPU_INTERVAL_S if gpu is not None or meters else CPU_INTERVAL_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and let go of the meters."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        for meter in self._opened:
            meter.close()

    def _watch(self) -> None:
        while True:
            try:
                self.sample_once()
            except RecordError:
                return
            if self._stop.wait(self._interval_s):
                return

    def sample_once(self) -> None:
        """Take one sample of everything."""
        self._append(read_load(self._worker_cpu_s(), self._gpu.sample() if self._gpu is not None else None))
        for name, meter in list(self._meters.items()):
            for reading in self._read(name, meter):
                self._append(reading)

    def _read(self, name: str, meter: Meter) -> list[EnergyReading | PowerReading]:
        """One reading; a meter that fails is recorded and left out from then on, the others go on."""
        try:
            return meter.read()
        except (OSError, PlugError) as error:
            del self._meters[name]
            self._append(MeterAbsent(meter=name, reason=f"it could be read no longer: {error}"))
            return []


def read_load(worker_cpu_s: float | None, gpu: GpuSample | None) -> LoadSample:
    """The machine's load now. CPU seconds are cumulative, so that any two samples tell what lies between."""
    times = psutil.cpu_times()
    busy = times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq"))
    frequency = _cpu_mhz()
    return LoadSample(
        at_ns=time.monotonic_ns(),
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
