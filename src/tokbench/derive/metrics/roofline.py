"""How close to the hardware's limit: measured ceilings, and the share of them that a cell used."""

from __future__ import annotations

import json

from tokbench.arithmetic import Ceilings, ModelShape, bytes_read_per_step, flops_per_token, roofline_step_s
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


def is_routed(context: CellContext) -> bool:
    """Whether the cell's model is known to route tokens to experts: what a step reads then hangs on the routing."""
    try:
        return shape_of_cell(context).experts is not None
    except UndefinedError:
        return False


def _mean_context(context: CellContext) -> int:
    """Mean real context length of the decode window of a static batch."""
    spec = context.cell.spec
    prompt = spec.workload.prompt_tokens
    if prompt is None:
        raise UndefinedError("the prompt length is not fixed")
    return prompt + spec.workload.output_tokens // 2


def _rows(context: CellContext) -> int:
    load = context.cell.spec.load
    if load.kind != "static_batch":
        raise UndefinedError("requests come and go: bytes per step are not fixed")
    return load.static_batch


def step_bytes(context: CellContext) -> float:
    """Bytes that one decode step has to read, at the mean real context length of the decode window.

    Source: `arithmetic.bytes_read_per_step`; padding of a static cache is not counted.
    """
    rows, mean_context = _rows(context), _mean_context(context)
    dtype = context.cell.spec.model.dtype
    return float(bytes_read_per_step(shape_of_cell(context), dtype, rows, mean_context).total)


def step_flops(context: CellContext) -> float:
    """Floating-point operations of one decode step of the whole batch, at the same context length."""
    return _rows(context) * flops_per_token(shape_of_cell(context), _mean_context(context))


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
    """The decode speed of one stream if each step took no longer than the slower of its two measured ceilings.

    Formula: 1 / max(bytes read per step / read_bytes_per_s, rows * flops per token / matmul_flops_per_s); weights are
    read once, the KV cache at its mean real length. Without a matrix-multiply ceiling memory alone counts. With
    routed experts the expected distinct experts under uniform routing are counted: skewed routing reads less.
    """
    ceilings = Ceilings(_read_ceiling(context), _ceiling(context).matmul_flops_per_s)
    return [1 / roofline_step_s(step_bytes(context), step_flops(context), ceilings)]


@metric(RATIO, Better.HIGHER, "Bandwidth used (MBU)", order=5)
def bandwidth_used_ratio(context: CellContext) -> Values:
    """Share of the measured read ceiling that decode used.

    Formula: bytes read per step * decode_tokens_per_s / read_bytes_per_s; memory only, the compute wall is left out.
    With routed experts the expected distinct experts under uniform routing are counted: skewed routing reads less.
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
