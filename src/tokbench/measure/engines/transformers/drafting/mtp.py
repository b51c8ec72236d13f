"""The method `mtp`: a head that was trained here for this target reads its last states and drafts, chained for γ > 1.

Place t of the head holds the target's state at t and token t + 1. A round first reads all places that the last verify
pass settled, γ + 1 of them whatever was accepted, so that shapes never change; the next round writes over those behind
the newest token. Then the head's own state goes on from there, one place a draft.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers import caches, streamed
from tokbench.measure.engines.transformers.drafting.drafter import Room, Rows
from tokbench.measure.engines.transformers.drafting.method_options import refuse_draft, refuse_unknown
from tokbench.measure.engines.transformers.drafting.mtp_head import (
    HeadFacts,
    MtpHead,
    Target,
    TargetParts,
    head_folder,
    load_head,
    parts_of,
    print_of,
)
from tokbench.measure.engines.transformers.drafting.passes import Pass
from tokbench.measure.engines.transformers.drafting.reading import check_head
from tokbench.measure.engines.transformers.drafting.rows_cache import RowsCache, RowsLayer
from tokbench.measure.engines.transformers.sampling import distribution, draw
from tokbench.units import BYTES, format_value

OPTIONS = {"head": "folder of a trained head; left out, the one that `tokbench train mtp` keeps for this target"}


class _Next(NamedTuple):
    """Where the next draft starts from."""

    state: torch.Tensor
    """(rows, 1, width): the head's own."""
    token: torch.Tensor
    """(rows, 1): the draft before."""
    position: torch.Tensor
    """(rows, 1): the head's place to be written next."""
    place: torch.Tensor
    """(rows, 1): which of the γ drafts comes next."""


class _Draws(NamedTuple):
    """What a drawn draft needs."""

    temperature: torch.Tensor
    exponential: torch.Tensor
    """(rows, γ, vocabulary)"""


class _Tools(NamedTuple):
    """What every pass of the head works with."""

    head: MtpHead
    parts: TargetParts
    rows: Rows
    cache: RowsCache
    draws: _Draws | None


