"""What drafting and verifying cost, in plain steps, and the speed-up that these costs allow. Says where each came from.

Costs that were timed apart are preferred: a prediction from the rounds' own times only shows that their parts add up.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokbench.derive.repetitions import UndefinedError, decode_rate, finished_trials
from tokbench.derive.speculation.pairing import Pair, find_baseline, find_pairs, unprobed
from tokbench.derive.speculation.passes import EXPERIMENT, PARTS, Parts, parts_of, points_of, seconds_by_m
from tokbench.derive.speculation.rounds import drafting_of, rounds_of, tokens_per_round
from tokbench.derive.words import t
from tokbench.record.run import CellRecord, Run
from tokbench.record.spec import CellSpec

CostSource = Literal["rounds", "apart", "alone"]
"""`rounds`: timed in the rounds that it predicts. `apart`: the draft model's own cell, or the experiment verify_cost.
`alone`: the very passes of the rounds, each alone in windows beside plain steps (experiment round_parts)."""


class Costs(NamedTuple):
    """What a round costs, in plain steps."""

    draft: float
    """All drafts of a round together: gamma times draft_cost_ratio."""
    verify: float

    @property
    def round(self) -> float:
        """Drafting and verifying; what is left of a round is in neither."""
        return self.draft + self.verify


class CostSources(NamedTuple):
    """Where the costs of a prediction come from."""

    draft: CostSource
    verify: CostSource


class Gap(NamedTuple):
    """Plain steps that a round took beyond its prediction, part by part; below 0 where it took fewer."""

    draft: float
    verify: float
    other: float
    """What a round does besides; no prediction has it."""
    rows: float
    """What rows lose, or gain, that end apart; 0 with one row."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)

    @property
    def cause(self) -> Literal["draft", "verify", "other", "rows"]:
        """The part that moves the round furthest the way in which it is off."""
        toward = [part if self.total >= 0 else -part for part in self]
        names: tuple[Literal["draft", "verify", "other", "rows"], ...] = ("draft", "verify", "other", "rows")
        return names[toward.index(max(toward))]


class _Within(NamedTuple):
    """Mean seconds of a repetition's rounds."""

    draft_s: float
    verify_s: float
    other_s: float | None


def _within(pair: Pair) -> _Within:
    longest = max(rounds_of(pair.trial), key=lambda event: len(event.drafted))  # the last row's rounds are all rounds
    if not longest.draft_s or not longest.verify_s:
        raise UndefinedError(t("the engine does not time drafting and verifying apart"))
    other_s = statistics.fmean(longest.other_s) if longest.other_s else None
    return _Within(statistics.fmean(longest.draft_s), statistics.fmean(longest.verify_s), other_s)


def costs_in_rounds(pair: Pair) -> Costs:
    """What the rounds of a repetition took on average, over the plain step beside it.

    Raises:
        UndefinedError: the engine does not time drafting and verifying apart.
    """
    found = _within(pair)
    return Costs(found.draft_s * pair.plain_tokens_per_s, found.verify_s * pair.plain_tokens_per_s)


def cost_sources(run: Run, cell: CellRecord) -> CostSources:
    """Where the prediction of a cell takes its costs from."""
    if _alone(run, cell):
        return CostSources("alone", "alone")
    draft, verify = _draft_apart(run, cell), _verify_apart(run, cell)
    return CostSources("rounds" if draft is None else "apart", "rounds" if verify is None else "apart")


def predicted_costs(run: Run, cell: CellRecord, pair: Pair) -> Costs:
    """The costs that a repetition's prediction rests on.

    Of its own parts where each was timed alone, else the median over the repetitions of the run that timed the same
    passes alone; else the draft model's own cell and verify_cost; else what the rounds themselves took.

    Raises:
        UndefinedError: a cost is not known.
    """
    own = parts_of(pair.trial)
    if own is not None:
        return _over_plain(own)
    alone = _alone(run, cell)
    if alone:
        costs = [_over_plain(parts) for parts in alone]
        return Costs(*(statistics.median(values) for values in zip(*costs, strict=True)))
    draft, verify = _draft_apart(run, cell), _verify_apart(run, cell)
    if draft is not None and verify is not None:
        return Costs(draft, verify)
    within = costs_in_rounds(pair)
    return Costs(within.draft if draft is None else draft, within.verify if verify is None else verify)


def predict(run: Run, cell: CellRecord, pair: Pair) -> float:
    """The speed-up that acceptance and costs allow: tokens per round over what the round costs.

    Raises:
        UndefinedError: no round was recorded, or a cost is not known.
    """
    return tokens_per_round(pair.trial) / predicted_costs(run, cell, pair).round


