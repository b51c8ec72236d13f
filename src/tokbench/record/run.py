"""A run as read back: events grouped by cell and trial. Computes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import ValidationError

from tokbench.errors import RecordError
from tokbench.record.blocks import Purpose
from tokbench.record.boots import Boots, Instruments
from tokbench.record.cost import CostSpec
from tokbench.record.facts import CeilingFacts, DeviceFacts, EngineFacts, HostFacts, ModelFacts
from tokbench.record.observations import (
    BlockStarted,
    CellPlanned,
    CellPrepared,
    CellSkipped,
    ClockAnchor,
    CounterPeriod,
    EnergyReading,
    Event,
    ExperimentPoint,
    ExpertTouches,
    FactsRead,
    IdentityChecked,
    LoadSample,
    MemoryReading,
    MeterAbsent,
    MeterOpened,
    OutputTokens,
    PowerReading,
    PromptsStaged,
    ReadPass,
    RepeatabilityChecked,
    RequestTrace,
    RunEnded,
    RunStarted,
    SpeculationRounds,
    StepTrace,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from tokbench.record.spec import CellSpec
from tokbench.record.store import read_events, read_header


@dataclasses.dataclass(slots=True)
class Window:
    """One window of a trial with what happened in it."""

    opened: WindowOpened
    closed: WindowClosed | None = None
    steps: list[StepTrace] = dataclasses.field(default_factory=list)

    @property
    def kind(self) -> WindowKind:
        """What fills it."""
        return self.opened.kind


@dataclasses.dataclass(slots=True)
class Trial:
    """One repetition of a cell: its events."""

    started: TrialStarted
    boot: int = 0
    """The boot of the machine that it ran in: stamps of two boots are never set side by side."""
    device: DeviceFacts | None = None
    """As read last before the trial: a resumed run reads it anew."""
    windows: dict[str, Window] = dataclasses.field(default_factory=dict)
    requests: list[RequestTrace] = dataclasses.field(default_factory=list)
    speculation: list[SpeculationRounds] = dataclasses.field(default_factory=list)
    experts: list[ExpertTouches] = dataclasses.field(default_factory=list)
    points: list[ExperimentPoint] = dataclasses.field(default_factory=list)
    reads: list[ReadPass] = dataclasses.field(default_factory=list)
    prompts: PromptsStaged | None = None
    """Where the repetition had prompts of its own."""
    memory: list[MemoryReading] = dataclasses.field(default_factory=list)
    output: OutputTokens | None = None
    finished: TrialFinished | None = None
    failed: TrialFailed | None = None

    def of_kind(self, kind: WindowKind) -> list[Window]:
        """Closed windows of one kind, in order."""
        return [window for window in self.windows.values() if window.kind == kind and window.closed is not None]


@dataclasses.dataclass(slots=True)
class CellRecord:
    """One cell with all of its trials."""

    planned: CellPlanned
    spec: CellSpec
    prepared: list[CellPrepared] = dataclasses.field(default_factory=list)
    skipped: CellSkipped | None = None
    trials: list[Trial] = dataclasses.field(default_factory=list)
    """Repetitions; sentinels and energy trials stand apart."""
    sentinel_trials: list[Trial] = dataclasses.field(default_factory=list)
    """What was run to see drift: no repetition, and in no metric."""
    energy_trials: list[Trial] = dataclasses.field(default_factory=list)
    """Windows held long enough for the meters: no repetition. One that failed says why there is no energy."""
    identity: list[IdentityChecked] = dataclasses.field(default_factory=list)
    repeats: list[RepeatabilityChecked] = dataclasses.field(default_factory=list)
    memory: list[MemoryReading] = dataclasses.field(default_factory=list)
    model: ModelFacts | None = None
    engine: EngineFacts | None = None

    @property
    def cell_id(self) -> str:
        """The identity of the cell."""
        return self.planned.cell_id

    def all_trials(self) -> list[Trial]:
        """Whatever they were for, each kind in order."""
        return [*self.trials, *self.sentinel_trials, *self.energy_trials]

    def good_trials(self) -> list[Trial]:
        """Trials that came to their end."""
        return [trial for trial in self.trials if trial.finished is not None]

    def sentinels(self) -> list[Trial]:
        """Sentinel trials that came to their end, in order: one before and one after the cells of a block."""
        return [trial for trial in self.sentinel_trials if trial.finished is not None]


@dataclasses.dataclass(slots=True)
class Run:
    """One record, read whole."""

    folder: Path
    header: RunStarted
    cells: dict[str, CellRecord] = dataclasses.field(default_factory=dict)
    host: HostFacts | None = None
    device: DeviceFacts | None = None
    """As read last; `devices` holds every reading."""
    devices: list[tuple[int, DeviceFacts]] = dataclasses.field(default_factory=list)
    """Each time the device was looked at, and what was seen: once per part of a resumed run."""
    device_choice: str | None = None
    ceilings: list[CeilingFacts] = dataclasses.field(default_factory=list)
    load_s: dict[str, float] = dataclasses.field(default_factory=dict)
    anchors: list[ClockAnchor] = dataclasses.field(default_factory=list)
    energy: list[EnergyReading] = dataclasses.field(default_factory=list)
    power: list[PowerReading] = dataclasses.field(default_factory=list)
    absent_meters: list[MeterAbsent] = dataclasses.field(default_factory=list)
    meters: list[MeterOpened] = dataclasses.field(default_factory=list)
    periods: list[CounterPeriod] = dataclasses.field(default_factory=list)
    """In order: a counter's last one before a moment holds at that moment."""
    load_samples: list[LoadSample] = dataclasses.field(default_factory=list)
    boots: Boots = dataclasses.field(default_factory=Boots)
    blocks: list[BlockStarted] = dataclasses.field(default_factory=list)
    """In order; empty in records from before they were kept."""
    ended: RunEnded | None = None
    prices: CostSpec | None = None
    """Prices that whoever reads the run puts in place of the config's; no part of the record."""
    _trials: dict[str, Trial] = dataclasses.field(default_factory=dict)
    _models: dict[str, ModelFacts] = dataclasses.field(default_factory=dict)
    _engines: dict[str, EngineFacts] = dataclasses.field(default_factory=dict)

    @property
    def instruments(self) -> Instruments:
        """Everything that instruments read, of all boots."""
        return Instruments(self.load_samples, self.energy, self.power, self.periods)

    def in_boot(self, boot: int) -> Instruments:
        """What they read in one boot of the machine: only its stamps may be set beside those of a trial in it."""
        return self.boots.cut(self.instruments, boot)


