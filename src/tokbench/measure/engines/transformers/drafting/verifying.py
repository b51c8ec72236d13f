"""The target's pass of a round: read the newest token and all drafts, accept, and write down what came of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from tokbench.measure.engines.transformers.drafting.accepting import Accepted, Draws, Rule
from tokbench.measure.engines.transformers.drafting.drafter import Rows
from tokbench.measure.engines.transformers.drafting.reading import read
from tokbench.measure.engines.transformers.drafting.rows_cache import RowsCache


class Tally(NamedTuple):
    """How far each row is to go, and what each round did; int64 on the device."""

    goals: torch.Tensor
    """(rows, 1): what `Rows.lengths` is to become; a row that is there gets no more."""
    round: torch.Tensor
    """(1,): rounds since the goals were set."""
    log: torch.Tensor
    """(rounds, rows, 4): drafted, accepted, emitted, and the length at the round's beginning; 0 for a finished row."""


def verify(model: Any, rows: Rows, cache: RowsCache, tally: Tally, rule: Rule, draws: Draws) -> None:
    """One round behind its drafts. Rows advance apart; a finished one is read along and stays where it is."""
    offsets = torch.arange(rows.drafts.shape[1] + 1, device=rows.drafts.device)
    ids = torch.cat([rows.tokens.gather(1, rows.lengths), rows.drafts], 1)
    found = read(model, ids, rows.lengths + offsets, cache, hidden=rows.hidden is not None)
    accepted = rule(found.logits, rows, draws)
    emitted = torch.minimum(accepted.count + 1, tally.goals - rows.lengths)
    is_active = emitted > 0
    _write_down(rows, tally, accepted, emitted)
    drafts = torch.cat([rows.drafts, accepted.following], 1)
    tokens = torch.where(offsets < accepted.count, drafts, accepted.following)
    rows.tokens.scatter_(1, rows.lengths + 1 + offsets, tokens)
    if rows.hidden is not None and found.hidden is not None:
        rows.hidden.copy_(torch.where(is_active[:, :, None], found.hidden, rows.hidden))
    rows.accepted.copy_(torch.where(is_active, emitted - 1, rows.accepted))
    rows.lengths.add_(emitted)


def _write_down(rows: Rows, tally: Tally, accepted: Accepted, emitted: torch.Tensor) -> None:
    """What the round did, in the log."""
    is_active = (emitted > 0).long()
    line = torch.cat([rows.drafted * is_active, accepted.count * is_active, emitted, rows.lengths * is_active], 1)
    tally.log.index_copy_(0, tally.round, line[None])
    tally.round.add_(1)
