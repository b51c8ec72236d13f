"""Scripted rounds of drafting for the `fake` engine: how many drafts are accepted, and how long that takes.

Options (speculation.options): `accepted` (drafts accepted in each round in turn, as text: "3,0,4"; row n begins at the
n-th) or `alpha` (each draft is accepted with this probability if all before it were, drawn from the seed); `draft_s`
per drafted token, `verify_s` and `other_s` per round.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from pydantic import ValidationError, model_validator

from tokbench.errors import PlugError
from tokbench.measure.work import CellWork, Round
from tokbench.record.facts import Frozen
from tokbench.record.spec import SpeculationSpec

METHODS = ("draft_model", "prompt_lookup", "early_exit", "self_quantised", "mtp", "replay")
"""All are scripted alike: the name alone tells them apart."""


class RoundScript(Frozen):
    """How rounds go; times in seconds."""

    accepted: str | None = None
    alpha: float | None = None
    draft_s: float = 0.001
    verify_s: float = 0.01
    other_s: float = 0.0

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.accepted is None) == (self.alpha is None):
            raise ValueError("write either `accepted` or `alpha`")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError("`alpha` is a probability")
        if self.accepted is not None and not all(part.strip().isdigit() for part in self.accepted.split(",")):
            raise ValueError("`accepted` holds numbers with commas between them, as in 3,0,4")
        return self


def read_script(speculation: SpeculationSpec) -> RoundScript:
    """The script that a config holds.

    Raises:
        PlugError: an option that it does not know, or a number of accepted drafts above gamma.
    """
    try:
        script = RoundScript.model_validate(speculation.options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(("speculation", "options", *map(str, first["loc"])))
        fix = f"options of a scripted draft: {', '.join(RoundScript.model_fields)}"
        raise PlugError(f"{place}: {first['msg']}", fix=fix) from None
    if script.accepted is not None and max(map(int, script.accepted.split(","))) > speculation.gamma:
        fix = f"numbers from 0 to {speculation.gamma}, or a larger gamma"
        raise PlugError("speculation.options.accepted: more drafts than gamma are accepted", fix=fix)
    return script


def play(work: CellWork, script: RoundScript, steps: int, start: int, dice: random.Random) -> Iterator[Round]:
    """Rounds from `start` tokens in the cache until every row has `steps` more; a row's last is cut at its end."""
    assert work.speculation is not None  # the caller drafts
    gamma, left, position = work.speculation.gamma, [steps] * work.rows, [start] * work.rows
    accept = _accepting(script, gamma, dice)
    number = 0
    while any(left):
        accepted = [accept(row, number) if tokens else 0 for row, tokens in enumerate(left)]
        emitted = [min(count + 1, tokens) if tokens else 0 for count, tokens in zip(accepted, left, strict=True)]
        yield Round(
            drafted=_of_open(left, [gamma] * work.rows),
            accepted=tuple(accepted),
            emitted=tuple(emitted),
            position=_of_open(left, position),
            draft_s=gamma * script.draft_s,
            verify_s=script.verify_s,
            other_s=script.other_s,
        )
        left = [tokens - made for tokens, made in zip(left, emitted, strict=True)]
        position = [place + made for place, made in zip(position, emitted, strict=True)]
        number += 1


def _of_open(left: Sequence[int], values: Sequence[int]) -> tuple[int, ...]:
    return tuple(value if tokens else 0 for value, tokens in zip(values, left, strict=True))


def _accepting(script: RoundScript, gamma: int, dice: random.Random) -> Callable[[int, int], int]:
    """Drafts that a row accepts in its n-th round."""
    if script.accepted is not None:
        listed = [int(part) for part in script.accepted.split(",")]
        return lambda row, number: listed[(row + number) % len(listed)]
    alpha = script.alpha
    assert alpha is not None  # held by the script

    def draw(row: int, number: int) -> int:
        return next((count for count in range(gamma) if dice.random() >= alpha), gamma)

    return draw
