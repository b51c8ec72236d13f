"""Runs of the fake engine in this process, on a clock that only its commands move. Starts no child."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from scripted_facts import HOST
from tokbench.measure import budget, crew, runner, visit
from tokbench.measure.energy_trial import EnergySource
from tokbench.measure.engines import CellWork, EngineRequest
from tokbench.measure.messages import Command, Done, Failed, PrepareCell, Reply, RunTrial
from tokbench.measure.plan import GroupPlan, Place, Plan, bind
from tokbench.measure.progress import Silent
from tokbench.measure.runner import Outcome, Runner
from tokbench.measure.worker_process import LocalWorker
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import SCHEMA_VERSION, Event, RunStarted
from tokbench.record.run import Run, read_run
from tokbench.record.spec import EngineSpec, LoadSpec, ModelSpec, Option, StaticBatchLoad
from tokbench.record.store import RunWriter, read_events
from tokbench.record.sweep import read_config

PLACE = Place(HOST, DeviceFacts(kind="fake", name="scripted device"), "the only one", "cpu", 1 << 34)
Fault = Callable[[Command], Done | Failed | None]
"""What a worker answers instead of carrying out a command; None lets it."""


def engine_request(mode: str = "default", **options: Option) -> EngineRequest:
    """A request for the fake engine."""
    return EngineRequest(
        model=ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32"),
        engine=EngineSpec(kind="fake", mode=mode, options=options),
        device="cpu",
        model_name="tiny-llama",
        config_json=None,
        weights_folder=None,
        threads=1,
        seed=1,
    )


def work(rows: int = 1, prompt_tokens: int = 10, output_tokens: int = 5) -> CellWork:
    """Prompts of counting tokens."""
    return CellWork(tuple(tuple(range(prompt_tokens)) for _ in range(rows)), output_tokens)


def config_text(
    modes: Sequence[str] = ("default",),
    load: str = "{kind: static_batch, static_batch: [1, 2]}",
    options: str = "{step_s: 0.01}",
    stop: str = "{rel_ci: 0.02, min_repetitions: 3, max_repetitions: 5, blocks: 1, sentinel: false}",
    budget: str = "{total: 600s}",
    seed: int = 1,
) -> str:
    """A config of the fake engine, prompt 16, output 8; a mode is given as `engine.attention`, which groups cells."""
    engines = ", ".join(f"{{kind: fake, attention: {mode}, options: {options}}}" for mode in modes)
    return textwrap.dedent(
        f"""\
        name: scripted
        seed: {seed}
        model: {{source: "shape:tiny-llama", weights: random, dtype: float32}}
        engine: [{engines}]
        workload: {{kind: synthetic, prompt_tokens: 16, output_tokens: 8}}
        load: {load}
        stop: {stop}
        budget: {budget}
        energy: off
        compare: {{published: []}}
        """
    )


def fake_plan(folder: Path, text: str | None = None, place: Place = PLACE) -> Plan:
    """Bind a config of fakes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "asked.yaml"
    path.write_text(text or config_text(), encoding="utf-8")

    def refuse(spec: ModelSpec) -> None:
        raise AssertionError(f"a fake needs no model, and {spec} was asked for")

    return bind(read_config(path), place, refuse)  # type: ignore[arg-type]


class Clock:
    """Stands in for the module `time` where the runner and the crew read it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s

    def monotonic_ns(self) -> int:
        """The same in nanoseconds."""
        return round(self.now_s * 1e9)


class ScriptedWorker(LocalWorker):
    """Commands take scripted time on the runner's clock and fail as scripted."""

    def __init__(
        self, name: str, clock: Clock, costs_s: Mapping[str, float], fault: Fault, heard: list[Command]
    ) -> None:
        super().__init__(name)
        self._clock, self._costs_s, self._fault, self._heard = clock, costs_s, fault, heard
        self.is_closed = False
        self.limits_s: list[tuple[str, float]] = []

    def ask(self, command: Command, limit_s: float) -> Iterator[Reply]:
        """Note the command, let its time pass, answer."""
        assert not self.is_closed
        self._heard.append(command)
        self.limits_s.append((command.command, limit_s))
        self._clock.now_s += self._costs_s.get(command.command, 0.0)
        answer = self._fault(command)
        if answer is not None:
            yield answer
            return
        yield from super().ask(command, limit_s)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True
        super().close()


