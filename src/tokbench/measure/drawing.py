"""Tokens that are drawn: who can draw them, and that every repetition of a cell has random numbers of its own."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from tokbench.errors import PlugError
from tokbench.measure.engines import StepEngine, load_plug
from tokbench.record.spec import CellSpec, SpeculationSpec


@runtime_checkable
class DrawingEngine(Protocol):
    """What a step engine does besides where it draws tokens, or accepts drafts by a trace."""

    def draw_from(self, repetition: int) -> None:
        """Let the next prefill begin with the random numbers of that repetition. Never inside a window.

        A cell is prepared anew at every visit, which alone would draw the numbers of the first one again.
        """


def begin_draws(engine: StepEngine, repetition: int) -> None:
    """Random numbers that no other repetition of the prepared cell has, where the engine draws any."""
    if isinstance(engine, DrawingEngine):
        engine.draw_from(repetition)


def check_draws(spec: CellSpec) -> None:
    """Refuse a temperature where none is heeded, and together with a rule that is lossy on purpose.

    Raises:
        PlugError: which engines draw, or which of the two to leave out.
    """
    if spec.workload.temperature == 0:
        return
    description = load_plug(spec.engine.kind).DESCRIPTION
    if spec.engine.mode not in description.drafting_modes:  # rejection sampling: what drafts also draws
        raise PlugError(
            f"workload.temperature: engine {spec.engine.kind!r} in mode {spec.engine.mode!r} takes the likeliest token",
            fix="workload.temperature: 0, or engine: {kind: transformers, mode: eager}",
        )
    _check_rule(spec.speculation)


def _check_rule(speculation: SpeculationSpec | Literal["none"]) -> None:
    if speculation != "none" and speculation.accept != "lossless":
        raise PlugError(
            f"speculation.accept: {speculation.accept!r} is lossy, so its tokens are not drawn as the temperature asks",
            fix="workload.temperature: 0, or leave accept out (the experiment lossless draws with it as its control)",
        )
