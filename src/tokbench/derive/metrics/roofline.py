"""How close to the hardware's limit: measured ceilings, and the share of them that a cell used."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench import arithmetic
from tokbench.arithmetic import Ceilings, ModelShape, flops_per_token, precision_on, roofline_step_s
from tokbench.derive.cell_shape import shape_of_cell
from tokbench.derive.kv.ways import has_expanded_cache
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import ceiling_beside, decode_rates, finished_trials, prefill_s
from tokbench.derive.words import mark, t
from tokbench.record.catalog import DeviceRow, find_device
from tokbench.record.facts import CeilingFacts
from tokbench.stats import percentile
from tokbench.units import BYTES_PER_S, BYTES_PER_STEP, FLOPS_PER_S, RATIO, TOKENS_PER_S, Better

CACHE_MULTIPLE = 4
"""Step over last cache, in bytes, to come from memory; at 2 one was 1.08. Source: shared/data/experiments.md, A.6."""
NOMINAL_TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""The key of peak_tflops in devices.yaml for a type that is multiplied in."""


def _devices(context: CellContext) -> int:
    """Devices whose ceilings add up: those that hold a model together; processes on one CPU share what it can do."""
    device, spec = context.run.device, context.cell.spec
    return 1 if device is not None and device.kind == "cpu" else spec.device_count


def _ceilings(context: CellContext) -> Sequence[CeilingFacts]:
    if not context.run.ceilings:
        raise UndefinedError(t("no ceiling was measured in this run"))
    return context.run.ceilings


def _read_ceiling(context: CellContext) -> float:
    known = [facts.read_bytes_per_s for facts in _ceilings(context) if facts.read_bytes_per_s is not None]
    if not known:
        raise UndefinedError(t("no read ceiling was measured in this run"))
    return max(known) * _devices(context)


def compute_dtype(context: CellContext) -> str:
    """The type that the cell's weights are multiplied in: quantised ones are unpacked first."""
    device, dtype = context.run.device, context.cell.spec.model.dtype
    if dtype == "gguf":
        raise UndefinedError(t("a GGUF is multiplied in block types of its own, for which no ceiling is measured"))
    return precision_on(dtype, device.kind if device is not None else "unknown").activations


def _matmul_ceiling(context: CellContext) -> float:
    """Of the ceilings measured for cells of this dtype, else of any product in the type that it is multiplied in."""
    ceilings, wanted = _ceilings(context), compute_dtype(context)
    own = [facts.matmul_flops_per_s for facts in ceilings if facts.dtype == context.cell.spec.model.dtype]
    rates = [rate for facts in ceilings for rate in facts.rates if rate.kind == "matmul" and rate.dtype == wanted]
    found = [rate for rate in own if rate is not None] or [rate.per_s for rate in rates]
    if not found:
        raise UndefinedError(t("no matrix-multiply ceiling of {dtype} was measured in this run", dtype=wanted))
    return max(found) * _devices(context)


def _datasheet(context: CellContext) -> DeviceRow:
    device = context.run.device
    row = find_device(device.name) if device is not None else None
    if row is None:
        name = device.name if device is not None else t("an unknown device")
        raise UndefinedError(t("devices.yaml has no datasheet of {device}", device=name))
    return row


def _nominal_bytes_per_s(context: CellContext) -> float:
    row = _datasheet(context)
    if row.memory_bandwidth_gbps is None:
        raise UndefinedError(t("no datasheet bandwidth for {device} in devices.yaml", device=row.name))
    return row.memory_bandwidth_gbps * 1e9 * _devices(context)


def _nominal_flops_per_s(context: CellContext) -> float:
    """Dense peak of the type that is multiplied in; no other type stands in for one that the row lacks."""
    row, key = _datasheet(context), NOMINAL_TYPES[compute_dtype(context)]
    teraflops = row.peak_tflops.model_dump()[key]
    if teraflops is None:
        raise UndefinedError(t("no dense {dtype} rate for {device} in devices.yaml", dtype=key, device=row.name))
    return float(teraflops) * 1e12 * _devices(context)


