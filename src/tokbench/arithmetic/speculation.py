"""Speculative decoding in closed form: tokens of a round, and the speed-up that they buy."""

from __future__ import annotations

from tokbench.arithmetic.shapes import require


def tokens_per_round(alpha: float, gamma: int) -> float:
    """Expect the tokens of one draft-and-verify round, the target's own (bonus) token included.

    Formula: (1 - alpha^(gamma+1)) / (1 - alpha), and gamma + 1 at alpha = 1. Source: arXiv 2211.17192, equation 1.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is a probability between 0 and 1, not {alpha}")
    require(0, gamma=gamma)
    return float(gamma + 1) if alpha == 1.0 else (1.0 - alpha ** (gamma + 1)) / (1.0 - alpha)


def speculative_speedup(alpha: float, gamma: int, draft_cost_ratio: float, verify_cost_ratio: float = 1.0) -> float:
    """Expect the speed-up of speculative decoding over one-token steps of the target.

    Ratios to a one-token target step: of one draft step, and of verifying gamma + 1 tokens (1 in the paper).
    Formula: tokens_per_round / (gamma·draft_cost_ratio + verify_cost_ratio). Source: arXiv 2211.17192, theorem 3.8.
    """
    if draft_cost_ratio < 0.0 or verify_cost_ratio <= 0.0:
        raise ValueError(f"not the cost of a step: draft {draft_cost_ratio}, verify {verify_cost_ratio}")
    return tokens_per_round(alpha, gamma) / (gamma * draft_cost_ratio + verify_cost_ratio)


def implied_alpha(
    speedup: float, gamma: int, draft_cost_ratio: float = 0.0, verify_cost_ratio: float = 1.0
) -> float | None:
    """The acceptance that a speed-up needs; None where even accepting every draft gives less.

    The inverse of `speculative_speedup` in alpha. A speed-up below that of no accepted draft needs none: 0.
    """
    if speculative_speedup(1.0, gamma, draft_cost_ratio, verify_cost_ratio) < speedup:
        return None
    if speculative_speedup(0.0, gamma, draft_cost_ratio, verify_cost_ratio) >= speedup:
        return 0.0
    from scipy.optimize import brentq  # scipy costs 0.2 s: not for --help

    return float(
        brentq(lambda alpha: speculative_speedup(alpha, gamma, draft_cost_ratio, verify_cost_ratio) - speedup, 0.0, 1.0)
    )
