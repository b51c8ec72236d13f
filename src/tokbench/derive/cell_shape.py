"""The sizes of the model that a cell ran: what closed forms beside a measurement are had from."""

from __future__ import annotations

import json

from tokbench.arithmetic import ModelShape
from tokbench.derive.metrics import CellContext, UndefinedError
from tokbench.derive.words import t
from tokbench.errors import TokbenchError
from tokbench.record.catalog import shape_from_config


def shape_of_cell(context: CellContext) -> ModelShape:
    """The closed forms' view of the cell's model.

    Raises:
        UndefinedError: the record does not hold the model's config.
    """
    model = context.cell.model
    if model is None or model.config_json is None:
        raise UndefinedError(t("the record does not hold the model's config"))
    try:
        return shape_from_config(json.loads(model.config_json), model.name)
    except TokbenchError as error:
        raise UndefinedError(t("the model's shape is not known: {fault}", fault=error.message)) from None


def is_routed(context: CellContext) -> bool:
    """Whether the cell's model is known to route tokens to experts: what a step reads then hangs on the routing."""
    try:
        return shape_of_cell(context).experts is not None
    except UndefinedError:
        return False
