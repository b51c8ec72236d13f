"""Published speed-ups by drafts, and the acceptance that each needs if the closed form holds. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import ConfigDict, Field, model_validator

from tokbench.arithmetic import implied_alpha
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published.facts import find_fact
from tokbench.derive.published.sheet import FieldError, Slug, Text, read_sheet
from tokbench.errors import DataError
from tokbench.record.catalog import DATA_DIR
from tokbench.record.facts import Frozen

SPEEDUPS: Final = DATA_DIR / "speculation.yaml"


class PublishedSpeedup(Frozen):
    """One row: where the speed-up stands, and what is assumed beside it."""

    model_config = ConfigDict(strict=True)

    id: Slug
    who: Text
    fact: Text | None = None
    figures: Annotated[tuple[Text, Text] | None, Field(strict=False)] = None
    """Ids of the published figures with drafts and without."""
    gammas: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(strict=False, min_length=1)]
    draft_cost_ratio: Annotated[float, Field(ge=0, strict=False)]
    assumed: Text

    @model_validator(mode="after")
    def _check_source(self) -> PublishedSpeedup:
        if (self.fact is None) == (self.figures is None):
            raise FieldError("fact", "a speed-up is either a fact or two published figures")
        return self


class Implied(NamedTuple):
    """A published speed-up with the acceptance that it needs for each number of drafted tokens."""

    row: PublishedSpeedup
    speedup: float
    source_url: str
    published: str
    alphas: tuple[tuple[int, float | None], ...]
    """(gamma, alpha): None where even accepting every draft is not enough."""


def load_speedups(path: Path = SPEEDUPS) -> tuple[PublishedSpeedup, ...]:
    """Every row.

    Raises:
        DataError: the file, a row or a field is wrong.
    """
    return tuple(read_sheet(path, "speedups", PublishedSpeedup))


def find_implied(figures: Sequence[PublishedFigure], path: Path = SPEEDUPS) -> tuple[Implied, ...]:
    """The acceptance behind every row, in the order of the file; rows on figures that are not given are left out.

    Raises:
        DataError: a row names a fact that is not there.
    """
    by_id = {figure.id: figure for figure in figures}
    rows = [row for row in load_speedups(path) if row.figures is None or by_id.keys() >= set(row.figures)]
    return tuple(_imply(row, by_id) for row in rows)


def _imply(row: PublishedSpeedup, figures: dict[str, PublishedFigure]) -> Implied:
    speedup, url, published = _source(row, figures)
    alphas = tuple((gamma, implied_alpha(speedup, gamma, row.draft_cost_ratio)) for gamma in row.gammas)
    return Implied(row, speedup, url, published, alphas)


def _source(row: PublishedSpeedup, figures: dict[str, PublishedFigure]) -> tuple[float, str, str]:
    if row.fact is not None:
        name, _, part = row.fact.partition(".")
        fact = find_fact(name)
        amount = fact.amount(part or None)
        if amount.value is None:
            raise DataError("states a range, not a speed-up", file=SPEEDUPS.name, row=row.id, field="fact")
        return amount.value, fact.source_url, fact.published
    assert row.figures is not None  # held by the row
    fast, slow = (figures[name] for name in row.figures)
    return fast.value / slow.value, fast.source_url, fast.published
