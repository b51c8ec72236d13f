"""Drafting with the target itself in fewer bytes: its linear layers quantised, everything else shared with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers import quantised, streamed
from tokbench.measure.engines.transformers.drafting.drafter import Room
from tokbench.measure.engines.transformers.drafting.early_exit import share_weights
from tokbench.measure.engines.transformers.drafting.method_options import refuse_draft, refuse_unknown
from tokbench.measure.engines.transformers.drafting.model_drafter import ModelDrafter
from tokbench.measure.engines.transformers.drafting.rows_cache import open_rows_cache

DTYPES = ("int8", "int4", "fp8")


def open_drafter(room: Room) -> ModelDrafter:
    """Option: `dtype`, one of int8, int4 and fp8.

    Raises:
        PlugError: an unknown option or type, or a target that is quantised already.
    """
    request = _quantised_request(room)
    model = room.keeper.keep(lambda: quantise_copy(room.model, request))
    cache = open_rows_cache(model.config, room.work.rows, room.capacity, room.gamma, room.rows.lengths.device)
    how = quantised.describe(request, model)
    note = f"draft: the target's own weights, {how.replace(' while loading', '')}; what is not quantised is shared"
    return ModelDrafter(room, model, cache, room.experts, (note,))


def _quantised_request(room: Room) -> EngineRequest:
    """The target as it would be asked for in that type."""
    spec, request = room.speculation, room.request
    refuse_unknown(spec, {"dtype": ", ".join(DTYPES)})
    refuse_draft(spec)
    dtype = spec.options.get("dtype")
    if dtype not in DTYPES:
        raise PlugError(
            f"speculation.options.dtype: {dtype!r} is none of {', '.join(DTYPES)}", fix="options: {dtype: int8}"
        )
    if quantised.is_quantised(request):
        raise PlugError(
            f"self_quantised: the target is in {request.model.dtype} already", fix="model.dtype=bfloat16 or float32"
        )
    asked = dataclasses.replace(request, model=request.model.model_copy(update={"dtype": dtype}))
    quantised.check_request(asked)
    return asked


def quantise_copy(model: Any, request: EngineRequest) -> Any:
    """A model of the same weights, its linear layers quantised; the target keeps its own."""
    made = share_weights(model)
    for module in made.modules():
        if isinstance(module, streamed.StreamedLinear):
            module.__class__ = torch.nn.Linear
    quantised.place_weights(made, request)
    return made.eval()
