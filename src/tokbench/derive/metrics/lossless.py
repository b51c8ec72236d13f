"""Whether drafting changes what comes out: shares of prompts, and one p for all prefixes tested.

In float32 all are counts over the whole cell, without an interval; the report states the bound that so many prompts
allow. In fewer bits rounding parts some prompts and not others, so that a share there is an estimate.
"""

from __future__ import annotations

from tokbench.derive.lossless import FULL_PRECISION, Arm, Check, Matches, combined_p, count_matches, g_tests
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import CountedByPrompt
from tokbench.derive.words import mark, t
from tokbench.units import RATIO, Better


def _matches(context: CellContext, check: Check) -> Matches:
    found = count_matches(context.cell, check)
    if found is not None:
        return found
    if count_matches(context.cell, "greedy") is None:
        raise UndefinedError(t("the experiment `lossless` was not run in this cell"))
    raise UndefinedError(t("that comparison was not made in this cell"))


def _identical_share(context: CellContext, check: Check) -> Values:
    """In float32 one value for every prompt, so that n is their number; in fewer bits 1 for each that is the same."""
    found = _matches(context, check)
    if found.dtype != FULL_PRECISION:
        return CountedByPrompt([1.0] * found.identical + [0.0] * (found.prompts - found.identical))
    return [found.identical / found.prompts] * found.prompts


def _p_of_draws(context: CellContext, arm: Arm) -> Values:
    """One value for every prefix, so that n is their number."""
    _matches(context, "greedy")
    tests = g_tests(context.cell, arm)
    if not tests:
        raise UndefinedError(t("nothing was drawn, or too little for a test"))
    return [combined_p(tests)] * len(tests)


@metric(RATIO, Better.HIGHER, mark("Greedy output unchanged by drafts"), order=130, is_exact=True)
def greedy_match_ratio(context: CellContext) -> Values:
    """Share of prompts whose greedy output with drafts is, token by token, that without.

    Formula: prompts with matched = compared in every repetition / prompts, of the check `greedy`; a prompt of a frozen
    set that comes round again is one prompt. Exact in float32; in fewer bits an estimate over prompts, with the
    interval of Clopper and Pearson.
    """
    return _identical_share(context, "greedy")


@metric(RATIO, Better.LOWER, mark("Greedy output changed without a tie"), order=131, is_exact=True)
def untied_mismatch_ratio(context: CellContext) -> Values:
    """Share of prompts whose greedy output leaves that without drafts where rounding does not explain it.

    Formula: prompts whose two best logits are 1e-4 or more apart where the output first differs / prompts. Where one
    differs it is told in float32 alone: in fewer bits rounding moves logits by more than that.
    """
    found = _matches(context, "greedy")
    if found.gaps and found.dtype != FULL_PRECISION:
        raise UndefinedError(t("in {dtype} rounding parts more than ties: see another batch", dtype=found.dtype))
    if found.untied is None:
        raise UndefinedError(t("a prompt differs, and the engine does not show the logits there"))
    return [found.untied / found.prompts] * found.prompts


@metric(RATIO, Better.NEITHER, mark("Greedy output unchanged by a lossy rule"), order=132, is_exact=True)
def lossy_greedy_match_ratio(context: CellContext) -> Values:
    """The control: greedy_match_ratio of a rule that also accepts a draft among the three likeliest tokens.

    Formula: prompts with matched = compared / prompts, of the check `lossy`. At 1 the check can find nothing.
    """
    return _identical_share(context, "lossy")


@metric(RATIO, Better.NEITHER, mark("Greedy output unchanged by another batch"), order=133, is_exact=True)
def batch_match_ratio(context: CellContext) -> Values:
    """What rounding alone changes: share of prompts whose output without drafts is the same at another static batch.

    Formula: prompts with matched = compared / prompts, of the check `batch`.
    """
    return _identical_share(context, "batch")


@metric(RATIO, Better.NEITHER, mark("p of draws with drafts"), order=134, is_exact=True)
def sampled_p_value(context: CellContext) -> Values:
    """p of G-tests that tokens drawn with drafts follow the distribution without them, corrected for their number.

    Formula: min(1, 2·min(p of ΣG, n·least p)) over the n prefixes, one prefix its own p; each p a chi-square tail, as
    in `derive/lossless.py`.
    """
    return _p_of_draws(context, "speculative")


@metric(RATIO, Better.NEITHER, mark("p of draws with a lossy rule"), order=135, is_exact=True)
def lossy_sampled_p_value(context: CellContext) -> Values:
    """The control: sampled_p_value of a rule that also accepts a draft among the three likeliest tokens.

    Formula: the same of the arm `lossy`. Where it is not small the test can find nothing.
    """
    return _p_of_draws(context, "lossy")
