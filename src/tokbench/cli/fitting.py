"""`tokbench fit`: whether a model fits on devices of the data files, what it would take, and how fast at the most."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from tokbench.arithmetic import BITS_PER_WEIGHT, PACKED, TERNARY
from tokbench.derive.fit import (
    Assessment,
    Demand,
    Fit,
    Target,
    assess,
    find_needs,
    name_device,
    supply_of,
)
from tokbench.derive.projection import PASS_TOKENS, Need
from tokbench.record.catalog import DeviceRow, ModelRow, find_model
from tokbench.units import BYTES, BYTES_PER_S, TOKENS_PER_S, format_number, format_value

ASSUMED = (
    "Assumed: weights, cache and work split evenly over the devices, and links that cost nothing (perfect scaling)",
    f"cache of 16 bits (32 with float32 weights); at most {PASS_TOKENS:,} tokens in one forward pass",
    "memory, bandwidth and rates as the datasheet states them; evenly routed experts",
    "a roofline is a ceiling, not a forecast",
)
TERNARY_NOTE = (
    f"{TERNARY}: {BITS_PER_WEIGHT[TERNARY]:.2f} bits, the least that weights of -1, 0 and 1 can take "
    "(BitNet b1.58, https://arxiv.org/abs/2402.17764, read 2026-11-22): hypothetical. A model has to be trained to "
    "such weights, and tokbench runs none."
)
HEADS = ("dtype", "weights", "KV cache", "activations", "needed", "answer")
NEED_HEADS = ("dtype", "read per step", "bandwidth", "devices to hold it", "devices for the speed")


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What `tokbench fit` is asked, beside the model."""

    device: str
    count: int
    dtypes: tuple[str, ...]
    demand: Demand
    target: Target | None = None


def show_fit(model: str, asked: Question, *, as_json: bool) -> None:
    """Print the answer with its sources.

    Raises:
        SpecError: the model, the device or a dtype is not known, the nearest are named; or a target is out of range.
    """
    model_row, device_row = find_model(model), name_device(asked.device)
    assessment = assess(model_row.shape, supply_of(device_row, asked.count), asked.demand, asked.dtypes)
    needs = {} if asked.target is None else find_needs(assessment, asked.target)
    if as_json:
        answer = _plain(assessment, model_row, device_row) | {"target": _plain_target(asked.target, needs)}
        typer.echo(json.dumps(answer, indent=2))
        return
    lines = _lines(assessment)
    if asked.target is not None:
        lines += _say_target(assessment, asked.target, needs)
    for line in lines:
        typer.echo(line)
    typer.echo("Sources:")
    for row in (model_row, device_row):
        typer.echo(f"  {_say_source(row)}")


def _lines(found: Assessment) -> list[str]:
    supply, demand = found.supply, found.demand
    users = "1 user" if demand.users == 1 else f"{demand.users:,} users"
    parts = [f"{_say_billions(found.parameters)} parameters"]
    if found.shape.experts is not None:
        parts.append(f"{_say_billions(found.read_parameters)} of them read per token")
    parts.append(f"{format_value(supply.memory_bytes, BYTES)} of memory by datasheet")
    parts.append(f"{users} at {demand.context_tokens:,} tokens of context")
    table = _aligned([HEADS, *(_fields(fit, supply.count) for fit in found.fits)])
    device = supply.row.name if supply.count == 1 else f"{supply.count} x {supply.row.name}"
    room = [] if all(fit.is_fitting for fit in found.fits) else [_say_room(found), ""]
    notes = [f"{'; '.join(ASSUMED)}.", *_say_quantised(found.fits)]
    return [f"{found.shape.name} on {device}", f"  {', '.join(parts)}", "", *table, "", *room, *notes]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    last = len(rows[0]) - 1
    widths = [max(len(row[column]) for row in rows) for column in range(last)]
    return ["  ".join([*map(str.ljust, row, widths), row[last]]) for row in rows]


def _say_target(found: Assessment, target: Target, needs: Mapping[str, Need]) -> list[str]:
    """What the speed takes, by bandwidth alone; projected, and a floor where the shares are 1."""
    rate = found.supply.row.memory_bandwidth_gbps
    bandwidth = "unknown" if rate is None else format_value(rate * 1e9, BYTES_PER_S)
    speed = f"{target.tokens_per_s:,.10g} {TOKENS_PER_S.symbol}"
    shares = f"{100 * target.bandwidth_used_ratio:g} % of the datasheet's {bandwidth}"
    head = f"Projected, not measured: {speed} for each user, with {shares} used and a scaling efficiency of "
    rows = [NEED_HEADS, *((dtype, *_need_fields(need)) for dtype, need in needs.items())]
    note = (
        "By bandwidth alone and without speculative decoding: operations and the latency of links are not counted. "
        "With all of the bandwidth used and a scaling efficiency of 1 it is a floor: fewer devices can never do."
    )
    return ["", f"{head}{target.scaling_efficiency:g}.", "", *_aligned(rows), "", note]


