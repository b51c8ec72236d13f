"""Measures what a device can do at best: reading memory and multiplying matrices. Runs inside a worker, beside nothing.

Source of the method: shared/data/experiments.md, 0.1 (read reduction over a buffer beyond the caches, random data).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tokbench.record.facts import CeilingFacts

CPU_BUFFER_BYTES = 1 << 29
GPU_BUFFER_BYTES = 1 << 32
MIN_GPU_BUFFER_BYTES = 1 << 29
MIN_CPU_BUFFER_BYTES = 1 << 26
"""A smaller buffer would be read out of a cache (50 MB of L2 on an H200)."""
COLUMNS = 8192
CPU_MATRIX = 1536
GPU_MATRIX = 8192
MIN_PASSES = 5
MAX_PASSES = 50


class _Timed(NamedTuple):
    """The fastest of several passes."""

    seconds: float
    passes: int


def measure_ceilings(device: str, dtype: str, budget_s: float) -> CeilingFacts:
    """The best read rate and the best matrix-multiply rate of a device, each over at least five passes.

    Reading: the faster of a reduction over the buffer and a matrix-vector product with it (decode's own access
    pattern). Bytes have no type: a CPU reads them as float32, since one without bfloat16 instructions would be measured
    at converting. The buffer is halved until it fits beside the weights. Types that no product takes (mxfp4) are
    multiplied in bfloat16, as their kernels do.
    """
    import torch  # only a worker has it

    target = torch.device(device)
    if target.type == "cuda" and target.index is not None:
        torch.cuda.set_device(target)  # events are recorded on the current device
    product_dtype = getattr(torch, dtype if hasattr(torch, dtype) else "bfloat16")
    read_dtype = torch.float32 if target.type == "cpu" else product_dtype
    with torch.inference_mode():
        size, read = _time_reading(torch, target, read_dtype, budget_s * 2 / 3)
        side = CPU_MATRIX if target.type == "cpu" else GPU_MATRIX
        product = _time_product(torch, target, product_dtype, side, budget_s / 3)
    if target.type == "cuda":
        torch.cuda.empty_cache()
    return CeilingFacts(
        read_bytes_per_s=size / read.seconds,
        matmul_flops_per_s=2 * side**3 / product.seconds,
        dtype=dtype,
        buffer_bytes=size,
        repetitions=min(read.passes, product.passes),
        method=(
            "read: fastest pass of a matrix-vector product"
            + (" or a sum" if target.type != "cpu" else "")
            + f" over {size / 1e9:.2f} GB of random {_name(read_dtype)};"
            + f" multiply: fastest {side} x {side} product in {_name(product_dtype)}"
            + ("; timed by device events" if target.type == "cuda" else "")
        ),
    )


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _time_reading(torch: Any, target: Any, dtype: Any, budget_s: float) -> tuple[int, _Timed]:
    """Bytes of the buffer, and the fastest pass over it."""
    buffer = _buffer(torch, target, dtype)
    size = buffer.numel() * buffer.element_size()
    vector = torch.randn(COLUMNS, device=target, dtype=dtype)
    found = torch.empty(buffer.shape[0], device=target, dtype=dtype)
    timed = _time_passes(torch, target, lambda: torch.mv(buffer, vector, out=found), budget_s / 2)
    if target.type != "cpu":
        timed = min(timed, _time_passes(torch, target, buffer.sum, budget_s / 2))
    return size, timed


def _time_product(torch: Any, target: Any, dtype: Any, side: int, budget_s: float) -> _Timed:
    left = torch.randn(side, side, device=target, dtype=dtype)
    right = torch.randn(side, side, device=target, dtype=dtype)
    found = torch.empty_like(left)
    return _time_passes(torch, target, lambda: torch.mm(left, right, out=found), budget_s)


def _buffer(torch: Any, target: Any, dtype: Any) -> Any:
    """Random numbers, (rows, 8192), as many as fit.

    Raises:
        torch.OutOfMemoryError, RuntimeError: not even a buffer beyond the caches fits.
    """
    is_cpu = target.type == "cpu"
    size, smallest = (CPU_BUFFER_BYTES, MIN_CPU_BUFFER_BYTES) if is_cpu else (GPU_BUFFER_BYTES, MIN_GPU_BUFFER_BYTES)
    while True:
        rows = size // (COLUMNS * torch.empty((), dtype=dtype).element_size())
        try:
            return torch.randn(rows, COLUMNS, device=target, dtype=dtype)
        except RuntimeError:  # torch.OutOfMemoryError, and what mps and the CPU's allocator raise in its place
            if size // 2 < smallest:
                raise
            size //= 2


def _time_passes(torch: Any, target: Any, work: Callable[[], Any], budget_s: float) -> _Timed:
    """The fastest of at least five passes, more while the budget lasts."""
    timed = _timer(torch, target)
    timed(work)
    fastest = float("inf")
    passes = 0
    begun = time.monotonic()
    while passes < MIN_PASSES or (time.monotonic() - begun < budget_s and passes < MAX_PASSES):
        fastest = min(fastest, timed(work))
        passes += 1
    return _Timed(fastest, passes)


def _timer(torch: Any, target: Any) -> Callable[[Callable[[], Any]], float]:
    """What runs a piece of work and gives its seconds; on a GPU, whose passes last about 1 ms, by device events.

    There the work runs twice and the second time counts: launched while the first still runs, it starts at once.
    """
    if target.type == "cuda":
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def by_events(work: Callable[[], Any]) -> float:
            work()
            first.record()
            work()
            last.record()
            last.synchronize()
            return float(first.elapsed_time(last)) * 1e-3

        return by_events
    synchronise = torch.mps.synchronize if target.type == "mps" else lambda: None

    def by_host(work: Callable[[], Any]) -> float:
        before = time.perf_counter_ns()
        work()
        synchronise()
        return (time.perf_counter_ns() - before) * 1e-9

    return by_host
