"""Which loop a cell is driven by: single tokens, plain or compiled, or rounds of drafts. Opens it, runs nothing."""

from __future__ import annotations

from tokbench.measure.engines import CellWork
from tokbench.measure.engines.transformers import kernels
from tokbench.measure.engines.transformers.drafting.loop import DraftingLoop, Seat
from tokbench.measure.engines.transformers.loops import CompiledLoop, EagerLoop
from tokbench.measure.engines.transformers.profiling import count_operators

Loop = EagerLoop | CompiledLoop | DraftingLoop


def choose_experts(seat: Seat, work: CellWork) -> kernels.ExpertsChoice:
    """Experts kernels for the tokens of one pass: with drafts, γ more than one of every row."""
    drafts = 0 if work.speculation is None else work.speculation.gamma
    return kernels.choose_experts(seat.model, seat.request, work.rows * (drafts + 1))


def open_loop(seat: Seat, work: CellWork) -> Loop:
    """The loop of a cell, its caches not filled yet."""
    experts = choose_experts(seat, work)
    seat.keeper.turn_to(None if work.speculation is None else kept_for(work))
    if work.speculation is not None:
        return DraftingLoop(seat, work, experts)
    if seat.request.engine.mode == "compiled":
        return CompiledLoop(seat.model, work, experts, seat.weight_bytes, seat.options)
    return EagerLoop(seat.model, work, experts, seat.options)


def kept_for(work: CellWork) -> str:
    """What a cell's drafter is made from; a replay's model is the same whatever its trace accepts."""
    spec = work.speculation
    return repr(work.draft) if spec is not None and spec.method == "replay" else f"{spec!r} {work.draft!r}"


def compiles_prefill(loop: Loop | None) -> bool:
    """Whether a cell's prefill is a compiled graph: what it costs is then part of compiling."""
    return isinstance(loop, CompiledLoop) and loop.compiles_prefill


def count_kernels(loop: Loop) -> tuple[int | None, str | None]:
    """What one step hands to the device, and how it was counted."""
    is_drafting = isinstance(loop, DraftingLoop)
    if loop.uses_device_graph:
        what = "graph of one verification, drafts left out" if is_drafting else "graph"
        return loop.kernels_per_step, f"kernel nodes of the captured {what}"
    if not loop.steps_left:
        return None, None
    loop.restart()
    what = " of one round" if is_drafting else ""
    return count_operators(loop.step), f"operators and generated kernels{what}, views left out"


def is_greedy(work: CellWork) -> bool:
    """Whether every token is to be the target's likeliest one: what `generate` would make."""
    spec = work.speculation
    return work.temperature == 0 and (spec is None or (spec.method != "replay" and spec.accept == "lossless"))
