"""What the derivation of limits finds: plain values, worded and drawn elsewhere. Times in s, sizes in bytes."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tokbench.derive.evaluate import CellResult, Missing
from tokbench.stats import Estimate

BoundKind = Literal["memory", "compute", "host", "overhead", "kernels", "cache", "mixed", "unknown"]
"""Where neither memory nor arithmetic takes half a step: `overhead`, launches, barriers and small kernels; `kernels`,
few and long ones that use neither well. `cache`: so few bytes that the last cache may hold a part."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A measured cell as the fit and the roofline see it: one decode step."""

    cell: CellResult
    step_s: float
    step_bytes: float
    step_flops: float


@dataclasses.dataclass(frozen=True, slots=True)
class StepFit:
    """t = t0 + bytes / rate over single streams of one run that differ in model and context alone."""

    run_name: str
    mode: str
    precision: str
    t0_s: float
    bytes_per_s: float
    r_squared: float
    points: tuple[Point, ...]
    t0_interval_s: tuple[float, float] | None = None
    """95 %, from the residuals of the points."""
    bytes_per_s_interval: tuple[float, float | None] | None = None
    """95 %; no upper end where the slope's interval reaches zero."""


@dataclasses.dataclass(frozen=True, slots=True)
class CellBound:
    """What bounds one cell's decode step."""

    cell: CellResult
    kind: BoundKind
    step_s: float
    memory_share: float | None
    """Bytes per step over the measured read rate, as a share of the step; None without a ceiling."""
    compute_share: float | None
    """FLOPs per step over the measured multiply rate, as a share of the step."""
    host_share: float | None
    """Time the host needed to launch the window over the window; None where device and host are one."""
    rest_s: float | None
    """Time of a step that neither the larger of memory and arithmetic explains."""
    kernels_per_step: int | None
    kernels_counted_by: str | None
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class DepthFloor:
    """Step time over decoder layers, all else equal: a straight line."""

    run_name: str
    mode: str
    model: str
    layers: tuple[int, ...]
    step_s: tuple[float, ...]
    s_per_layer: float
    t0_s: float
    r_squared: float
    largest_byte_share: float | None
    """The largest share of a step that reading its bytes at the measured rate would take: small, or it is no floor."""
    caps_tokens_per_s: tuple[tuple[int, float], ...]
    """(layers, 1 / (layers * s_per_layer)): what such a depth cannot pass, whatever the memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class ContextCost:
    """Step time over context, all else equal."""

    run_name: str
    mode: str
    model: str
    static_batch: int
    contexts: tuple[int, ...]
    step_s: tuple[float, ...]
    s_per_token: float
    """Slope: seconds that one more token of context of every row adds to a step."""
    roofline_s_per_token: float | None
    """The same from the bytes that longer contexts add, at the read ceiling."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrefillCurve:
    """Prefill time over prompt length, all else equal."""

    run_name: str
    mode: str
    model: str
    static_batch: int
    prompts: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    """Slope of log time over log length: 1 where every token costs the same, 2 where attention is all."""
    last_exponent: float | None
    """The same between the longest prompt and the longest of at most half of it; None without one."""
    used_ratio: tuple[float | None, ...]
    """FLOPs used, per prompt length."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory of a cell against its prediction; cells that ran out of it included."""

    cell: CellResult
    predicted_bytes: int | None
    peak_bytes: float | None
    steady_bytes: float | None
    is_whole_process: bool
    """On a CPU readings are of the whole process, Python and libraries included."""


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Cells that differ in one setting alone, fastest first."""

    run_name: str
    setting: str
    """`engine.attention`, `engine.experts`, `engine.options.NAME` or `model.dtype`"""
    cells: tuple[CellResult, ...]
    values: tuple[str, ...]
    slowdowns: tuple[Estimate | Missing, ...]
    """Decode speed of the fastest over each, paired by block; 1 for itself."""
    byte_ratios: tuple[float | None, ...]
    """Bytes per step of the fastest over each."""


@dataclasses.dataclass(frozen=True, slots=True)
class RepeatRow:
    """The same prompts worked through twice."""

    cell: CellResult
    against: str
    steps: int
    tokens_equal: bool
    states_equal: bool | None
    max_abs_difference: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """Everything that one run tells about its limits."""

    run_name: str
    points: tuple[Point, ...]
    fits: tuple[StepFit, ...]
    unfitted: tuple[str, ...]
    """Why there is no fit, mode by mode."""
    cells: tuple[CellBound, ...]
    depths: tuple[DepthFloor, ...]
    contexts: tuple[ContextCost, ...]
    prefills: tuple[PrefillCurve, ...]
    memory: tuple[MemoryRow, ...]
    choices: tuple[Choice, ...]
    repeats: tuple[RepeatRow, ...]
    ceiling_sentences: tuple[str, ...]
    """The read ceiling beside the datasheet, and what explains a low one (`limits_ceiling.explain_ceiling`)."""