def mean_costs(run: Run, cell: CellRecord) -> Costs:
    """The costs of the predictions of a cell, the mean over its repetitions.

    Raises:
        UndefinedError: there is no prediction.
    """
    found = [predicted_costs(run, cell, pair) for pair in find_pairs(run, cell)]
    return Costs(*(statistics.fmean(values) for values in zip(*found, strict=True)))


def find_gap(run: Run, cell: CellRecord) -> Gap:
    """What a round took beyond its prediction, the mean over the repetitions.

    Raises:
        UndefinedError: there is no prediction, or the engine does not time the parts of a round.
    """
    gaps = [_gap(pair, predicted_costs(run, cell, pair)) for pair in find_pairs(run, cell)]
    return Gap(*(statistics.fmean(values) for values in zip(*gaps, strict=True)))


def _gap(pair: Pair, predicted: Costs) -> Gap:
    """tokens_per_step / speedup_x is what a round cost; less what was predicted, told apart by its own times."""
    found, plain = _within(pair), pair.plain_tokens_per_s
    if found.other_s is None:
        raise UndefinedError(t("the engine does not time drafting and verifying apart"))
    seen = Costs(found.draft_s * plain, found.verify_s * plain)
    other = found.other_s * plain
    whole = tokens_per_round(pair.trial) * plain / decode_rate(pair.trial)
    return Gap(seen.draft - predicted.draft, seen.verify - predicted.verify, other, whole - seen.round - other)


def _over_plain(parts: Parts) -> Costs:
    return Costs(parts.draft_s / parts.plain_s, parts.verify_s / parts.plain_s)


def _alone(run: Run, cell: CellRecord) -> list[Parts]:
    """The repetitions of the run that timed the parts of the same rounds alone: the task may be another."""
    drafting = drafting_of(cell)
    probes = [
        other
        for other in run.cells.values()
        if other.spec.speculation == drafting and _is_probe(other.spec, PARTS) and _is_same_room(other.spec, cell.spec)
    ]
    return [parts for other in probes for trial in other.good_trials() if (parts := parts_of(trial)) is not None]


def _is_probe(spec: CellSpec, kind: str) -> bool:
    return spec.experiment != "none" and spec.experiment.kind == kind


def _is_same_room(one: CellSpec, other: CellSpec) -> bool:
    """Whether caches are as long, and tokens taken in the same way."""
    works = [
        (spec.workload.prompt_tokens, spec.workload.output_tokens, spec.workload.temperature) for spec in (one, other)
    ]
    return works[0] == works[1] and _is_same_pass(one, other)


def _draft_apart(run: Run, cell: CellRecord) -> float | None:
    """gamma plain steps of the draft model's own cell over a plain step of the target's; None without such a cell."""
    drafting = drafting_of(cell)
    if drafting.draft is None:
        return None
    wanted = unprobed(cell.spec.model_copy(update={"model": drafting.draft}))
    alone = next((other for other in run.cells.values() if _is_plain(other) and unprobed(other.spec) == wanted), None)
    if alone is None:
        return None
    return drafting.gamma * _plain_rate(find_baseline(run, cell)) / _plain_rate(alone)


def _is_plain(cell: CellRecord) -> bool:
    return cell.spec.speculation == "none" and bool(cell.good_trials())


def _plain_rate(cell: CellRecord) -> float:
    return statistics.fmean(decode_rate(trial) for trial in finished_trials(cell))


def _verify_apart(run: Run, cell: CellRecord) -> float | None:
    """Time of gamma + 1 tokens a row over that of one, paired within each repetition of the run's experiment.

    None without it. At the same prompt length where the run has it: the deeper the cache, the more a pass reads.
    """
    probes = [
        other
        for other in run.cells.values()
        if _is_probe(other.spec, EXPERIMENT) and _is_same_pass(other.spec, cell.spec)
    ]
    length = cell.spec.workload.prompt_tokens
    probes = [other for other in probes if other.spec.workload.prompt_tokens == length] or probes
    tokens = drafting_of(cell).gamma + 1
    timed = [seconds_by_m(points_of(trial)) for other in probes for trial in other.good_trials()]
    return _median([seconds[tokens] / seconds[1] for seconds in timed if {1, tokens} <= seconds.keys()])


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _is_same_pass(one: CellSpec, other: CellSpec) -> bool:
    """Whether a forward pass over so many tokens is the same in both: model, engine, device and rows."""
    names = ("model", "engine", "device", "hardware", "load")
    dumped = [spec.model_dump(include=set(names)) for spec in (one, other)]
    for tree in dumped:
        tree["engine"].pop("check_tokens", None)
        tree["engine"].pop("check_repeat", None)
    return dumped[0] == dumped[1]
