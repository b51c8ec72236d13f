"""Fields of tables that set two cells side by side: what the ratio rests on, and what it shows."""

from __future__ import annotations

from tokbench.derive.evaluate import Missing
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import DASH, Cell
from tokbench.stats import Comparison, outcome_text

LEFT_OUT = "fewer than three processes: what differs between them is left out"


def basis_field(compared: Comparison | Missing) -> Cell:
    """What the interval of the ratio rests on, and how many of it."""
    if isinstance(compared, Missing):
        return Cell(DASH, note=compared.reason)
    count = f"{compared.n_a}" if compared.n_a == compared.n_b else f"{compared.n_b} and {compared.n_a}"
    return Cell(f"{count} {compared.basis}", note=LEFT_OUT if compared.basis == "repetitions" else None)


def outcome_field(compared: Comparison | Missing, metric: str) -> Cell:
    """What may be said of the two."""
    if isinstance(compared, Missing):
        return Cell(DASH)
    return Cell(outcome_text(compared.outcome, catalog()[metric].better))
