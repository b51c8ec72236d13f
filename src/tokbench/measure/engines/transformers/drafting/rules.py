"""Which rule of accepting a cell has, and what it needs. A rule that does not go with a method is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch

from tokbench.errors import DataError, PlugError
from tokbench.measure.engines.transformers.drafting.accepting import (
    Draws,
    Rule,
    follow_trace,
    take_by_chance,
    take_likely,
    take_the_same,
)
from tokbench.measure.engines.transformers.drafting.drafter import Room
from tokbench.record.spec import SpeculationSpec

REPLAY = "replay"
TRACE_ROUNDS = 16_384
"""Rounds of a drawn trace before it begins anew: 128 repetitions of 128 tokens follow rounds of their own."""


class Chosen(NamedTuple):
    """A rule and its numbers."""

    rule: Rule
    draws: Draws


def choose_rule(room: Room) -> Chosen:
    """The rule that a cell asks for.

    Raises:
        PlugError: it does not go with the method.
        DataError: a trace cannot be read.
    """
    spec, noise, rows = room.speculation, room.noise, room.work.rows
    sampling = None if noise is None else noise.sampling(rows, room.model.config.vocab_size)
    plain = Draws(sampling, None, None, None)
    if spec.method == REPLAY:
        if spec.accept != "lossless":
            raise PlugError(
                "speculation.accept: a replay accepts what its trace says, not the three likeliest tokens",
                fix="leave out accept, or name a method that drafts in earnest",
            )
        device = room.rows.lengths.device
        trace = read_trace(spec, rows, room.work.seed).to(device)
        return Chosen(follow_trace, Draws(sampling, None, trace, torch.zeros(1, dtype=torch.long, device=device)))
    if spec.accept == "top3":
        return Chosen(take_likely, plain)
    if noise is None:
        return Chosen(take_the_same, plain)
    return Chosen(take_by_chance, plain._replace(uniform=noise.uniform(rows, room.gamma)))


def read_trace(spec: SpeculationSpec, rows: int, seed: int) -> torch.Tensor:
    """How many drafts each round of each row accepts: (rounds, rows), int64.

    Raises:
        PlugError: neither or both of `alpha` and `trace`, or an alpha that is no chance.
        DataError: the file cannot be read, or holds more accepted drafts than γ.
    """
    alpha, path = spec.options.get("alpha"), spec.options.get("trace")
    if (alpha is None) == (path is None):
        raise PlugError("speculation.options: a replay needs `alpha` or `trace`", fix="options: {alpha: 0.8}")
    if path is not None:
        return _rolled(_read_file(Path(str(path)), spec.gamma), rows)
    if not isinstance(alpha, float) or not 0 < alpha < 1:
        raise PlugError(f"speculation.options.alpha: {alpha!r} is not between 0 and 1", fix="alpha: 0.8")
    draw = torch.Generator().manual_seed(seed)
    accepted = torch.rand((TRACE_ROUNDS, rows, spec.gamma), generator=draw) < alpha
    return accepted.long().cumprod(-1).sum(-1)


def _rolled(counts: list[int], rows: int) -> torch.Tensor:
    """The same rounds for every row, each from a place of its own, so that rows do not go in step."""
    column = torch.tensor(counts, dtype=torch.long)
    return torch.stack([column.roll(-(row * len(counts) // rows)) for row in range(rows)], 1)


def _read_file(path: Path, gamma: int) -> list[int]:
    """Counts of a file with an object a line that has `accepted`: a record's `speculation_rounds`, or the like.

    Lines without that key are other events of a record, and are passed over.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the trace cannot be read: {error}", file=str(path)) from None
    counts: list[int] = []
    for number, line in enumerate(lines, 1):
        counts += _read_line(line, path, number, gamma)
    if not counts:
        raise DataError("no line has `accepted`", file=str(path), row="1")
    return counts


def _read_line(line: str, path: Path, number: int, gamma: int) -> list[int]:
    if not line.strip():
        return []
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", file=str(path), row=str(number)) from None
    accepted = found.get("accepted", []) if isinstance(found, dict) else None
    if not isinstance(accepted, list) or not all(type(count) is int and 0 <= count <= gamma for count in accepted):
        raise DataError(
            f"`accepted` is to be a list of whole numbers from 0 to gamma ({gamma})", file=str(path), row=str(number)
        )
    return accepted
