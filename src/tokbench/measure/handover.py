"""What the parent hands to a worker: a model's config, the weights that draft, and an environment without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tokbench.measure.messages import DraftWeights
from tokbench.measure.models import ResolvedModel


def config_json(model: ResolvedModel | None) -> str | None:
    """The model's config as the record keeps it."""
    return None if model is None else json.dumps(model.config, sort_keys=True)


def draft_weights(model: ResolvedModel | None) -> DraftWeights | None:
    """What a worker is told of the model that drafts."""
    if model is None:
        return None
    return DraftWeights(
        model_name=model.name,
        config_json=config_json(model),
        weights_folder=str(model.folder) if model.folder is not None else None,
    )


def safe_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker may inherit: everything but tokens and keys, which only the parent needs to fetch weights."""
    secret = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "_KEY", "_AUTH")
    kept = ("TOKENIZERS_PARALLELISM",)
    return {k: v for k, v in environ.items() if k in kept or not any(word in k.upper() for word in secret)}
