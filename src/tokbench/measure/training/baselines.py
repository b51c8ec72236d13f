"""What counting alone knows of a text: the loss of unigrams and bigrams, beside which a trained model's must stand."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Baselines(NamedTuple):
    """Nats per token on text that was not counted."""

    unigram: float
    bigram: float


def count_baselines(taught: torch.Tensor, rows: torch.Tensor, vocabulary: int) -> Baselines:
    """Losses of tokens 1 … of `rows`, (rows, tokens + 1), by counts of `taught`, (tokens,).

    Unigrams with one added to every count. Bigrams after Witten and Bell: a token that was followed by n tokens of t
    kinds leaves the share t / (n + t) to the unigrams, and all of it where it was never seen.
    Source: Witten and Bell 1991, IEEE Transactions on Information Theory 37 (4), method C.
    """
    before, after = rows[:, :-1].flatten().long(), rows[:, 1:].flatten().long()
    taught = taught.long()
    alone = (torch.bincount(taught, minlength=vocabulary) + 1).double()
    alone = alone / alone.sum()
    pairs, counts = torch.unique(taught[:-1] * vocabulary + taught[1:], return_counts=True)
    followed = torch.bincount(taught[:-1], minlength=vocabulary).double()[before]
    kinds = torch.bincount(pairs // vocabulary, minlength=vocabulary).double()[before]
    asked = before * vocabulary + after
    place = torch.searchsorted(pairs, asked).clamp(max=len(pairs) - 1)
    seen = torch.where(pairs[place] == asked, counts[place], 0).double()
    mixed = torch.where(followed > 0, (seen + kinds * alone[after]) / (followed + kinds), alone[after])
    return Baselines(float(-alone[after].log().mean()), float(-mixed.log().mean()))