def read_places(tools: _Tools, hidden: torch.Tensor, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The head's states at `places`, (rows, tokens), from states and tokens of the same shape; cached there."""
    tools.cache.starts.copy_(places[:, :1])
    embedded = tools.parts.embedding(tokens).to(hidden.dtype)
    rotation = tools.parts.rotary(embedded, places)
    return tools.head(hidden, embedded, rotation, tools.cache.masks(places), tools.cache)


def first_pass(tools: _Tools, then: _Next) -> None:
    """Read what the last verify pass settled, and write the first draft."""
    rows = tools.rows
    assert rows.hidden is not None  # the loop keeps it for a drafter that uses it
    places = rows.lengths - 1 - rows.accepted + torch.arange(rows.hidden.shape[1], device=rows.lengths.device)
    states = read_places(tools, rows.hidden, rows.tokens.gather(1, places + 1), places)
    newest = rows.accepted[:, :, None].expand(-1, -1, states.shape[2])
    then.position.copy_(rows.lengths)
    then.place.zero_()
    _leave(tools, states.gather(1, newest), then)


def next_pass(tools: _Tools, then: _Next) -> None:
    """Go on from the head's own state by one more draft."""
    state = read_places(tools, then.state, then.token, then.position)
    then.position.add_(1)
    _leave(tools, state, then)


def _leave(tools: _Tools, state: torch.Tensor, then: _Next) -> None:
    """Choose a draft from a state, (rows, 1, width), and leave both where the next pass and the target look."""
    rows, logits = tools.rows, tools.parts.head(state)[:, -1]
    if tools.draws is None or rows.probabilities is None:
        token = logits.argmax(-1, keepdim=True)
    else:
        shares = distribution(logits, tools.draws.temperature)
        place = then.place[:, :, None].expand(-1, -1, shares.shape[1])
        token = draw(shares, tools.draws.exponential.gather(1, place)[:, 0])
        rows.probabilities.scatter_(1, place, shares[:, None])
    rows.drafts.scatter_(1, then.place, token)
    then.state.copy_(state)
    then.token.copy_(token)
    then.place.add_(1)


class MtpDrafter:
    """One trained head beside its target; it shares embedding and output head, and keeps one layer's cache."""

    is_point_mass = False
    uses_hidden = True

    def __init__(self, room: Room, head: MtpHead, said: str) -> None:
        rows, model = room.rows, room.model
        self._room, self._said = room, said
        starts = torch.zeros_like(rows.lengths)
        self._cache = RowsCache([RowsLayer(room.capacity, starts, None)], starts, model.config)
        places = (torch.zeros_like(rows.lengths) for _ in range(3))
        state = torch.zeros((room.work.rows, 1, model.config.hidden_size), dtype=model.dtype, device=model.device)
        self._then = _Next(state, *places)
        self._tools = _Tools(head, parts_of(model), rows, self._cache, _draws(room))
        changed = (rows.drafts, *self._then[1:])
        self._first = Pass(first_pass, (self._tools, self._then), changed)
        self._next = Pass(next_pass, (self._tools, self._then), changed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the head is, and how its passes run."""
        found = {made.note for made in (self._first, self._next) if made.note is not None}
        return (self._said, *(f"draft: {note}" for note in sorted(found)))

    def prefill(self, ids: torch.Tensor, hidden: torch.Tensor | None) -> None:
        """Read the prompt: all places but its last, which the first round settles with the first output token."""
        assert hidden is not None  # the loop hands it to a drafter that uses it
        if ids.shape[1] > 1:
            places = torch.arange(ids.shape[1] - 1, device=ids.device).expand(ids.shape[0], -1)
            read_places(self._tools, hidden[:, :-1], ids[:, 1:], places)

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
        """γ passes of one block."""
        self._first()
        for _ in range(self._room.gamma - 1):
            self._next()

    def rewind(self, position: int, now: int) -> None:
        """Nothing: what is behind a row's length is written over."""

    def cache_bytes(self) -> int:
        """Bytes of the head's keys and values."""
        return caches.cache_bytes(self._cache)

    def close(self) -> None:
        """Let go of passes, cache and head."""
        self._first.close()
        self._next.close()
        self._tools = self._cache = self._then = None  # type: ignore[assignment]  # nothing is drafted after this


def _draws(room: Room) -> _Draws | None:
    if room.noise is None:
        return None
    shape = (room.work.rows, room.gamma, room.model.config.vocab_size)
    return _Draws(room.noise.temperature, room.noise.exponential(*shape))


def open_drafter(room: Room) -> MtpDrafter:
    """The head that was trained for the target.

    Raises:
        PlugError: there is none, it belongs to another target, or the target is not built for one.
    """
    refuse_unknown(room.speculation, OPTIONS)
    refuse_draft(room.speculation)
    check_head(room.model, "mtp")
    named = room.speculation.options.get("head")
    if named is not None and not isinstance(named, str):
        raise PlugError(f"speculation.options.head: {named!r} is not a folder", fix="head: PATH, or leave it out")
    head, facts = room.keeper.keep(lambda: _load(room, named))
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in head.parameters())
    held = format_value(weight_bytes, BYTES)
    return MtpDrafter(room, head, f"draft: {facts.describe()}; {held} beside embedding and head of the target")


def _load(room: Room, named: str | None) -> tuple[MtpHead, HeadFacts]:
    """The head, laid out as the target is. Once a cell's method: the print reads all weights of the target."""
    target = Target(room.model, print_of(room.model), room.request.model_name, room.request.model.source)
    folder = Path(named).expanduser() if named is not None else head_folder(os.environ, target.own_print)
    head, facts = load_head(folder, target)
    if room.model.device.type == "cpu":
        streamed.lay_out(head, room.request.engine.mode, room.options)
    return head, facts
