"""The plainest experiment: decode in windows of 1, 2, 4 … steps. It shows the socket and times step count scaling."""

from __future__ import annotations

from collections.abc import Iterator

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec

DESCRIPTION = "decode windows of 1, 2, 4 … steps up to options.steps (default 8)"


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse wrong options.

    Raises:
        PlugError: an unknown option, or steps that are no whole number.
    """
    _read_steps(spec)


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """Time decode over growing numbers of steps."""
    largest = _read_steps(spec)
    steps = 1
    while steps <= min(largest, work.output_tokens - 1):
        engine.rewind(0)
        engine.prefill()
        begun = engine.sync()
        for _ in engine.decode(steps):
            pass
        ended = engine.sync()
        yield ExperimentPoint(
            trial_id=trial_id,
            window_id=f"{trial_id}/experiment/{steps}",
            experiment="fake",
            settings={"steps": steps},
            duration_s=(ended - begun) * 1e-9,
            stamped_by=engine.facts.stamped_by,
        )
        steps *= 2


def _read_steps(spec: ExperimentSpec) -> int:
    unknown = set(spec.options) - {"steps"}
    if unknown:
        raise PlugError(f"experiment.options: unknown {', '.join(sorted(unknown))}", fix="known: steps")
    steps = spec.options.get("steps", 8)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise PlugError(f"experiment.options.steps: {steps!r} is no whole number from 1 on", fix="steps: 8")
    return steps
