"""Why a device's measured read ceiling falls short of its datasheet, as far as the record tells. It measures nothing.

What the record does not hold explains nothing: it is named as unknown, never assumed.
"""

from __future__ import annotations

from tokbench.derive.validity import SLOWDOWNS
from tokbench.derive.words import join, t
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
        return (t("No read ceiling was measured in this run."),)
    rate, facts = max(measured, key=lambda pair: pair[0])
    said = t("The measured read ceiling is {rate}", rate=format_value(rate, BYTES_PER_S))
    if run.device is None:
        return (t("{said}; the record holds no facts of the device to set it beside.", said=said),)
    row = find_device(run.device.name)
    if row is None or row.memory_bandwidth_gbps is None:
        return (
            t("{said}. {why}", said=said, why=_why_no_datasheet(run.device)),
            *_explanations(run, run.device, None, facts),
        )
    share = rate / (row.memory_bandwidth_gbps * 1e9)
    said = t(
        "The measured read ceiling is {rate}, {share:.0%} of the {nominal} of the datasheet ({device})",
        rate=format_value(rate, BYTES_PER_S),
        share=share,
        nominal=format_value(row.memory_bandwidth_gbps * 1e9, BYTES_PER_S),
        device=row.name,
    )
    if share > 1:
        return (t("{said}: more than the device has, so the ceiling or the row of devices.yaml is wrong.", said=said),)
    if share >= EXPECTED_SHARE:
        return (t("{said}: as much as reading reaches.", said=said),)
    found = _explanations(run, run.device, row, facts)
    unknown = _unknown(run, run.device)
    return (
        t("{said}: less than the {expected:.0%} that is expected.", said=said, expected=EXPECTED_SHARE),
        *(found or (t("Nothing in the record explains it."),)),
        *((t("Not known here: {unknown}.", unknown=join(unknown)),) if unknown else ()),
    )


def _why_no_datasheet(device: DeviceFacts) -> str:
    if device.kind == "cpu":
        return t("devices.yaml has no rows for CPUs: their bandwidth hangs on the memory that is fitted.")
    if device.is_mig:
        return t("There is no datasheet of a MIG slice to set it beside.")
    return t("devices.yaml has no datasheet bandwidth of {device} to set it beside.", device=device.name)


def _explanations(run: Run, device: DeviceFacts, row: DeviceRow | None, facts: CeilingFacts) -> tuple[str, ...]:
    """What in the record takes bandwidth away; nothing of a GPU without a datasheet, where no gap is known."""
    if device.kind == "cpu":
        return _of_host(run.host)
    if row is None:
        return ()
    found = [*_clocks(run, device), *_of_device(device, row)]
    if facts.buffer_bytes < LARGE_BUFFER_BYTES:
        size = facts.buffer_bytes / 1e9
        found.append(
            t("The buffer was {size:.2f} GB, under 4 GB, since no larger one fitted: a pass is short.", size=size)
        )
    return tuple(found)


def _of_device(device: DeviceFacts, row: DeviceRow) -> list[str]:
    found = []
    if device.is_mig:
        found.append(t("The device is a MIG slice: it has a part of the card's memory bandwidth."))
    if device.ecc_enabled and (row.memory_type or "").startswith("GDDR"):
        # HBM has bits of its own for ECC, and no penalty. Source: NVIDIA, V100 whitepaper, ECC Memory Resiliency, as
        # quoted in forums.anandtech.com/threads/2541153 (read 2026-11-22).
        found.append(
            t(
                "ECC is on, and {memory_type} keeps its check bits among the data: reading them takes a part.",
                memory_type=row.memory_type,
            )
        )
    if device.foreign_processes:
        others = device.foreign_processes
        one = t("1 other process was on the device.")
        found.append(one if others == 1 else t("{count} other processes were on the device.", count=others))
    return found


def _of_host(host: HostFacts | None) -> tuple[str, ...]:
    found = []
    if host is not None and (host.virtualisation or host.container):
        where = host.virtualisation or host.container
        found.append(
            t(
                "The host is virtual ({where}): neighbours that share its memory cannot be seen from inside.",
                where=where,
            )
        )
    if host is not None and host.usable_cores < host.logical_cores:
        found.append(
            t(
                "{usable_cores} of the host's {logical_cores} logical cores may be used: the rest shares the "
                "memory, and so few cores may not reach all of its bandwidth.",
                usable_cores=host.usable_cores,
                logical_cores=host.logical_cores,
            )
        )
    return tuple(found)


def _clocks(run: Run, device: DeviceFacts) -> list[str]:
    """Clocks that no sample of the run saw at their maximum, and what held them."""
    clocks: tuple[tuple[str, list[int | None], int | None], ...] = (
        (t("memory"), [sample.memory_clock_mhz for sample in run.load_samples], device.max_memory_clock_mhz),
        ("SM", [sample.sm_clock_mhz for sample in run.load_samples], device.max_sm_clock_mhz),
    )
    found = []
    for name, samples, most in clocks:
        highest = max((sample for sample in samples if sample is not None), default=None)
        if highest is not None and most is not None and highest < FULL_CLOCK_SHARE * most:
            found.append(
                t(
                    "The {clock} clock never rose above {highest} MHz; its maximum is {most} MHz.",
                    clock=name,
                    highest=highest,
                    most=most,
                )
            )
    holds = {reason for sample in run.load_samples for reason in sample.throttle_reasons or ()} & HOLDS
    if holds:
        found.append(t("The device held its clocks down in this run: {holds}.", holds=join(sorted(holds))))
    return found


def _unknown(run: Run, device: DeviceFacts) -> list[str]:
    """What would explain a low ceiling and is not in the record."""
    samples = run.load_samples
    is_known = {
        t("the memory clock"): device.max_memory_clock_mhz and any(s.memory_clock_mhz is not None for s in samples),
        t("the SM clock"): device.max_sm_clock_mhz and any(s.sm_clock_mhz is not None for s in samples),
        t("clock-event reasons"): any(s.throttle_reasons is not None for s in samples),
        "ECC": device.ecc_enabled is not None,
        "MIG": device.is_mig is not None,
        t("other processes on the device"): device.foreign_processes is not None,
    }
    return [name for name, known in is_known.items() if not known]