class Stage:
    """One record folder, its clock and its workers; `run` measures a plan into it."""

    def __init__(self, folder: Path, costs_s: Mapping[str, float] | None = None, fault: Fault = lambda _: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.clock = Clock()
        self.costs_s = dict(costs_s or {})
        self.fault = fault
        self.heard: list[Command] = []
        self.workers: list[ScriptedWorker] = []
        self.blocks = 0
        self.names_from = 0
        """The number of the first worker's name."""

    def _current_fault(self, command: Command) -> Done | Failed | None:
        return self.fault(command)

    def open_worker(self, group: GroupPlan) -> ScriptedWorker:
        """A worker with a name of its own."""
        name = f"w{self.names_from + len(self.workers)}"
        worker = ScriptedWorker(name, self.clock, self.costs_s, self._current_fault, self.heard)
        self.workers.append(worker)
        return worker

    def _count_block(self) -> None:
        self.blocks += 1

    def run(self, plan: Plan, earlier: Run | None = None, energy: EnergySource | None = None) -> Outcome:
        """Measure; the clock must have been put in the place of `time` by the test."""
        writer = RunWriter(self.folder)
        if earlier is None:
            writer.append(
                RunStarted(
                    schema_version=SCHEMA_VERSION, tokbench_version="0", config_sha256="x", seed=1, at_ns=0, utc="2026"
                )
            )
        try:
            return Runner(plan, writer, self.open_worker, Silent(), self._count_block).run(earlier, energy)
        finally:
            writer.close()

    def read(self) -> Run:
        """The record so far."""
        return read_run(self.folder)

    def trials(self) -> list[RunTrial]:
        """The repetitions that were asked for, in order."""
        return [command for command in self.heard if isinstance(command, RunTrial)]

    def visits(self) -> list[str]:
        """The cells that were prepared, in order."""
        return [command.cell_id for command in self.heard if isinstance(command, PrepareCell)]


def rows_of(load: LoadSpec) -> int:
    """Sequences of a static batch."""
    assert isinstance(load, StaticBatchLoad)
    return load.static_batch


NO_END = "{rel_ci: 1.0e-9, min_repetitions: 3, max_repetitions: 1000, blocks: 1, sentinel: false}"
JITTERY = "{step_s: 0.01, jitter: 0.3}"


CRASH = Failed(cause="crashed", text="the worker died: SIGSEGV", traceback="Fatal Python error")


def endless(budget: str, load: str = "{static_batch: 1}", modes: tuple[str, ...] = ("a",), seed: int = 1) -> str:
    """A config that only the budget ends."""
    return config_text(modes, load, options=JITTERY, stop=NO_END, budget=f"{{total: {budget}}}", seed=seed)


def nothing(_: Command) -> None:
    """No fault."""


def stage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, costs_s: dict[str, float] | None = None, fault: Fault = nothing
) -> Stage:
    """A stage whose clock stands in the place of `time`."""
    made = Stage(folder, costs_s, fault)
    for module in (runner, visit, budget, crew):
        monkeypatch.setattr(module, "time", made.clock)
    return made


def events_of(folder: Path, kind: type[Event]) -> list[Event]:
    """Events of one kind, in order."""
    return [event for event in read_events(folder) if isinstance(event, kind)]


def rows(plan: Plan) -> dict[str, int]:
    """The static batch of every cell."""
    return {cell.cell.cell_id: rows_of(cell.cell.spec.load) for cell in plan.cells()}


def failing(cell_rows: int, at: str, *failures: Failed) -> Fault:
    """The first commands of a kind for cells of so many rows fail, one for each failure given."""
    left = list(failures)
    current = [0]

    def fault(command: Command) -> Done | Failed | None:
        if isinstance(command, PrepareCell):
            current[0] = rows_of(command.spec.load)
        is_it = command.command == at and (at == "open" or current[0] == cell_rows)
        return left.pop(0) if is_it and left else None

    return fault


def without_room(plan: Plan, cell_rows: int) -> Plan:
    """The same plan where cells of so many rows do not fit."""
    groups = [
        dataclasses.replace(
            group,
            cells=tuple(
                dataclasses.replace(cell, refusal="needs 9 GB") if rows_of(cell.cell.spec.load) == cell_rows else cell
                for cell in group.cells
            ),
        )
        for group in plan.groups
    ]
    return dataclasses.replace(plan, groups=tuple(groups))
