"""Joules, watts and tokens per joule: one value per energy trial, from the row of the domains that speak for the cell.

In which windows, between which ticks and with which bound: docs/design/energy.md. Never of a single request.
"""

from __future__ import annotations

from collections.abc import Callable

from tokbench.derive.energy.rows import EnergyRow
from tokbench.derive.energy.windows import Span, Without
from tokbench.derive.metrics import CellContext, UndefinedError, Values, metric
from tokbench.derive.repetitions import ByWorker
from tokbench.derive.words import SEMICOLON, join, mark, t
from tokbench.units import JOULES, JOULES_PER_TOKEN, TOKENS_PER_JOULE, WATTS, Better


def _by_row(context: CellContext, value: Callable[[EnergyRow], float | Without]) -> Values:
    """The value of every row that has it."""
    energy = context.energy
    if not energy.headline:
        raise UndefinedError(energy.missing or t("no energy trial of this cell came to its end"))
    found = [(row.worker_id, value(row)) for row in energy.headline]
    pairs = [(worker, number) for worker, number in found if not isinstance(number, Without)]
    if not pairs:
        reasons = dict.fromkeys(number.reason for _, number in found if isinstance(number, Without))
        raise UndefinedError(join(reasons, SEMICOLON))
    return ByWorker.of(pairs)


def _of(span: Span | Without, value: Callable[[Span], float]) -> float | Without:
    return span if isinstance(span, Without) else value(span)


@metric(JOULES, Better.NEITHER, mark("Energy of the window"), order=60)
def energy_j(context: CellContext) -> Values:
    """Joules of the decode window, idle power included; it grows with the window, so it compares nothing.

    Formula: counter at the last tick inside the window - counter at the first; requests: of the steady window.
    """
    return _by_row(context, lambda row: _of(row.output, lambda span: span.joules))


@metric(WATTS, Better.LOWER, mark("Idle power"), order=61)
def idle_power_w(context: CellContext) -> Values:
    """Mean power with the model loaded and nothing running.

    Formula: joules between the first and last tick of the idle window / seconds between them; from power readings
    where the counter stands still at idle.
    """
    return _by_row(context, lambda row: _of(row.idle, lambda span: span.mean_w))


@metric(WATTS, Better.NEITHER, mark("Mean power"), order=62)
def mean_power_w(context: CellContext) -> Values:
    """Mean power while output tokens are made, idle power included.

    Formula: energy_j / seconds between the two ticks.
    """
    return _by_row(context, lambda row: _of(row.output, lambda span: span.mean_w))


@metric(JOULES_PER_TOKEN, Better.LOWER, mark("Energy per output token"), order=63)
def energy_j_per_output_token(context: CellContext) -> Values:
    """Joules for one output token of all streams, idle power included: gross.

    Formula: energy_j / output tokens of all rows whose steps lie between the two ticks, a cut step by its share;
    static batch: decode alone; requests: the prefill of those that came meanwhile is part of it.
    """
    return _by_row(context, lambda row: _of(row.output, lambda span: span.joules / span.tokens))


@metric(JOULES_PER_TOKEN, Better.LOWER, mark("Energy per output token above idle"), order=64)
def net_energy_j_per_output_token(context: CellContext) -> Values:
    """Joules above idle for one output token of all streams: net.

    Formula: (energy_j - idle_power_w * seconds between the two ticks) / the same output tokens.
    """
    return _by_row(context, lambda row: row.net_j_per_output_token)


@metric(JOULES_PER_TOKEN, Better.LOWER, mark("Energy per prompt token"), order=65)
def energy_j_per_prompt_token(context: CellContext) -> Values:
    """Joules for one prompt token of all rows, idle power included; the first output token's head is part of it.

    Formula: joules between the ticks of a window of the same prefill again and again / prompt tokens of all rows
    between them, a cut prefill by its share.
    """
    return _by_row(context, lambda row: _of(row.prefill, lambda span: span.joules / span.tokens))


@metric(TOKENS_PER_JOULE, Better.HIGHER, mark("Output tokens per joule"), order=66)
def output_tokens_per_j(context: CellContext) -> Values:
    """Output tokens of all streams for one joule, idle power included.

    Formula: 1 / energy_j_per_output_token.
    """
    return _by_row(context, lambda row: _of(row.output, lambda span: span.tokens / span.joules))
