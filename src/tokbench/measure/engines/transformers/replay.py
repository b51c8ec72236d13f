"""The generated kernels of one step as a single call: to a CPU what a captured graph is to a GPU.

Between two kernels inductor's Python makes buffers and reads lists of arguments that the weights have just pushed out
of the caches. Static shapes make all of it the same at every step: the addresses of kernels and arguments are written
down once, the buffers are kept, and one C function calls the kernels in order.
"""

from __future__ import annotations

import ast
import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import BuiltinFunctionType, ModuleType
from typing import Any, NamedTuple

import torch

KERNEL = "kernel"
"""The symbol of a generated kernel. Source: torch 2.13, _inductor/codecache.py, `CppPythonBindingsCodeCache`."""
CHUNK_BYTES = 2 << 20
"""Memory is taken in pieces that torch asks large pages for (streamed.py)."""
LINE_BYTES = 64
HARMLESS = frozenset({"empty_strided_cpu", "reinterpret_tensor", "assert_size_stride", "assert_alignment", "clear"})
"""What a wrapper may call besides kernels: memory and views, which do not change from step to step."""


class NotReplayableError(Exception):
    """The wrapper does more than call kernels; the message says what."""


class _Call(NamedTuple):
    """One kernel and the addresses that it was called with; None for what is no tensor."""

    module: ModuleType
    name: str
    kernel: BuiltinFunctionType
    addresses: tuple[int | None, ...]


class _Arena:
    """Memory for a step's buffers, close together: a place that was given back is the next to be used, still cached."""

    def __init__(self) -> None:
        self._chunks: list[torch.Tensor] = []
        self._used = 0
        self._free: dict[int, list[torch.Tensor]] = {}

    def empty_strided(self, size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """In the place of inductor's own: uninitialised, its place free again when nobody holds it."""
        elements = 1 + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
        width = -(-elements * dtype.itemsize // LINE_BYTES) * LINE_BYTES
        place = self._free[width].pop() if self._free.get(width) else self._place(width)
        tensor = place.view(dtype).as_strided(size, stride)
        weakref.finalize(tensor, self._free.setdefault(width, []).append, place)
        return tensor

    def _place(self, width: int) -> torch.Tensor:
        if not self._chunks or self._used + width > self._chunks[-1].numel():
            self._chunks.append(torch.empty(max(width, CHUNK_BYTES), dtype=torch.uint8))
            self._used = 0
        self._used += width
        return self._chunks[-1][self._used - width : self._used]


class Replay:
    """All kernels of a step, in order, over the buffers that they were recorded with."""

    def __init__(self, calls: list[_Call], kept: object) -> None:
        addresses: list[int | None] = []
        self._libraries = []
        for call in calls:
            library = ctypes.CDLL(str(getattr(call.kernel.__self__, "__file__", "")))
            self._libraries.append(library)
            addresses.append(ctypes.cast(getattr(library, KERNEL), ctypes.c_void_p).value or 0)
            addresses += call.addresses
        self._kept = kept
        self._table = (ctypes.c_void_p * len(addresses))(*addresses)
        self._run = _load(_source([len(call.addresses) for call in calls]))
        self.kernels = len(calls)

    def __call__(self) -> None:
        """One step."""
        self._run(self._table)


def record(launch: Callable[[], object]) -> Replay:
    """Run a step once and write down which kernels it called.

    Raises:
        NotReplayableError: something else than kernels ran, or a kernel took something else than tensors.
    """
    calls: list[_Call] = []
    arena = _Arena()
    with _listening(calls, arena):
        launch()
    if not calls:
        raise NotReplayableError("no generated kernel was called")
    for module in {id(call.module): call.module for call in calls}.values():
        others = sorted(_called(module) - {call.name for call in calls} - HARMLESS)
        if others:
            raise NotReplayableError(f"between the kernels it calls {', '.join(others)}")
    if any(address is None for call in calls for address in call.addresses):
        raise NotReplayableError("a kernel takes a number that may change")
    return Replay(calls, (launch, arena))


@contextmanager
def _listening(calls: list[_Call], arena: _Arena) -> Iterator[None]:
    """Let every loaded kernel tell of its calls, and every loaded wrapper take its buffers from the arena."""
    from torch._inductor.codecache import PyCodeCache  # loads the compiler

    def told(module: ModuleType, name: str, kernel: BuiltinFunctionType) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            addresses = (a.data_ptr() if isinstance(a, torch.Tensor) else None for a in arguments)
            calls.append(_Call(module, name, kernel, tuple(addresses)))
            kernel(*arguments)

        return call

    def viewed(reinterpret: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def view(tensor: torch.Tensor, *arguments: Any) -> torch.Tensor:
            found = reinterpret(tensor, *arguments)
            weakref.finalize(found, id, tensor)  # its place stays taken as long as a view of it is held
            return found

        return view

    with ExitStack() as undo:
        for module in PyCodeCache.modules:
            for name, found in list(vars(module).items()):
                if isinstance(found, BuiltinFunctionType) and found.__name__ == KERNEL:
                    instead: Callable[..., Any] = told(module, name, found)
                elif name == "empty_strided_cpu":
                    instead = arena.empty_strided
                elif name == "reinterpret_tensor":
                    instead = viewed(found)
                else:
                    continue
                setattr(module, name, instead)
                undo.callback(setattr, module, name, found)
        yield


def _called(module: ModuleType) -> set[str]:
    """Names of all that a wrapper's `call` calls."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "call"]
    if not functions:
        raise NotReplayableError("its wrapper has no function `call`")
    found = [node.func for function in functions for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {
        node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
        for node in found
    }


def _source(counts: list[int]) -> str:
    """C++ that calls kernels with so many pointers each; the addresses are in a table, the source knows none."""
    lines, at = [], 0
    for count in counts:
        kinds = ", ".join(["void*"] * count)
        values = ", ".join(f"t[{at + 1 + n}]" for n in range(count))
        lines.append(f"  reinterpret_cast<void (*)({kinds})>(t[{at}])({values});")
        at += count + 1
    body = "\n".join(lines)
    return f'extern "C" void replay(void** t) {{\n{body}\n}}\n'


def _load(source: str) -> Callable[[Any], None]:
    from torch._inductor.codecache import CppCodeCache  # loads the compiler

    function: Callable[[Any], None] = CppCodeCache.load(source).replay
    function.argtypes, function.restype = [ctypes.c_void_p], None  # type: ignore[attr-defined]
    return function
