"""Which drafts are accepted, and which token follows them; for all rows at once, on the device.

Source of lossless acceptance: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1. With the likeliest token in place
of a drawn one it comes down to: a draft is accepted while it is the token that the target would have taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from tokbench.measure.engines.transformers.drafting.drafter import Rows
from tokbench.measure.engines.transformers.sampling import Sampling, distribution, draw, take

LIKELY = 3
"""How many of the target's likeliest tokens the lossy rule takes."""


class Draws(NamedTuple):
    """What accepting needs besides the logits; each is None where the rule does without."""

    sampling: Sampling | None
    uniform: torch.Tensor | None
    """(rows, γ), float32, from [0, 1)."""
    trace: torch.Tensor | None
    """(rounds, rows), int64: how many drafts each round accepts, whatever they are."""
    cursor: torch.Tensor | None
    """(1,), int64: the next round of the trace."""


class Accepted(NamedTuple):
    """(rows, 1) each."""

    count: torch.Tensor
    following: torch.Tensor
    """The token behind the accepted drafts: the target's own."""


Rule = Callable[[torch.Tensor, Rows, Draws], Accepted]
"""`logits`: (rows, γ + 1, vocabulary), of the newest token and of every draft."""


def take_the_same(logits: torch.Tensor, rows: Rows, draws: Draws) -> Accepted:
    """Greedy: as long as a draft is the likeliest token."""
    likeliest = logits.argmax(-1)
    count = _count(rows.drafts == likeliest[:, :-1], rows)
    return Accepted(count, likeliest.gather(1, count))


def take_likely(logits: torch.Tensor, rows: Rows, draws: Draws) -> Accepted:
    """Lossy on purpose: as long as a draft is among the three likeliest tokens."""
    likely = logits[:, :-1].topk(LIKELY, -1).indices
    count = _count((likely == rows.drafts[:, :, None]).any(-1), rows)
    return Accepted(count, take(_at(logits, count), draws.sampling))


def take_by_chance(logits: torch.Tensor, rows: Rows, draws: Draws) -> Accepted:
    """Sampled: with chance min(1, p/q); a rejected draft is replaced by a token drawn from max(p - q, 0).

    q of a drafter that is a point mass is 1 at its draft and 0 elsewhere.
    """
    assert draws.sampling is not None and draws.uniform is not None
    target = distribution(logits, draws.sampling.temperature)
    drafts = rows.drafts[:, :, None]
    wanted = target[:, :-1].gather(2, drafts)[:, :, 0]
    if rows.probabilities is None:
        count = _count(draws.uniform < wanted, rows)
    else:
        count = _count(draws.uniform * rows.probabilities.gather(2, drafts)[:, :, 0] < wanted, rows)
    left = (_at(target, count) - _drafted_at(rows, count, target.shape[2])).clamp(min=0)
    return Accepted(count, draw(left, draws.sampling.exponential))


def follow_trace(logits: torch.Tensor, rows: Rows, draws: Draws) -> Accepted:
    """Replay: so many as the trace says, whatever was drafted; the token behind them is the target's."""
    assert draws.trace is not None and draws.cursor is not None
    told = draws.trace.index_select(0, draws.cursor % draws.trace.shape[0]).reshape(-1, 1)
    draws.cursor.add_(1)
    count = torch.minimum(told, rows.drafted)
    return Accepted(count, take(_at(logits, count), draws.sampling))


def _count(is_taken: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Drafts before the first that is not taken, (rows, 1); `is_taken`: (rows, γ).

    The least place that was not taken: a running product would be a call between the generated kernels, so that
    verification could not be replayed as one (replay.py).
    """
    gamma = is_taken.shape[1]
    place = torch.arange(gamma, device=is_taken.device)
    return torch.where(is_taken & (place < rows.drafted), gamma, place).amin(1, keepdim=True)


def _at(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """(rows, vocabulary): those of one token of each row; `values`: (rows, tokens, vocabulary), `place`: (rows, 1)."""
    return values.gather(1, place[:, :, None].expand(-1, -1, values.shape[2]))[:, 0]


def _drafted_at(rows: Rows, place: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """The distribution of the draft at `place`, (rows, vocabulary); zeros where nothing was drafted there."""
    was_drafted = place < rows.drafted
    held = place.clamp(max=rows.drafts.shape[1] - 1)
    if rows.probabilities is not None:
        return _at(rows.probabilities, held) * was_drafted
    token = torch.arange(vocabulary, device=place.device)
    return ((token == rows.drafts.gather(1, held)) & was_drafted).float()
