"""Linear layers as one pass over their weights, for few rows on a CPU; and those weights in large pages.

Under torch.compile such a product is otherwise handed to a BLAS, whose matrix-vector product ran at a third of the rate
that the same memory is read with (docs/design/cpu-limit.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from tokbench.measure.engines.transformers.attention import settled
from tokbench.measure.engines.transformers.options import Options

STREAMED_TYPES = (torch.float32,)
HUGE_PAGE_BYTES = 1 << 21
LINE_BYTES = 64


STREAMED_ROWS = 16
"""As far as it was tried. Streamed and replayed, 8 rows took 42 to 44 ms a step, by the library's product 61 to 88 ms;
one of 16 rows 73 to 78 ms, by the library more than a second on cores that others used too (same page)."""


class StreamedLinear(torch.nn.Linear):
    """A linear layer that inductor writes as a loop over its weights where there are few rows."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input`: (…, in_features); more rows than STREAMED_ROWS go to the library's product."""
        rows = input.numel() // self.in_features
        if rows > STREAMED_ROWS:
            return torch.nn.functional.linear(input, self.weight, self.bias)
        # Outputs outermost: a row of weights stays in the core's cache while every row of the input is taken.
        found = (settled(input.reshape(1, rows, -1)) * self.weight[:, None, :]).sum(-1).t()
        if self.bias is not None:
            found = found + self.bias
        return found.reshape(*input.shape[:-1], self.out_features)


class LaidOut(NamedTuple):
    """How a model's weights lie on a CPU."""

    stretch: torch.Tensor | None
    """All of them side by side, as bytes; None where they are so few that nothing was moved."""
    streamed: int
    """Linear layers that are loops over their weights."""


class _Placed(NamedTuple):
    """A weight and where it is to lie."""

    weight: torch.nn.Parameter
    place: torch.Tensor


def lay_out(model: Any, mode: str, options: Options) -> LaidOut:
    """On a CPU: weights in large pages, and in the mode compiled linear layers as loops over them."""
    stretch = move_to_large_pages(model)
    if mode != "compiled" or options.compile_backend != "inductor" or not options.stream_weights:
        return LaidOut(stretch, 0)
    settle_rotations(model)
    return LaidOut(stretch, stream_linears(model))


def stream_linears(model: Any) -> int:
    """Give every plain float32 linear layer that forward; how many there are."""
    found = [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear
        and type(module.weight) is torch.nn.Parameter
        and module.weight.dtype in STREAMED_TYPES
    ]
    for module in found:
        module.__class__ = StreamedLinear
    return len(found)


def settle_rotations(model: Any) -> None:
    """Compute the rotations of a position once a step: inductor would work them out in every layer anew."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2].startswith("rotary_emb"):
            module.register_forward_hook(_settle_all)


def _settle_all(module: Any, inputs: Any, found: Any) -> Any:
    if not torch.compiler.is_compiling() or not isinstance(found, tuple):
        return found
    return tuple(settled(tensor) for tensor in found)


@torch.no_grad()
def move_to_large_pages(model: Any) -> torch.Tensor | None:
    """Copy weights side by side into one stretch of memory, which torch asks large pages for; the stretch, as bytes.

    None where the weights are so few that nothing was moved. Those that lie so already stay where they are.

    With THP_MEM_ALLOC_ENABLE=1 (the worker's environment) torch's allocator calls madvise from 2 MiB on. One by one,
    most matrices of a small model lie in small pages still, where the processor's prefetching ends every 4 KiB.
    The stretch fills as it is written, and what was copied is let go of: never twice the weights at once.
    Source: torch 2.13, c10/core/impl/alloc_cpu.cpp.
    """
    plain = _plain_weights(model)
    size = sum(map(_width, plain))
    if size < HUGE_PAGE_BYTES:
        return None
    whole = plain[0].untyped_storage()
    if whole.nbytes() == size and all(found.untyped_storage().data_ptr() == whole.data_ptr() for found in plain):
        return torch.empty(0, dtype=torch.uint8).set_(whole)
    stretch = torch.empty(size, dtype=torch.uint8)
    for parameter, place in _places(plain, stretch):
        parameter.data = place.copy_(parameter.data)
    return stretch


@torch.no_grad()
def allocate_in_large_pages(model: Any) -> None:
    """Give weights that are still to be drawn their places in one such stretch; nothing is copied, no page is touched.

    A page takes longer to get than to fill, on a virtual machine above all: weights that are drawn in one place and
    then moved to another pay for both.
    """
    plain = _plain_weights(model)
    size = sum(map(_width, plain))
    if size >= HUGE_PAGE_BYTES:
        for parameter, place in _places(plain, torch.empty(size, dtype=torch.uint8)):
            parameter.data = place


def _plain_weights(model: Any) -> list[torch.nn.Parameter]:
    return [found for found in model.parameters() if type(found) is torch.nn.Parameter and found.is_contiguous()]


def _width(weight: torch.Tensor) -> int:
    """Bytes of a weight in the stretch: whole lines of the cache."""
    return -(-weight.numel() * weight.element_size() // LINE_BYTES) * LINE_BYTES


def _places(weights: Iterable[torch.nn.Parameter], stretch: torch.Tensor) -> Iterator[_Placed]:
    """Each weight with its place in the stretch, of its type and shape."""
    at = 0
    for weight in weights:
        place = stretch[at : at + weight.numel() * weight.element_size()]
        yield _Placed(weight, place.view(weight.dtype).view(weight.shape))
        at += _width(weight)


def read_whole(stretch: torch.Tensor, passes: int) -> tuple[float, ...]:
    """Sum up a stretch of memory so many times: seconds of each pass. What the bits mean does not matter."""
    numbers = stretch.view(torch.float32)
    seconds = []
    for _ in range(passes):
        begun = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - begun)
    return tuple(seconds)
