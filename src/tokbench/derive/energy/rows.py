"""The energy rows of a cell: one per energy trial and group of domains. Nothing here is split over requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from tokbench.derive.disturbances import Timeline
from tokbench.derive.energy.agreement import Second, is_apart
from tokbench.derive.energy.domains import Group, find_groups, rank_groups
from tokbench.derive.energy.windows import Frame, Span, Without, add_spans, measure_span
from tokbench.derive.energy.work import Work, output_work, prompt_work, request_work, steady_window
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import MeterOpened, WindowKind
from tokbench.record.run import CellRecord, Run, Trial


class Around(NamedTuple):
    """What the machine showed while a window lasted; None where it cannot be read."""

    temperature_c: tuple[float, float] | None
    """The lowest and the highest sample."""
    clock_events: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class EnergyRow:
    """One energy trial, or one repetition of requests, as one group of domains saw it."""

    trial_id: str
    worker_id: str
    group: Group
    output: Span | Without
    """Decode of a static batch again and again, or the steady window of requests."""
    prefill: Span | Without
    idle: Span | Without
    around: Around
    power_limit_w: float | None

    @property
    def net_j_per_output_token(self) -> float | Without:
        """Joules above idle per output token; idle power is taken off for as long as the span lasts."""
        if isinstance(self.output, Without):
            return self.output
        if isinstance(self.idle, Without):
            return Without(t("no idle power: {reason}", reason=self.idle.reason))
        idle_j = self.idle.mean_w * self.output.seconds
        unsure_j = self.output.unsure_share * self.output.joules + self.idle.unsure_share * idle_j
        if self.output.joules - idle_j <= unsure_j:
            idle_w, load_w = f"{self.idle.mean_w:.4g}", f"{self.output.mean_w:.4g}"
            return Without(
                t(
                    "idle power of {idle_w} W cannot be told from {load_w} W under load",
                    idle_w=idle_w,
                    load_w=load_w,
                )
            )
        return (self.output.joules - idle_j) / self.output.tokens

    @property
    def agreement(self) -> float | Without:
        """The counter over the second source, over the same time."""
        if isinstance(self.output, Without):
            return self.output
        second = self.output.second
        return second if isinstance(second, Without) else second.ratio(self.output.joules)


@dataclasses.dataclass(frozen=True, slots=True)
class CellEnergy:
    """All that the meters say of a cell."""

    rows: tuple[EnergyRow, ...]
    headline: tuple[EnergyRow, ...]
    """One per trial, all of the group that speaks for the cell; empty where there is none."""
    missing: str | None
    """Why there is no headline."""

    @property
    def has_disagreement(self) -> bool:
        """Whether the two sources of the headline lie apart in a trial."""
        return any(not isinstance(found, Without) and is_apart(found) for found in (r.agreement for r in self.headline))

    @property
    def has_wide_bound(self) -> bool:
        """Whether a headline's bound is above the limit."""
        spans = [span for row in self.headline for span in (row.output, row.prefill)]
        return any(isinstance(span, Span) and span.why_wide is not None for span in spans)


Rows: TypeAlias = dict[Group, tuple[EnergyRow, ...]]


def find_energy(run: Run, cell: CellRecord) -> CellEnergy:
    """Every row of a cell, and those that speak for it."""
    if not run.meters:
        return CellEnergy((), (), why_no_meter(run))
    trials = _metered_trials(cell)
    if not trials:
        return CellEnergy((), (), _why_no_trial(cell))
    groups = find_groups(run, cell)
    reader = _Reader(run, cell)
    rows = cross_check({group: tuple(reader.row(trial, group) for trial in trials) for group in groups})
    every = tuple(row for found in rows.values() for row in found)
    try:
        ranked = rank_groups(run, cell, groups)
    except UndefinedError as undefined:
        return CellEnergy(every, (), str(undefined))
    best = next((group for group in ranked if any(isinstance(row.output, Span) for row in rows[group])), ranked[0])
    return CellEnergy(every, rows[best], None)


