"""How close to the hardware's limit: measured ceilings, and the share of them that a cell used."""

from __future__ import annotations

import json

from tokbench.arithmetic import ModelShape, bytes_read_per_step
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import decode_rates
from tokbench.errors import TokbenchError
from tokbench.record.catalog import find_device, shape_from_config
from tokbench.record.facts import CeilingFacts
from tokbench.units import BYTES_PER_S, FLOPS_PER_S, RATIO, TOKENS_PER_S, Better


def _ceiling(context: CellContext) -> CeilingFacts:
    if not context.run.ceilings:
        raise UndefinedError("no ceiling was measured in this run")
    dtype = context.cell.spec.model.dtype
    return next((c for c in context.run.ceilings if c.dtype == dtype), context.run.ceilings[0])


def _read_ceiling(context: CellContext) -> float:
    value = _ceiling(context).read_bytes_per_s
    if value is None:
        raise UndefinedError("no read ceiling was measured in this run")
    return value


def shape_of_cell(context: CellContext) -> ModelShape:
    """The closed forms' view of the cell's model.

    Raises:
        UndefinedError: the record does not hold the model's config.
    """
    model = context.cell.model
    if model is None or model.config_json is None:
        raise UndefinedError("the record does not hold the model's config")
    try:
        return shape_from_config(json.loads(model.config_json), model.name)
    except TokbenchError as error:
        raise UndefinedError(f"the model's shape is not known: {error.message}") from None


def step_bytes(context: CellContext) -> float:
    """Bytes that one decode step has to read, at the mean real context length of the decode window.

    Source: `arithmetic.bytes_read_per_step`; padding of a static cache is not counted.
    """
    spec = context.cell.spec
    if spec.load.kind != "static_batch":
        raise UndefinedError("requests come and go: bytes per step are not fixed")
    prompt = spec.workload.prompt_tokens
    if prompt is None:
        raise UndefinedError("the prompt length is not fixed")
    mean_context = prompt + spec.workload.output_tokens // 2
    kv_dtype = spec.model.dtype if spec.model.dtype in ("float32", "float16") else "bfloat16"
    sizes = bytes_read_per_step(
        shape_of_cell(context), spec.model.dtype, spec.load.static_batch, mean_context, kv_dtype
    )
    return float(sizes.total)


@metric(BYTES_PER_S, Better.HIGHER, "Read ceiling", order=60)
def read_bytes_per_s(context: CellContext) -> Values:
    """The best rate at which this device read memory in this run.

    Formula: buffer_bytes / shortest time of one pass of a reduction over a buffer beyond the caches.
    """
    return [_read_ceiling(context)]


@metric(FLOPS_PER_S, Better.HIGHER, "Matrix-multiply ceiling", order=61)
def matmul_flops_per_s(context: CellContext) -> Values:
    """The best rate at which this device multiplied matrices of random data in this run, in the cell's dtype.

    Formula: 2 n^3 / shortest time of one n x n product.
    """
    value = _ceiling(context).matmul_flops_per_s
    if value is None:
        raise UndefinedError("no matrix-multiply ceiling was measured in this run")
    return [value]


@metric(TOKENS_PER_S, Better.HIGHER, "Roofline, decode per user", order=62)
def roofline_decode_tokens_per_s(context: CellContext) -> Values:
    """The decode speed of one stream if memory were read at the measured ceiling and nothing else took time.

    Formula: read_bytes_per_s / bytes read per step (weights once, KV at mean real length).
    """
    return [_read_ceiling(context) / step_bytes(context)]


@metric(RATIO, Better.HIGHER, "Bandwidth used (MBU)", order=5)
def bandwidth_used_ratio(context: CellContext) -> Values:
    """Share of the measured read ceiling that decode used.

    Formula: bytes read per step * decode_tokens_per_s / read_bytes_per_s.
    Above 1 the count of bytes or the ceiling is wrong.
    """
    ceiling, size = _read_ceiling(context), step_bytes(context)
    return [rate * size / ceiling for rate in decode_rates(context.cell)]


@metric(RATIO, Better.HIGHER, "Bandwidth used, datasheet", order=6)
def nominal_bandwidth_used_ratio(context: CellContext) -> Values:
    """Share of the datasheet's memory bandwidth that decode used.

    Formula: bytes read per step * decode_tokens_per_s / memory bandwidth of the device's row in devices.yaml.
    """
    device = context.run.device
    row = find_device(device.name) if device is not None else None
    if row is None or row.memory_bandwidth_gbps is None:
        name = device.name if device is not None else "unknown device"
        raise UndefinedError(f"no datasheet bandwidth for {name} in devices.yaml")
    size = step_bytes(context)
    return [rate * size / (row.memory_bandwidth_gbps * 1e9) for rate in decode_rates(context.cell)]
