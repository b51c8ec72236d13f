"""What a model must have for a way of latent attention (MLA) to be asked of it: told before any device is touched."""

from __future__ import annotations

from collections.abc import Mapping

from tokbench.errors import PlugError
from tokbench.record.spec import EngineSpec

WAYS = ("mla_latent", "mla_absorbed", "mla_expanded")
"""Values of `engine.attention`; engines/transformers/mla.py says what each does."""
LATENT_TYPES = ("deepseek_v3",)
"""Types of config whose attention the ways are written for."""


def check_latent(engine: EngineSpec, name: str, config: Mapping[str, object]) -> None:
    """Refuse a way of latent attention for a model of another kind; `config`: empty where it is not known.

    Raises:
        PlugError: the model's attention is not DeepSeek-V3's.
    """
    if engine.attention in WAYS and config and config.get("model_type") not in LATENT_TYPES:
        raise PlugError(
            f"engine.attention: {engine.attention} is for DeepSeek-V3's latent attention, and {name} has none of it",
            fix=f"leave engine.attention out, or take a model of type {', '.join(LATENT_TYPES)} (shape:kv-small-mla)",
        )
