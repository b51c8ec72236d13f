"""A cell with drafts beside the same cell without: paired repetitions, and what drafting and verifying cost.

Every cost is in steps of the plain cell: the time of one token of every row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Literal, NamedTuple

from tokbench.derive.repetitions import ByWorker, UndefinedError, decode_rate, finished_trials
from tokbench.derive.speculation.passes import EXPERIMENT, points_of, seconds_by_m
from tokbench.derive.speculation.rounds import drafting_of, rounds_of, tokens_per_round
from tokbench.derive.words import t
from tokbench.record.run import CellRecord, Run, Trial
from tokbench.record.spec import CellSpec

CostSource = Literal["rounds", "apart"]
"""Whether a cost was timed in the rounds that it predicts, or by itself in another cell or experiment of the run."""


class Pair(NamedTuple):
    """One repetition with drafts, and the plain decode speed beside it."""

    trial: Trial
    plain_tokens_per_s: float
    """Of one row: the mean of the plain repetitions of the same block."""


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


def find_baseline(run: Run, cell: CellRecord) -> CellRecord:
    """The cell of the run that asks the same without drafts.

    Raises:
        UndefinedError: the cell drafts nothing, or there is no such cell.
    """
    drafting_of(cell)
    wanted = _key(cell.spec)
    for other in run.cells.values():
        if other.spec.speculation == "none" and _key(other.spec) == wanted:
            return other
    raise UndefinedError(t("no cell of this run asks the same without drafts: add `none` to speculation"))


def _key(spec: CellSpec) -> str:
    """All that is asked but drafts, labels and checks outside windows."""
    tree = spec.model_copy(update={"speculation": "none", "labels": {}})
    engine = tree.engine.model_copy(update={"check_tokens": 0, "check_repeat": False})
    return tree.model_copy(update={"engine": engine}).model_dump_json()


def find_pairs(run: Run, cell: CellRecord) -> list[Pair]:
    """The repetitions that have plain ones in their block; those on the same prompts are preferred.

    Raises:
        UndefinedError: there is no such cell, or no block holds a repetition of both cells.
    """
    plain = finished_trials(find_baseline(run, cell))
    pairs = []
    for trial in finished_trials(cell):
        beside = [other for other in plain if other.started.block == trial.started.block]
        alike = [other for other in beside if _prompts(other) == _prompts(trial)] or beside
        if alike:
            pairs.append(Pair(trial, statistics.fmean(decode_rate(other) for other in alike)))
    if not pairs:
        raise UndefinedError(t("no block holds a repetition of both cells"))
    return pairs


def _prompts(trial: Trial) -> tuple[str, ...]:
    return () if trial.prompts is None else trial.prompts.prompt_ids


def by_pair(run: Run, cell: CellRecord, value: Callable[[Pair], float]) -> ByWorker | tuple[float, ...]:
    """A value for each pair: one per repetition where every repetition has one, else told by its process.

    Raises:
        UndefinedError: there is no pair.
    """
    pairs = find_pairs(run, cell)
    values = tuple(value(pair) for pair in pairs)
    if len(pairs) == len(cell.good_trials()):
        return values
    return ByWorker.of((pair.trial.started.worker_id, found) for pair, found in zip(pairs, values, strict=True))


def costs_in_rounds(pair: Pair) -> Costs:
    """What the rounds of a repetition took on average, over the plain step beside it.

    Raises:
        UndefinedError: the engine does not time drafting and verifying apart.
    """
    longest = max(rounds_of(pair.trial), key=lambda event: len(event.drafted))  # the last row's rounds are all rounds
    if not longest.draft_s or not longest.verify_s:
        raise UndefinedError(t("the engine does not time drafting and verifying apart"))
    return Costs(
        statistics.fmean(longest.draft_s) * pair.plain_tokens_per_s,
        statistics.fmean(longest.verify_s) * pair.plain_tokens_per_s,
    )


def costs_apart(run: Run, cell: CellRecord) -> tuple[float | None, float | None]:
    """The same two costs from elsewhere in the run: the draft model decoding alone, and the verify_cost experiment."""
    return _draft_apart(run, cell), _verify_apart(run, cell)


def cost_sources(run: Run, cell: CellRecord) -> CostSources:
    """Where the prediction of a cell takes its costs from."""
    draft, verify = costs_apart(run, cell)
    return CostSources("rounds" if draft is None else "apart", "rounds" if verify is None else "apart")


def predict(run: Run, cell: CellRecord, pair: Pair) -> float:
    """The speed-up that acceptance and costs allow: tokens per round over what the round costs.

    Raises:
        UndefinedError: no round was recorded, or a cost is not known.
    """
    draft, verify = costs_apart(run, cell)
    within = costs_in_rounds(pair)
    costs = Costs(within.draft if draft is None else draft, within.verify if verify is None else verify)
    return tokens_per_round(pair.trial) / costs.round


def _draft_apart(run: Run, cell: CellRecord) -> float | None:
    """gamma plain steps of the draft model's own cell over a plain step of the target's; None without such a cell."""
    drafting = drafting_of(cell)
    if drafting.draft is None:
        return None
    wanted = _key(cell.spec.model_copy(update={"model": drafting.draft}))
    alone = next((other for other in run.cells.values() if _is_plain(other) and _key(other.spec) == wanted), None)
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
    probes = [other for other in run.cells.values() if _probes_verifying(other.spec, cell.spec)]
    length = cell.spec.workload.prompt_tokens
    probes = [other for other in probes if other.spec.workload.prompt_tokens == length] or probes
    tokens = drafting_of(cell).gamma + 1
    timed = [seconds_by_m(points_of(trial)) for other in probes for trial in other.good_trials()]
    ratios = [seconds[tokens] / seconds[1] for seconds in timed if {1, tokens} <= seconds.keys()]
    return statistics.median(ratios) if ratios else None


def _probes_verifying(spec: CellSpec, of: CellSpec) -> bool:
    return spec.experiment != "none" and spec.experiment.kind == EXPERIMENT and _is_same_pass(spec, of)


def _is_same_pass(one: CellSpec, other: CellSpec) -> bool:
    """Whether a forward pass over so many tokens is the same in both: model, engine, device and rows."""
    names = ("model", "engine", "device", "hardware", "load")
    dumped = [spec.model_dump(include=set(names)) for spec in (one, other)]
    for tree in dumped:
        tree["engine"].pop("check_tokens", None)
        tree["engine"].pop("check_repeat", None)
    return dumped[0] == dumped[1]
