"""Drafting with the target's own first layers, its final norm and its head. No weight and no cache of its own.

What it caches of a draft in those layers is what verification writes there again: the same layers read the same tokens.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers.drafting.drafter import Room
from tokbench.measure.engines.transformers.drafting.method_options import read_count, refuse_draft, refuse_unknown
from tokbench.measure.engines.transformers.drafting.model_drafter import ModelDrafter


def open_drafter(room: Room) -> ModelDrafter:
    """Option: `layers`, how many of the target's layers draft.

    Raises:
        PlugError: an unknown option, or as many layers as the target has.
    """
    spec = room.speculation
    refuse_unknown(spec, {"layers": "how many of the target's first layers draft"})
    refuse_draft(spec)
    kept = read_count(spec, "layers")
    whole = int(room.model.config.num_hidden_layers)
    if kept >= whole:
        raise PlugError(
            f"speculation.options.layers: {kept} of {whole} layers would be the target itself",
            fix=f"layers: {max(whole * 2 // 3, 1)}",
        )
    model = room.keeper.keep(lambda: cut_behind(room.model, kept))
    note = (
        f"draft: the first {kept} of {whole} layers, the final norm and the head of the target; no weights of its own"
    )
    return ModelDrafter(room, model, room.cache.first(kept, model.config), room.experts, (note,))


def cut_behind(model: Any, kept: int) -> Any:
    """The same model without its later layers; every weight is the one that the whole model holds.

    Raises:
        PlugError: its layers are not one list.
    """
    if not isinstance(getattr(model.base_model, "layers", None), torch.nn.ModuleList):
        raise PlugError(
            f"early_exit: {type(model).__name__} has no list of layers", fix="speculation.method: prompt_lookup"
        )
    made = share_weights(model)
    made.base_model.layers = made.base_model.layers[:kept]
    config = made.config
    config.num_hidden_layers = kept
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:kept]
    return made


def share_weights(model: Any) -> Any:
    """Another model of the same modules, whose weights and buffers are those of the first, not copies."""
    held = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in held})
