"""What would run: every cell bound to engine, model and device, with its predicted memory, ceiling and time.

It touches no device: memory and names come from facts that were read before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tokbench.arithmetic import (
    Ceilings,
    ModelShape,
    Precision,
    bytes_read_per_step,
    precision_on,
    roofline_decode_tokens_per_s,
    weight_bytes,
)
from tokbench.errors import PlugError, SpecError
from tokbench.measure.choice import torch_device
from tokbench.measure.draft_memory import draft_memory_bytes
from tokbench.measure.drawing import check_draws
from tokbench.measure.engines import check_drafting, check_load, check_plug
from tokbench.measure.experiments import check_experiment
from tokbench.measure.latent import check_latent
from tokbench.measure.models import ResolvedModel, at_depth
from tokbench.measure.parallel import check_engine, check_even, largest_static_batch, memory_per_device_bytes
from tokbench.measure.quantising import check_quantising
from tokbench.record.catalog import CONTRADICTION, find_device, shape_from_config
from tokbench.record.facts import DeviceFacts, HostFacts
from tokbench.record.observations import FactsRead
from tokbench.record.spec import CellSpec, ModelSpec
from tokbench.record.sweep import Cell, Config, expand, make_cell
from tokbench.units import BYTES, format_value

GPU_SHARE, GPU_RESERVE_BYTES = 0.94, 4_000_000_000
CPU_SHARE = 0.85
"""Share of the free memory that a run may plan with; the rest is context, workspaces and fragmentation, which on a
large card is a fixed amount rather than a share."""
ASSUMED_CPU_BYTES_PER_S = 10e9
"""Read rate assumed for the time estimate on a device without a datasheet row; used for nothing else."""
ASSUMED_EFFICIENCY = 0.6
MAX_ROWS = 4096

Resolve = Callable[[ModelSpec], ResolvedModel]


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedCell:
    """One cell and what is known of it before it runs."""

    cell: Cell
    predicted_memory_bytes: int | None
    roofline_decode_tokens_per_s: float | None
    """From the datasheet; None where the device has no row."""
    expected_trial_s: float | None
    step_bytes: float | None
    """Bytes that one decode step has to read from each memory."""
    refusal: str | None
    """Why it cannot run here; None where it can."""
    draft: ResolvedModel | None = None
    """The model that drafts; None where none does."""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupPlan:
    """One worker's cells: one model in one engine and mode."""

    group: str
    spec: CellSpec
    """Any cell of the group."""
    model: ResolvedModel | None
    cells: tuple[PlannedCell, ...]

    def is_refused(self) -> bool:
        """Whether no cell of the group can run here."""
        return all(cell.refusal is not None for cell in self.cells)

    def predicted_peak_bytes(self) -> int:
        """Memory that the worker needs at most; 0 where nothing is predicted."""
        return max((cell.predicted_memory_bytes or 0 for cell in self.cells if cell.refusal is None), default=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run would do."""

    config: Config
    host: HostFacts
    device: DeviceFacts
    device_choice: str
    torch_device: str
    usable_memory_bytes: int | None
    groups: tuple[GroupPlan, ...]
    is_interleaved: bool
    """Whether all groups fit in memory side by side, so that their trials can alternate."""
    further: tuple[DeviceFacts, ...] = ()
    """The other devices of a model that is split, in the order of their ranks."""

    def torch_devices(self) -> tuple[str, ...]:
        """All devices of a model that is split, as torch names them; empty where it lies on one."""
        return (self.torch_device, *map(torch_device, self.further)) if self.further else ()

    def facts(self, at_ns: int) -> list[FactsRead]:
        """What was read of the host and of every device; rank 0's comes last: it is the one that the run names."""
        others = [FactsRead(at_ns=at_ns, device=device) for device in self.further]
        return [*others, FactsRead(at_ns=at_ns, host=self.host, device=self.device, device_choice=self.device_choice)]

    def cells(self) -> list[PlannedCell]:
        """All cells, group by group."""
        return [cell for group in self.groups for cell in group.cells]

    def expected_s(self, repetitions: int) -> float | None:
        """A rough time for so many repetitions of every cell; None where nothing is known."""
        known = [c.expected_trial_s for c in self.cells() if c.refusal is None and c.expected_trial_s is not None]
        return sum(known) * repetitions if known else None


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a run would take place."""

    host: HostFacts
    device: DeviceFacts
    choice: str
    torch_device: str
    free_host_bytes: int
    further: tuple[DeviceFacts, ...] = ()
    """The other devices of a model that is split, in the order of their ranks."""


def usable_memory_bytes(place: Place) -> int | None:
    """Bytes that a run may plan with on each of its devices; None where one of them does not tell."""
    devices = (place.device, *place.further)
    if place.device.kind in ("cuda", "rocm"):
        shares = [_usable_gpu_bytes(device) for device in devices]
        known = [share for share in shares if share is not None]
        return min(known) if len(known) == len(shares) else None
    free_host = place.free_host_bytes
    if place.host.memory_limit_bytes is not None:
        free_host = min(free_host, place.host.memory_limit_bytes)
    return int(free_host * CPU_SHARE) // len(devices)


def _usable_gpu_bytes(device: DeviceFacts) -> int | None:
    free = device.free_memory_bytes if device.free_memory_bytes is not None else device.memory_bytes
    return None if free is None else max(int(free * GPU_SHARE), free - GPU_RESERVE_BYTES)


def bind(config: Config, place: Place, resolve: Resolve, earlier: Sequence[CellSpec] = ()) -> Plan:
    """Bind every cell of a config to a place; engines and models are checked before any device is touched.

    `earlier` are the cells of a run that goes on: a range up to `max` then ends where it ended before, whatever memory
    is free now.

    Raises:
        SpecError: a point of the sweep makes no sense. PlugError: an engine or a model cannot be had, or no cell fits.
    """
    usable = usable_memory_bytes(place)
    binder = _Binder(place, usable, resolve, earlier)
    cells = [binder.plan_cell(cell) for cell in expand(config, binder.largest_batch)]
    groups = binder.group(cells)
    _refuse_if_nothing_fits(groups, usable)
    peaks = [group.predicted_peak_bytes() for group in groups]
    is_known = all(
        peak > 0 or group.spec.engine.kind == "fake" or group.is_refused()
        for group, peak in zip(groups, peaks, strict=True)
    )
    is_interleaved = len(groups) == 1 or usable is None or (is_known and sum(peaks) <= usable)
    return Plan(
        config=config,
        host=place.host,
        device=place.device,
        device_choice=place.choice,
        torch_device=place.torch_device,
        usable_memory_bytes=usable,
        groups=groups,
        is_interleaved=is_interleaved,
        further=place.further,
    )


class _Binder:
    """Plans cells for one place; remembers the models it resolved."""

    def __init__(self, place: Place, usable: int | None, resolve: Resolve, earlier: Sequence[CellSpec]) -> None:
        self._place = place
        self._earlier = earlier
        self._usable = usable
        self._resolve = resolve
        self._models: dict[str, ResolvedModel] = {}
        self._shapes: dict[str, ModelShape | None] = {}
        row = find_device(place.device.name)
        self._devices = 1 + len(place.further)
        self._memories = 1 if place.device.kind == "cpu" else self._devices
        self._bandwidth = (
            self._memories * row.memory_bandwidth_gbps * 1e9 if row and row.memory_bandwidth_gbps else None
        )

    def _model(self, spec: CellSpec) -> ResolvedModel | None:
        if spec.engine.kind == "fake":
            return None
        if spec.model.model_dump_json() not in self._models:
            check_plug(spec.engine)
        return self._resolved(spec.model)

    def _draft(self, spec: CellSpec) -> ResolvedModel | None:
        """The model that a cell drafts with, brought to this disk."""
        if spec.speculation == "none" or spec.speculation.draft is None:
            return None
        return self._resolved(spec.speculation.draft)

    def _resolved(self, wanted: ModelSpec) -> ResolvedModel:
        """A model, brought to this disk; its sizes are looked at before its depth is changed, which may cut a part."""
        key = wanted.model_dump_json()
        if key not in self._models:
            found = self._resolve(wanted)
            _refuse_contradiction(found)
            self._models[key] = at_depth(found, wanted.layers)
        return self._models[key]

    def _shape(self, spec: CellSpec) -> ModelShape | None:
        return self._shape_of(self._model(spec))

    def _shape_of(self, model: ResolvedModel | None) -> ModelShape | None:
        if model is None:
            return None
        if model.name not in self._shapes:
            try:
                self._shapes[model.name] = shape_from_config(model.config, model.name)
            except SpecError:
                self._shapes[model.name] = None
        return self._shapes[model.name]

    def _precision(self, spec: CellSpec) -> Precision:
        """In which types the cell's weights are stored and computed with here."""
        return precision_on(spec.model.dtype, self._place.device.kind)

    def largest_batch(self, spec: CellSpec) -> int:
        """The largest static batch that the usable memory holds for a cell, or that the run had before."""
        same = [cell.load for cell in self._earlier if _is_same_but_for_batch(cell, spec)]
        known = [load.static_batch for load in same if load.kind == "static_batch"]
        if known:
            return max(known)
        shape = self._shape(spec)
        if shape is None or self._usable is None or spec.workload.prompt_tokens is None:
            return 1
        prompt = spec.workload.prompt_tokens
        cache_tokens = prompt + spec.workload.output_tokens
        precision = self._precision(spec)
        rows = largest_static_batch(shape, precision, cache_tokens, self._usable, prompt, self._devices)
        return min(rows, MAX_ROWS)

    def plan_cell(self, cell: Cell) -> tuple[Cell, PlannedCell]:
        """Predict one cell and give it the hardware it will run on."""

        kind, count = self._place.device.kind, self._devices
        devices = kind if count == 1 else (kind,) * count
        spec = cell.spec.model_copy(update={"device": devices, "hardware": self._place.device.name})
        plug = check_plug(spec.engine)
        check_engine(spec.engine, cell.spec.device_count)
        check_load(spec.engine, spec.load)
        check_experiment(spec)
        check_drafting(spec.engine, spec.speculation)
        check_draws(spec)
        bound = make_cell(spec)
        model, shape, draft = self._model(spec), self._shape(spec), self._draft(spec)
        if model is not None:
            check_even(model.config, count)
            if "transformers" in plug.packages:
                check_quantising(spec.model, model.name, model.config, count)
                check_latent(spec.engine, model.name, model.config)
        if shape is None or spec.load.kind != "static_batch" or spec.workload.prompt_tokens is None:
            return bound, PlannedCell(bound, None, None, None, None, None, draft)
        planned = self._predict(bound, shape, spec.load.static_batch, spec.workload.prompt_tokens, draft)
        return bound, dataclasses.replace(planned, draft=draft)

    def _predict(
        self, cell: Cell, shape: ModelShape, rows: int, prompt: int, draft: ResolvedModel | None
    ) -> PlannedCell:
        spec = cell.spec
        output = spec.workload.output_tokens
        cache_tokens = prompt + output
        try:
            precision = self._precision(spec)
            needed = memory_per_device_bytes(shape, precision, rows, cache_tokens, prompt, self._devices)
            drafting = draft_memory_bytes(spec, shape, self._shape_of(draft), self._place.device.kind)
        except ValueError as error:
            raise SpecError(f"{shape.name}: {error}", key="model.dtype", fix="use bfloat16") from None
        roofline = self._roofline(shape, spec, cache_tokens, self._bandwidth)
        is_gpu = self._place.device.kind in ("cuda", "rocm")
        assumed = self._bandwidth if is_gpu else self._bandwidth or ASSUMED_CPU_BYTES_PER_S
        expected = self._roofline(shape, spec, cache_tokens, assumed)
        refusal = None
        needed += drafting
        if self._usable is not None and needed > self._usable:
            weights = format_value(weight_bytes(shape, self._precision(spec)), BYTES)
            free = format_value(self._usable, BYTES)
            each = "" if self._devices == 1 else f" on each of {self._devices} devices"
            drafts = f", drafts {format_value(drafting, BYTES)}" if drafting else ""
            refusal = f"needs {format_value(needed, BYTES)}{each} (weights {weights}{drafts}), {free} can be used"
        step_bytes = bytes_read_per_step(shape, self._precision(spec), rows, prompt + output // 2).total
        expected_s = None if expected is None else output / (expected * ASSUMED_EFFICIENCY)
        return PlannedCell(cell, needed, roofline, expected_s, step_bytes / self._memories, refusal)

    def _roofline(self, shape: ModelShape, spec: CellSpec, context: int, rate: float | None) -> float | None:
        if rate is None or spec.load.kind != "static_batch":
            return None
        rows = spec.load.static_batch
        return roofline_decode_tokens_per_s(shape, self._precision(spec), rows, context, Ceilings(rate, None))

    def group(self, cells: Sequence[tuple[Cell, PlannedCell]]) -> tuple[GroupPlan, ...]:
        """Cells by worker group; eager groups first, so that a first number comes early."""
        members: dict[str, list[PlannedCell]] = {}
        for cell, planned in cells:
            members.setdefault(cell.group, []).append(planned)
        groups = [
            GroupPlan(group, planned[0].cell.spec, self._model(planned[0].cell.spec), tuple(planned))
            for group, planned in members.items()
        ]
        return tuple(sorted(groups, key=lambda group: group.spec.engine.mode == "compiled"))


def _is_same_but_for_batch(cell: CellSpec, spec: CellSpec) -> bool:
    """Whether two cells differ in their static batch and in what the place adds, and in nothing else."""
    neutral = {"load": spec.load, "device": spec.device, "hardware": spec.hardware, "labels": spec.labels}
    return cell.load.kind == spec.load.kind == "static_batch" and cell.model_copy(update=neutral) == spec


def _refuse_contradiction(model: ResolvedModel) -> None:
    """Raise SpecError for sizes that contradict each other; a model that the closed forms do not count can be run."""
    try:
        shape_from_config(model.config, model.name)
    except SpecError as error:
        if error.key == CONTRADICTION:
            raise


def _refuse_if_nothing_fits(groups: Sequence[GroupPlan], usable: int | None) -> None:
    cells = [cell for group in groups for cell in group.cells]
    if cells and all(cell.refusal is not None for cell in cells):
        smallest = min(cells, key=lambda cell: cell.predicted_memory_bytes or 0)
        raise PlugError(
            f"no cell of this config fits: the smallest {smallest.refusal}",
            fix="a smaller model or dtype, fewer or shorter sequences, or a device with more memory",
        )
