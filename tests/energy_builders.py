"""Energy trials and a counter on the scripted clock: power over time is known, so every joule can be told by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from builders import Script
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.record.observations import (
    CounterPeriod,
    EnergyReading,
    MeterOpened,
    PowerReading,
    StepTrace,
    TrialFinished,
    TrialStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from tokbench.record.spec import StaticBatchLoad
from tokbench.stats import Estimate

IDLE_W, LOAD_W = 70.0, 350.0
Scope = Literal["board", "module", "package", "dram", "node", "wall", "script"]


@dataclasses.dataclass
class Power:
    """Power over time, told as the script goes: from each moment on so many watts."""

    from_ns: list[int] = dataclasses.field(default_factory=lambda: [0])
    watts: list[float] = dataclasses.field(default_factory=lambda: [IDLE_W])

    def set(self, at_ns: int, watts: float) -> None:
        self.from_ns.append(at_ns)
        self.watts.append(watts)

    def used_j(self, at_ns: float) -> float:
        ends = [*self.from_ns[1:], float("inf")]
        parts = zip(self.from_ns, ends, self.watts, strict=True)
        return sum(watts * max(0.0, min(at_ns, end) - begin) * 1e-9 for begin, end, watts in parts)

    def at(self, at_ns: float) -> float:
        return [watts for begin, watts in zip(self.from_ns, self.watts, strict=True) if begin <= at_ns][-1]


def energy_trial(
    script: Script,
    cell_id: str,
    power: Power,
    *,
    idle_s: float | None = 2.0,
    prefill_s: float | None = None,
    window_s: float = 2.0,
    step_s: float = 0.01,
    steps_per_pass: int = 10,
    worker: str = "worker-1",
    load_w: float = LOAD_W,
) -> str:
    """One energy trial: idle, the same prefill over and over, decode over and over; power follows what is done."""
    spec = script._specs[cell_id]
    assert isinstance(spec.load, StaticBatchLoad)
    count = sum(isinstance(event, TrialStarted) for event in script.events)
    trial_id, prompt = f"energy-{count}", spec.workload.prompt_tokens or 100
    script.add(
        TrialStarted(
            trial_id=trial_id, cell_id=cell_id, repetition=0, block=0, order=count, worker_id=worker,
            at_ns=script.wait(0.5), purpose="energy",
        )
    )  # fmt: skip
    if idle_s is not None:
        _passes(script, trial_id, "idle", [], 0, 0)
        script.wait(idle_s)
        script.add(WindowClosed(trial_id=trial_id, window_id=f"{trial_id}-idle", at_ns=script.now_ns))
    for kind, length_s, per_pass in (
        ("energy_prefill", prefill_s, 1),
        ("energy_decode", step_s, steps_per_pass),
    ):
        if length_s is None:
            continue
        power.set(script.now_ns, load_w)
        passes = [[length_s] * per_pass] * max(1, round(window_s / (length_s * per_pass)))
        _passes(script, trial_id, kind, passes, spec.load.static_batch, prompt)
        power.set(script.now_ns, IDLE_W)
        script.add(WindowClosed(trial_id=trial_id, window_id=f"{trial_id}-{kind}", at_ns=script.now_ns))
        script.wait(0.3)
    script.add(TrialFinished(trial_id=trial_id, at_ns=script.wait(0.5)))
    return trial_id


def _passes(
    script: Script, trial_id: str, kind: WindowKind, passes: Sequence[Sequence[float]], rows: int, context: int
) -> None:
    window_id = f"{trial_id}-{kind}"
    script.add(WindowOpened(trial_id=trial_id, window_id=window_id, kind=kind, at_ns=script.wait(0)))
    for steps in passes:
        start = script.now_ns
        stamps = tuple(script.wait(seconds) for seconds in steps)
        script.add(
            StepTrace(
                trial_id=trial_id, window_id=window_id, start_at_ns=start, step_at_ns=stamps,
                tokens_per_row=(1,) * len(stamps), rows=rows, context_tokens=context, stamped_by="script",
                clock_error_s=None,
            )
        )  # fmt: skip


def opened(meter: str = "nvml", domain: str = "gpu", scope: Scope = "board", **more: object) -> MeterOpened:
    """A domain that can be read."""
    return MeterOpened.model_validate(
        {"meter": meter, "domain": domain, "scope": scope, "source": f"{meter}_counter", "at_ns": 0, **more}
    )


def counter_readings(
    power: Power,
    start_ns: int,
    end_ns: int,
    *,
    period_s: float = 0.1,
    phase_s: float = 0.037,
    poll_s: float = 0.001,
    share: float = 1.0,
    range_j: float | None = None,
    meter: str = "nvml",
    domain: str = "gpu",
) -> list[EnergyReading]:
    """What a counter shows to a poll each `poll_s`: kept where it moved, with the poll before."""
    period, poll = round(period_s * 1e9), round(poll_s * 1e9)
    ticks = range(start_ns + round(phase_s * 1e9), end_ns, period)
    kept = []
    for tick in ticks:
        at = start_ns + -(-(tick - start_ns) // poll) * poll
        joules = power.used_j(tick) * share
        kept.append(
            EnergyReading(
                meter=meter, domain=domain, at_ns=at, joules=joules if range_j is None else joules % range_j,
                read_s=0.0, unchanged_at_ns=at - poll, range_j=range_j,
            )
        )  # fmt: skip
    return kept


def period(period_s: float = 0.1, meter: str = "nvml", domain: str = "gpu") -> CounterPeriod:
    """How often a counter moves."""
    return CounterPeriod(meter=meter, domain=domain, period_s=period_s, changes=20, at_ns=1)


def power_readings(
    power: Power,
    start_ns: int,
    end_ns: int,
    *,
    every_s: float = 0.2,
    share: float = 1.0,
    kind: Literal["instant", "average"] | None = "instant",
    meter: str = "nvml",
    domain: str = "gpu",
) -> list[PowerReading]:
    """What a power sensor shows at a fixed interval."""
    return [
        PowerReading(meter=meter, domain=domain, at_ns=at, watts=power.at(at) * share, kind=kind)
        for at in range(start_ns, end_ns, round(every_s * 1e9))
    ]


def only_cell(script: Script, folder: Path) -> CellResult:
    """The one cell of a record, evaluated."""
    (cell,) = evaluate(script.run(folder), "run").cells
    return cell


def value_of(cell: CellResult, name: str) -> float:
    """A metric that has a value."""
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value.value


def reason_of(cell: CellResult, name: str) -> str:
    """Why a metric has none."""
    value = cell.metrics[name]
    assert isinstance(value, Missing), value
    return value.reason
