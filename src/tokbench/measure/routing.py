"""The experts that the steps of a repetition selected, asked of an engine that can tell. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from tokbench.measure.engines import StepEngine
from tokbench.record.observations import ExpertTouches


class LayerTouches(NamedTuple):
    """One layer with routed experts, step by step."""

    layer: int
    """Counted among the layers with routed experts, from 0."""
    experts: int
    distinct: tuple[int, ...]
    copied_bytes: tuple[int, ...]
    """Bytes of experts fetched from the host's memory; empty where all of them lie on the device."""


@runtime_checkable
class RoutingEngine(Protocol):
    """What a step engine does besides where it can tell which experts a step selects."""

    def touch_experts(self) -> list[LayerTouches]:
        """Decode the staged prompts once more, and look. Never inside a window; the cell stays prepared.

        Empty for a dense model, and where memory does not suffice.
        """


def tell_touches(engine: StepEngine, rows: int, trial_id: str) -> Iterator[ExpertTouches]:
    """One event a layer; nothing where the engine cannot tell."""
    for found in engine.touch_experts() if isinstance(engine, RoutingEngine) else ():
        yield ExpertTouches(
            trial_id=trial_id,
            layer=found.layer,
            rows=rows,
            distinct=found.distinct,
            experts=found.experts,
            copied_bytes=found.copied_bytes,
        )
