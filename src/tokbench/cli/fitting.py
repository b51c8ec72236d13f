"""`tokbench fit`: whether a model fits on devices of the data files, what it would take, and how fast at the most."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import typer

from tokbench.arithmetic import BITS_PER_WEIGHT, QUANTISATIONS
from tokbench.derive.fit import PASS_TOKENS, Assessment, Demand, Fit, assess, name_device, supply_of
from tokbench.record.catalog import DeviceRow, ModelRow, find_model
from tokbench.units import BYTES, TOKENS_PER_S, format_number, format_value

ASSUMED = (
    "Assumed: weights, cache and work split evenly over the devices, and links that cost nothing (perfect scaling)",
    f"cache of 16 bits (32 with float32 weights); at most {PASS_TOKENS:,} tokens in one forward pass",
    "memory, bandwidth and rates as the datasheet states them; evenly routed experts",
    "a roofline is a ceiling, not a forecast",
)
HEADS = ("dtype", "weights", "KV cache", "activations", "needed", "answer")


def show_fit(model: str, device: str, count: int, dtypes: Sequence[str], demand: Demand, *, as_json: bool) -> None:
    """Print the answer with its sources.

    Raises:
        SpecError: the model, the device or a dtype is not known; the nearest are named.
    """
    model_row, device_row = find_model(model), name_device(device)
    assessment = assess(model_row.shape, supply_of(device_row, count), demand, dtypes)
    if as_json:
        typer.echo(json.dumps(_plain(assessment, model_row, device_row), indent=2))
        return
    for line in _lines(assessment):
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
    rows = [HEADS, *(_fields(fit, supply.count) for fit in found.fits)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS) - 1)]
    table = ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]
    device = supply.row.name if supply.count == 1 else f"{supply.count} x {supply.row.name}"
    room = [] if all(fit.is_fitting for fit in found.fits) else [_say_room(found), ""]
    notes = [f"{'; '.join(ASSUMED)}.", *_say_quantised(found.fits)]
    return [f"{found.shape.name} on {device}", f"  {', '.join(parts)}", "", *table, "", *room, *notes]


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
    names = [fit.dtype for fit in fits if fit.dtype in QUANTISATIONS]
    meant = "linear layers and routed experts, with their scales; embeddings, norms and routers stay in bfloat16"
    return [f"{', '.join(names)}: {meant}."] if names else []


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
