"""What drafts have by index, as `summary.json` holds it: acceptance by position, run lengths, loops."""

from __future__ import annotations

from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.speculation.loops import find_loops
from tokbench.derive.speculation.rounds import acceptance_at_position, is_drafting
from tokbench.derive.speculation.runs import RunLengths, find_run_lengths
from tokbench.record.run import CellRecord


def list_tables(cell: CellRecord) -> dict[str, object]:
    """The tables of a cell with drafts; empty for others, and without what no round tells."""
    if not is_drafting(cell.spec):
        return {}
    loops = find_loops(cell)
    tables: dict[str, object] = {"output_loops": {"looping": loops.looping, "judged": loops.judged}}
    try:
        positions = acceptance_at_position(cell)
    except UndefinedError:
        return tables
    rows = [
        {"position": place, "reached": reached, "accepted": accepted}
        for place, (reached, accepted) in enumerate(positions, 1)
    ]
    tables |= {"acceptance_at_position": rows} if rows else {}
    try:
        return {**tables, "run_lengths": _lengths(find_run_lengths(cell))}
    except UndefinedError:
        return tables


def _lengths(lengths: RunLengths) -> dict[str, object]:
    return {**lengths._asdict(), "bias": lengths.bias}
