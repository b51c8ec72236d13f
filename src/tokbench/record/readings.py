"""What instruments read beside the work: meters, the machine, memory. A part of the union in `observations.py`.

No field is computed from another. Times `…_at_ns` are on the one monotonic clock, as there.
"""

from __future__ import annotations

from typing import Literal

from tokbench.record.facts import Frozen


class EnergyReading(Frozen):
    """A cumulative counter as read."""

    event: Literal["energy_reading"] = "energy_reading"
    meter: str
    domain: str
    at_ns: int
    joules: float
    read_s: float | None = None
    """How long the reading took: the stamp lies in its middle."""
    unchanged_at_ns: int | None = None
    """The last reading that still showed the value before: the counter moved after it and not after `at_ns`. None for a
    reading that shows no change, and where the one before lies too far back to say anything."""
    range_j: float | None = None
    """Where the counter begins again at zero; None where it is not known to."""
    same_since_ns: int | None = None
    """The first reading that showed this value, where that was an earlier one: the counter moved not after it."""


class CounterPeriod(Frozen):
    """How often a cumulative counter moved, as observed until then."""

    event: Literal["counter_period"] = "counter_period"
    meter: str
    domain: str
    period_s: float
    changes: int
    """Changes that it was taken from."""
    at_ns: int


class MeterOpened(Frozen):
    """A domain of a meter that can be read, and what it covers."""

    event: Literal["meter_opened"] = "meter_opened"
    meter: str
    domain: str
    scope: Literal["board", "module", "package", "dram", "node", "wall", "script"]
    source: str
    """Which counter or sensor: `nvml_total_energy`."""
    at_ns: int
    device_uuid: str | None = None
    power_limit_w: float | None = None
    """As enforced; read, never set."""
    is_estimated: bool = False
    """Whether the vendor computes it from a model instead of sensing it."""
    note: str | None = None


class PowerReading(Frozen):
    """A power sensor as read."""

    event: Literal["power_reading"] = "power_reading"
    meter: str
    domain: str
    at_ns: int
    watts: float
    kind: Literal["instant", "average"] | None = None
    """Of one moment, or over the sensor's own time; None where the source does not say."""


class MeterAbsent(Frozen):
    """A meter that could not be read, and what would help."""

    event: Literal["meter_absent"] = "meter_absent"
    meter: str
    reason: str
    remedy: str | None = None
    domains: tuple[str, ...] = ()
    """Those that were read until then; empty where it never was, and in records from before they were kept."""


class LoadSample(Frozen):
    """The machine's state beside the work."""

    event: Literal["load_sample"] = "load_sample"
    at_ns: int
    load_average: float | None = None
    machine_cpu_s: float | None = None
    """CPU seconds of all processes since boot, idle and iowait left out."""
    steal_s: float | None = None
    worker_cpu_s: float | None = None
    parent_cpu_s: float | None = None
    cpu_mhz: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    """Clock-event reasons; empty when none holds the clocks, None when they cannot be read."""


class MemoryReading(Frozen):
    """Bytes in use, as one source sees them."""

    event: Literal["memory_reading"] = "memory_reading"
    trial_id: str | None
    cell_id: str
    at_ns: int
    source: Literal[
        "allocator_peak",
        "allocator_steady",
        "allocator_reserved",
        "rss_peak",
        "rss_steady",
        "script",
        "script_steady",
    ]
    """`…_steady` is in use at that moment; the others are the most that was since the engine last counted anew."""
    value_bytes: int