def cross_check(rows: Rows) -> Rows:
    """Rows whose meter has no second source of its own get another meter's of the same scope and device, if any."""
    checked: Rows = {}
    for group, found in rows.items():
        other = next((name for name in rows if _is_same_device(group, name)), None)
        pairs = zip(found, rows[other], strict=True) if other is not None else ()
        checked[group] = tuple(_set_beside(row, beside) for row, beside in pairs) or found
    return checked


def _is_same_device(group: Group, other: Group) -> bool:
    ours, theirs = (sorted(str(domain.device_uuid) for domain in item.domains) for item in (group, other))
    return group.meter != other.meter and group.scope == other.scope and ours == theirs and "None" not in ours


def _set_beside(row: EnergyRow, beside: EnergyRow) -> EnergyRow:
    ours, theirs = row.output, beside.output
    if isinstance(ours, Without) or isinstance(theirs, Without) or isinstance(ours.second, Second):
        return row
    second = Second(f"{beside.group.meter} ({theirs.method})", theirs.mean_w * ours.seconds)
    return dataclasses.replace(row, output=dataclasses.replace(ours, second=second))


def why_no_meter(run: Run) -> str:
    """Why nothing was metered in a run, and what would help."""
    told = [
        f"{'' if meter.meter == 'all' else f'{meter.meter}: '}{meter.reason}"
        + (f" ({meter.remedy})" if meter.remedy else "")
        for meter in run.absent_meters
    ]
    return "; ".join(dict.fromkeys(told)) or t("no meter was read in this run")


def _metered_trials(cell: CellRecord) -> list[Trial]:
    """Energy trials that came to their end; of requests the repetitions, which have a steady window of their own."""
    requests = [trial for trial in cell.good_trials() if trial.requests]
    return requests or [trial for trial in cell.energy_trials if trial.finished is not None]


def _why_no_trial(cell: CellRecord) -> str:
    """A failure goes before what was only left out: the one is not tried again, the other is made up for."""
    ended = [trial.failed for trial in cell.energy_trials if trial.failed is not None]
    failed = [each for each in ended if each.cause != "skipped"]
    if failed:
        return t("the energy trial failed: {reason}", reason=failed[-1].message)
    if ended:
        return t("the energy trial was left out: {reason}", reason=ended[-1].message)
    return t("no energy trial of this cell came to its end")


def _find_lost(run: Run) -> dict[tuple[str, str], str]:
    """Why a domain could be read no longer, by meter and domain.

    Each card of a split model has a meter of its own, recorded as `nvml of cuda:1`; its domains tell which it was.
    """
    return {
        (domain.meter, domain.domain): absent.reason
        for absent in run.absent_meters
        for domain in run.meters
        if (domain.domain in absent.domains if absent.domains else absent.meter == domain.meter)
        and absent.meter.partition(" of ")[0] == domain.meter
    }


