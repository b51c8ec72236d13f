"""The decision: what a promise to users takes on the measured machine, beside what vendors sell. See `table`."""

from tokbench.derive.decision.listing import list_decision
from tokbench.derive.decision.rents import find_rents
from tokbench.derive.decision.table import Decision, DecisionRow, Market, OfferBeside, decide

__all__ = ["Decision", "DecisionRow", "Market", "OfferBeside", "decide", "find_rents", "list_decision"]
