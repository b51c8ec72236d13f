"""Which experts a step selects, counted outside every window: the same decode once more, eager, with hooks."""

from __future__ import annotations

from typing import Any

import torch

from tokbench.errors import TrialError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers.experts_drawn import draw_routing, list_experts
from tokbench.measure.engines.transformers.loops import EagerLoop
from tokbench.measure.engines.transformers.offload import OffloadedExperts, offload_experts
from tokbench.measure.engines.transformers.options import Options
from tokbench.measure.routing import LayerTouches

TOUCHED_STEPS = 64
"""Decode steps that are looked at, where the cell has so many."""


def lay_out_experts(model: Any, options: Options, request: EngineRequest) -> tuple[str, ...]:
    """Move experts off the device and draw routing, as far as the options ask for it; what a reader must know.

    Raises:
        PlugError: the model is dense, or the mode cannot do it.
    """
    notes = offload_experts(model, options, request), draw_routing(model, options, request.seed)
    return tuple(note for note in notes if note is not None)


def count_touches(model: Any, loop: EagerLoop, ids: torch.Tensor) -> list[LayerTouches]:
    """The same decode once more, eager, looking at what every layer's experts are given; the loop ends closed.

    The counts stay on the device until the last step. Empty for a model without routed experts.
    """
    counted = [_Counting(module) for _, module in list_experts(model)]
    if not counted:
        return []
    loop.prefill(ids)
    handles = [layer.module.register_forward_hook(layer) for layer in counted]
    try:
        for _ in range(min(TOUCHED_STEPS, loop.work.output_tokens - 1)):
            loop.step()
    finally:
        for handle in handles:
            handle.remove()
        loop.close()
    return [layer.gather(number) for number, layer in enumerate(counted)]


class _Counting:
    """Stands behind the experts of one layer and keeps what each forward pass selected, and had to copy."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._distinct: list[torch.Tensor] = []
        self._copied: list[int] = []

    def __call__(self, module: Any, inputs: tuple[Any, ...], found: Any) -> None:
        """`inputs`: hidden (tokens, d), indices and weights (tokens, k)."""
        chosen = inputs[1].reshape(-1)
        hit = torch.zeros(module.num_experts, dtype=torch.long, device=chosen.device)
        self._distinct.append(hit.index_fill_(0, chosen, 1).sum())
        if isinstance(module, OffloadedExperts):
            self._copied.append(module.copied_bytes)

    def gather(self, number: int) -> LayerTouches:
        """What was kept.

        Raises:
            TrialError: the layer's experts were never asked.
        """
        if not self._distinct:
            raise TrialError(f"the experts of layer {number} were not asked in any step", cause="engine")
        distinct = tuple(torch.stack(self._distinct).tolist())
        return LayerTouches(number, int(self.module.num_experts), distinct, tuple(self._copied))
