"""Speculative decoding: how many drafts are accepted, what they cost, what they buy. See docs/design/speculation.md.

A plain step is one of the same cell without drafts, in the same run and block.
"""

from __future__ import annotations

from collections.abc import Callable

from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import ByPrompt, SharesByPrompt, decode_rate
from tokbench.derive.speculation.costs import costs_in_rounds, predict
from tokbench.derive.speculation.pairing import Pair, by_pair
from tokbench.derive.speculation.rounds import Counts, count, drafting_of, events_by_prompt
from tokbench.derive.words import mark, t
from tokbench.units import RATIO, Better


def _by_prompt(
    context: CellContext, value: Callable[[Counts], float | None], kind: type[ByPrompt] = SharesByPrompt
) -> Values:
    """The value of every prompt that has it."""
    counted = [value(count(events)) for events in events_by_prompt(context.cell)]
    known = [found for found in counted if found is not None]
    if not known:
        raise UndefinedError(t("nothing was ever drafted"))
    return kind(known)


def _by_pair(context: CellContext, value: Callable[[Pair], float]) -> Values:
    return by_pair(context.run, context.cell, value)


@metric(RATIO, Better.HIGHER, mark("Accepted over drafted"), order=80)
def acceptance_ratio(context: CellContext) -> Values:
    """Share of the drafted tokens that the target accepted; it falls with gamma at the same acceptance_alpha.

    Formula: per prompt, sum of accepted / sum of drafted over the rounds that drafted anything.
    """
    return _by_prompt(context, lambda found: found.accepted / found.drafted if found.drafted else None)


@metric(RATIO, Better.HIGHER, mark("Acceptance (alpha)"), order=81)
def acceptance_alpha(context: CellContext) -> Values:
    """Probability that a drafted token is accepted if all before it in its round were.

    Formula: per prompt, sum of accepted / (sum of accepted + rounds with fewer accepted than drafted): what maximum
    likelihood gives for a geometric law that is cut at the drafted length. Rounds that drafted nothing are left out.
    """
    return _by_prompt(
        context, lambda found: found.accepted / (found.accepted + found.refused) if found.drafted else None
    )


@metric(RATIO, Better.HIGHER, mark("Tokens per step"), order=82)
def tokens_per_step(context: CellContext) -> Values:
    """Mean tokens that one forward pass of the target gives a row, its own (bonus) token included.

    Formula: per prompt, sum of emitted / rounds; a last round that is cut at the row's end counts as it was cut.
    """
    return _by_prompt(context, lambda found: found.emitted / found.rounds if found.rounds else None, ByPrompt)


@metric(RATIO, Better.LOWER, mark("Draft cost"), order=83)
def draft_cost_ratio(context: CellContext) -> Values:
    """Time of one drafted token of every row over that of a plain step.

    Formula: mean draft_s of the rounds / gamma * decode_tokens_per_s of the plain repetitions beside it.
    """
    gamma = drafting_of(context.cell).gamma
    return _by_pair(context, lambda pair: costs_in_rounds(pair).draft / gamma)


@metric(RATIO, Better.LOWER, mark("Verify cost"), order=84)
def verify_cost_ratio(context: CellContext) -> Values:
    """Time of one verifying pass over gamma + 1 tokens a row over that of a plain step.

    Formula: mean verify_s of the rounds * decode_tokens_per_s of the plain repetitions beside it.
    """
    return _by_pair(context, lambda pair: costs_in_rounds(pair).verify)


@metric(RATIO, Better.HIGHER, mark("Speed-up by drafts"), order=85)
def speedup_x(context: CellContext) -> Values:
    """Decode speed of one stream with drafts over that without.

    Formula: decode_tokens_per_s / decode_tokens_per_s of the same cell with speculation none, in the same block of the
    same run, on the same prompts where the block has them.
    """
    return _by_pair(context, lambda pair: decode_rate(pair.trial) / pair.plain_tokens_per_s)


@metric(RATIO, Better.HIGHER, mark("Predicted speed-up"), order=86)
def predicted_speedup_x(context: CellContext) -> Values:
    """The speed-up that the measured acceptance and costs allow; what a round does besides is left out.

    Formula: tokens_per_step / (gamma * draft cost + verify cost), tokens as measured in the repetition. Costs are those
    of the experiment round_parts: the repetition's own, else the median of the run's over the same passes. Without it
    the draft cost is that of the draft model's own plain cell, the verify cost that of the run's verify_cost experiment
    at gamma + 1 (of the same prompt length where the run has it); where one is lacking, that of the rounds themselves.
    """
    return _by_pair(context, lambda pair: predict(context.run, context.cell, pair))


@metric(RATIO, Better.NEITHER, mark("Speed-up over predicted"), order=87)
def speedup_over_predicted(context: CellContext) -> Values:
    """How much of the predicted speed-up was had.

    Formula: speedup_x / predicted_speedup_x of the same repetition.
    """
    return _by_pair(
        context,
        lambda pair: decode_rate(pair.trial) / pair.plain_tokens_per_s / predict(context.run, context.cell, pair),
    )
