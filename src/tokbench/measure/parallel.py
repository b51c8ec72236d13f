"""One model over several devices, as far as a plan can tell: what may be split, and what each device then holds.

It touches no device and starts no process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tokbench.arithmetic import (
    ModelShape,
    Precision,
    count_parameters,
    kv_cache_bytes,
    kv_dtype_of,
    predicted_memory_bytes,
)
from tokbench.errors import PlugError
from tokbench.measure.engines import load_plug
from tokbench.record.spec import EngineSpec

NUMBERS = (
    ("num_attention_heads", "attention heads"),
    ("num_key_value_heads", "key-value heads"),
    ("moe_intermediate_size", "columns in an expert"),
)
"""Numbers of a model's config that have to be multiples of the number of devices."""


def check_engine(spec: EngineSpec, devices: int) -> None:
    """Refuse several devices for an engine or a mode that cannot split a model.

    Raises:
        PlugError: which modes can.
    """
    description = load_plug(spec.kind).DESCRIPTION
    if devices == 1 or spec.mode in description.parallel_modes:
        return
    modes = ", ".join(description.parallel_modes)
    raise PlugError(
        f"device: engine {spec.kind!r} in mode {spec.mode!r} cannot split a model over {devices} devices",
        fix=f"engine.mode: {modes}, or name one device" if modes else "name one device",
    )


def check_even(config: Mapping[str, object], devices: int) -> None:
    """Refuse a model that cannot be dealt out evenly.

    `config`: the model's own. Key-value heads that are written as a latent (MLA) are not split and not checked.

    Raises:
        PlugError: which number is no multiple of the number of devices.
    """
    nested = config.get("text_config")
    text = nested if isinstance(nested, Mapping) else config
    for key, words in NUMBERS:
        number = text.get(key)
        if key == "num_key_value_heads" and text.get("kv_lora_rank"):
            continue
        if isinstance(number, int) and number % devices:
            raise PlugError(
                f"the model has {number} {words} ({key}): they cannot be split evenly over {devices} devices",
                fix=f"use a number of devices that divides {number}",
            )


def memory_per_device_bytes(
    shape: ModelShape, precision: Precision, rows: int, cache_tokens: int, prefill_tokens: int, devices: int
) -> int:
    """Predict the peak memory of each of `devices` that hold a model together.

    Formula: (predicted_memory_bytes - copied) / devices + copied, where copied = norms, routers and MLA's attention
    + rows·(6·vocab + prefill·2·hidden·element + latent cache): what transformers' plans leave whole on every device.
    """
    whole = predicted_memory_bytes(shape, precision, rows, cache_tokens, prefill_tokens)
    if devices == 1:
        return whole
    element = 4 if kv_dtype_of(precision) == "float32" else 2
    cache = kv_cache_bytes(shape, cache_tokens, kv_dtype_of(precision)) if shape.mla else 0
    row = 6 * shape.vocab + prefill_tokens * 2 * shape.hidden * element + math.ceil(cache)
    copied = _copied_parameters(shape) * element + rows * row
    return math.ceil((whole - copied) / devices) + copied


def largest_static_batch(
    shape: ModelShape, precision: Precision, cache_tokens: int, memory_bytes: int, prefill_tokens: int, devices: int
) -> int:
    """Give the most rows that fit where each device has `memory_bytes`; 0 means that not even one row does."""
    one, two = (
        memory_per_device_bytes(shape, precision, rows, cache_tokens, prefill_tokens, devices) for rows in (1, 2)
    )
    return max(0, 1 + (memory_bytes - one) // (two - one))


def _copied_parameters(shape: ModelShape) -> int:
    """Norms and routers; and all of MLA's attention, which transformers 5.23 splits in no plan."""
    counts = count_parameters(shape)
    return counts.norms + counts.router + (counts.attention if shape.mla else 0)
