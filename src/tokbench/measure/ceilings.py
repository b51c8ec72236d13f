"""Measures what a device can do at best: reading memory and multiplying matrices. Runs inside a worker, beside nothing.

Source of the method: shared/data/experiments.md, 0.1 (read reduction over a buffer beyond the caches, random data).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tokbench.record.facts import CeilingFacts

CPU_BUFFER_BYTES = 1 << 29
GPU_BUFFER_BYTES = 1 << 32
CPU_MATRIX = 1536
GPU_MATRIX = 8192
MIN_PASSES = 5


def measure_ceilings(device: str, dtype: str, budget_s: float) -> CeilingFacts:
    """The best read rate and the best matrix-multiply rate of a device, each over at least five passes.

    Reading: the faster of a reduction over the buffer and a matrix-vector product with it (decode's own access
    pattern). The buffer is halved until it fits beside the weights.
    """
    import torch  # only a worker has it

    target = torch.device(device)
    torch_dtype = getattr(torch, dtype if hasattr(torch, dtype) else "bfloat16")
    size, read_s = _read_s(torch, target, torch_dtype, budget_s * 2 / 3)
    side = CPU_MATRIX if target.type == "cpu" else GPU_MATRIX
    product_s = _product_s(torch, target, torch_dtype, side, budget_s / 3)
    if target.type == "cuda":
        torch.cuda.empty_cache()
    return CeilingFacts(
        read_bytes_per_s=size / read_s,
        matmul_flops_per_s=2 * side**3 / product_s,
        dtype=dtype,
        buffer_bytes=size,
        repetitions=MIN_PASSES,
        method=(
            "read: fastest pass of a matrix-vector product"
            + (" or a sum" if target.type != "cpu" else "")
            + f" over {size / 1e9:.2f} GB of random data; multiply: fastest {side} x {side} product"
        ),
    )


def _read_s(torch: Any, target: Any, dtype: Any, budget_s: float) -> tuple[int, float]:
    """Bytes of the buffer, and seconds of the fastest pass over it."""
    buffer = _buffer(torch, target, dtype)
    size = buffer.numel() * buffer.element_size()
    vector = torch.randn(buffer.shape[1], device=target, dtype=dtype)
    fastest = _fastest_s(torch, target, lambda: torch.mv(buffer, vector), budget_s / 2)
    if target.type != "cpu":
        fastest = min(fastest, _fastest_s(torch, target, buffer.sum, budget_s / 2))
    return size, fastest


def _product_s(torch: Any, target: Any, dtype: Any, side: int, budget_s: float) -> float:
    left = torch.randn(side, side, device=target, dtype=dtype)
    right = torch.randn(side, side, device=target, dtype=dtype)
    return _fastest_s(torch, target, lambda: left @ right, budget_s)


def _buffer(torch: Any, target: Any, dtype: Any) -> Any:
    size = CPU_BUFFER_BYTES if target.type == "cpu" else GPU_BUFFER_BYTES
    columns = 8192
    while True:
        rows = size // (columns * torch.empty((), dtype=dtype).element_size())
        try:
            return torch.randn(rows, columns, device=target, dtype=dtype)
        except RuntimeError:
            if size < 1 << 26:
                raise
            size //= 2


def _fastest_s(torch: Any, target: Any, work: Callable[[], Any], budget_s: float) -> float:
    """Seconds of the fastest of several passes; the device is idle before and after each."""
    synchronise = _synchroniser(torch, target)
    work()
    synchronise()
    fastest = float("inf")
    passes = 0
    begun = time.monotonic()
    while passes < MIN_PASSES or (time.monotonic() - begun < budget_s and passes < 50):
        before = time.perf_counter_ns()
        work()
        synchronise()
        fastest = min(fastest, (time.perf_counter_ns() - before) * 1e-9)
        passes += 1
    return fastest


def _synchroniser(torch: Any, target: Any) -> Callable[[], None]:
    if target.type == "cuda":
        return lambda: torch.cuda.synchronize(target)
    if target.type == "mps":
        return torch.mps.synchronize
    return lambda: None
