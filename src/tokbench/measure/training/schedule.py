"""How fast to learn at each step. Pure arithmetic."""

from __future__ import annotations

import math

WARMUP_SHARE = 0.05
LAST_SHARE = 0.05


def share_of_rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step of so many: up over the first twentieth, then half a cosine down."""
    warmup = max(round(steps * WARMUP_SHARE), 1)
    if step < warmup:
        return (step + 1) / warmup
    gone = (step - warmup) / max(steps - warmup, 1)
    return LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * gone)) / 2
