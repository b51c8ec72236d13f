"""Fields of tables that set two cells side by side: what the ratio rests on, and what it shows."""

from __future__ import annotations

from tokbench.derive.evaluate import Missing
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import DASH, Cell
from tokbench.derive.words import mark, say, t
from tokbench.stats import Comparison, outcome_text

LEFT_OUT = mark("fewer than three processes: what differs between them is left out")
BASES = {
    "paired blocks": mark("{count} paired blocks"),
    "unpaired blocks": mark("{count} unpaired blocks"),
    "repetitions": mark("{count} repetitions"),
}
OUTCOMES = (
    mark("faster"),
    mark("slower"),
    mark("higher"),
    mark("lower"),
    mark("no difference shown"),
    mark("too noisy to say"),
)
"""What `stats.outcome_text` says."""


def basis_field(compared: Comparison | Missing) -> Cell:
    """What the interval of the ratio rests on, and how many of it."""
    if isinstance(compared, Missing):
        return Cell(DASH, note=say(compared.reason))
    count = (
        f"{compared.n_a}"
        if compared.n_a == compared.n_b
        else t("{first} and {second}", first=compared.n_b, second=compared.n_a)
    )
    basis = t(BASES[compared.basis], count=count)
    return Cell(basis, note=t(LEFT_OUT) if compared.basis == "repetitions" else None)


def outcome_field(compared: Comparison | Missing, metric: str) -> Cell:
    """What may be said of the two."""
    if isinstance(compared, Missing):
        return Cell(DASH)
    return Cell(say(outcome_text(compared.outcome, catalog()[metric].better)))
