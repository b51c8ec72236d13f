"""Why a device's measured read ceiling falls short of its datasheet, as far as the record tells. It measures nothing.

What the record does not hold explains nothing: it is named as unknown, never assumed.
"""

from __future__ import annotations

from tokbench.derive.validity import SLOWDOWNS
from tokbench.record.catalog import DeviceRow, find_device
from tokbench.record.facts import CeilingFacts, DeviceFacts, HostFacts
from tokbench.record.run import Run
from tokbench.units import BYTES_PER_S, format_value

EXPECTED_SHARE = 0.85
"""Our choice: gpt-fast calls 83 % of an A100 (1700 of 2039 GB/s) achievable, and reading alone reaches more.

Source: shared/facts/formulas.md 4.1, read 2026-11-21.
"""
FULL_CLOCK_SHARE = 0.99
"""A clock below this share of its maximum is below it. Our choice: NVML tells whole MHz in steps of 7 to 15."""
LARGE_BUFFER_BYTES = 4_000_000_000
"""A smaller buffer leaves part of a pass to its start and end. Source: shared/data/experiments.md, 0.1."""
HOLDS = SLOWDOWNS | {"sw_power_cap"}
"""Clock-event reasons that take speed away."""


def explain_ceiling(run: Run) -> tuple[str, ...]:
    """Sentences on the measured read ceiling of a run: its share of the datasheet, and what explains a low one."""
    measured = [(facts.read_bytes_per_s, facts) for facts in run.ceilings if facts.read_bytes_per_s is not None]
    if not measured:
        return ("No read ceiling was measured in this run.",)
    rate, facts = max(measured, key=lambda pair: pair[0])
    said = f"The measured read ceiling is {format_value(rate, BYTES_PER_S)}"
    if run.device is None:
        return (f"{said}; the record holds no facts of the device to set it beside.",)
    row = find_device(run.device.name)
    if row is None or row.memory_bandwidth_gbps is None:
        return (f"{said}. {_why_no_datasheet(run.device)}", *_explanations(run, run.device, None, facts))
    share = rate / (row.memory_bandwidth_gbps * 1e9)
    said += f", {share:.0%} of the {format_value(row.memory_bandwidth_gbps * 1e9, BYTES_PER_S)} of the datasheet"
    said += f" ({row.name})"
    if share > 1:
        return (f"{said}: more than the device has, so the ceiling or the row of devices.yaml is wrong.",)
    if share >= EXPECTED_SHARE:
        return (f"{said}: as much as reading reaches.",)
    found = _explanations(run, run.device, row, facts)
    unknown = _unknown(run, run.device)
    return (
        f"{said}: less than the {EXPECTED_SHARE:.0%} that is expected.",
        *(found or ("Nothing in the record explains it.",)),
        *((f"Not known here: {', '.join(unknown)}.",) if unknown else ()),
    )


def _why_no_datasheet(device: DeviceFacts) -> str:
    if device.kind == "cpu":
        return "devices.yaml has no rows for CPUs: their bandwidth hangs on the memory that is fitted."
    if device.is_mig:
        return "There is no datasheet of a MIG slice to set it beside."
    return f"devices.yaml has no datasheet bandwidth of {device.name} to set it beside."


def _explanations(run: Run, device: DeviceFacts, row: DeviceRow | None, facts: CeilingFacts) -> tuple[str, ...]:
    """What in the record takes bandwidth away; nothing of a GPU without a datasheet, where no gap is known."""
    if device.kind == "cpu":
        return _of_host(run.host)
    if row is None:
        return ()
    found = [*_clocks(run, device), *_of_device(device, row)]
    if facts.buffer_bytes < LARGE_BUFFER_BYTES:
        size = facts.buffer_bytes / 1e9
        found.append(f"The buffer was {size:.2f} GB, under 4 GB, since no larger one fitted: a pass is short.")
    return tuple(found)


def _of_device(device: DeviceFacts, row: DeviceRow) -> list[str]:
    found = []
    if device.is_mig:
        found.append("The device is a MIG slice: it has a part of the card's memory bandwidth.")
    if device.ecc_enabled and (row.memory_type or "").startswith("GDDR"):
        # HBM has bits of its own for ECC, and no penalty. Source: NVIDIA, V100 whitepaper, ECC Memory Resiliency, as
        # quoted in forums.anandtech.com/threads/2541153 (read 2026-11-22).
        found.append(
            f"ECC is on, and {row.memory_type} keeps its check bits among the data: reading them takes a part."
        )
    if device.foreign_processes:
        what = "process was" if device.foreign_processes == 1 else "processes were"
        found.append(f"{device.foreign_processes} other {what} on the device.")
    return found


def _of_host(host: HostFacts | None) -> tuple[str, ...]:
    found = []
    if host is not None and (host.virtualisation or host.container):
        where = host.virtualisation or host.container
        found.append(f"The host is virtual ({where}): neighbours that share its memory cannot be seen from inside.")
    if host is not None and host.usable_cores < host.logical_cores:
        found.append(
            f"{host.usable_cores} of the host's {host.logical_cores} logical cores may be used: the rest shares the "
            "memory, and so few cores may not reach all of its bandwidth."
        )
    return tuple(found)


def _clocks(run: Run, device: DeviceFacts) -> list[str]:
    """Clocks that no sample of the run saw at their maximum, and what held them."""
    clocks: tuple[tuple[str, list[int | None], int | None], ...] = (
        ("memory", [sample.memory_clock_mhz for sample in run.load_samples], device.max_memory_clock_mhz),
        ("SM", [sample.sm_clock_mhz for sample in run.load_samples], device.max_sm_clock_mhz),
    )
    found = []
    for name, samples, most in clocks:
        highest = max((sample for sample in samples if sample is not None), default=None)
        if highest is not None and most is not None and highest < FULL_CLOCK_SHARE * most:
            found.append(f"The {name} clock never rose above {highest} MHz; its maximum is {most} MHz.")
    holds = {reason for sample in run.load_samples for reason in sample.throttle_reasons or ()} & HOLDS
    if holds:
        found.append(f"The device held its clocks down in this run: {', '.join(sorted(holds))}.")
    return found


def _unknown(run: Run, device: DeviceFacts) -> list[str]:
    """What would explain a low ceiling and is not in the record."""
    samples = run.load_samples
    is_known = {
        "the memory clock": device.max_memory_clock_mhz and any(s.memory_clock_mhz is not None for s in samples),
        "the SM clock": device.max_sm_clock_mhz and any(s.sm_clock_mhz is not None for s in samples),
        "clock-event reasons": any(s.throttle_reasons is not None for s in samples),
        "ECC": device.ecc_enabled is not None,
        "MIG": device.is_mig is not None,
        "other processes on the device": device.foreign_processes is not None,
    }
    return [name for name, known in is_known.items() if not known]
