"""Muon for the matrices of the blocks, AdamW for embeddings and norms, both on one schedule."""

from __future__ import annotations

from typing import Any

import torch

from tokbench.measure.training.schedule import share_of_rate


class Optimisers:
    """What moves the weights of some models.

    Source of Muon: Jordan et al., kellerjordan.github.io/posts/muon, read 2026-11-22; in torch since 2.9.
    """

    def __init__(self, models: list[Any], matrix_rate: float, rate: float, steps: int) -> None:
        self._models = models
        named = [pair for model in models for pair in model.named_parameters()]
        matrices = [weight for name, weight in named if _is_matrix(name, weight)]
        others = [weight for name, weight in named if not _is_matrix(name, weight)]
        self._all: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.0),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        share = lambda step: share_of_rate(step, steps)  # noqa: E731
        self._schedules = [torch.optim.lr_scheduler.LambdaLR(each, share) for each in self._all]

    def step(self, loss: torch.Tensor) -> None:
        """One step down; gradients of every model are cut to a norm of 1."""
        for each in self._all:
            each.zero_grad(set_to_none=True)
        loss.backward()
        for model in self._models:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*self._all, *self._schedules):
            each.step()

    def state(self) -> list[Any]:
        """For a checkpoint."""
        return [each.state_dict() for each in (*self._all, *self._schedules)]

    def load(self, state: list[Any]) -> None:
        """Go on from a checkpoint."""
        for each, kept in zip((*self._all, *self._schedules), state, strict=True):
            each.load_state_dict(kept)


def _is_matrix(name: str, weight: torch.Tensor) -> bool:
    return weight.dim() == 2 and "embed" not in name and "lm_head" not in name
