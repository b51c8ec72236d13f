"""How much memory a cell takes: weights, cache, peak."""

from __future__ import annotations

from tokbench.arithmetic import kv_cache_bytes
from tokbench.derive.cell_shape import shape_of_cell
from tokbench.derive.kv.ways import cache_dtype, has_expanded_cache
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.words import mark, t
from tokbench.units import BYTES, BYTES_PER_TOKEN, Better


@metric(BYTES, Better.LOWER, mark("Peak memory"), order=40, is_exact=True)
def peak_memory_bytes(context: CellContext) -> Values:
    """The most memory in use while the cell was prepared and run; where it ran out, the most until then.

    Formula: largest allocator_peak reading of the cell (GPU), else largest rss_peak reading of its trials.
    An rss_peak (CPU) is of the whole worker process, Python, torch and all weights included.

    The rss_peak of a preparation counts only where memory ran out in it, so that no trial has one.
    """
    cell = context.cell
    of_trials = [reading for trial in cell.trials for reading in trial.memory]
    for source in ("allocator_peak", "rss_peak", "script"):
        readings = of_trials if source == "rss_peak" and of_trials else [*cell.memory, *of_trials]
        found = [reading.value_bytes for reading in readings if reading.source == source]
        if found:
            return [float(max(found))]
    raise UndefinedError(t("no memory reading was taken"))


@metric(BYTES, Better.LOWER, mark("Steady memory"), order=43, is_exact=True)
def steady_memory_bytes(context: CellContext) -> Values:
    """Memory in use between the steps of a cell that is warm: weights, cache and what the engine keeps ready.

    Formula: largest allocator_steady reading of its finished trials (GPU), else largest rss_steady reading of them.
    An rss_steady (CPU) is of the whole worker process, Python and torch included.
    """
    readings = [reading for trial in context.cell.good_trials() for reading in trial.memory]
    for source in ("allocator_steady", "rss_steady", "script_steady"):
        found = [reading.value_bytes for reading in readings if reading.source == source]
        if found:
            return [float(max(found))]
    raise UndefinedError(t("no reading of the memory in use was taken"))


@metric(BYTES, Better.LOWER, mark("Weights"), order=41, is_exact=True)
def weight_bytes(context: CellContext) -> Values:
    """Bytes of the parameters as loaded, shared tensors once.

    Formula: sum of storage bytes over the loaded parameters.
    """
    model = context.cell.model
    if model is None or model.weight_bytes is None:
        raise UndefinedError(t("the engine does not tell the bytes of its weights"))
    return [float(model.weight_bytes)]


@metric(BYTES_PER_TOKEN, Better.LOWER, mark("KV cache per token"), order=42, is_exact=True)
def kv_bytes_per_token(context: CellContext) -> Values:
    """Bytes that one token of one sequence takes in the cache, all layers together, read off the cache object.

    Formula: kv_bytes_allocated / (cache_rows * static_batch). What stands against it is predicted_kv_bytes_per_token.
    """
    prepared = [p for p in context.cell.prepared if p.kv_bytes_allocated and p.cache_rows]
    if not prepared:
        raise UndefinedError(t("the engine allocates its cache as it grows, or does not show it"))
    load = context.cell.spec.load
    rows = load.static_batch if load.kind == "static_batch" else load.concurrency if load.kind == "closed" else None
    last = prepared[-1]
    if rows is None or last.kv_bytes_allocated is None or last.cache_rows is None:
        raise UndefinedError(t("the number of sequences is not fixed"))
    return [last.kv_bytes_allocated / (last.cache_rows * rows)]


@metric(BYTES_PER_TOKEN, Better.LOWER, mark("KV cache per token, by the formula"), order=42, is_exact=True)
def predicted_kv_bytes_per_token(context: CellContext) -> Values:
    """The same from the model's sizes alone: what the formulas of `tokbench fit` and the roofline count with.

    Formula: layers * 2 * kv_heads * head_dim * element; with latent attention (MLA) layers * (kv_lora_rank +
    qk_rope_head_dim) * element, or layers * heads * (qk_nope_head_dim + qk_rope_head_dim + v_head_dim) * element where
    the cell keeps it expanded. A window layer counts with its share of cache_rows. Source: arithmetic.kv_cache_bytes.
    """
    shape, cell, device = shape_of_cell(context), context.cell, context.run.device
    held = [prepared.cache_rows for prepared in cell.prepared if prepared.cache_rows]
    if not held:
        raise UndefinedError(t("the engine allocates its cache as it grows, or does not show it"))
    try:
        dtype = cache_dtype(cell, device.kind if device is not None else "unknown")
        return [kv_cache_bytes(shape, held[-1], dtype, has_expanded_cache(cell)) / held[-1]]
    except ValueError as error:
        raise UndefinedError(t("the bytes of a step cannot be counted: {fault}", fault=str(error))) from None


@metric(BYTES, Better.LOWER, mark("Prefill memory beyond the weights"), order=44, is_exact=True)
def prefill_extra_bytes(context: CellContext) -> Values:
    """The most memory that a prefill held besides the weights: cache, activations, scores and workspaces.

    Formula: largest allocator_peak of the finished trials - weight_bytes. A trial's peak counts from the moment its
    cache is emptied, and a prefill holds a whole prompt's activations where a decode step holds one token's; a cell
    whose prompt is no longer than its output is left out, and so is every CPU, whose peak is of the whole process.
    """
    cell = context.cell
    found = [r.value_bytes for trial in cell.good_trials() for r in trial.memory if r.source == "allocator_peak"]
    if not found:
        raise UndefinedError(t("no allocator was read: the peak of a whole process does not tell a prefill's memory"))
    if cell.model is None or cell.model.weight_bytes is None:
        raise UndefinedError(t("the engine does not tell the bytes of its weights"))
    prompt, output = cell.spec.workload.prompt_tokens, cell.spec.workload.output_tokens
    if prompt is None or prompt <= output:
        raise UndefinedError(t("the prompt is no longer than the output: a decode step may hold more than the prefill"))
    return [float(max(found) - cell.model.weight_bytes)]