def read_run(folder: Path) -> Run:
    """Read a record and group its events.

    Raises:
        RecordError: the record cannot be read.
    """
    run = Run(folder=folder, header=read_header(folder))
    for event in read_events(folder):
        _place(run, event)
    for cell in run.cells.values():
        cell.model = run._models.get(cell.planned.group)
        prepared = [item.engine for item in cell.prepared if item.engine is not None]
        cell.engine = prepared[-1] if prepared else run._engines.get(cell.planned.group)
    return run


def _place(run: Run, event: Event) -> None:
    match event:
        case RunEnded():
            run.ended = event
        case FactsRead():
            _place_facts(run, event)
        case EnergyReading() | PowerReading() | MeterAbsent() | MeterOpened() | CounterPeriod():
            _place_reading(run, event)
        case LoadSample():
            run.boots.note(event, run.instruments)
            run.load_samples.append(event)
        case ClockAnchor():
            run.anchors.append(event)
        case BlockStarted():
            run.blocks.append(event)
            run.ended = None  # a record that goes on has not ended
        case CellPlanned() | CellSkipped() | CellPrepared() | IdentityChecked() | RepeatabilityChecked():
            _place_in_cell(run, event)
        case MemoryReading(trial_id=None):
            _place_in_cell(run, event)
        case RunStarted():
            pass
        case _:
            _place_in_trial(run, event)


_OfMeter: TypeAlias = EnergyReading | PowerReading | MeterAbsent | MeterOpened | CounterPeriod


