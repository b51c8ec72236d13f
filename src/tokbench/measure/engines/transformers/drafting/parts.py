"""The parts of a round, each alone in a row of passes: plain steps, drafts, verification. Derives no cost from them.

Drafts and verification are the prepared passes of the loop itself, compiled, captured or replayed as its rounds run
them; a plain step is that of a cell without drafts, made by the same loop of single tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from tokbench.measure.engines.transformers import kernels
from tokbench.measure.engines.transformers.loops import CompiledLoop, EagerLoop

if TYPE_CHECKING:
    from tokbench.measure.engines import CellWork
    from tokbench.measure.engines.transformers.drafting.loop import Seat


class Side(NamedTuple):
    """One loop behind a prompt, and the experts kernel that its passes need."""

    restart: Callable[[], None]
    """Back to just after the prefill."""
    experts: str | None


class Parts:
    """Passes of one prepared cell that can be run apart, each just after a prompt of the cell's length."""

    def __init__(self, model: object, plain: CompiledLoop | EagerLoop, drafting: Side) -> None:
        self._model, self._plain, self._drafting = model, plain, drafting

    def time(self, launch: Callable[[], None] | None, passes: int, sync: Callable[[], int]) -> float:
        """Seconds of so many passes in a row, the device idle at both ends; one ahead of them is not timed.

        `launch`: drafts or verification of the loop; None for plain steps.
        """
        side = Side(self._plain.restart, self._plain.experts.decode) if launch is None else self._drafting
        one = self._plain.step if launch is None else launch
        kernels.use_experts(self._model, side.experts)
        side.restart()
        one()  # brings back what the passes before pushed out of the caches
        begun = sync()
        for _ in range(passes):
            one()
        took_s = (sync() - begun) * 1e-9
        kernels.use_experts(self._model, self._drafting.experts)
        self._drafting.restart()
        return took_s

    def close(self) -> None:
        """Let go of the plain loop."""
        self._plain.close()


def open_parts(seat: Seat, work: CellWork, ids: torch.Tensor, drafting: Side) -> Parts:
    """A plain loop beside the drafting one, over the prompts that it begins with, (rows, prompt), as ready as a cell's.

    Its graph is that of the cell without drafts: where this process has compiled that one, nothing is compiled again.
    """
    bare = dataclasses.replace(work, speculation=None, draft=None)
    experts = kernels.choose_experts(seat.model, seat.request, work.rows)
    plain: CompiledLoop | EagerLoop
    if seat.request.engine.mode == "compiled":
        plain = CompiledLoop(seat.model, bare, experts, seat.weight_bytes, seat.options)
    else:
        plain = EagerLoop(seat.model, bare, experts, seat.options)
    kernel = seat.model.config._attn_implementation
    plain.prefill(ids)
    plain.compile()
    if seat.model.config._attn_implementation != kernel:  # on a GPU: the captured plain step keeps its own
        seat.model.set_attn_implementation(kernel)
    return Parts(seat.model, plain, drafting)
