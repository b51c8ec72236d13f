"""What a measured share of the read bandwidth says about a model that was not run, and what a speed would take.

Nothing here is measured. A `Projected` is no `Estimate`, so that no comparison, decision or verdict can take one for a
measurement. It leaves out what does not shrink with the bytes of a step: launches, and the latency of links.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from tokbench.arithmetic import ModelShape, bytes_read_per_step, flops_per_token, predicted_memory_bytes
from tokbench.derive.cell_shape import is_routed
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.metrics import CellContext
from tokbench.derive.published import PublishedFigure, model_key
from tokbench.derive.standing import is_cut, weigh
from tokbench.derive.words import t
from tokbench.record.catalog import ModelRow, load_models
from tokbench.record.run import Run
from tokbench.stats import Estimate

SCALING_EFFICIENCY: Final = 0.75
"""Share of n times one device's bandwidth that n devices used for one stream of a 70B model.

Eight A100 reached 0.72 and 0.77 of eight times what one reached on 8B and 7B models (rows gptfast-l31-70b-bf16-8a100
and gptfast-l2-70b-bf16-8a100); on an 8B model only 0.37. Source: https://github.com/meta-pytorch/gpt-fast, 2025-08-22.
"""
MAX_SCALED: Final = 8
"""So many devices the efficiency is known for; on more nothing is projected."""
PASS_TOKENS: Final = 2048
"""Tokens of all users together in one forward pass, longer prompts being taken in chunks; our choice."""
DTYPES: Final = ("bfloat16", "fp8", "int4")
MAX_TARGETS: Final = 6
"""Models of the table; the newest figures."""


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """Streams of one forward pass, and the tokens that each has in the cache."""

    rows: int = 1
    context_tokens: int = 1024

    @property
    def pass_tokens(self) -> int:
        """Tokens of one row in one forward pass."""
        return max(1, min(self.context_tokens, PASS_TOKENS // self.rows))


@dataclasses.dataclass(frozen=True, slots=True)
class Basis:
    """What a projection rests on: one device, and the share of its read bandwidth that decode used."""

    used_ratio: Estimate
    """`bandwidth_used_ratio`; without ends where it is assumed."""
    read_bytes_per_s: float
    """Of one device: the measured ceiling, or that of the datasheet with the share of that."""
    memory_bytes: float | None
    matmul_flops_per_s: float | None
    """Of one device; None where it is not known, and then it does not bind."""

    def used_bytes_per_s(self, devices: int, scaling: float) -> tuple[float, float | None, float | None]:
        """What so many devices read per second, with the ends of the interval; `scaling` counts from two devices on."""
        ratio = self.used_ratio
        of_all = self.read_bytes_per_s * devices * (scaling if devices > 1 else 1.0)
        low, high = (None if end is None else end * of_all for end in (ratio.low, ratio.high))
        return ratio.value * of_all, low, high


@dataclasses.dataclass(frozen=True, slots=True)
class Projected:
    """A decode speed per user that nobody measured; the interval is that of the measured share alone."""

    tokens_per_s: float
    low: float | None
    high: float | None
    devices: int
    step_bytes: float


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """What a decode speed per user takes."""

    tokens_per_s: float
    step_bytes: float
    """Of one forward pass of all rows: bytes per token of one user, while there is one."""
    bytes_per_s: float
    """Really read, whatever share of a device's bandwidth that is."""
    devices_for_memory: int | None
    """None where the memory of a device is not known."""
    devices_for_speed: int
    """By bandwidth alone: no link between devices is as fast as the count supposes."""
    devices_for_speed_least: int | None
    """With the high end of the measured share; None without an interval."""
    devices_for_speed_most: int | None

    @property
    def devices(self) -> int:
        """So many both hold and read it, as far as is known."""
        return max(self.devices_for_speed, self.devices_for_memory or 1)


class Source(NamedTuple):
    """The cell that a projection comes from."""

    cell: CellResult
    basis: Basis
    load: Load