def _place_reading(run: Run, event: _OfMeter) -> None:
    match event:
        case EnergyReading():
            run.energy.append(event)
        case PowerReading():
            run.power.append(event)
        case MeterAbsent():
            run.absent_meters.append(event)
        case MeterOpened():
            run.meters.append(event)
        case CounterPeriod():
            run.periods.append(event)


def _place_facts(run: Run, event: FactsRead) -> None:
    run.host = event.host or run.host
    if event.device is not None:
        run.device = event.device
        run.devices.append((event.at_ns, event.device))
    run.device_choice = event.device_choice or run.device_choice
    if event.ceilings is not None:
        run.ceilings.append(event.ceilings)
    if event.group is not None:
        if event.load_s is not None:
            run.load_s[event.group] = event.load_s
        if event.model is not None:
            run._models[event.group] = event.model
        if event.engine is not None:
            run._engines[event.group] = event.engine


_OfCell: TypeAlias = CellPlanned | CellSkipped | CellPrepared | IdentityChecked | RepeatabilityChecked | MemoryReading


def _place_in_cell(run: Run, event: _OfCell) -> None:
    if isinstance(event, CellPlanned):
        if event.cell_id not in run.cells:
            run.cells[event.cell_id] = CellRecord(event, _spec_of(event))
        return
    cell = _known(run.cells, event.cell_id, "cell")
    match event:
        case CellSkipped():
            cell.skipped = event
        case CellPrepared():
            cell.prepared.append(event)
        case IdentityChecked():
            cell.identity.append(event)
        case RepeatabilityChecked():
            cell.repeats.append(event)
        case MemoryReading():
            cell.memory.append(event)


def _spec_of(event: CellPlanned) -> CellSpec:
    try:
        spec = CellSpec.model_validate_json(event.resolved)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RecordError(
            f"cell {event.cell_id!r} cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            fix="the file was edited, or written by another version of tokbench",
        ) from None
    return spec.model_copy(update={"labels": dict(event.labels)})


_OfProbe: TypeAlias = SpeculationRounds | ExpertTouches | ExperimentPoint | PromptsStaged | ReadPass


def _place_in_trial(run: Run, event: Event) -> None:
    if isinstance(event, TrialStarted):
        run.boots.note(event, run.instruments)
        trial = Trial(event, run.boots.current, run.device)
        run._trials[event.trial_id] = trial
        cell = _known(run.cells, event.cell_id, "cell")
        _trials_for(cell, event.purpose).append(trial)
        return
    trial_id = getattr(event, "trial_id", None)
    trial = _known(run._trials, str(trial_id), "trial")
    match event:
        case WindowOpened():
            trial.windows[event.window_id] = Window(event)
        case WindowClosed():
            _known(trial.windows, event.window_id, "window").closed = event
        case StepTrace():
            _known(trial.windows, event.window_id, "window").steps.append(event)
        case RequestTrace():
            trial.requests.append(event)
        case SpeculationRounds() | ExpertTouches() | ExperimentPoint() | PromptsStaged() | ReadPass():
            _place_probe(trial, event)
        case MemoryReading():
            trial.memory.append(event)
        case OutputTokens():
            trial.output = event
        case TrialFinished():
            trial.finished = event
        case TrialFailed():
            trial.failed = event


def _place_probe(trial: Trial, event: _OfProbe) -> None:
    match event:
        case ReadPass():
            trial.reads.append(event)
        case SpeculationRounds():
            trial.speculation.append(event)
        case ExpertTouches():
            trial.experts.append(event)
        case ExperimentPoint():
            trial.points.append(event)
        case PromptsStaged():
            trial.prompts = event


def _trials_for(cell: CellRecord, purpose: Purpose) -> list[Trial]:
    match purpose:
        case "measure":
            return cell.trials
        case "sentinel":
            return cell.sentinel_trials
        case "energy":
            return cell.energy_trials


V = TypeVar("V")


def _known(table: dict[str, V], key: str, what: str) -> V:
    if key not in table:
        raise RecordError(f"the record names {what} {key!r} before it begins", fix="the file was edited; restore it")
    return table[key]
