"""Counts of simulated trials, the bounds they have to keep, and how both are written down."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from scipy import stats as reference

from benchmarks.simulated_runs import Floats
from tokbench.stats import Comparison, Estimate, Outcome, compare

TABLE_HEAD = (
    "| machine | design | share | 95 % interval of the share | trials | bound | kept |",
    "|---|---|--:|--:|--:|---|---|",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One count and what it has to be."""

    topic: str
    machine: str
    design: str
    hits: int
    trials: int
    at_least: float | None = None
    at_most: float | None = None

    @property
    def share(self) -> float:
        """Hits over trials."""
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        found = reference.binomtest(self.hits, self.trials).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @property
    def is_kept(self) -> bool | None:
        """Whether the share keeps its bound; None without one."""
        if self.at_least is None and self.at_most is None:
            return None
        is_enough = self.at_least is None or self.share >= self.at_least
        return is_enough and (self.at_most is None or self.share <= self.at_most)

    def as_json(self) -> dict[str, object]:
        """All of it, with what is computed from it."""
        low, high = self.interval
        return {**dataclasses.asdict(self), "share": self.share, "low": low, "high": high, "is_kept": self.is_kept}


def blocks_of(values: Floats) -> list[list[list[float]]]:
    """As the program holds them: trials of blocks of repetitions."""
    found: list[list[list[float]]] = values.tolist()
    return found


def comparisons(a: Floats, b: Floats, *, paired: bool) -> list[Comparison]:
    """One per trial."""
    return [compare(x, y, paired=paired) for x, y in zip(blocks_of(a), blocks_of(b), strict=True)]


def differing(found: Iterable[Comparison]) -> int:
    """How many claim a difference."""
    return sum(item.outcome in (Outcome.HIGHER, Outcome.LOWER) for item in found)


def holds(item: Estimate, truth: float) -> bool:
    """Whether there is an interval and the truth lies in it."""
    return item.low is not None and item.high is not None and item.low <= truth <= item.high


def markdown(rows: Sequence[Row]) -> str:
    """One table per topic."""
    parts = []
    for topic, group in itertools.groupby(rows, lambda row: row.topic):
        parts += [
            f"## {topic[0].upper()}{topic[1:]}",
            "\n".join([*TABLE_HEAD, *(_line(row) for row in group)]),
        ]
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    low, high = row.interval
    kept = {True: "yes", False: "**no**", None: "–"}[row.is_kept]
    cells = (
        row.machine,
        row.design,
        _percent(row.share),
        f"{_percent(low)} to {_percent(high)}",
        str(row.trials),
        _bound(row),
        kept,
    )
    return f"| {' | '.join(cells)} |"


def _bound(row: Row) -> str:
    ends = [f"at least {_percent(row.at_least)}"] if row.at_least is not None else []
    ends += [f"at most {_percent(row.at_most)}"] if row.at_most is not None else []
    return ", ".join(ends) or "–"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
