"""What is true while a run is made: model, device, host, engine; and the conditions a number was had under.

Facts are read, never computed from an observation. `None` means "not known here" and is printed as unknown.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

Weights = Literal["pretrained", "random", "replay", "scripted"]


class Frozen(BaseModel):
    """Base of everything that stands in a record: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(Frozen):
    """The weights that really ran."""

    name: str
    source: str
    """As written in the config, without secrets."""
    weights: Weights
    dtype: str
    parameters: int | None
    weight_bytes: int | None
    """Sum over the loaded parameters' storage, shared tensors once, scales and zero points included."""
    lookup_bytes: int | None = None
    """Of these, an input embedding that is not the head too: a step looks rows of it up; 0 where the two are tied."""
    expert_bytes: int | None = None
    """Of these, the routed experts, of which a step reads some; 0 in a dense model."""
    revision: str | None = None
    sha256: str | None = None
    note: str | None = None
    """What a reader must know, e.g. that the weights were dequantised from a 4-bit file."""
    config_json: str | None = None
    """The model's own config as JSON: what the closed forms are computed from."""


class DeviceFacts(Frozen):
    """One accelerator, or the host's CPU when it is the device."""

    kind: Literal["cuda", "rocm", "cpu", "mps", "fake"]
    name: str
    index: int | None = None
    uuid: str | None = None
    """`GPU-…` or `MIG-…` as the driver prints it; how meters find the card."""
    pci_bus_id: str | None = None
    memory_bytes: int | None = None
    free_memory_bytes: int | None = None
    cache_bytes: int | None = None
    """The last cache before memory (L2 of a GPU, L3 of a CPU): what fits in it is not read from memory."""
    is_mig: bool | None = None
    compute_capability: str | None = None
    """`9.0` on NVIDIA, `gfx942` on AMD."""
    multiprocessors: int | None = None
    driver_version: str | None = None
    runtime_version: str | None = None
    """CUDA or HIP version that torch was built for."""
    power_limit_w: float | None = None
    persistence_mode: bool | None = None
    ecc_enabled: bool | None = None
    max_sm_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    foreign_processes: int | None = None
    """Other processes on the card when the run began; None where they cannot be seen (containers)."""
    foreign_note: str | None = None


class HostFacts(Frozen):
    """The machine around the device."""

    hostname_sha256: str
    """First 12 hex digits, so that runs of one host can be joined without naming it."""
    cpu_name: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    """After affinity and cgroup quota."""
    memory_bytes: int
    memory_limit_bytes: int | None
    """The cgroup's limit, None without one."""
    os_name: str
    kernel: str
    python: str
    virtualisation: str | None = None
    """`container`, `kvm`, `wsl2` …; None when nothing was found."""
    container: str | None = None
    scheduler: str | None = None
    """`slurm job 123` …"""
    on_battery: bool | None = None
    cpu_governor: str | None = None
    notes: tuple[str, ...] = ()


class EngineFacts(Frozen):
    """The software that made the tokens, as it really ran."""

    kind: str
    mode: str
    versions: dict[str, str]
    """Package name to version."""
    dtype: str
    kv_dtype: str | None = None
    attention_kernel: str | None = None
    experts_kernel: str | None = None
    stamped_by: Literal["host", "device_event", "kernel_rx", "script"] = "host"
    threads: int | None = None
    graphs_compiled: int | None = None
    cuda_graphs: bool | None = None
    environment: dict[str, str] = {}
    """The few environment variables that change speed (OMP_*, PYTORCH_*)."""
    notes: tuple[str, ...] = ()
    """What a reader must know of how it ran, e.g. why there is no device graph."""


CeilingKind = Literal["read_sum", "read_mv", "copy", "matmul"]


class CeilingRate(Frozen):
    """One rate measured on the device: the fastest of several passes, and the median pass."""

    kind: CeilingKind
    dtype: str
    """Of the data that was read, copied or multiplied."""
    per_s: float
    """Of the fastest pass, in bytes/s (a copy's are read and written) or, for `matmul`, in FLOP/s."""
    median_per_s: float
    passes: int
    buffer_bytes: int
    """Of the one buffer that was read, or of the three matrices."""


class CeilingFacts(Frozen):
    """Rates measured on the device in this run; the roofline's two walls."""

    read_bytes_per_s: float | None
    """The best of the read and copy rates; on a CPU of the read rates alone."""
    matmul_flops_per_s: float | None
    """In the type that weights of `dtype` are multiplied in."""
    dtype: str
    """Of the cells that the rates were measured for."""
    buffer_bytes: int
    repetitions: int
    """The fewest passes behind any rate."""
    method: str
    rates: tuple[CeilingRate, ...] = ()
    """Every rate by itself; empty in records of before there were such."""
    left_out: tuple[str, ...] = ()
    """What could not be measured, and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """Under what a number was had. Borne by measured cells, published figures and claims alike; None = not stated."""

    model: str | None = None
    weights: str | None = None
    """pretrained | random | replay | scripted"""
    precision: str | None = None
    """bf16, fp16, fp32, fp8, int8, int4, mxfp4"""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    context_tokens: int | None = None
    concurrency: int | None = None
    static_batch: int | None = None
    speculation: str | None = None
    """none, or the method"""
    engine: str | None = None
    mode: str | None = None
    attention_kernel: str | None = None
    experts_kernel: str | None = None
    hardware: str | None = None
    device_count: int | None = None
    devices_per_stream: int | None = None
    measured_by: str | None = None
    as_of: str | None = None
    """ISO date, possibly only the year or the month"""


class Agreement(enum.Enum):
    """How one condition of ours stands to the same condition of theirs."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class Difference(NamedTuple):
    """One field of two conditions set side by side."""

    field: str
    ours: str | int | None
    theirs: str | int | None
    agreement: Agreement


def differences(ours: Conditions, theirs: Conditions) -> tuple[Difference, ...]:
    """Set every field of two conditions side by side; a field that either leaves unstated is unknown."""
    rows = []
    for field in dataclasses.fields(Conditions):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if mine is None or other is None:
            agreement = Agreement.UNKNOWN
        else:
            agreement = Agreement.SAME if mine == other else Agreement.DIFFERENT
        rows.append(Difference(field.name, mine, other, agreement))
    return tuple(rows)