def _mean_context(context: CellContext) -> int:
    """Mean real context length of the decode window of a static batch."""
    spec = context.cell.spec
    prompt = spec.workload.prompt_tokens
    if prompt is None:
        raise UndefinedError(t("the prompt length is not fixed"))
    return prompt + spec.workload.output_tokens // 2


def _rows(context: CellContext) -> int:
    load = context.cell.spec.load
    if load.kind != "static_batch":
        raise UndefinedError(t("requests come and go: bytes per step are not fixed"))
    return load.static_batch


def _needs_steps(context: CellContext) -> None:
    """Refuse a cell with drafts: a pass of the target gives several tokens, and the drafts read memory too."""
    if context.cell.spec.speculation != "none":
        raise UndefinedError(t("with drafts the bytes of a token are not those of a step; see the cell without drafts"))


def step_bytes(context: CellContext) -> float:
    """Bytes that one decode step has to read, at the mean real context length of the decode window.

    Padding of a static cache is not counted. Source: `bytes_at_context`.
    """
    return bytes_at_context(context, _mean_context(context))


def memory_bytes_per_step(context: CellContext) -> float:
    """The same, for what is divided by a rate of the memory.

    Raises:
        UndefinedError: so few bytes that the device's cache may hold them.
    """
    size, device = step_bytes(context), context.run.device
    cache = device.cache_bytes if device is not None else None
    if cache is not None and size < CACHE_MULTIPLE * cache * _devices(context):
        raise UndefinedError(
            t(
                "a step reads {size:.0f} MB, less than {multiple} times the {cache:.0f} MB of the device's "
                "last cache: how much of it comes from memory is not known",
                size=size / 1e6,
                multiple=CACHE_MULTIPLE,
                cache=cache / 1e6,
            )
        )
    return size


def bytes_at_context(context: CellContext, context_tokens: int) -> float:
    """Bytes that one decode step of the batch has to read with so many tokens a row in the cache.

    Weights as really loaded where the record says so (`arithmetic.measured_bytes_read_per_step`), else by the closed
    form (`arithmetic.bytes_read_per_step`). Routed experts: the expected distinct ones under uniform routing.

    Raises:
        UndefinedError: the model's shape or the number of rows is not known.
    """
    rows, shape, model = _rows(context), shape_of_cell(context), context.cell.model
    device = context.run.device
    kv_dtype = context.cell.engine.kv_dtype if context.cell.engine is not None else None
    try:
        precision = precision_on(context.cell.spec.model.dtype, device.kind if device is not None else "unknown")
        form = (kv_dtype or precision.activations, has_expanded_cache(context.cell))
        kv = rows * arithmetic.kv_cache_bytes(shape, context_tokens, *form)
        if (
            model is not None
            and model.weight_bytes
            and model.lookup_bytes is not None
            and model.expert_bytes is not None
        ):
            loaded = (model.weight_bytes, model.lookup_bytes, model.expert_bytes)
            return arithmetic.measured_bytes_read_per_step(*loaded, _expert_share(shape, rows), kv).total
        return arithmetic.bytes_read_per_step(shape, precision, rows, context_tokens).weights + kv
    except ValueError as error:
        raise UndefinedError(t("the bytes of a step cannot be counted: {fault}", fault=str(error))) from None


def _expert_share(shape: ModelShape, rows: int) -> float | None:
    """Distinct experts expected in a layer over all of it; None in a dense model."""
    if shape.experts is None:
        return None
    experts = shape.experts.experts
    return arithmetic.expected_distinct_experts(experts, shape.experts.experts_per_token, rows) / experts


def step_flops(context: CellContext) -> float:
    """Floating-point operations of one decode step of the whole batch, at the same context length."""
    return _rows(context) * flops_per_token(shape_of_cell(context), _mean_context(context))


