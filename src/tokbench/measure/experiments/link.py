"""Decode with and without a delay on the link between the processes that hold a model, in turn within one repetition.

The delay is injected, not a slower network: after every exchange each process waits. The exchanges alone are timed
too, since what the loopback itself takes is no part of a link that costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec, Option

DESCRIPTION = (
    "decode windows with a free link, one with a delay (options latency_us, default 10; gb_per_s, default 64: PCIe 5.0 "
    "x16 as the claims take it; steps, default 16) and the exchanges alone; engine.options.cut says how the model lies"
)
DEFAULTS: dict[str, float] = {"latency_us": 10.0, "gb_per_s": 64.0, "steps": 16}
ORDER = ("free", "delayed", "delayed", "free")
"""So that a drift within the repetition falls on both alike."""


class _Setting(NamedTuple):
    latency_us: float
    gb_per_s: float
    steps: int


@runtime_checkable
class LinkedEngine(Protocol):
    """What a step engine does besides where two processes hold its model."""

    @property
    def cut(self) -> str:
        """`tensor`: through every layer, or `pipeline`: between layers."""

    def set_link(self, latency_s: float, bytes_per_s: float) -> None:
        """Wait so long at every exchange from now on."""

    def exchanged(self) -> tuple[int, int]:
        """Exchanges of the last decode, and bytes that passed: of one process what it sent, of a pipeline both ways."""

    def exchange_alone(self) -> None:
        """The exchanges of the last decode once more, with nothing computed between them and no delay."""


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse wrong options, and a model that lies in one process.

    Raises:
        PlugError: an unknown option, a value that it cannot take, or an engine that is not asked for a link.
    """
    _read(spec.options, cell.workload.output_tokens - 1)
    if cell.engine.options.get("cut", "none") == "none":
        raise _no_link()


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """Five points: decode over a free, a delayed, a delayed and a free link, then the exchanges alone.

    Raises:
        PlugError: an unknown option, or an engine without a link.
    """
    setting = _read(spec.options, work.output_tokens - 1)
    if not isinstance(engine, LinkedEngine):
        raise _no_link()
    try:
        for index, name in enumerate(ORDER):
            delay = (setting.latency_us * 1e-6, setting.gb_per_s * 1e9) if name == "delayed" else (0.0, float("inf"))
            engine.set_link(*delay)
            engine.rewind(0)
            engine.prefill()
            begun = engine.sync()
            for _ in engine.decode(setting.steps):
                pass
            yield _point(engine, setting, trial_id, (index, name), engine.sync() - begun)
    finally:
        engine.set_link(0.0, float("inf"))
    begun = engine.sync()
    engine.exchange_alone()
    yield _point(engine, setting, trial_id, (len(ORDER), "exchanges alone"), engine.sync() - begun)
    engine.rewind(0)


def _no_link() -> PlugError:
    return PlugError(
        "experiment.kind: link needs an engine whose model two processes hold",
        fix="engine: {kind: transformers, mode: eager, options: {cut: tensor}} on device: cpu",
    )


def _read(given: Mapping[str, Option], most_steps: int) -> _Setting:
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise PlugError(f"experiment.options: unknown {', '.join(unknown)}", fix=f"known: {', '.join(DEFAULTS)}")
    numbers = {}
    for name, default in DEFAULTS.items():
        value = given.get(name, default)
        if isinstance(value, bool | str) or value <= 0:
            raise PlugError(f"experiment.options.{name}: {value!r} is no number above 0", fix=f"{name}: {default:g}")
        numbers[name] = float(value)
    if not numbers["steps"].is_integer():
        raise PlugError(f"experiment.options.steps: {numbers['steps']:g} is no whole number", fix="steps: 16")
    return _Setting(numbers["latency_us"], numbers["gb_per_s"], min(int(numbers["steps"]), most_steps))


def _point(
    engine: StepEngine, setting: _Setting, trial_id: str, window: tuple[int, str], duration_ns: int
) -> ExperimentPoint:
    assert isinstance(engine, LinkedEngine)  # checked in run
    exchanges, sent_bytes = engine.exchanged()
    index, link = window
    return ExperimentPoint(
        trial_id=trial_id,
        window_id=f"{trial_id}/experiment/{index}",
        experiment="link",
        settings={"cut": engine.cut, "link": link, "window": index, **setting._asdict()},
        duration_s=duration_ns * 1e-9,
        stamped_by=engine.facts.stamped_by,
        values={"exchanges": exchanges, "sent_bytes": sent_bytes},
    )