class TargetRow(NamedTuple):
    """One model and type of weights beside the speed that somebody published for it."""

    figure: PublishedFigure
    model: str
    dtype: str
    projected: Projected | Missing
    need: Need


class Outlook(NamedTuple):
    """The projection of a report, and the models that have none for want of a shape."""

    source: Source
    rows: tuple[TargetRow, ...]
    without_shape: tuple[str, ...]
    older: tuple[str, ...] = ()
    """Models left out for figures older than those of the MAX_TARGETS newest."""


def project(
    shape: ModelShape, dtype: str, basis: Basis, devices: int, scaling: float, load: Load
) -> Projected | Missing:
    """The decode speed of each stream, if it used the share of bandwidth that was measured.

    Formula: used_ratio * read_bytes_per_s * devices * scaling / bytes_read_per_step; the ends likewise, from those of
    the share. Missing where the operations of a step take longer than its bytes: bandwidth then says nothing.
    Raises: ValueError for a dtype that the model cannot be stored in.
    """
    step_bytes = bytes_read_per_step(shape, dtype, load.rows, load.context_tokens).total
    rate, low, high = basis.used_bytes_per_s(devices, scaling)
    if basis.matmul_flops_per_s is not None:
        compute_s = load.rows * flops_per_token(shape, load.context_tokens) / (basis.matmul_flops_per_s * devices)
        if compute_s > step_bytes / rate:
            return Missing(t("its operations take longer than its bytes: a share of bandwidth says nothing of it"))
    ends = [None if end is None else end / step_bytes for end in (low, high)]
    return Projected(rate / step_bytes, ends[0], ends[1], devices, step_bytes)


def find_need(
    shape: ModelShape, dtype: str, basis: Basis, target_tokens_per_s: float, scaling: float, load: Load
) -> Need:
    """Bytes, bandwidth and devices that a decode speed per user takes: `project`, the other way round.

    Formula: bytes_per_s = target * bytes_read_per_step; devices = bytes_per_s / (used_ratio * read_bytes_per_s *
    scaling), rounded up, where one device scales with 1.
    Raises: ValueError for a dtype that the model cannot be stored in.
    """
    step_bytes = bytes_read_per_step(shape, dtype, load.rows, load.context_tokens).total
    wanted = target_tokens_per_s * step_bytes
    one, low, high = basis.used_bytes_per_s(1, scaling)
    return Need(
        tokens_per_s=target_tokens_per_s,
        step_bytes=step_bytes,
        bytes_per_s=wanted,
        devices_for_memory=devices_to_hold(shape, dtype, basis, load),
        devices_for_speed=_devices(wanted, one, scaling),
        devices_for_speed_least=None if high is None else _devices(wanted, high, scaling),
        devices_for_speed_most=None if low is None else _devices(wanted, low, scaling),
    )


def devices_to_hold(shape: ModelShape, dtype: str, basis: Basis, load: Load) -> int | None:
    """So many hold weights, caches and activations, split evenly; None where the memory of one is not known."""
    if basis.memory_bytes is None:
        return None
    needed = predicted_memory_bytes(shape, dtype, load.rows, load.context_tokens, load.pass_tokens)
    return math.ceil(needed / basis.memory_bytes)


