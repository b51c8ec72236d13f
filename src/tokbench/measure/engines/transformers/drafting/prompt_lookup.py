"""Drafts copied from what stands in the row already: the tokens that followed its newest n-gram before. No model.

Source of the method: Saxena 2023, prompt lookup decoding; transformers' `PromptLookupCandidateGenerator` does the same
on the host, one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers.drafting.drafter import Room, Rows
from tokbench.measure.engines.transformers.drafting.method_options import read_count, refuse_draft, refuse_unknown
from tokbench.measure.engines.transformers.drafting.passes import Pass

NGRAM_MAX = 3
NGRAM_MIN = 1


def look_up(rows: Rows, longest: int, shortest: int) -> None:
    """Write what followed the place where the longest n-gram stands that can be found earlier in the row.

    The latest such place with γ tokens behind it; where there is none the earliest, with fewer. Nothing is drafted for
    a row in which no n-gram stands twice.
    """
    gamma, width = rows.drafts.shape[1], rows.tokens.shape[1]
    place = torch.arange(width, device=rows.tokens.device)
    is_match = place < rows.lengths  # an n-gram is found where it ends: before the newest token
    end = torch.full_like(rows.lengths, width)
    for size in range(1, longest + 1):
        back = size - 1
        newest = rows.tokens.gather(1, (rows.lengths - back).clamp(min=0))
        shifted = torch.nn.functional.pad(rows.tokens, (back, 0), value=-1)[:, :width]
        is_match = is_match & (shifted == newest)
        latest = torch.where(is_match & (place + gamma <= rows.lengths), place, -1).amax(1, keepdim=True)
        earliest = torch.where(is_match, place, width).amin(1, keepdim=True)
        found = torch.where(latest < 0, earliest, latest)
        end = torch.where((found < width) & (size >= shortest), found, end)
    source = end + 1 + torch.arange(gamma, device=place.device)
    rows.drafts.copy_(rows.tokens.gather(1, source.clamp(max=width - 1)))
    rows.drafted.copy_((rows.lengths - end).clamp(min=0, max=gamma))


class PromptLookup:
    """One pass over the tokens of every row."""

    is_point_mass = True
    uses_hidden = False

    def __init__(self, room: Room, longest: int, shortest: int) -> None:
        self._room = room
        self._pass = Pass(look_up, (room.rows, longest, shortest), (room.rows.drafts, room.rows.drafted))
        self._said = f"draft: copied from the row itself, n-grams of {longest} down to {shortest} tokens, no weights"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is looked for."""
        return (self._said,) if self._pass.note is None else (self._said, f"draft: {self._pass.note}")

    def prefill(self, ids: torch.Tensor, hidden: torch.Tensor | None) -> None:
        """The prompts stand in the rows already."""

    def compile(self, restart: Callable[[], None]) -> None:
        """Compile the search."""
        self._pass.compile(self._room.options, self._room.rows.lengths.device.type, restart)

    def draft(self) -> None:
        """Search once."""
        self._pass()

    def rewind(self, position: int, now: int) -> None:
        """Nothing is cached."""

    def cache_bytes(self) -> int:
        """Nothing is cached."""
        return 0

    def close(self) -> None:
        """Let go of the pass."""
        self._pass.close()


def open_drafter(room: Room) -> PromptLookup:
    """Options: `ngram_max` (3) and `ngram_min` (1).

    Raises:
        PlugError: an unknown option, or lengths that contradict each other.
    """
    spec = room.speculation
    refuse_unknown(spec, {"ngram_max": "tokens of the longest n-gram", "ngram_min": "tokens of the shortest"})
    refuse_draft(spec)
    longest, shortest = read_count(spec, "ngram_max", NGRAM_MAX), read_count(spec, "ngram_min", NGRAM_MIN)
    if shortest > longest:
        raise PlugError(
            f"speculation.options: ngram_min {shortest} is longer than ngram_max {longest}", fix=f"ngram_min: {longest}"
        )
    return PromptLookup(room, longest, shortest)
