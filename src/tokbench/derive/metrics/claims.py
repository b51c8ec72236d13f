"""What claims alone ask of a cell: a link's cost, a framework's share of the best, identical repeats."""

from __future__ import annotations

import statistics

from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import decode_rates, finished_trials
from tokbench.derive.words import mark, t
from tokbench.record.run import CellRecord, Trial
from tokbench.units import RATIO, Better

FRAMEWORK, PLATFORM = "framework", "platform"
"""Labels of cells that run one model on several frameworks."""


def _link_kept(context: CellContext, cut: str) -> Values:
    return [_kept_in(trial, cut) for trial in finished_trials(context.cell)]


def _kept_in(trial: Trial, cut: str) -> float:
    points = [point for point in trial.points if (point.experiment, point.settings.get("cut")) == ("link", cut)]
    times: dict[str, list[float]] = {}
    for point in points:
        times.setdefault(str(point.settings["link"]), []).append(point.duration_s)
    if not {"free", "delayed", "exchanges alone"} <= times.keys():
        raise UndefinedError(t("the cell has no experiment of a link"))
    alone_s = statistics.fmean(times["exchanges alone"])
    free_s, delayed_s = (statistics.fmean(times[name]) - alone_s for name in ("free", "delayed"))
    if min(free_s, delayed_s) <= 0:
        raise UndefinedError(t("the exchanges alone took as long as the steps that hold them"))
    return free_s / delayed_s


@metric(RATIO, Better.HIGHER, mark("Speed kept over a link, cut through every layer"), order=70)
def tensor_link_kept_ratio(context: CellContext) -> Values:
    """Decode speed of a model in two processes over a link with a delay, against that over one that costs nothing.

    Formula: (free - alone) / (delayed - alone) per repetition: mean durations of the experiment's windows of one
    number of steps. `alone`: the same exchanges with nothing between them: what the loopback takes is no link's.
    The delay is injected. Waiting for one another, which unequal processes add, stays in both.
    """
    return _link_kept(context, "tensor")


@metric(RATIO, Better.HIGHER, mark("Speed kept over a link, cut between layers"), order=71)
def pipeline_link_kept_ratio(context: CellContext) -> Values:
    """The same of a model cut between layers: one exchange of states and one of the token a step.

    Formula: (free - alone) / (delayed - alone), as tensor_link_kept_ratio.
    """
    return _link_kept(context, "pipeline")


@metric(RATIO, Better.HIGHER, mark("Share of the fastest framework"), order=72)
def best_framework_ratio(context: CellContext) -> Values:
    """Decode speed beside that of the fastest framework on the same work: model, weights, type, prompts and load.

    Formula: decode_tokens_per_s of each repetition / the largest median of it over the run's cells of the same pair
    key and the same label `platform`, each with a label `framework`. How far the fastest one's own repetitions lie
    apart is in its own cell alone.
    """
    own = context.cell.planned.labels
    if FRAMEWORK not in own:
        raise UndefinedError(t("the cell names no framework"))
    medians: dict[str, list[float]] = {}
    for cell in context.run.cells.values():
        labels = cell.planned.labels
        is_rival = FRAMEWORK in labels and labels.get(PLATFORM) == own.get(PLATFORM)
        if is_rival and cell.planned.pair_key == context.cell.planned.pair_key:
            medians.setdefault(labels[FRAMEWORK], []).extend(_median_rate(cell))
    fastest = [max(own) for own in medians.values() if own]
    if len(fastest) < 2:
        raise UndefinedError(t("the run has no second framework on the same work"))
    return [rate / max(fastest) for rate in decode_rates(context.cell)]


def _median_rate(cell: CellRecord) -> list[float]:
    """Of a cell that has a decode speed; nothing of one that has none."""
    try:
        return [statistics.median(decode_rates(cell))]
    except UndefinedError:
        return []


@metric(RATIO, Better.HIGHER, mark("Share of repeats that are the same bit for bit"), order=73, is_exact=True)
def identical_repeats_ratio(context: CellContext) -> Values:
    """How often the same static batch gives the same numbers when it is worked through a second time.

    Formula: checks against `itself` with the same tokens and the same cached keys and values, bit for bit / all such
    checks. The keys and values are what every layer makes of a step; the logits of the last step are in its token.
    """
    checks = [check for check in context.cell.repeats if check.against == "itself" and check.states_equal is not None]
    if not checks:
        raise UndefinedError(t("the cell was not worked through twice (engine.check_repeat)"))
    same = sum(bool(check.states_equal) and check.tokens_equal for check in checks)
    return [same / len(checks)]