class _Reader:
    """Reads the windows of one cell's trials; looks up once what all rows need."""

    def __init__(self, run: Run, cell: CellRecord) -> None:
        self._run = run
        self._cell = cell
        self._timeline = Timeline(run)
        self._counted = frozenset((reading.meter, reading.domain) for reading in run.energy)
        self._lost = _find_lost(run)

    def row(self, trial: Trial, group: Group) -> EnergyRow:
        idle = self._try(lambda: self._idle(trial, group))
        output = self._try(lambda: self._add(group, self._output_frame(trial), idle, trial.device))
        prefill = self._try(lambda: self._add(group, self._prefill_frame(trial), idle, trial.device))
        limits = [self._limit_w(domain, trial.device) for domain in group.domains]
        known = [limit for limit in limits if limit is not None]
        limit_w = sum(known) if len(known) == len(limits) else None
        started = trial.started
        return EnergyRow(
            started.trial_id, started.worker_id, group, output, prefill, idle, self._around(trial), limit_w
        )

    def _try(self, measure: Callable[[], Span]) -> Span | Without:
        try:
            return measure()
        except UndefinedError as undefined:
            return Without(str(undefined))

    def _add(self, group: Group, frame: Frame, idle: Span | Without, seen: DeviceFacts | None) -> Span:
        alone = isinstance(idle, Span) and len(group.domains) == 1
        floor_w = idle.mean_w if isinstance(idle, Span) and alone else None
        return add_spans([self._measure(domain, frame._replace(idle_w=floor_w), seen) for domain in group.domains])

    def _measure(self, domain: MeterOpened, frame: Frame, seen: DeviceFacts | None) -> Span:
        source = (domain.meter, domain.domain)
        frame = frame._replace(
            has_counter=source in self._counted,
            is_lost=source in self._lost,
            limit_w=self._limit_w(domain, seen),
        )
        try:
            return measure_span(self._run, source, frame)
        except UndefinedError as undefined:
            why = f"; {self._lost[source]}" if source in self._lost else ""
            raise UndefinedError(f"{domain.meter} {domain.domain}: {undefined}{why}") from None

    def _limit_w(self, domain: MeterOpened, seen: DeviceFacts | None) -> float | None:
        """As read last before the trial (`seen`): a resumed run may find another limit, and opens its meters anew."""
        is_it = seen is not None and seen.uuid is not None and seen.uuid == domain.device_uuid
        if seen is not None and is_it and domain.scope == "board" and seen.power_limit_w is not None:
            return seen.power_limit_w
        device = self._run.device
        beside = device.power_limit_w if device is not None and domain.scope == "board" else None
        return domain.power_limit_w if domain.power_limit_w is not None else beside

    def _idle(self, trial: Trial, group: Group) -> Span:
        """Idle with the model loaded: of the trial itself, else of the cell's energy trials."""
        held = [(each.boot, window) for each in (trial, *self._cell.energy_trials) for window in each.of_kind("idle")]
        boot, window = held[0] if held else (trial.boot, None)
        if window is None or window.closed is None:
            raise UndefinedError(t("no idle window was held with the model loaded"))
        frame = Frame(window.opened.at_ns, window.closed.at_ns, None, boot=boot)
        try:
            return add_spans([self._measure(domain, frame, trial.device) for domain in group.domains])
        except UndefinedError as undefined:
            integrated = self._try(lambda: self._integrate_idle(group, frame))
            if isinstance(integrated, Without):
                raise undefined from None
            return integrated

    def _integrate_idle(self, group: Group, frame: Frame) -> Span:
        """A counter may stand still at idle: power says what it draws, and the row says that it is integrated."""
        sources = [(domain.meter, domain.domain) for domain in group.domains]
        frame = frame._replace(has_counter=False)
        return add_spans([measure_span(self._run, source, frame) for source in sources])

    def _output_frame(self, trial: Trial) -> Frame:
        if not trial.requests:
            return self._frame(trial, "energy_decode", output_work)
        load = self._cell.spec.load
        slots = (
            load.concurrency if load.kind == "closed" else load.static_batch if load.kind == "static_batch" else None
        )
        start, end = steady_window(trial, slots)
        return Frame(start, end, request_work(trial), boot=trial.boot)

    def _prefill_frame(self, trial: Trial) -> Frame:
        if trial.requests:
            raise UndefinedError(t("prefill and decode of requests run side by side: one meter cannot tell them apart"))
        prompt = self._cell.spec.workload.prompt_tokens
        return self._frame(trial, "energy_prefill", lambda traces: prompt_work(traces, prompt))

    def _frame(self, trial: Trial, kind: WindowKind, count: Callable[..., Work]) -> Frame:
        """The window from its first step's begin to its last step's end."""
        traces = [trace for window in trial.of_kind(kind) for trace in window.steps if trace.step_at_ns]
        if not traces:
            work_of = kind.removeprefix("energy_")
            raise UndefinedError(t("no {work} was held long enough for a meter", work=work_of))
        work = count(traces)
        return Frame(traces[0].start_at_ns, traces[-1].step_at_ns[-1], work, boot=trial.boot)

    def _around(self, trial: Trial) -> Around:
        try:
            frame = self._output_frame(trial)
        except UndefinedError:
            return Around(None, None)
        samples = self._timeline.inside(trial.boot, frame.start_at_ns, frame.end_at_ns)
        heat = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
        events = [sample.throttle_reasons for sample in samples if sample.throttle_reasons is not None]
        told = tuple(dict.fromkeys(reason for reasons in events for reason in reasons)) if events else None
        return Around((min(heat), max(heat)) if heat else None, told)
