"""A model's config at another number of decoder layers: what a depth experiment runs. It loads nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from pydantic import JsonValue

from tokbench.errors import SpecError

PER_LAYER_KEYS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "no_rope_layers")
"""Lists of a config with one item a decoder layer. Source: the config classes of transformers 5.23.0."""


def with_layers(config: Mapping[str, JsonValue], layers: int, name: str) -> dict[str, JsonValue]:
    """The config with so many decoder layers: lists of one item a layer are cut, or go on from their beginning.

    Indices of layers (`mlp_only_layers`, `first_k_dense_replace`) stay: beyond the last layer they name none.

    Raises:
        SpecError: the config does not say how many layers it has.
    """
    own = layers_of(config)
    if own is None:
        raise SpecError(
            f"{name}: its config names no num_hidden_layers that could be replaced",
            key="model.layers",
            fix="leave `layers` out",
        )
    changed: dict[str, JsonValue] = {**config, "num_hidden_layers": layers}
    for key in PER_LAYER_KEYS:
        items = config.get(key)
        if isinstance(items, list) and len(items) == own:
            changed[key] = list(itertools.islice(itertools.cycle(items), layers))
    return changed


def layers_of(config: Mapping[str, JsonValue]) -> int | None:
    """The decoder layers of a config; None where it does not say."""
    layers = config.get("num_hidden_layers")
    return layers if isinstance(layers, int) and not isinstance(layers, bool) and layers > 0 else None


def name_with_layers(name: str, layers: int) -> str:
    """The model's name, made so that nobody takes it for the model."""
    return f"{name}, {layers} layer{'' if layers == 1 else 's'}"
