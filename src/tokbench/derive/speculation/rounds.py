"""Counts of drafted, accepted and emitted tokens, from the rounds that a record holds. Times nothing, words nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokbench.derive.repetitions import UndefinedError, finished_trials
from tokbench.derive.words import t
from tokbench.record.observations import SpeculationRounds
from tokbench.record.run import CellRecord, Trial
from tokbench.record.spec import CellSpec, SpeculationSpec


class Counts(NamedTuple):
    """What several rounds of rows add up to."""

    rounds: int
    """Row by row: a round of four rows is four."""
    drafting: int
    """Those in which anything was drafted."""
    drafted: int
    accepted: int
    refused: int
    """Rounds in which a draft was refused: fewer accepted than drafted."""
    emitted: int


def is_drafting(spec: CellSpec) -> bool:
    """Whether the cell asks for drafts."""
    return spec.speculation != "none"


def drafting_of(cell: CellRecord) -> SpeculationSpec:
    """How the cell drafts.

    Raises:
        UndefinedError: it does not.
    """
    if cell.spec.speculation == "none":
        raise UndefinedError(t("nothing is drafted in this cell"))
    return cell.spec.speculation


def rounds_of(trial: Trial) -> list[SpeculationRounds]:
    """The rounds of a repetition, one event a row.

    Raises:
        UndefinedError: none was recorded, or an event does not hold each round's counts.
    """
    if not trial.speculation:
        raise UndefinedError(t("no round of drafting was recorded"))
    if not all(len(event.drafted) == len(event.accepted) == len(_emitted(event)) for event in trial.speculation):
        raise UndefinedError(t("the recorded rounds of drafting contradict one another"))
    return trial.speculation


def count(events: Iterable[SpeculationRounds]) -> Counts:
    """Everything that the events hold."""
    rounds = [found for event in events for found in zip(event.drafted, event.accepted, _emitted(event), strict=True)]
    drafting = [found for found in rounds if found[0]]
    return Counts(
        rounds=len(rounds),
        drafting=len(drafting),
        drafted=sum(drafted for drafted, _, _ in drafting),
        accepted=sum(accepted for _, accepted, _ in drafting),
        refused=sum(accepted < drafted for drafted, accepted, _ in drafting),
        emitted=sum(emitted for _, _, emitted in rounds),
    )


def _emitted(event: SpeculationRounds) -> Sequence[int]:
    """As recorded; a record without it has what each round accepted and the target's own token."""
    return event.emitted or [accepted + 1 for accepted in event.accepted]


def events_by_prompt(cell: CellRecord) -> list[list[SpeculationRounds]]:
    """The events of each prompt that the cell worked on, in the order in which they were met.

    Prompts of a frozen set are told apart by their names. Without one each row has the same prompt in every repetition,
    which says nothing new where the likeliest token is taken; drawn tokens and drawn acceptance do.

    Raises:
        UndefinedError: nothing is drafted, or no round was recorded.
    """
    drafting = drafting_of(cell)
    is_drawn = cell.spec.workload.temperature > 0 or drafting.method == "replay"
    found: dict[tuple[str, int], list[SpeculationRounds]] = {}
    for trial in finished_trials(cell):
        for event in rounds_of(trial):
            names = () if trial.prompts is None or is_drawn else trial.prompts.prompt_ids
            is_named = event.row < len(names)
            unnamed = (trial.started.trial_id if is_drawn else "", event.row)
            key = (names[event.row], 0) if is_named else unnamed
            found.setdefault(key, []).append(event)
    return list(found.values())


def events_once(cell: CellRecord) -> list[SpeculationRounds]:
    """The first event of each prompt: what a repetition of it shows again would make a count look surer than it is.

    Raises:
        UndefinedError: nothing is drafted, or no round was recorded.
    """
    return [events[0] for events in events_by_prompt(cell)]


def tokens_per_round(trial: Trial) -> float:
    """Mean over rows of a repetition of the tokens that a round gave the row, the target's own included.

    Raises:
        UndefinedError: no round was recorded.
    """
    counted = [count([event]) for event in rounds_of(trial)]
    return sum(row.emitted / row.rounds for row in counted) / len(counted)


def acceptance_at_position(cell: CellRecord) -> list[tuple[int, int]]:
    """Per position of a draft, how often it was reached with all before it accepted, and how often accepted then.

    Each prompt counts once.

    Raises:
        UndefinedError: nothing is drafted, or no round was recorded.
    """
    rounds = [found for event in events_once(cell) for found in zip(event.drafted, event.accepted, strict=True)]
    most = max((drafted for drafted, _ in rounds), default=0)
    return [
        (
            sum(drafted >= place and accepted >= place - 1 for drafted, accepted in rounds),
            sum(drafted >= place and accepted >= place for drafted, accepted in rounds),
        )
        for place in range(1, most + 1)
    ]


def adds_up(cell: CellRecord, trial: Trial) -> bool:
    """Whether drafted, accepted and emitted tokens of a repetition agree with one another and with what was asked.

    Each round gives accepted + 1 tokens; the last of a row may be cut at the row's end. All together are the output
    tokens but the first, which comes from the prefill; the cache grows by what was emitted.
    """
    rows = cell.spec.load.static_batch if cell.spec.load.kind == "static_batch" else None
    if sorted(event.row for event in trial.speculation) != list(range(rows or 0)):
        return False
    return all(_row_adds_up(event, cell.spec.workload.output_tokens - 1) for event in trial.speculation)


def _row_adds_up(event: SpeculationRounds, wanted: int) -> bool:
    emitted = _emitted(event)
    if not len(event.drafted) == len(event.accepted) == len(emitted) > 0 or sum(emitted) != wanted:
        return False
    if any(not 0 <= accepted <= drafted for drafted, accepted in zip(event.drafted, event.accepted, strict=True)):
        return False
    whole = all(made == accepted + 1 for made, accepted in zip(emitted[:-1], event.accepted[:-1], strict=True))
    grown = [after - before for before, after in zip(event.position, event.position[1:], strict=False)]
    is_grown = not event.position or grown == list(emitted[:-1])
    return whole and is_grown and 1 <= emitted[-1] <= event.accepted[-1] + 1
