"""The socket of methods of drafting: one module each, named as `speculation.method`, with an `open_drafter`.

What a drafter does stands in `drafter.py`. Nothing here imports torch, so that a config can be checked without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from tokbench.measure.engines.transformers.drafting.drafter import OpenDrafter


class Method(NamedTuple):
    """What must be known of a method before it is opened."""

    is_point_mass: bool = False
    """Whether a draft is certain given what stands before it: it has no distribution, and may find fewer than γ."""
    uses_hidden: bool = False
    """Whether it needs the target's last states."""


METHODS = {
    "draft_model": Method(),
    "early_exit": Method(),
    "mtp": Method(uses_hidden=True),
    "prompt_lookup": Method(is_point_mass=True),
    "replay": Method(),
    "self_quantised": Method(),
}


def find_opener(method: str) -> OpenDrafter:
    """The `open_drafter` of a method; imports its module."""
    return cast("OpenDrafter", importlib.import_module(f"{__name__}.{method}").open_drafter)
