"""One forward pass over tokens whose rows stand apart: the model is handed positions, masks and cache. No choice."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers.drafting.rows_cache import RowsCache

OWN_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier")
"""What a model's config says where its logits are more than the head of its last state."""


class Read(NamedTuple):
    """What a pass gave for each of its tokens."""

    logits: torch.Tensor
    """(rows, tokens, vocabulary)"""
    hidden: torch.Tensor | None
    """(rows, tokens, width), after the final norm; None unless asked for."""


def read(
    model: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    cache: RowsCache,
    *,
    last: bool = False,
    hidden: bool = False,
) -> Read:
    """Read `ids` at `positions`, (rows, tokens) each, and cache them there. `last`: logits of the last token alone."""
    cache.starts.copy_(positions[:, :1])
    return _call(model, _inputs(ids, positions, cache, cache.masks(positions)), last=last, hidden=hidden)


def read_prompt(model: Any, ids: torch.Tensor, positions: torch.Tensor, cache: RowsCache, *, hidden: bool) -> Read:
    """Read prompts, or their first part, into an empty cache: all rows stand alike, transformers makes the mask."""
    cache.starts.zero_()
    return _call(model, _inputs(ids, positions, cache, None), last=True, hidden=hidden)


def _inputs(ids: torch.Tensor, positions: torch.Tensor, cache: RowsCache, mask: Any) -> dict[str, Any]:
    """What every model of transformers is called with."""
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
    }


def _call(model: Any, inputs: dict[str, Any], *, last: bool, hidden: bool) -> Read:
    if not hidden:
        return Read(model(**inputs, logits_to_keep=1 if last else 0).logits, None)
    states = model.base_model(**inputs).last_hidden_state
    return Read(model.get_output_embeddings()(states[:, -1:] if last else states), states)


def check_head(model: Any, method: str) -> None:
    """Refuse a model whose logits are not simply the head of its last state, where a method has to work them out.

    Raises:
        PlugError: what the model does besides.
    """
    config = model.config
    found = [name for name in OWN_LOGITS if getattr(config, name, None) not in (None, 1.0)]
    if found:
        raise PlugError(f"{method} cannot draft for a model with {found[0]}", fix="speculation.method: prompt_lookup")
