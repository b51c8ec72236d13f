"""All that a report is made of, gathered once: results, standing, sentences, figures. Words nothing."""

from __future__ import annotations

import dataclasses

from tokbench.derive.bounds.found import Bounds
from tokbench.derive.claims.verdicts import ClaimVerdict
from tokbench.derive.compare.result import Compared
from tokbench.derive.decision import Decision
from tokbench.derive.distributions import Distribution
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published_joules import JoulesBeside
from tokbench.derive.report.document import Figure
from tokbench.derive.speculation.found import NO_SPECULATION, SpeculationFound
from tokbench.derive.standing import Standing


@dataclasses.dataclass(frozen=True, slots=True)
class Material:
    """What the sections see."""

    results: tuple[Results, ...]
    standing: Standing
    vendors: tuple[str, ...]
    lines: tuple[str, ...]
    """The sentences of the headline."""
    figures: tuple[Figure, ...]
    """The figures that were drawn; one without data is not among them."""
    bounds: tuple[Bounds, ...]
    """What each run tells of its limits, in the order of `results`."""
    distributions: tuple[Distribution, ...] = ()
    """How the times behind each measured cell are spread."""
    baselines: tuple[Compared, ...] = ()
    """Each run beside the baseline that the reader named, else the others beside the first; empty for one run alone."""
    claims: tuple[ClaimVerdict, ...] = ()
    """The verdicts on claims, where the reader asked for them."""
    decision: Decision | None = None
    """What the runs mean for a purchase; None where nobody asked."""
    joules: tuple[JoulesBeside, ...] = ()
    """Metered cells beside published joules per token of the same model."""
    published: tuple[PublishedFigure, ...] = ()
    """Every published figure that the report may draw on."""
    speculation: SpeculationFound = NO_SPECULATION
    """Cells with drafts beside those without; empty where nothing was drafted."""

    @property
    def cells(self) -> list[CellResult]:
        """Every cell of every run, in order."""
        return [cell for item in self.results for cell in item.cells]

    @property
    def measured(self) -> list[CellResult]:
        """The cells that have at least one repetition."""
        return [cell for cell in self.cells if cell.status == "ok"]

    @property
    def has_several_runs(self) -> bool:
        """Whether a cell has to be named with its run."""
        return len(self.results) > 1

    def figure(self, file_name: str) -> tuple[Figure, ...]:
        """The figure of that name, or nothing."""
        return tuple(figure for figure in self.figures if figure.file_name == file_name)
