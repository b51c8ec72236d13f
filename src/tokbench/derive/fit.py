"""Whether a model fits on devices that need not be here: weights, cache and activations against the datasheet.

It measures nothing, and what it says of speed is a ceiling: no device and no link between devices ever reaches it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Sequence

from tokbench.arithmetic import (
    BITS_PER_WEIGHT,
    TERNARY,
    Ceilings,
    ModelShape,
    count_parameters,
    kv_cache_bytes,
    predicted_memory_bytes,
    roofline_decode_tokens_per_s,
    weight_bytes,
)
from tokbench.derive.projection import PASS_TOKENS, Basis, Load, Need, find_need
from tokbench.errors import SpecError
from tokbench.record.catalog import DeviceRow, find_device, load_devices
from tokbench.stats import exact

DENSE_DTYPES = ("bfloat16", "int8", "int4", TERNARY)
"""16, 8, 4 and 1.58 bits: the last is nobody's file of these models, and tells how far narrow weights could go."""
SPELLINGS = {
    **{"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "float8": "fp8"},
    **{"int4_g32": "int4", "1.58bit": TERNARY, "b1.58": TERNARY},
}
"""Other names that are understood beside those of `arithmetic.BITS_PER_WEIGHT`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """What the model has to serve: so many users at once, each with a full context."""

    users: int = 1
    context_tokens: int = 4096

    @property
    def pass_tokens(self) -> int:
        """Tokens of one user in one forward pass."""
        return max(1, min(self.context_tokens, PASS_TOKENS // self.users))


@dataclasses.dataclass(frozen=True, slots=True)
class Supply:
    """Some devices of one row, as their datasheet has them; a rate is None where the datasheet does not state it."""

    row: DeviceRow
    count: int
    memory_bytes: float
    """Of all devices. The datasheet's figure in full: the driver of a GPU reports about 7 % more, since its GB is a GiB
    (81,559 MiB on an H100 of 80 GB), and that remainder is left for context, workspaces and fragmentation."""
    read_bytes_per_s: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """One dtype of a model against the devices; bytes of all devices together."""

    dtype: str
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    memory_bytes: float
    devices_needed: int
    roofline_decode_tokens_per_s: float | None
    """Per user, by the datasheet and with perfect scaling; None where it does not fit or no bandwidth is stated."""

    @property
    def needed_bytes(self) -> int:
        """Everything that has to be held at once."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def spare_bytes(self) -> float:
        """What is left; negative where it does not fit."""
        return self.memory_bytes - self.needed_bytes

    @property
    def is_fitting(self) -> bool:
        """Whether the devices hold it."""
        return self.spare_bytes >= 0


@dataclasses.dataclass(frozen=True, slots=True)
class Assessment:
    """The answer for one model on some devices."""

    shape: ModelShape
    parameters: int
    read_parameters: int
    """Of one token: without experts that are not selected, and without an input embedding of its own."""
    demand: Demand
    supply: Supply
    fits: tuple[Fit, ...]
    max_bits_per_weight: float | None
    """The widest weights that leave room for cache and activations of 16 bits; None where these alone do not fit."""
    max_bits_per_weight_alone: float
    """The same if the weights had all of the memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A decode speed that every user shall have, and how well the devices are supposed to be used."""

    tokens_per_s: float
    bandwidth_used_ratio: float = 1.0
    """Share of the datasheet's bandwidth; all of it gives the fewest devices that could ever do."""
    scaling_efficiency: float = 1.0
    """Share of n times one device's bandwidth that n devices use together."""


def find_needs(found: Assessment, target: Target) -> dict[str, Need]:
    """By dtype of the assessment: bytes, bandwidth and devices that the target takes. Projected, never measured.

    Raises:
        SpecError: the target or a share is out of range, or no source states the device's bandwidth.
    """
    shares = {"--bandwidth-used": target.bandwidth_used_ratio, "--scaling-efficiency": target.scaling_efficiency}
    for key, share in shares.items():
        if not 0 < share <= 1:
            raise SpecError(f"a share is above 0 and at most 1, not {share:g}", key=key, fix=f"e.g. {key} 0.6")
    if not 0 < target.tokens_per_s < math.inf:
        message = f"a speed is above 0, not {target.tokens_per_s:g}"
        raise SpecError(message, key="--target-tokens-per-s", fix="e.g. --target-tokens-per-s 1500")
    supply = found.supply
    if supply.read_bytes_per_s is None:
        fix = "add it to data/devices.yaml, with its source"
        raise SpecError(f"no source states the memory bandwidth of {supply.row.name}", fix=fix)
    basis = Basis(
        used_ratio=exact(target.bandwidth_used_ratio, ""),
        read_bytes_per_s=supply.read_bytes_per_s / supply.count,
        memory_bytes=supply.memory_bytes / supply.count,
        matmul_flops_per_s=None,
    )
    load = Load(found.demand.users, found.demand.context_tokens)
    dtypes = [fit.dtype for fit in found.fits]
    scaling = target.scaling_efficiency
    return {name: find_need(found.shape, name, basis, target.tokens_per_s, scaling, load) for name in dtypes}


def assess(shape: ModelShape, supply: Supply, demand: Demand, dtypes: Sequence[str] = ()) -> Assessment:
    """Set a model against devices, once per dtype; none named means `default_dtypes`.

    Raises:
        SpecError: more context than the model has, no users, or a dtype that this model cannot be stored in.
    """
    if demand.users < 1 or demand.context_tokens < 1:
        raise SpecError("users and context must be at least 1", fix="e.g. --users 1 --context 4096")
    if demand.context_tokens > shape.max_context_tokens:
        message = f"{shape.name} has a context of {shape.max_context_tokens:,} tokens, not {demand.context_tokens:,}"
        raise SpecError(message, key="--context", fix=f"--context {shape.max_context_tokens} at most")
    names = [parse_dtype(dtype) for dtype in dtypes] or default_dtypes(shape)
    fits = tuple(_fit(shape, supply, demand, dtype) for dtype in dict.fromkeys(names))
    counts = count_parameters(shape)
    rest = sum(_cache_and_activations(shape, demand, "bfloat16"))
    room = supply.memory_bytes - rest
    return Assessment(
        shape=shape,
        parameters=counts.total,
        read_parameters=counts.read_per_token,
        demand=demand,
        supply=supply,
        fits=fits,
        max_bits_per_weight=8 * room / counts.total if room > 0 else None,
        max_bits_per_weight_alone=8 * supply.memory_bytes / counts.total,
    )


def default_dtypes(shape: ModelShape) -> list[str]:
    """The dtypes that are asked about most; `mxfp4` stores routed experts alone."""
    return [*DENSE_DTYPES, "mxfp4"] if shape.experts else list(DENSE_DTYPES)


def parse_dtype(text: str) -> str:
    """The name of a dtype from one of its spellings. Raises: SpecError with the nearest."""
    word = text.strip().lower()
    known = list(dict.fromkeys([*BITS_PER_WEIGHT, *SPELLINGS]))
    if word in known:
        return SPELLINGS.get(word, word)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SpecError(f"unknown dtype {text!r}", key="--dtype", fix=f"{hint}known: {', '.join(known)}")


def supply_of(row: DeviceRow, count: int) -> Supply:
    """So many devices of one row. Raises: SpecError where there are none, or the row states no memory."""
    if count < 1:
        raise SpecError(f"{count} devices hold nothing", key="--count", fix="--count 1")
    if row.memory_gb is None:
        raise SpecError(
            f"no source states the memory of {row.name}", fix="add it to data/devices.yaml, with its source"
        )
    bandwidth = None if row.memory_bandwidth_gbps is None else count * row.memory_bandwidth_gbps * 1e9
    return Supply(row, count, count * row.memory_gb * 1e9, bandwidth)


def name_device(name: str, rows: Sequence[DeviceRow] | None = None) -> DeviceRow:
    """The row that a user means, by a driver's name or by a part of one of its names (`RTX 4090`, `h100`).

    Raises:
        SpecError: no row or several are meant; the nearest are named.
    """
    rows = load_devices() if rows is None else rows
    found = find_device(name, rows)
    if found is not None:
        return found
    wanted = _words(name)
    meant = [row for row in rows if any(f" {wanted} " in f" {_words(known)} " for known in (row.name, *row.aliases))]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise SpecError(f"{name!r} may mean {len(meant)} devices", fix=f"name one: {_listed(meant)}")
    by_words = {_words(known): row for row in rows for known in (row.name, *row.aliases)}
    near = [by_words[match] for match in difflib.get_close_matches(wanted, by_words, n=8, cutoff=0.4)]
    fix = f"use one of: {_listed(near or rows)}; or add a row to data/devices.yaml"
    raise SpecError(f"unknown device {name!r}", fix=fix)


def _fit(shape: ModelShape, supply: Supply, demand: Demand, dtype: str) -> Fit:
    try:
        weights = weight_bytes(shape, dtype)
    except ValueError as error:
        raise SpecError(f"{shape.name}: {error}", key="--dtype", fix="leave --dtype out to see what there is") from None
    kv, activations = _cache_and_activations(shape, demand, dtype)
    needed = weights + kv + activations
    roofline = None
    if needed <= supply.memory_bytes and supply.read_bytes_per_s is not None:
        ceilings = Ceilings(supply.read_bytes_per_s, _flops_per_s(supply, dtype))
        roofline = roofline_decode_tokens_per_s(shape, dtype, demand.users, demand.context_tokens, ceilings)
    return Fit(
        dtype=dtype,
        weight_bytes=weights,
        kv_bytes=kv,
        activation_bytes=activations,
        memory_bytes=supply.memory_bytes,
        devices_needed=math.ceil(needed * supply.count / supply.memory_bytes),
        roofline_decode_tokens_per_s=roofline,
    )


def _cache_and_activations(shape: ModelShape, demand: Demand, dtype: str) -> tuple[int, int]:
    """Bytes of all users' caches, and of one forward pass: what `predicted_memory_bytes` adds to the weights."""
    kv_dtype = "float32" if dtype == "float32" else "bfloat16"
    kv = math.ceil(demand.users * kv_cache_bytes(shape, demand.context_tokens, kv_dtype))
    peak = predicted_memory_bytes(shape, dtype, demand.users, demand.context_tokens, demand.pass_tokens)
    return kv, max(0, peak - weight_bytes(shape, dtype) - kv)


def _flops_per_s(supply: Supply, dtype: str) -> float | None:
    """The fastest rate that a kernel for this width could use: narrow weights may be multiplied wider, never faster."""
    peak = supply.row.peak_tflops
    width = 4.0 if BITS_PER_WEIGHT[dtype] < 8 else BITS_PER_WEIGHT[dtype]
    rates = ((32, peak.fp32), (16, peak.fp16), (16, peak.bf16), (8, peak.fp8), (8, peak.int8), (4, peak.fp4))
    known = [rate for bits, rate in rates if bits >= width and rate is not None]
    return supply.count * max(known) * 1e12 if known else None


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9.]+", text.lower()))


def _listed(rows: Sequence[DeviceRow]) -> str:
    return ", ".join(dict.fromkeys(row.name for row in rows))
