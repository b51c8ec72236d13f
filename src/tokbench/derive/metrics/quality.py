"""What fewer bits cost in foresight: negative log-likelihood beyond that of the same weights unquantised."""

from __future__ import annotations

from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.quality.chunks import find_reference, nats_by_chunk
from tokbench.derive.repetitions import ByPrompt
from tokbench.derive.words import mark, t
from tokbench.units import RATIO, Better


@metric(RATIO, Better.LOWER, mark("Added negative log-likelihood, nats per token"), order=95)
def added_nll_nats(context: CellContext) -> Values:
    """Nats per token that a frozen text costs beyond what the same weights unquantised need for it, chunk by chunk.

    Formula: per chunk, nats / tokens of this cell - the same of a cell with the same weights unquantised: in the type
    that quantised ones are computed with on the device, else that of label.native_dtype, else the widest; the mean over
    chunks is plain, its interval is over chunks. Below 0 it foresees the text better. Answers are left out.
    """
    own, reference = nats_by_chunk(context.cell), find_reference(context.run, context.cell)
    if reference.cell_id == context.cell.cell_id:
        raise UndefinedError(t("it is the cell that the other types of its weights are set beside"))
    theirs = nats_by_chunk(reference)
    if own.keys() != theirs.keys():
        raise UndefinedError(t("the two cells did not read the same chunks"))
    return ByPrompt(own[chunk] - theirs[chunk] for chunk in sorted(own))
