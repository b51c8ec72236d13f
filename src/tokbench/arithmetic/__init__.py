"""Closed forms of local inference: parameters, bytes, FLOPs, experts, roofline, speculation, memory.

It never measures, never reads a file, and knows no model by name: a model is the `ModelShape` that it is given.
"""

from tokbench.arithmetic.precision import (
    BITS_PER_WEIGHT,
    INT4_GROUP,
    QUANTISATIONS,
    Precision,
    bits_per_weight,
    expert_bytes,
    kv_dtype_of,
    lookup_bytes,
    precision_of,
    precision_on,
    weight_bytes,
)
from tokbench.arithmetic.shapes import (
    ExpertShape,
    LatentShape,
    ModelShape,
    ParameterCounts,
    count_parameters,
)
from tokbench.arithmetic.speculation import speculative_speedup, tokens_per_round
from tokbench.arithmetic.steps import (
    Ceilings,
    StepBytes,
    bytes_read_per_step,
    expected_distinct_experts,
    flops_per_token,
    kv_bytes_per_token,
    kv_cache_bytes,
    max_static_batch,
    measured_bytes_read_per_step,
    predicted_memory_bytes,
    roofline_decode_tokens_per_s,
    roofline_step_s,
)

__all__ = [
    "BITS_PER_WEIGHT",
    "INT4_GROUP",
    "QUANTISATIONS",
    "Ceilings",
    "ExpertShape",
    "LatentShape",
    "ModelShape",
    "ParameterCounts",
    "Precision",
    "StepBytes",
    "bits_per_weight",
    "bytes_read_per_step",
    "count_parameters",
    "expected_distinct_experts",
    "expert_bytes",
    "flops_per_token",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "kv_dtype_of",
    "lookup_bytes",
    "max_static_batch",
    "measured_bytes_read_per_step",
    "precision_of",
    "precision_on",
    "predicted_memory_bytes",
    "roofline_decode_tokens_per_s",
    "roofline_step_s",
    "speculative_speedup",
    "tokens_per_round",
    "weight_bytes",
]
