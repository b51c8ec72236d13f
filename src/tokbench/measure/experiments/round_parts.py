"""What a round of drafting is made of, each part alone: plain steps, drafts, verification. Derives no cost from them.

It belongs into a cell that drafts, ahead of its repetition. The passes are those that the cell's rounds run, at the
cell's cache length: a prediction made from them does not rest on the rounds that it predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec, Option

DESCRIPTION = (
    "in a cell that drafts: plain steps, drafts and verification, each alone in windows that take turns: "
    "options.windows of each (default 3), of options.passes each (default 4)"
)
DEFAULTS: dict[str, int] = {"windows": 3, "passes": 4}
PARTS = ("plain", "draft", "verify")


class Rounds(Protocol):
    """The rounds of a prepared cell, whose parts can be run alone; a prefill came before."""

    def time_part(self, part: str, passes: int) -> float:
        """Seconds of so many passes of one of `PARTS` right behind the prompt; the cell stands there again after it.

        A pass of `draft` is that of all drafts of a round.
        """


@runtime_checkable
class RoundsEngine(Protocol):
    """What a step engine does besides where it shows its rounds."""

    @property
    def rounds(self) -> Rounds | None:
        """None where the prepared cell drafts nothing."""


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse options and cells that cannot be, before any device is touched.

    Raises:
        PlugError: an unknown option, more passes than the cell has steps, or a cell without drafts.
    """
    _read(spec.options, cell.workload.output_tokens)
    if cell.speculation == "none":
        raise _no_rounds()


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """One repetition: a point per part and window, the parts in turn; the engine ends rewound.

    Raises:
        PlugError: an unknown option, more passes than the cell has steps, or a cell without drafts.
    """
    windows, passes = _read(spec.options, work.output_tokens)
    rounds = engine.rounds if isinstance(engine, RoundsEngine) else None
    if rounds is None or work.speculation is None:
        raise _no_rounds()
    gamma = work.speculation.gamma
    tokens = {"plain": 1, "draft": gamma, "verify": gamma + 1}
    engine.rewind(0)
    engine.prefill()
    for window in range(windows):
        for part in PARTS:
            yield ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/{part}/{window}",
                experiment="round_parts",
                settings={
                    "part": part,
                    "tokens": tokens[part],
                    "rows": work.rows,
                    "context": work.prompt_tokens,
                    "window": window,
                },
                duration_s=rounds.time_part(part, passes),
                stamped_by="host",
                values={"passes": passes},
            )
    engine.rewind(0)


def _no_rounds() -> PlugError:
    return PlugError(
        "experiment.kind: round_parts times the rounds of a cell that drafts",
        fix="speculation: {method: prompt_lookup, gamma: 3}, engine: {kind: transformers}; or exclude such cells",
    )


def _read(options: Mapping[str, Option], output_tokens: int) -> tuple[int, int]:
    """Windows of each part, and passes of each window."""
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise PlugError(f"experiment.options: unknown {', '.join(unknown)}", fix=f"known: {', '.join(DEFAULTS)}")
    counts = []
    for name, default in DEFAULTS.items():
        value = options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlugError(f"experiment.options.{name}: {value!r} is no whole number from 1 on", fix=f"e.g. {default}")
        counts.append(value)
    windows, passes = counts
    if passes + 2 > output_tokens:
        fix = f"workload.output_tokens of at least {passes + 2}, or fewer passes"
        raise PlugError(f"experiment.options.passes: {passes} plain steps do not fit into the cell", fix=fix)
    return windows, passes
