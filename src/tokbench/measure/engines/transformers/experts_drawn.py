"""Routing that is drawn in the place of the router's: even, skewed, or alike from token to token. Counts nothing.

It stands before a layer's experts, which every architecture hands the same: (hidden, indices, weights). A step waits
for nothing: selections were drawn into a table on the device, and a step looks its rows up, eager or compiled.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers.options import Options

TABLE_ROWS = 1 << 16
STEP_STRIDE = 40503
"""Steps begin this far apart in the table (its length over the golden ratio): few steps share draws, and a row meets
the same draws whatever the batch."""
LAYER_STRIDE = 7919


@dataclasses.dataclass(slots=True)
class StepClock:
    """Which step of a cell a model is in: the (rows, 1) tensor of the loop that runs, which the loop moves on."""

    index: torch.Tensor


class DrawnRouting:
    """Stands before the experts of one layer and puts drawn selections in the place of the router's; weights stay."""

    def __init__(self, clock: StepClock, table: torch.Tensor, order: torch.Tensor, offset: int) -> None:
        self._clock = clock
        self._table = table
        self._order = order
        self._offset = offset

    def __call__(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """`inputs`: hidden (tokens, d), indices and weights (tokens, k)."""
        hidden, chosen, weights = inputs
        begin = self._clock.index[:1, 0] * STEP_STRIDE + self._offset
        places = (begin + torch.arange(chosen.shape[0], device=chosen.device)) % TABLE_ROWS
        return hidden, self._order[self._table[places]].to(chosen.dtype), weights


def list_experts(model: Any) -> list[tuple[str, Any]]:
    """The modules that hold routed experts, one a layer, by name. Source: transformers 5.23.0, integrations/moe.py."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "num_experts", None), int)
        and isinstance(down := getattr(module, "down_proj", None), torch.nn.Parameter)
        and down.dim() == 3
    ]


def draw_routing(model: Any, options: Options, seed: int) -> str | None:
    """Put drawn selections in the place of the routers' where the options ask for it; what a reader must know of it.

    Raises:
        PlugError: the model has no routed experts, or the skew cannot be.
    """
    if options.routing == "own":
        return None
    found, count = list_experts(model), getattr(model.config, "num_experts_per_tok", None)
    if not found or count is None:
        raise PlugError(
            f"engine.options.routing: {options.routing!r} needs a model with routed experts, and this one has none",
            fix="leave the option out, or take a mixture of experts, e.g. model.source=shape:cpu-moe",
        )
    experts = found[0][1].num_experts
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    table = draw_table(experts, count, options, generator).to(device)
    model.step_clock = StepClock(torch.zeros((1, 1), dtype=torch.long, device=device))
    for layer, (_, module) in enumerate(found):
        order = torch.randperm(experts, generator=generator).to(device)
        offset = layer * LAYER_STRIDE
        module.register_forward_pre_hook(DrawnRouting(model.step_clock, table, order, offset))
    skew = "" if options.routing == "uniform" else f", skew {options.routing_skew:g}"
    return f"routing drawn, not the router's: {options.routing}{skew}"


def draw_table(experts: int, count: int, options: Options, generator: torch.Generator) -> torch.Tensor:
    """Selections without repetition: (TABLE_ROWS, count), experts in the order of their popularity.

    `zipf`: one after the other with weights 1 / rank^skew among those that are left. `correlated`: uniform, but each
    token takes the selection of the one before it with probability skew.
    """
    exponent = options.routing_skew if options.routing == "zipf" else 0.0
    uniform = torch.rand((TABLE_ROWS, experts), generator=generator, dtype=torch.float64)
    log_weights = -exponent * torch.log(torch.arange(1, experts + 1, dtype=torch.float64))
    # The `count` largest of log weight + Gumbel noise are such a draw. Source: Vieira 2014, Gumbel-max trick.
    table = (log_weights - torch.log(-torch.log(uniform))).topk(count, dim=1).indices
    if options.routing != "correlated":
        return table
    is_fresh = torch.rand(TABLE_ROWS, generator=generator) >= options.routing_skew
    is_fresh[0] = True
    source = torch.where(is_fresh, torch.arange(TABLE_ROWS), 0).cummax(0).values
    return table[source]


def follow_steps(model: Any, index: torch.Tensor) -> None:
    """Let drawn routing count the steps of this loop, from 0. `index`: (rows, 1), written anew after the prefill."""
    if is_routing_drawn(model):
        index.zero_()
        model.step_clock.index = index


def is_routing_drawn(model: Any) -> bool:
    """Whether selections do not come from the model's routers."""
    return "step_clock" in vars(model)
