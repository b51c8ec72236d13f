"""Drafting with another, smaller model of the same vocabulary."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.engines import DraftModel, EngineRequest
from tokbench.measure.engines.transformers import kernels, streamed
from tokbench.measure.engines.transformers.drafting.drafter import Room
from tokbench.measure.engines.transformers.drafting.method_options import refuse_unknown
from tokbench.measure.engines.transformers.drafting.model_drafter import ModelDrafter
from tokbench.measure.engines.transformers.drafting.rows_cache import open_rows_cache
from tokbench.measure.engines.transformers.loading import count_bytes, load_model
from tokbench.units import BYTES, format_value


class _Loaded(NamedTuple):
    """A model that drafts, and what it was asked for with."""

    model: Any
    request: EngineRequest


def open_drafter(room: Room) -> ModelDrafter:
    """No options; the model is `speculation.draft`.

    Raises:
        PlugError: no model, another vocabulary, or one that cannot be loaded.
    """
    refuse_unknown(room.speculation, {})
    return open_with_model(room)


def open_with_model(room: Room) -> ModelDrafter:
    """A drafter of the model that the cell names."""
    draft = room.work.draft
    if draft is None:
        raise PlugError(
            f"speculation.draft: method {room.speculation.method!r} needs the model that drafts",
            fix="draft: {source: hf:ID, dtype: bfloat16}",
        )
    loaded: _Loaded = room.keeper.keep(lambda: _load(room, draft))
    model = loaded.model
    _check_vocabulary(room, draft, model)
    cache = open_rows_cache(model.config, room.work.rows, room.capacity, room.gamma, room.rows.lengths.device)
    experts = kernels.choose_experts(model, loaded.request, room.work.rows)
    held = format_value(count_bytes(model.state_dict(keep_vars=True).values()), BYTES)
    note = f"draft: {draft.name}, {draft.model.weights} weights, {draft.model.dtype}, {held}"
    return ModelDrafter(room, model, cache, experts, (note,))


def _load(room: Room, draft: DraftModel) -> _Loaded:
    """The model on the target's device, laid out as the target is."""
    request = dataclasses.replace(
        room.request,
        model=draft.model,
        model_name=draft.name,
        config_json=draft.config_json,
        weights_folder=draft.weights_folder,
        revision=None,
        sha256=None,
        note=None,
    )
    model = load_model(request)
    if request.device == "cpu":
        streamed.lay_out(model, request.engine.mode, room.options)
    return _Loaded(model, request)


def _check_vocabulary(room: Room, draft: DraftModel, model: Any) -> None:
    """Refuse a draft whose token ids mean something else.

    Raises:
        PlugError: both vocabularies.
    """
    ours, theirs = int(room.model.config.vocab_size), int(model.config.vocab_size)
    if ours != theirs:
        raise PlugError(
            f"speculation.draft: {draft.name} has {theirs:,} token ids, {room.request.model_name} has {ours:,}",
            fix="name a draft of the same family",
        )
    own, other = _tokens(room.request.weights_folder), _tokens(draft.weights_folder)
    if own is not None and other is not None and own != other:
        raise PlugError(
            f"speculation.draft: {draft.name} gives its token ids to other texts than {room.request.model_name}",
            fix="name a draft of the same family",
        )


def _tokens(folder: Path | None) -> dict[str, int] | None:
    """Ids by text, where the weights came with a tokenizer."""
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None
    from tokenizers import Tokenizer  # only where weights come with one

    found: dict[str, int] = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return found
