"""Which attention kernel a decode step takes on a GPU: the fastest over the cell's own cache, before any window."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend

from tokbench.measure.engines.transformers import attention, graphs

CANDIDATES: dict[str, Callable[..., Any]] = {
    attention.PACKED: attention.packed_attention,
    attention.SPLIT: attention.split_attention,
}
PASSES = 5
Timer = Callable[[Callable[[], None]], float]


def take_fastest(model: Any, cache: Any, tokens: int, filled: int) -> tuple[str, ...]:
    """Let the model take the fastest of our kernels over a cell's own cache; what was found, for the record.

    `tokens`: of each row in one pass, a token with its drafts. Nothing where the model's kernel is none of them.
    """
    config = model.config
    if config._attn_implementation not in CANDIDATES:
        return ()
    queries = config.num_attention_heads // (config.num_key_value_heads or config.num_attention_heads)
    try:
        name, note = fastest_attention(cache, queries * tokens, filled, time_on_device)
    except torch.OutOfMemoryError:
        return ("attention kernels were not timed: no memory left for it",)
    if config._attn_implementation != name:
        model.set_attn_implementation(name)
    return (note,)


def fastest_attention(cache: Any, queries: int, filled: int, timer: Timer) -> tuple[str, str]:
    """Name of the fastest kernel over every layer of `cache`, and a note with all times.

    `queries`: query heads per key head; `filled`: tokens that are visible.
    Each is timed as a decode step runs it: layer after layer, so that no keys are still in a cache of the device. One
    that the device refuses for this cache is passed over, and said to be.

    Raises:
        RuntimeError: the device refuses all of them. torch.OutOfMemoryError: no memory is left for a trial.
    """
    times: dict[str, float] = {}
    said: list[str] = []
    refused: list[RuntimeError] = []
    for name, kernel in CANDIDATES.items():
        try:
            with graphs.out_of_memory_named():
                times[name] = timer(_over_layers(kernel, cache, queries, filled))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            refused.append(error)
            said.append(f"{name} refused ({graphs.first_line(error)})")
        else:
            said.append(f"{name} {times[name] * 1e6:.0f} us")
    if not times:
        raise refused[0]
    found = f"attention of all layers, timed alone: {', '.join(said)}"
    backend = fused_backend(cache, queries, filled)
    fused = "" if backend is None else f"; {attention.PACKED} is PyTorch's {backend}"
    return min(times, key=lambda name: times[name]), found + fused


def fused_backend(cache: Any, queries: int, filled: int) -> str | None:
    """Which of PyTorch's kernels its fused attention takes for a step; None where it does not tell.

    `math` would write all scores out; cudnn's made wrong tokens on a B200. Source: pytorch/pytorch issue 193893.
    """
    layer = next((layer for layer in cache.layers if getattr(layer, "is_initialized", False)), None)
    if layer is None:
        return None
    rows, key_heads, length, width = layer.keys.shape
    query = torch.zeros((rows, key_heads, queries, width), dtype=layer.keys.dtype, device=layer.keys.device)
    mask = (torch.arange(length, device=query.device) < filled).expand(rows, 1, 1, length)
    with contextlib.suppress(RuntimeError):
        choice = torch._fused_sdp_choice(query, layer.keys, layer.values, attn_mask=mask)
        return str(SDPBackend(choice).name).lower()
    return None


def _over_layers(kernel: Callable[..., Any], cache: Any, queries: int, filled: int) -> Callable[[], None]:
    layers: Sequence[Any] = [layer for layer in cache.layers if getattr(layer, "is_initialized", False)]
    compiled = torch.compile(kernel, fullgraph=True, dynamic=False)
    inputs = []
    for layer in layers:
        rows, key_heads, length, width = layer.keys.shape
        query = torch.randn(rows, key_heads * queries, 1, width, dtype=layer.keys.dtype, device=layer.keys.device)
        mask = (torch.arange(length, device=query.device) < filled).expand(rows, 1, 1, length)
        inputs.append((query, layer.keys, layer.values, mask))

    def run() -> None:
        for query, key, value, mask in inputs:
            compiled(None, query, key, value, mask)

    return run


def time_on_device(work: Callable[[], None]) -> float:
    """Seconds of the fastest of five replays of `work` as a captured graph, by device events."""
    graphs.warm_up(work, lambda: None)
    stream, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError:
        torch.cuda.set_stream(stream)  # a capture that cannot be ended leaves its own stream behind
        raise
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    found = []
    for _ in range(PASSES):
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) * 1e-3)
    graph.reset()
    return float(min(found))
