"""Capturing a step into a CUDA or HIP graph, and telling apart why that failed. Runs no model of its own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

WARMUP_LAUNCHES = 2


class Captured(NamedTuple):
    """A graph and its kernels, or why there is none."""

    graph: Any | None
    note: str | None
    kernels: int | None = None
    """Kernel nodes; None where the driver does not print the graph."""


def warm_up(launch: Callable[[], None], restart: Callable[[], None]) -> None:
    """Run a step on a side stream, as capture asks for: compile, load kernels, make workspaces."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP_LAUNCHES):
            restart()
            launch()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()


def capture(launch: Callable[[], None]) -> Captured:
    """Capture one launch; what the device refuses to capture becomes a note, anything else is raised."""
    stream = torch.cuda.current_stream()
    graph = torch.cuda.CUDAGraph()
    graph.enable_debug_mode()  # keeps the nodes until they are counted
    try:
        with torch.cuda.graph(graph):
            launch()
    except RuntimeError as error:  # torch names a refused capture by text alone; AcceleratorError is one too
        torch.cuda.set_stream(stream)  # a capture that cannot be ended leaves its own stream behind
        if is_out_of_memory(error) or not _is_refused_capture(error):
            raise
        torch.cuda.synchronize()
        return Captured(None, f"no device graph: {first_line(_root(error))}")
    return Captured(graph, None, count_kernels(graph))


def count_kernels(graph: Any) -> int | None:
    """Kernel nodes of a captured graph, from the driver's own print of it: no profiler comes near the device.

    Source: torch, CUDAGraph.debug_dump (cudaGraphDebugDotPrint, verbose: one record per node, its kind first).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.dot"
        with contextlib.suppress(RuntimeError, OSError):
            graph.debug_dump(str(path))
            return path.read_text(errors="replace").count("{KERNEL") or None
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def first_line(error: BaseException) -> str:
    """Type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out anywhere below: compilers and captures wrap the allocator's error in their own."""
    texts = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return any(
        isinstance(found, torch.OutOfMemoryError | MemoryError) or any(text in str(found).lower() for text in texts)
        for found in chain(error)
    )


@contextlib.contextmanager
def out_of_memory_named() -> Iterator[None]:
    """Give every error of exhausted memory the one type that the worker knows.

    Raises:
        torch.OutOfMemoryError: memory ran out, on whatever device and however wrapped.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise torch.OutOfMemoryError(first_line(_root(error))) from error
        raise


def _root(error: BaseException) -> BaseException:
    return list(chain(error))[-1]


def _is_refused_capture(error: BaseException) -> bool:
    return any("captur" in str(found).lower() for found in chain(error))
