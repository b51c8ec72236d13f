"""Which attention and experts kernels run, and which are named in the record. Chooses, never measures.

Experts kernels are transformers' own; attention kernels of ours are in `attention.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers import attention


class ExpertsChoice(NamedTuple):
    """Experts kernels of one cell; None in a dense model, or where the weights bring their own."""

    prefill: str | None
    decode: str | None


def choose_attention(model: Any, request: EngineRequest) -> None:
    """Put a kernel of ours in the place of `sdpa` in a compiled model, unless the config names one.

    On a CPU the one that inductor fuses; elsewhere the one that hands grouped keys to the fused kernel as they lie.
    """
    config = model.config
    if request.engine.attention is not None or request.engine.mode != "compiled":
        return
    if config._attn_implementation == "sdpa" and not getattr(config, "kv_lora_rank", None):
        model.set_attn_implementation(attention.INLINE if model.device.type == "cpu" else attention.PACKED)


def expert_count(config: Any) -> int | None:
    """Routed experts per layer; None in a dense model."""
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if count := getattr(config, name, None):
            return int(count)
    return None


def choose_experts(model: Any, request: EngineRequest, rows: int) -> ExpertsChoice:
    """Experts kernels for a static batch of `rows`.

    Prefill takes the library's own choice: `batched_mm` copies one expert per token and would not fit. Decode on an
    accelerator takes `batched_mm`, as transformers' `generate` does, while that copies no more experts than there are;
    and wherever `grouped_mm` would wait for the host, which no graph allows (compiled, other than bfloat16).
    Source: transformers 5.23, generation/utils.py `_optimize_model_for_decode`, integrations/moe.py
    `_can_use_grouped_mm`.

    Raises:
        PlugError: the kernel that was asked for is unknown, or cannot be compiled.
    """
    config = model.config
    experts = expert_count(config)
    if experts is None or request.model.dtype == "mxfp4":
        return ExpertsChoice(None, None)
    own = model.get_correct_experts_implementation(None)
    decode = request.engine.experts or _decode_kernel(model, request, rows, experts, own)
    if decode == "eager" and request.engine.mode == "compiled":
        raise PlugError(
            "the experts kernel `eager` loops over the experts that were hit and cannot be compiled",
            fix="engine.experts=grouped_mm or batched_mm, or engine.mode=eager",
        )
    try:
        model.get_correct_experts_implementation(decode)
    except (ValueError, ImportError) as error:
        raise PlugError(f"engine.experts: {decode!r} cannot be had: {error}", fix="grouped_mm, batched_mm") from None
    return ExpertsChoice(own if decode == "batched_mm" else decode, decode)


def _decode_kernel(model: Any, request: EngineRequest, rows: int, experts: int, own: str) -> str:
    if model.device.type == "cpu" or own != "grouped_mm":
        return "batched_mm" if own == "eager" and request.engine.mode == "compiled" else own
    if request.engine.mode == "compiled" and model.dtype != torch.bfloat16:
        return "batched_mm"
    return "batched_mm" if rows * model.config.num_experts_per_tok <= experts else own


def loops_over_experts(model: Any, mode: str, kernel: str | None) -> bool:
    """Whether an experts kernel is a loop in Python over the experts that were hit, which waits for their number.

    Source: transformers 5.23, integrations/moe.py, `_can_use_grouped_mm` and `_grouped_mm_fallback`.
    """
    if kernel == "eager":
        return True
    return kernel == "grouped_mm" and mode == "compiled" and model.dtype != torch.bfloat16


def use_experts(model: Any, kernel: str | None) -> None:
    """Let the next forward pass use an experts kernel; costs microseconds, unlike transformers' own walk."""
    if kernel is not None and model.config._experts_implementation != kernel:
        model.config._experts_implementation = kernel