def prefill_flops(context: CellContext) -> float:
    """Floating-point operations of the prefill of the whole batch, the first output token included.

    Formula: rows * (sum of flops_per_token at context 1 ... prompt_tokens, less the head's 2 * vocab * hidden for all
    tokens but the last of each row: only that one's logits are had).
    """
    shape, prompt = shape_of_cell(context), context.cell.spec.workload.prompt_tokens
    if prompt is None:
        raise UndefinedError(t("the prompt length is not fixed"))
    # Piecewise linear in the context: a window layer's share stays the same once the window is full.
    window = prompt if shape.window_tokens is None else min(prompt, shape.window_tokens)
    flops = sum(
        (flops_per_token(shape, first) + flops_per_token(shape, last)) / 2 * (last - first + 1)
        for first, last in ((1, window), (window + 1, prompt))
        if first <= last
    )
    head = 2.0 * arithmetic.count_parameters(shape).input_embedding
    return _rows(context) * (flops - head * (prompt - 1))


def _prefill_rates(context: CellContext) -> list[float]:
    """FLOP/s of each repetition's prefill."""
    flops = prefill_flops(context)
    return [flops / prefill_s(trial) for trial in finished_trials(context.cell)]


@metric(BYTES_PER_S, Better.HIGHER, mark("Read ceiling"), order=60)
def read_bytes_per_s(context: CellContext) -> Values:
    """The best rate at which this device moved memory in this run.

    Formula: bytes / shortest time of one pass of a sum, a matrix-vector product or a copy (bytes read and written)
    over a buffer beyond the caches; the best of the three (a CPU's without the copy) and of all ceilings measured in
    the run. It is measured on one device; where several hold the model together, times their number.
    """
    return [_read_ceiling(context)]


@metric(FLOPS_PER_S, Better.HIGHER, mark("Matrix-multiply ceiling"), order=61)
def matmul_flops_per_s(context: CellContext) -> Values:
    """The best rate at which this device multiplied matrices of random data in this run.

    Formula: 2 n^3 / shortest time of one n x n product, in the type that the cell's weights are multiplied in. It is
    measured on one device; where several hold the model together, times their number.
    """
    return [_matmul_ceiling(context)]


@metric(TOKENS_PER_S, Better.HIGHER, mark("Roofline, decode per user"), order=62)
def roofline_decode_tokens_per_s(context: CellContext) -> Values:
    """The decode speed of one stream if each step took no longer than the slower of its two measured ceilings.

    Formula: 1 / max(bytes read per step / read_bytes_per_s, rows * flops per token / matmul_flops_per_s); weights are
    read once, the KV cache at its mean real length. Without a matrix-multiply ceiling memory alone counts. With
    routed experts the expected distinct experts under uniform routing are counted: skewed routing reads less.
    """
    _needs_steps(context)
    try:
        matmul: float | None = _matmul_ceiling(context)
    except UndefinedError:
        matmul = None
    ceilings = Ceilings(_read_ceiling(context), matmul)
    return [1 / roofline_step_s(step_bytes(context), step_flops(context), ceilings)]


@metric(BYTES_PER_STEP, Better.NEITHER, mark("Bytes read per step"), order=63, is_exact=True)
def bytes_read_per_step(context: CellContext) -> Values:
    """Bytes that one decode step of the batch has to read.

    Formula: weights as loaded, without an untied input embedding and unselected experts + rows * KV cache at its mean
    real length (prompt_tokens + output_tokens // 2). With routed experts the expected distinct experts under uniform
    routing are counted: skewed routing reads less. Activations and cache writes are left out.
    """
    return [step_bytes(context)]


@metric(BYTES_PER_STEP, Better.NEITHER, mark("Bytes read per step, padding included"), order=64, is_exact=True)
def bytes_read_per_step_allocated(context: CellContext) -> Values:
    """Bytes that one decode step reads where a static cache is read as it was allocated, padding included.

    Formula: bytes_read_per_step with the KV cache at cache_rows in place of its real length.
    """
    held = [prepared.cache_rows for prepared in context.cell.prepared if prepared.cache_rows is not None]
    if not held or held[-1] <= _mean_context(context):
        raise UndefinedError(
            t("no padding of a cache is read: it grows with the context, or the engine does not show it")
        )
    return [bytes_at_context(context, held[-1])]


