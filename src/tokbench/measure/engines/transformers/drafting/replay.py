"""Drafting in earnest with a model, whose drafts are then accepted as a trace says: the cost of speculation at scale.

Both models run every pass that the trace asks for, over caches as deep as they would be. Only which drafts are accepted
is not theirs: random weights will do, and no token means anything.
"""

from __future__ import annotations

from tokbench.measure.engines.transformers.drafting.draft_model import open_with_model
from tokbench.measure.engines.transformers.drafting.drafter import Room
from tokbench.measure.engines.transformers.drafting.method_options import refuse_unknown
from tokbench.measure.engines.transformers.drafting.model_drafter import ModelDrafter


def open_drafter(room: Room) -> ModelDrafter:
    """Options: `alpha`, the chance that a draft is accepted, or `trace`, a file of accepted counts (read in rules.py).

    Raises:
        PlugError: an unknown option, no model, or another vocabulary.
    """
    refuse_unknown(
        room.speculation,
        {
            "alpha": "chance that a draft is accepted, between 0 and 1",
            "trace": "a file with a JSON object a line, each with `accepted`: a list of counts",
        },
    )
    return open_with_model(room)