def find_source(results: Sequence[Results]) -> Source | Missing:
    """The cell of one stream and one device that used most of its bandwidth; invalid and routed ones are left out.

    A whole model with its own weights comes before cut and random ones, however much these used; a cell of too few
    repetitions counts as it does for the best cell of a report. With routed experts the bytes of a step rest on how
    tokens are routed, so they say little of another model.
    """
    runs = {item.name: item.run for item in results}
    found: list[tuple[tuple[bool, bool, float], CellResult, Estimate]] = []
    reasons: list[str] = []
    for cell in (cell for item in results for cell in item.cells):
        ratio = cell.metrics.get("bandwidth_used_ratio")
        if isinstance(ratio, Missing):
            reasons.append(ratio.reason)
        elif ratio is not None and _is_fit(cell, runs[cell.run_name]):
            found.append((_worth(cell, ratio), cell, ratio))
    if not found:
        why = t("no valid cell of one stream on one device has a share of the read ceiling")
        return Missing(f"{why} ({reasons[0]})" if reasons else why)
    _, cell, ratio = max(found, key=lambda row: row[0])
    read, matmul = cell.metrics.get("read_bytes_per_s"), cell.metrics.get("matmul_flops_per_s")
    if not isinstance(read, Estimate):
        return Missing(t("no read ceiling was measured"))
    device = runs[cell.run_name].device
    memory = None if device is None or device.memory_bytes is None else float(device.memory_bytes)
    rate = matmul.value if isinstance(matmul, Estimate) else None
    conditions = cell.conditions
    if conditions.prompt_tokens is None or conditions.output_tokens is None:
        return Missing(t("the prompt length is not fixed"))
    context = conditions.prompt_tokens + conditions.output_tokens // 2
    return Source(cell, Basis(ratio, read.value, memory, rate), Load(1, context))


def project_targets(
    results: Sequence[Results], targets: Sequence[PublishedFigure], scaling: float = SCALING_EFFICIENCY
) -> Outlook | Missing:
    """Each target's model on as many of our devices as hold it, and what the published speed would take."""
    source = find_source(results)
    if isinstance(source, Missing):
        return source
    if not targets:
        return Missing(t("no vendor that was asked for has published a speed of one stream"))
    shapes = {model_key(name): row for row in load_models() for name in row.names()}
    keyed = [(figure, shapes.get(model_key(figure.model or ""))) for figure in targets]
    without = tuple(figure.model or "" for figure, row in keyed if row is None)
    known = sorted((pair for pair in keyed if pair[1] is not None), key=lambda pair: pair[0].published)[-MAX_TARGETS:]
    rows = [
        _target(figure, row, dtype, source, scaling)
        for figure, row in keyed
        if row is not None and (figure, row) in known
        for dtype in dtypes_of(row)
    ]
    older = tuple(row.name for figure, row in keyed if row is not None and (figure, row) not in known)
    return Outlook(source, tuple(rows), without, older)


def dtypes_of(row: ModelRow) -> tuple[str, ...]:
    """The types that a model is asked about in; one that was released in mxfp4 has no wider weights."""
    return ("mxfp4",) if row.config.get("model_type") == "gpt_oss" else DTYPES


def _target(figure: PublishedFigure, row: ModelRow, dtype: str, source: Source, scaling: float) -> TargetRow:
    basis, load, shape = source.basis, source.load, row.shape
    held_by = devices_to_hold(shape, dtype, basis, load)
    projected: Projected | Missing = Missing(t("the memory of a device is not known"))
    if held_by is not None and held_by > MAX_SCALED:
        projected = Missing(t("no scaling is known for more than {devices} devices", devices=MAX_SCALED))
    elif held_by is not None:
        projected = project(shape, dtype, basis, held_by, scaling, load)
    return TargetRow(figure, row.name, dtype, projected, find_need(shape, dtype, basis, figure.value, scaling, load))


def _is_fit(cell: CellResult, run: Run) -> bool:
    conditions = cell.conditions
    is_single = conditions.static_batch == 1 and conditions.device_count == 1
    is_real = cell.validity.verdict != "invalid" and conditions.weights != "scripted"
    return is_single and is_real and not is_routed(CellContext(cell.record, run))


def _worth(cell: CellResult, ratio: Estimate) -> tuple[bool, bool, float]:
    is_real = cell.conditions.weights == "pretrained"
    return not is_cut(cell), is_real, weigh(cell, ratio.value)


def _devices(wanted_bytes_per_s: float, one_bytes_per_s: float, scaling: float) -> int:
    if wanted_bytes_per_s <= one_bytes_per_s:
        return 1
    return math.ceil(wanted_bytes_per_s / (one_bytes_per_s * scaling))
