"""What drafting needs of a device's memory beside the target: weights, caches and distributions. Arithmetic alone."""

from __future__ import annotations

from tokbench.arithmetic import (
    QUANTISATIONS,
    ModelShape,
    kv_cache_bytes,
    precision_on,
    predicted_memory_bytes,
    weight_bytes,
)
from tokbench.record.spec import CellSpec

SHARE_BYTES = 4
"""A probability in float32."""


def draft_memory_bytes(spec: CellSpec, target: ModelShape, draft: ModelShape | None, device_kind: str) -> int:
    """Bytes that the drafts of a static batch take; 0 where none are made, or no weights are drafted with.

    The plain steps that `round_parts` times beside the rounds count too: they have a cache of their own.

    `draft`: the shape of the model that drafts, None where the cell names none. A target quantised by itself shares all
    but its linear layers, which is not subtracted: the prediction is then too high by its embedding.

    Raises:
        ValueError: a dtype that is not known.
    """
    speculation, load, workload = spec.speculation, spec.load, spec.workload
    if speculation == "none" or load.kind != "static_batch" or workload.prompt_tokens is None:
        return 0
    rows, gamma = load.static_batch, speculation.gamma
    cache_tokens = workload.prompt_tokens + workload.output_tokens + gamma
    held = 0 if workload.temperature == 0 else SHARE_BYTES * rows * (3 * gamma + 2) * target.vocab
    held += _plain_cache_bytes(spec, target, rows, device_kind)
    if draft is not None and speculation.draft is not None:
        precision = precision_on(speculation.draft.dtype, device_kind)
        return held + predicted_memory_bytes(draft, precision, rows, cache_tokens, workload.prompt_tokens)
    dtype = speculation.options.get("dtype")
    if speculation.method == "self_quantised" and isinstance(dtype, str) and dtype in QUANTISATIONS:
        precision = precision_on(dtype, device_kind)
        cached = rows * kv_cache_bytes(target, cache_tokens, precision.activations)
        return held + weight_bytes(target, precision) + round(cached)
    return held


def _plain_cache_bytes(spec: CellSpec, target: ModelShape, rows: int, device_kind: str) -> int:
    if spec.experiment == "none" or spec.experiment.kind != "round_parts" or spec.workload.prompt_tokens is None:
        return 0
    cached = precision_on(spec.model.dtype, device_kind).activations
    return round(rows * kv_cache_bytes(target, spec.workload.prompt_tokens + spec.workload.output_tokens, cached))
