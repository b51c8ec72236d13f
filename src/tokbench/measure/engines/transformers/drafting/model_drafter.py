"""Drafting with a model: γ tokens one after the other, from its own cache or from the target's first layers.

A round begins where the target stands. The newest token is not cached yet, nor is the last draft where all of them were
accepted: a drafter with a cache of its own reads two tokens first, so that the one before the newest is there too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tokbench.measure.engines.transformers import attention, caches, kernels
from tokbench.measure.engines.transformers.drafting.drafter import Room, Rows
from tokbench.measure.engines.transformers.drafting.passes import Pass
from tokbench.measure.engines.transformers.drafting.reading import read, read_prompt
from tokbench.measure.engines.transformers.drafting.rows_cache import RowsCache
from tokbench.measure.engines.transformers.sampling import Noise, distribution, draw


class _Next(NamedTuple):
    """Where a draft's next token is to be read; (rows, 1) each."""

    token: torch.Tensor
    position: torch.Tensor
    place: torch.Tensor
    """Which of the γ drafts it will give."""


class _Draws(NamedTuple):
    """What a drawn draft needs."""

    temperature: torch.Tensor
    exponential: torch.Tensor
    """(rows, γ, vocabulary)"""


def first_pass(model: Any, rows: Rows, cache: RowsCache, then: _Next, draws: _Draws | None, width: int) -> None:
    """Read the newest `width` tokens of every row and write the first draft."""
    positions = rows.lengths + torch.arange(1 - width, 1, device=rows.lengths.device)
    logits = read(model, rows.tokens.gather(1, positions), positions, cache, last=True).logits[:, -1]
    then.position.copy_(rows.lengths)
    then.place.zero_()
    _leave(logits, rows, then, draws)


def next_pass(model: Any, rows: Rows, cache: RowsCache, then: _Next, draws: _Draws | None) -> None:
    """Read the draft before and write one more."""
    logits = read(model, then.token, then.position, cache, last=True).logits[:, -1]
    _leave(logits, rows, then, draws)


def _leave(logits: torch.Tensor, rows: Rows, then: _Next, draws: _Draws | None) -> None:
    """Choose a draft and leave it in the rows, and where the next pass looks for it."""
    if draws is None or rows.probabilities is None:
        token = logits.argmax(-1, keepdim=True)
    else:
        shares = distribution(logits, draws.temperature)
        place = then.place[:, :, None].expand(-1, -1, shares.shape[1])
        token = draw(shares, draws.exponential.gather(1, place)[:, 0])
        rows.probabilities.scatter_(1, place, shares[:, None])
    rows.drafts.scatter_(1, then.place, token)
    then.token.copy_(token)
    then.position.add_(1)
    then.place.add_(1)


class ModelDrafter:
    """A model that drafts for every row. `owns_cache`: whether it reads the prompt into a cache of its own."""

    is_point_mass = False
    uses_hidden = False

    def __init__(
        self, room: Room, model: Any, cache: RowsCache, experts: kernels.ExpertsChoice, notes: tuple[str, ...]
    ) -> None:
        self._room, self._model, self._cache, self._experts = room, model, cache, experts
        self._owns_cache = cache.starts is not room.cache.starts
        self._said = notes
        rows, vocabulary = room.work.rows, model.config.vocab_size
        self._then = _Next(*(torch.zeros_like(room.rows.lengths) for _ in _Next._fields))
        draws = _draws(room.noise, rows, room.gamma, vocabulary)
        changed = (room.rows.drafts, *self._then)
        width = 2 if self._owns_cache else 1
        self._first = Pass(first_pass, (model, room.rows, cache, self._then, draws, width), changed)
        self._next = Pass(next_pass, (model, room.rows, cache, self._then, draws), changed)
        kernels.use_experts(model, experts.decode)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the draft is, and how its passes run."""
        found = {made.note for made in (self._first, self._next) if made.note is not None}
        return (*self._said, *(f"draft: {note}" for note in sorted(found)))

    def prefill(self, ids: torch.Tensor, hidden: torch.Tensor | None) -> None:
        """Read the prompts into its own cache; nothing where it shares the target's."""
        if not self._owns_cache:
            return
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape[0], -1)
        kernels.use_experts(self._model, self._experts.prefill)
        attention.set_prefill_from_empty(True)
        try:
            read_prompt(self._model, ids, positions, self._cache, hidden=False)
        finally:
            attention.set_prefill_from_empty(False)
            kernels.use_experts(self._model, self._experts.decode)

    def compile(self, restart: Callable[[], None]) -> None:
        """Compile both passes; the second is tried out behind the first."""
        options, kind = self._room.options, self._room.rows.lengths.device.type
        self._first.compile(options, kind, restart)
        if self._room.gamma > 1:
            self._next.compile(options, kind, lambda: self._stand_behind_first(restart))

    def _stand_behind_first(self, restart: Callable[[], None]) -> None:
        restart()
        self._first()

    def draft(self) -> None:
        """γ passes."""
        self._first()
        for _ in range(self._room.gamma - 1):
            self._next()

    def rewind(self, position: int, now: int) -> None:
        """Nothing but a check: what is behind a row's length is written over."""
        if self._owns_cache:
            self._cache.rewind(position, now)

    def cache_bytes(self) -> int:
        """Bytes of its own cache."""
        return caches.cache_bytes(self._cache) if self._owns_cache else 0

    def close(self) -> None:
        """Let go of passes, cache and model."""
        self._first.close()
        self._next.close()
        self._model = self._cache = None  # type: ignore[assignment]  # nothing is drafted after this


def _draws(noise: Noise | None, rows: int, gamma: int, vocabulary: int) -> _Draws | None:
    return None if noise is None else _Draws(noise.temperature, noise.exponential(rows, gamma, vocabulary))