def _need_fields(need: Need) -> tuple[str, ...]:
    held = "unknown" if need.devices_for_memory is None else f"{need.devices_for_memory:,}"
    sizes = format_value(need.step_bytes, BYTES), format_value(need.bytes_per_s, BYTES_PER_S)
    return (*sizes, held, f"{need.devices_for_speed:,}")


def _plain_target(target: Target | None, needs: Mapping[str, Need]) -> dict[str, Any] | None:
    if target is None:
        return None
    rows = {dtype: dataclasses.asdict(need) for dtype, need in needs.items()}
    return dataclasses.asdict(target) | {"is_projected": True, "needs": rows}


def _fields(fit: Fit, count: int) -> tuple[str, ...]:
    sizes = (fit.weight_bytes, fit.kv_bytes, fit.activation_bytes, fit.needed_bytes)
    return (fit.dtype, *(format_value(size, BYTES) for size in sizes), _say_answer(fit, count))


def _say_answer(fit: Fit, count: int) -> str:
    if not fit.is_fitting:
        takes = f"{fit.devices_needed:,} devices would hold it"
        return f"does not fit, {format_value(-fit.spare_bytes, BYTES)} too many; {takes}"
    answer = f"fits, {format_value(fit.spare_bytes, BYTES)} to spare"
    if fit.devices_needed < count:
        answer += f"; {fit.devices_needed:,} would do"
    rate = fit.roofline_decode_tokens_per_s
    if rate is None:
        return f"{answer}; no source states the bandwidth"
    return f"{answer}; at most {format_value(rate, TOKENS_PER_S)} per user"


def _say_room(found: Assessment) -> str:
    """How narrow the weights would have to be, and the narrowest that there is."""
    count = found.supply.count
    here = "this device" if count == 1 else f"these {count} devices"
    alone = f"{format_number(found.max_bits_per_weight_alone)} bits if the weights had all of the memory"
    if found.max_bits_per_weight is None:
        return f"Room on {here}: none, KV cache and activations alone need more ({alone})."
    known = [dtype for dtype in BITS_PER_WEIGHT if dtype != "mxfp4" or found.shape.experts is not None]
    narrowest = min(known, key=lambda dtype: BITS_PER_WEIGHT[dtype])
    bits = f"weights of at most {format_number(found.max_bits_per_weight)} bits each"
    least = f"the narrowest dtype that tokbench knows for it, {narrowest}, takes {BITS_PER_WEIGHT[narrowest]:.3g}"
    return f"Room on {here}: {bits} ({alone}); {least}."


def _say_quantised(fits: Sequence[Fit]) -> list[str]:
    names = [fit.dtype for fit in fits if fit.dtype in PACKED]
    meant = "linear layers and routed experts, with their scales; embeddings, norms and routers stay in bfloat16"
    said = [f"{', '.join(names)}: {meant}."] if names else []
    return [*said, TERNARY_NOTE] if TERNARY in names else said


def _say_billions(parameters: int) -> str:
    return f"{parameters / 1e9:,.4g} billion"


def _say_source(row: ModelRow | DeviceRow) -> str:
    if row.source_url is None:
        return f"{row.name}: no source, it stands in the data files for tests"
    return f"{row.name}: {row.source_url} (read {row.read_on})"


def _plain(found: Assessment, model: ModelRow, device: DeviceRow) -> dict[str, Any]:
    return {
        "model": {"name": model.name, "parameters": found.parameters, "read_parameters": found.read_parameters},
        "device": {"name": device.name, "count": found.supply.count, "memory_bytes": found.supply.memory_bytes},
        "demand": dataclasses.asdict(found.demand),
        "fits": [
            dataclasses.asdict(fit)
            | {"needed_bytes": fit.needed_bytes, "spare_bytes": fit.spare_bytes, "is_fitting": fit.is_fitting}
            for fit in found.fits
        ],
        "max_bits_per_weight": found.max_bits_per_weight,
        "max_bits_per_weight_alone": found.max_bits_per_weight_alone,
        "assumed": list(ASSUMED),
        "sources": [
            {"name": row.name, "url": row.source_url, "read_on": str(row.read_on) if row.read_on else None}
            for row in (model, device)
        ],
    }
