"""What explains a read ceiling below the datasheet: one scripted record for each cause, and one for none."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from scripted_facts import CPU, GPU, HOST, ceilings
from tokbench.derive.limits_ceiling import explain_ceiling
from tokbench.record.facts import CeilingFacts, DeviceFacts
from tokbench.record.observations import FactsRead, LoadSample

KNOWN = GPU.model_copy(
    update={"max_memory_clock_mhz": 2619, "max_sm_clock_mhz": 1980, "ecc_enabled": True, "is_mig": False}
)
"""An H100 SXM, 3350 GB/s, HBM3, of which all is known."""
RTX = KNOWN.model_copy(update={"name": "NVIDIA GeForce RTX 4090"})
LOW = "The measured read ceiling is 2.00 TB/s, 60% of the 3.35 TB/s of the datasheet (NVIDIA H100 SXM): "
LOW += "less than the 85% that is expected."
NOTHING = "Nothing in the record explains it."


def read_at(bytes_per_s: float | None, buffer_bytes: int = 1 << 32) -> CeilingFacts:
    return ceilings(read_bytes_per_s=bytes_per_s).model_copy(update={"buffer_bytes": buffer_bytes})


def explained(
    folder: Path,
    ceiling: CeilingFacts | None,
    device: DeviceFacts | None = KNOWN,
    clocks_mhz: tuple[int, int] = (1980, 2619),
    throttle: tuple[str, ...] = (),
) -> tuple[str, ...]:
    script = Script(device=device, ceiling=ceiling)
    for sm_clock_mhz, memory_clock_mhz in ((345, 1500), clocks_mhz):
        script.add(
            LoadSample(
                at_ns=script.wait(1),
                sm_clock_mhz=sm_clock_mhz,
                memory_clock_mhz=memory_clock_mhz,
                throttle_reasons=throttle,
            )
        )
    return explain_ceiling(script.run(folder))


def test_a_high_ceiling_needs_no_explanation(tmp_path: Path) -> None:
    expected = "The measured read ceiling is 2.85 TB/s, 85% of the 3.35 TB/s of the datasheet (NVIDIA H100 SXM): "
    assert explained(tmp_path, read_at(0.8501 * 3.35e12)) == (expected + "as much as reading reaches.",)


def test_a_ceiling_above_the_datasheet_is_wrong(tmp_path: Path) -> None:
    (sentence,) = explained(tmp_path, read_at(4e12))
    assert ", 119% of the 3.35 TB/s of the datasheet" in sentence
    assert sentence.endswith("more than the device has, so the ceiling or the row of devices.yaml is wrong.")


def test_where_nothing_explains_it_that_is_said(tmp_path: Path) -> None:
    """HBM has bits of its own for ECC: that it is on explains nothing."""
    assert explained(tmp_path, read_at(2e12)) == (LOW, NOTHING)


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    device = GPU.model_copy(update={"foreign_processes": None})
    script = Script(device=device, ceiling=read_at(2e12))
    assert explain_ceiling(script.run(tmp_path)) == (
        LOW,
        NOTHING,
        "Not known here: the memory clock, the SM clock, clock-event reasons, ECC, MIG, other processes on the device.",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"clocks_mhz": (1980, 2500)}, "The memory clock never rose above 2500 MHz; its maximum is 2619 MHz."),
        ({"clocks_mhz": (1410, 2619)}, "The SM clock never rose above 1410 MHz; its maximum is 1980 MHz."),
        (
            {"throttle": ("gpu_idle", "sw_thermal_slowdown", "sw_power_cap")},
            "The device held its clocks down in this run: sw_power_cap, sw_thermal_slowdown.",
        ),
        (
            {"device": KNOWN.model_copy(update={"is_mig": True})},
            "The device is a MIG slice: it has a part of the card's memory bandwidth.",
        ),
        ({"device": KNOWN.model_copy(update={"foreign_processes": 1})}, "1 other process was on the device."),
        (
            {"ceiling": read_at(2e12, buffer_bytes=1 << 31)},
            "The buffer was 2.15 GB, under 4 GB, since no larger one fitted: a pass is short.",
        ),
    ],
)
def test_each_cause_is_told(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    arguments: dict[str, object] = {"ceiling": read_at(2e12), **changes}
    assert explained(tmp_path, **arguments) == (LOW, sentence)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_on", [True, False])
def test_ecc_costs_bandwidth_where_memory_is_gddr(tmp_path: Path, is_on: bool) -> None:
    found = explained(tmp_path, read_at(7e11), RTX.model_copy(update={"ecc_enabled": is_on}))
    ecc = "ECC is on, and GDDR6X keeps its check bits among the data: reading them takes a part."
    assert found[1:] == ((ecc,) if is_on else (NOTHING,))


def test_several_causes_stand_together(tmp_path: Path) -> None:
    device = RTX.model_copy(update={"foreign_processes": 2})
    found = explained(tmp_path, read_at(5e11), device, (1410, 2000), ("hw_slowdown",))
    assert [sentence.split()[1] for sentence in found[1:]] == ["memory", "SM", "device", "is", "other"]


def test_a_cpu_has_no_datasheet(tmp_path: Path) -> None:
    script = Script(device=CPU, ceiling=read_at(3.5e10))
    script.add(FactsRead(at_ns=5, host=HOST.model_copy(update={"virtualisation": "kvm"})))
    assert explain_ceiling(script.run(tmp_path)) == (
        "The measured read ceiling is 35.0 GB/s. devices.yaml has no rows for CPUs: their bandwidth hangs on the "
        "memory that is fitted.",
        "The host is virtual (kvm): neighbours that share its memory cannot be seen from inside.",
        "4 of the host's 8 logical cores may be used: the rest shares the memory, and so few cores may not reach all "
        "of its bandwidth.",
    )


@pytest.mark.parametrize(
    ("name", "is_mig", "reason"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", True, "There is no datasheet of a MIG slice to set it beside."),
        ("Some Card", None, "devices.yaml has no datasheet bandwidth of Some Card to set it beside."),
    ],
)
def test_without_a_datasheet_no_share_is_told(tmp_path: Path, name: str, is_mig: bool | None, reason: str) -> None:
    device = KNOWN.model_copy(update={"name": name, "is_mig": is_mig})
    assert explained(tmp_path, read_at(2e12), device) == (f"The measured read ceiling is 2.00 TB/s. {reason}",)


def test_without_a_ceiling_or_a_device(tmp_path: Path) -> None:
    nothing = ("No read ceiling was measured in this run.",)
    assert explained(tmp_path / "none", None) == nothing
    assert explained(tmp_path / "unknown", read_at(None)) == nothing
    (sentence,) = explained(tmp_path / "device", read_at(2e12), None)
    assert sentence.endswith("2.00 TB/s; the record holds no facts of the device to set it beside.")


def test_the_best_ceiling_of_the_run_is_explained(tmp_path: Path) -> None:
    script = Script(device=KNOWN, ceiling=read_at(2e12))
    script.add(FactsRead(at_ns=5, ceilings=read_at(3e12)))
    assert explain_ceiling(script.run(tmp_path))[0].startswith("The measured read ceiling is 3.00 TB/s, 90% of")
