"""Whether drafting changes what comes out: shares of prompts, and the least p over the prefixes tested.

All are counts over the whole cell, without an interval; the report states the bound that so many prompts allow.
"""

from __future__ import annotations

from tokbench.derive.lossless import FULL_PRECISION, Arm, Check, Matches, count_matches, g_tests
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.words import mark, t
from tokbench.units import RATIO, Better


def _matches(context: CellContext, check: Check) -> Matches:
    found = count_matches(context.cell, check)
    if found is None:
        raise UndefinedError(t("the experiment `lossless` was not run in this cell"))
    return found


def _identical_share(context: CellContext, check: Check) -> Values:
    """One value for every prompt, so that n is their number."""
    found = _matches(context, check)
    return [found.identical / found.prompts] * found.prompts


def _least_p(context: CellContext, arm: Arm) -> Values:
    """One value for every prefix, so that n is their number."""
    _matches(context, "greedy")
    tests = g_tests(context.cell, arm)
    if not tests:
        raise UndefinedError(t("nothing was drawn, or too little for a test"))
    return [min(test.p_value for test in tests)] * len(tests)


@metric(RATIO, Better.HIGHER, mark("Greedy output unchanged by drafts"), order=130, is_exact=True)
def greedy_match_ratio(context: CellContext) -> Values:
    """Share of prompts whose greedy output with drafts is, token by token, that without.

    Formula: prompts with matched = compared in every repetition / prompts, of the check `greedy`; a prompt of a frozen
    set that comes round again is one prompt.
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
    """p of a G-test that tokens drawn with drafts follow the distribution without them, the least over the prefixes.

    Formula: min over prefixes of the chi-square tail of G, as in `derive/lossless.py`; not corrected for their number,
    which is n.
    """
    return _least_p(context, "speculative")


@metric(RATIO, Better.NEITHER, mark("p of draws with a lossy rule"), order=135, is_exact=True)
def lossy_sampled_p_value(context: CellContext) -> Values:
    """The control: sampled_p_value of a rule that also accepts a draft among the three likeliest tokens.

    Formula: the same of the arm `lossy`. Where it is not small the test can find nothing.
    """
    return _least_p(context, "lossy")
