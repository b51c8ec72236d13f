"""Measures what a device can do at best: reading and copying memory, multiplying matrices. Runs inside a worker.

It must run beside nothing: what else used the device meanwhile would lower the ceiling that every cell is held to.
Source of the method: shared/data/experiments.md, 0.1 (passes over a buffer beyond the caches, random data).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.measure import host
from tokbench.record.facts import CeilingFacts, CeilingKind, CeilingRate

CPU_BUFFER_BYTES = 1 << 29
GPU_BUFFER_BYTES = 1 << 32
MIN_GPU_BUFFER_BYTES = 1 << 29
MIN_CPU_BUFFER_BYTES = 1 << 26
"""A smaller buffer would be read out of a cache (50 MB of L2 on an H200)."""
COLUMNS = 8192
FIRST_SIDE = 256
CPU_SIDE = 2048
"""float32 on two Xeon cores, 2026-11-22: 77 GFLOP/s at 1536, 144 at 2048; a larger one only takes longer."""
GPU_SIDE = 8192
PRODUCT_DTYPES = ("float32", "bfloat16", "float16")
WARM_PASSES = 3
MIN_PASSES = 5
MAX_PASSES = 50
READS = 3
OWN_PARTS = 2
"""The time of the cell's own product beside that of one way to read or of another type's product."""


class _Passes(NamedTuple):
    """The timed passes of one piece of work."""

    fastest_s: float
    median_s: float
    passes: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Bench:
    """A device, and what runs a piece of work on it and gives its seconds."""

    torch: Any
    target: Any
    timed: Callable[[Callable[[], Any]], float]

    @property
    def is_cpu(self) -> bool:
        return bool(self.target.type == "cpu")


class _Share(NamedTuple):
    """Instants of `time.monotonic`: until when one piece of work may run, and may only to have its five passes."""

    end_s: float
    last_s: float


class _Budget:
    """What is left of the time, dealt out in parts: who needs less than its part leaves more for the rest."""

    def __init__(self, seconds: float, parts: int) -> None:
        self._last_s = time.monotonic() + seconds
        self._parts = parts

    def take(self, parts: int = 1) -> _Share:
        """The next `parts` parts; none where all time is spent."""
        now = time.monotonic()
        seconds = (self._last_s - now) * parts / self._parts
        self._parts -= parts
        return _Share(now + seconds, self._last_s)


def measure_ceilings(device: str, dtype: str, budget_s: float) -> CeilingFacts:
    """The best rates of a device within `budget_s` and at most one pass of each work beyond it.

    Reading: a sum, a matrix-vector product (decode's own access pattern) and a copy (bytes read and written); the
    ceiling is `best_reading`. Bytes have no type: a CPU reads them as float32, since one without bfloat16
    instructions would be measured at converting. Multiplying: in the type that weights of `dtype` are multiplied in,
    then in the other types that the device has and the time allows.
    """
    import torch  # only a worker has it

    target = torch.device(device)
    if target.type == "cuda" and target.index is not None:
        torch.cuda.set_device(target)  # events are recorded on the current device
    bench = _Bench(torch, target, _timer(torch, target))
    own = product_dtype(dtype, target.type)
    budget = _Budget(budget_s, parts=OWN_PARTS + READS + sum(name != own for name in PRODUCT_DTYPES))
    left_out: list[str] = []
    with torch.inference_mode():  # the own product first: on a busy host, filling the buffer takes seconds
        products = list(_product_rates(bench, [(own, budget.take(OWN_PARTS))], left_out))
        reads = list(_read_rates(bench, "float32" if bench.is_cpu else own, budget, left_out))
        others = ((name, budget.take()) for name in PRODUCT_DTYPES if name != own)
        products += _product_rates(bench, others, left_out)
    if target.type == "cuda":
        torch.cuda.empty_cache()
    rates = (*reads, *products)
    return CeilingFacts(
        read_bytes_per_s=best_reading(reads, bench.is_cpu),
        matmul_flops_per_s=next((rate.per_s for rate in products if rate.dtype == own), None),
        dtype=dtype,
        buffer_bytes=reads[0].buffer_bytes,
        repetitions=min(rate.passes for rate in rates),
        method=_say_method(target.type, reads, products, own),
        rates=rates,
        left_out=tuple(left_out),
    )


def best_reading(reads: Sequence[CeilingRate], is_cpu: bool) -> float:
    """The read ceiling in B/s: the best of all ways; on a CPU without the copy, whose stores go beside the loads.

    Source: docs/design/ceilings.md.
    """
    return max(rate.per_s for rate in reads if rate.kind != "copy" or not is_cpu)


def product_dtype(dtype: str, device_type: str) -> str:
    """The type that weights of `dtype` are multiplied in: those of less than 16 bits are unpacked first."""
    if dtype in PRODUCT_DTYPES:
        return dtype
    return "float32" if device_type == "cpu" else "bfloat16"


def _say_method(device_type: str, reads: Sequence[CeilingRate], products: Sequence[CeilingRate], own: str) -> str:
    names = {"read_sum": "sum", "read_mv": "matrix-vector product", "copy": "copy"}
    ceiling = best_reading(reads, device_type == "cpu")
    best = next(rate for rate in reads if rate.per_s == ceiling)
    first = reads[0]
    text = (
        f"read: fastest pass of {', '.join(names[rate.kind] for rate in reads)} over {first.buffer_bytes / 1e9:.2f} GB "
        f"of random {first.dtype}, best: {names[best.kind]}"
    )
    for rate in products:
        if rate.dtype == own:
            side = _side_of(rate)
            text += f"; multiply: fastest {side} x {side} product in {own}"
    return text + ("; timed by device events" if device_type == "cuda" else "")


def _side_of(rate: CeilingRate) -> int:
    """The side of the three square matrices of a product."""
    element = 4 if rate.dtype == "float32" else 2
    return round((rate.buffer_bytes / 3 / element) ** 0.5)


def _read_rates(bench: _Bench, dtype: str, budget: _Budget, left_out: list[str]) -> Iterator[CeilingRate]:
    """Sum, matrix-vector product and copy of one buffer; a copy only where a second buffer fits."""
    torch = bench.torch
    buffer = _buffer(bench, getattr(torch, dtype))
    size = int(buffer.numel() * buffer.element_size())
    vector = torch.randn(COLUMNS, device=bench.target, dtype=buffer.dtype)
    found = torch.empty(buffer.shape[0], device=bench.target, dtype=buffer.dtype)
    passes = _time_passes(bench.timed, buffer.sum, budget.take())
    yield _rate("read_sum", dtype, size, passes, size)
    passes = _time_passes(bench.timed, lambda: torch.mv(buffer, vector, out=found), budget.take())
    yield _rate("read_mv", dtype, size, passes, size)
    other = _second_buffer(bench, buffer)
    if other is None:
        left_out.append(f"copy: no second buffer of {size / 1e9:.2f} GB fits")
        return
    passes = _time_passes(bench.timed, lambda: other.copy_(buffer), budget.take())
    yield _rate("copy", dtype, 2 * size, passes, size)


def _product_rates(bench: _Bench, shares: Iterable[tuple[str, _Share]], left_out: list[str]) -> Iterator[CeilingRate]:
    """Products in each type within its share; one of fewer than five passes would be no ceiling, and is left out."""
    for dtype, share in shares:
        try:
            side, passes = _time_product(bench, getattr(bench.torch, dtype), share)
        except RuntimeError as error:  # torch raises it for a type that the device does not multiply, too
            left_out.append(f"matmul {dtype}: {str(error).splitlines()[0]}")
            continue
        if passes.passes < MIN_PASSES:
            left_out.append(f"matmul {dtype}: too slow for {MIN_PASSES} passes of {side} x {side} in the time left")
            continue
        yield _rate("matmul", dtype, 2 * side**3, passes, 3 * side**2 * getattr(bench.torch, dtype).itemsize)


def _rate(kind: CeilingKind, dtype: str, work: int, passes: _Passes, buffer_bytes: int) -> CeilingRate:
    return CeilingRate(
        kind=kind,
        dtype=dtype,
        per_s=work / passes.fastest_s,
        median_per_s=work / passes.median_s,
        passes=passes.passes,
        buffer_bytes=buffer_bytes,
    )


def _time_product(bench: _Bench, dtype: Any, share: _Share) -> tuple[int, _Passes]:
    """The side of the product, and its passes: as large as the device's side, where five of it fit the time.

    A CPU without instructions for a type multiplies it a hundred times slower (float16 on a Xeon, 2026-11-22:
    2 GFLOP/s), so the side grows from a small one. Twice the side is 8 times the operations at a rate that has
    doubled at most from one side to the next (the same Xeon, 256 to 2048): at least 4 times as long.
    """
    side = FIRST_SIDE
    while True:
        work = _product(bench, dtype, side)
        pass_s = min(bench.timed(work), bench.timed(work))
        left_s = share.end_s - time.monotonic()
        if side >= (CPU_SIDE if bench.is_cpu else GPU_SIDE) or (2 + MIN_PASSES) * 4 * pass_s > left_s:
            return side, _time_passes(bench.timed, work, share, warm_passes=1)
        side *= 2


def _product(bench: _Bench, dtype: Any, side: int) -> Callable[[], Any]:
    left = bench.torch.randn(side, side, device=bench.target, dtype=dtype)
    right = bench.torch.randn(side, side, device=bench.target, dtype=dtype)
    found = bench.torch.empty_like(left)
    return lambda: bench.torch.mm(left, right, out=found)


def _buffer(bench: _Bench, dtype: Any) -> Any:
    """Random numbers, (rows, 8192), as many as fit.

    Raises:
        torch.OutOfMemoryError, RuntimeError, MemoryError: not even a buffer beyond the caches fits.
    """
    size = CPU_BUFFER_BYTES if bench.is_cpu else GPU_BUFFER_BYTES
    smallest = MIN_CPU_BUFFER_BYTES if bench.is_cpu else MIN_GPU_BUFFER_BYTES
    fill = bench.torch.rand if bench.is_cpu else bench.torch.randn  # on a CPU, normal numbers take five times as long
    while True:
        rows = size // (COLUMNS * dtype.itemsize)
        try:
            _refuse_beyond_memory(bench, size)
            return fill(rows, COLUMNS, device=bench.target, dtype=dtype)
        except (RuntimeError, MemoryError):  # torch.OutOfMemoryError, and what mps and the CPU raise in its place
            if size // 2 < smallest:
                raise
            size //= 2


def _second_buffer(bench: _Bench, buffer: Any) -> Any | None:
    """Another buffer like the first, its pages touched; None where it does not fit."""
    try:
        _refuse_beyond_memory(bench, buffer.numel() * buffer.element_size())
        return bench.torch.empty_like(buffer).zero_()
    except (RuntimeError, MemoryError):
        return None


def _refuse_beyond_memory(bench: _Bench, size: int) -> None:
    """Leave half of a host's free memory alone: beyond its limit Linux does not refuse, it kills.

    Raises:
        MemoryError: `size` bytes are more than that.
    """
    if bench.is_cpu and 2 * size > host.free_memory_bytes(Path("/")):
        raise MemoryError(f"{size / 1e9:.2f} GB are more than half of the free memory")


def _time_passes(
    timed: Callable[[Callable[[], Any]], float], work: Callable[[], Any], share: _Share, warm_passes: int = WARM_PASSES
) -> _Passes:
    """Warm passes, then timed ones within the share, or within all time left until there are five.

    Without time for any the first pass is the only one.
    """
    warm_s = [timed(work)]
    while len(warm_s) < warm_passes and time.monotonic() + warm_s[-1] < share.end_s:
        warm_s.append(timed(work))
    seconds: list[float] = []
    while len(seconds) < MAX_PASSES:
        end_s = share.last_s if len(seconds) < MIN_PASSES else share.end_s
        if time.monotonic() + min(warm_s) >= end_s:
            break
        seconds.append(timed(work))
    seconds = seconds or [min(warm_s)]
    return _Passes(min(seconds), statistics.median(seconds), len(seconds))


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