@metric(RATIO, Better.HIGHER, mark("Bandwidth used (MBU)"), order=5)
def bandwidth_used_ratio(context: CellContext) -> Values:
    """Share of the measured read ceiling that decode used.

    Formula: bytes read per step * decode_tokens_per_s / ceiling; memory only, the compute wall is left out. The ceiling
    is what the memory gave beside that very repetition where it was read there (CPUs: geometric mean of the fastest
    pass before and the fastest after), else read_bytes_per_s. With routed experts the expected distinct experts under
    uniform routing are counted: skewed routing reads less. Above 1 the count of bytes or the ceiling is wrong.
    """
    _needs_steps(context)
    size, rates = memory_bytes_per_step(context), decode_rates(context.cell)
    ceilings = [ceiling_beside(trial) or _read_ceiling(context) for trial in finished_trials(context.cell)]
    return [rate * size / ceiling for rate, ceiling in zip(rates, ceilings, strict=True)]


@metric(RATIO, Better.HIGHER, mark("Bandwidth used by the median step"), order=9)
def bandwidth_used_p50_ratio(context: CellContext) -> Values:
    """Share of that ceiling that the median step of decode used: a few interrupted steps do not count here.

    Formula: bytes read per step / itl_p50_s / the ceiling of bandwidth_used_ratio.
    """
    _needs_steps(context)
    size = memory_bytes_per_step(context)
    ceilings = [ceiling_beside(trial) or _read_ceiling(context) for trial in finished_trials(context.cell)]
    return [size / percentile(gaps, 50) / rate for gaps, rate in zip(context.gaps_s, ceilings, strict=True)]


@metric(RATIO, Better.HIGHER, mark("Bandwidth used, datasheet"), order=6)
def nominal_bandwidth_used_ratio(context: CellContext) -> Values:
    """Share of the datasheet's memory bandwidth that decode used.

    Formula: bytes read per step * decode_tokens_per_s / memory bandwidth of the device's row in devices.yaml.
    """
    _needs_steps(context)
    ceiling, size = _nominal_bytes_per_s(context), memory_bytes_per_step(context)
    return [rate * size / ceiling for rate in decode_rates(context.cell)]


@metric(RATIO, Better.HIGHER, mark("FLOPs used in decode (MFU)"), order=7)
def flops_used_ratio(context: CellContext) -> Values:
    """Share of the measured matrix-multiply ceiling that decode used.

    Formula: rows * flops per token at the mean real context * decode_tokens_per_s / matmul_flops_per_s; attention is
    counted, softmax and rope are not. Above 1 the count or the ceiling is wrong.
    """
    ceiling, flops = _matmul_ceiling(context), step_flops(context)
    return [rate * flops / ceiling for rate in decode_rates(context.cell)]


@metric(RATIO, Better.HIGHER, mark("FLOPs used in decode, datasheet"), order=8)
def nominal_flops_used_ratio(context: CellContext) -> Values:
    """Share of the datasheet's dense peak that decode used.

    Formula: rows * flops per token * decode_tokens_per_s / peak_tflops of the device's row in devices.yaml, in the
    type that the cell's weights are multiplied in.
    """
    ceiling, flops = _nominal_flops_per_s(context), step_flops(context)
    return [rate * flops / ceiling for rate in decode_rates(context.cell)]


@metric(RATIO, Better.HIGHER, mark("FLOPs used in prefill (MFU)"), order=13)
def prefill_flops_used_ratio(context: CellContext) -> Values:
    """Share of the measured matrix-multiply ceiling that prefill used.

    Formula: rows * (sum of flops per token at context 1 ... prompt_tokens, with the head once a row) / prefill_s /
    matmul_flops_per_s; causal attention is counted, softmax and rope are not. Above 1 the count or the ceiling is
    wrong.
    """
    ceiling = _matmul_ceiling(context)
    return [rate / ceiling for rate in _prefill_rates(context)]


@metric(RATIO, Better.HIGHER, mark("FLOPs used in prefill, datasheet"), order=14)
def nominal_prefill_flops_used_ratio(context: CellContext) -> Values:
    """Share of the datasheet's dense peak that prefill used.

    Formula: the operations of prefill_flops_used_ratio / prefill_s / peak_tflops of the device's row in devices.yaml,
    in the type that the cell's weights are multiplied in.
    """
    ceiling = _nominal_flops_per_s(context)
    return [rate / ceiling for rate in _prefill_rates(context)]
